"""Divisions: which channels each view has, what they are of the image, and every mistake in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from mi_contrast.core import division
from mi_contrast.core.errors import UserError

GENERATOR = dict(kind="generator", space="ydbdr", flow="affine", couplings=4, hidden=8)
BANDS = dict(kind="bands", space="rgb", sigma=1.5)
IMAGES = np.random.default_rng(0).normal(size=(2, 9, 7, 3)).astype(np.float32)


def test_a_colour_space_is_its_channels():
    found = division.parse("lab")
    assert found.is_colour_space and found.space == "lab" and str(found) == "lab"
    views = found.views(found.apply(jnp.asarray(IMAGES)))
    np.testing.assert_array_equal(views["first"], IMAGES[..., :1])
    np.testing.assert_array_equal(views["second"], IMAGES[..., 1:])


def test_bands_are_the_image_blurred_and_the_rest():
    found = division.parse(BANDS)
    divided = found.apply(jnp.asarray(IMAGES))
    views = found.views(divided)
    assert divided.shape == (2, 9, 7, 6) and (found.count("first"), found.count("second")) == (3, 3)
    blurred = IMAGES.astype(np.float64)
    for axis in (1, 2):
        blurred = gaussian_filter1d(blurred, 1.5, axis=axis, mode="nearest", truncate=4)
    np.testing.assert_allclose(views["first"], blurred, atol=2e-3)
    np.testing.assert_allclose(views["first"] + views["second"], IMAGES, atol=1e-4)
    assert not found.is_colour_space and str(found) == "bands of rgb, sigma 1.5"


def test_a_generator_divides_what_it_makes_of_the_image():
    found = division.parse(GENERATOR)
    params = found.generator.init(jax.random.key(0))
    views = found.views(found.apply(jnp.asarray(IMAGES), params))
    made = found.generator.forward(params, jnp.asarray(IMAGES))
    np.testing.assert_array_equal(views["first"], made[..., :1])
    np.testing.assert_array_equal(views["second"], made[..., 1:])
    assert not found.is_colour_space and str(found) == "generator of ydbdr"
    assert hash(found) == hash(division.parse(dict(GENERATOR))), "a program is found again"


@pytest.mark.parametrize(
    "split, message",
    [
        ("labb", "unknown split 'labb'; did you mean 'lab'"),
        (3, "split is 3; give a colour space, or dict"),
        (dict(space="rgb"), "give a colour space, or dict"),
        (dict(kind="bans"), "unknown kind of split 'bans'; did you mean 'bands'"),
        (dict(BANDS, sigm=1), "unknown field of split 'sigm'; did you mean 'sigma'"),
        (dict(BANDS, sigma=-1), "split.sigma is -1"),
        (dict(BANDS, space="rbg"), "unknown split.space 'rbg'; did you mean 'rgb'"),
        (dict(GENERATOR, flow="affin"), "did you mean 'affine'"),
        (dict(GENERATOR, couplings=0), "couplings"),
    ],
)
def test_mistakes_are_named(split, message):
    with pytest.raises(UserError) as caught:
        division.parse(split)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_split_is_no_division():
    assert division.parse_optional(None) is None
