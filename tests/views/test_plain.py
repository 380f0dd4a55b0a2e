import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mi_contrast.views.plain import make_plain_view as eager
from mi_contrast.views.plain import normalise, unnormalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
plain = jax.jit(eager, static_argnums=(1, 2, 3))
NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def test_an_image_of_the_right_size_is_only_normalised():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = (images / 255.0 - MEAN) / STD
    np.testing.assert_allclose(plain(images, 32, MEAN, STD), expected, atol=1e-5)
    np.testing.assert_allclose(plain(images / np.float32(255), 32, MEAN, STD), expected, atol=1e-5)
    assert plain(images, 32, MEAN, STD).dtype == jnp.float32


@pytest.mark.parametrize("height, width, size", [(96, 96, 32), (48, 80, 32), (80, 48, 64), (51, 32, 32), (24, 31, 96)])
def test_equals_pil_on_the_centre_square(height, width, size):
    images = np.random.default_rng(1).random((2, height, width, 3), np.float32)
    short = min(height, width)
    top, left = (height - short) / 2, (width - short) / 2
    made = np.asarray(plain(images, size, NO_MEAN, NO_STD))
    for image, mine in zip(images, made, strict=True):
        planes = [
            np.asarray(
                Image.fromarray(image[..., c]).resize(
                    (size, size), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short)
                )
            )
            for c in range(3)
        ]
        edge = 2 * math.ceil(size / short)  # PIL reads a little beyond the box, which shows at its edge alone
        inner = slice(edge, -edge)
        np.testing.assert_allclose(mine[inner, inner], np.stack(planes, -1)[inner, inner], atol=2e-6)


def test_unnormalise_gives_the_bytes_back():
    images = np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(unnormalise(plain(images, 8, MEAN, STD), MEAN, STD), images)
    assert unnormalise(normalise(jnp.full((1, 1, 3), 1.7), MEAN, STD), MEAN, STD).max() == 255  # clipped, not wrapped
