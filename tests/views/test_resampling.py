from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mi_contrast.views.resampling import resample, resampling_matrix, resampling_taps, to_lines, to_pixels

EPSILON = float(np.finfo(np.float32).eps)


def by_pil(pixels, box, size, flip):
    """Cut out, resize each channel in PIL's float mode, mirror."""
    top, left, tall, wide = box
    cut = pixels[top : top + tall, left : left + wide]
    planes = [Image.fromarray(cut[..., c]).resize((size, size), Image.Resampling.BILINEAR) for c in range(3)]
    out = np.stack([np.asarray(plane) for plane in planes], -1)
    return out[:, ::-1] if flip else out


@partial(jax.jit, static_argnames=("size", "banded"))
def by_us(pixels, box, size, flip, banded):
    return to_pixels(resample(to_lines(pixels), box, size, flip, banded=banded))


def ours(pixels, box, size, flip, banded):
    return np.asarray(by_us(pixels, np.array(box, np.float32), size, flip, banded))


@st.composite
def cases(draw):
    height, width, size = draw(st.sampled_from([(32, 32, 32), (40, 28, 64), (90, 61, 16)]))
    tall, wide = draw(st.integers(1, height)), draw(st.integers(1, width))
    top, left = draw(st.integers(0, height - tall)), draw(st.integers(0, width - wide))
    return (height, width), (top, left, tall, wide), size, draw(st.booleans())


@pytest.mark.parametrize("banded", [False, True])
@settings(deadline=None, max_examples=40)
@given(case=cases())
def test_equals_cutting_out_and_resizing_with_pil(banded, case):
    shape, box, size, flip = case
    pixels = np.random.default_rng(1).random((*shape, 3), np.float32)
    np.testing.assert_allclose(ours(pixels, box, size, flip, banded), by_pil(pixels, box, size, flip), atol=5e-6)


@pytest.mark.parametrize("size, source", [(96, 130), (224, 256)])
def test_blocks_of_columns_equal_the_full_product(size, source):
    pixels = np.random.default_rng(2).random((source, source, 3), np.float32)
    for box in ((0, 0, source, source), (3, 40, 71, source - 40), (source - 5, source - 5, 5, 5)):
        for flip in (False, True):
            full, banded = (ours(pixels, box, size, flip, way) for way in (False, True))
            # centres up to `source` are placed in single precision, by two programs, and in double by PIL
            np.testing.assert_allclose(banded, full, atol=source * EPSILON)
            np.testing.assert_allclose(full, by_pil(pixels, box, size, flip), atol=source * EPSILON)


def test_bytes_within_one_level_of_pil():
    pixels = np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8)
    image = Image.fromarray(pixels).crop((5, 7, 5 + 30, 7 + 41)).resize((32, 32), Image.Resampling.BILINEAR)
    mine = 255 * ours(pixels, (7, 5, 41, 30), 32, False, True)
    assert np.abs(mine - np.asarray(image, np.float32)).max() <= 1.0


def test_nothing_outside_the_box_is_read():
    pixels = np.full((32, 32, 3), 0.25, np.float32)
    for beyond in (pixels[:8], pixels[24:], pixels[:, :8], pixels[:, 24:]):
        beyond[...] = 1e6
    for banded in (False, True):
        np.testing.assert_allclose(ours(pixels, (8, 8, 16, 16), 32, False, banded), 0.25, atol=1e-6)
        assert ours(pixels, (7, 8, 16, 16), 32, False, banded).max() > 1.0  # one row too high, and it shows


def test_the_whole_image_at_its_own_size_is_itself():
    pixels = np.random.default_rng(4).random((32, 32, 3), np.float32)
    np.testing.assert_array_equal(ours(pixels, (0, 0, 32, 32), 32, False, True), pixels)
    np.testing.assert_array_equal(ours(pixels, (0, 0, 32, 32), 32, True, True), pixels[:, ::-1])


@partial(jax.jit, static_argnums=(0, 1))
def both(size, out, start, length):
    return resampling_matrix(size, out, start, length), resampling_taps(size, out, start, length)


@pytest.mark.parametrize("size, out", [(32, 32), (256, 224), (375, 64), (20, 96)])
def test_taps_are_the_matrix(size, out):
    for start, length in ((0, size), (size // 3, size // 2), (size - 3, 3)):
        full, (column, weight) = jax.tree.map(np.asarray, both(size, out, start, length))
        scattered = np.zeros_like(full)
        np.add.at(scattered, (np.arange(out)[:, None], column), weight)
        np.testing.assert_allclose(scattered, full, atol=1e-6)
        np.testing.assert_allclose(full.sum(1), 1.0, atol=1e-6)
