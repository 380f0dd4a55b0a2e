"""Colour conversions against scikit-image, on random pixels, on the cube's corners, and at the knees."""

import doctest
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core import colour
from mi_contrast.core.errors import UserError

RANDOM = np.random.default_rng(0).uniform(0, 1, (4, 5, 6, 3))
CORNERS = np.array(list(product((0.0, 1.0), repeat=3)))
GREYS = np.linspace(0, 1, 256)[:, None] * np.ones(3)  # through the knee of sRGB, and of f near black
NEAR_KNEES = np.linspace(0.0403, 0.0406, 31)[:, None] * np.ones(3), np.linspace(0.09, 0.1, 101)[:, None] * np.ones(3)
RANGES = {
    "lab": [(0, 100), (-86.183, 98.2345), (-107.8603, 94.4781)],
    "ydbdr": [(0, 1), (-1.333, 1.333), (-1.333, 1.333)],
    "ycbcr": [(16, 235), (16, 240), (16, 240)],
}


@pytest.mark.parametrize(("space", "tolerance"), [("lab", 1e-3), ("ydbdr", 1e-6), ("ycbcr", 1e-4)])
def test_is_scikit_images(space, tolerance):
    reference = getattr(pytest.importorskip("skimage.color"), f"rgb2{space}")
    pixels = np.concatenate([RANDOM.reshape(-1, 3), CORNERS, GREYS, *NEAR_KNEES])
    found = jax.jit(lambda x: colour.from_rgb(x, space))(jnp.asarray(pixels, jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, reference(pixels), atol=tolerance)
    for channel, (low, high) in enumerate(RANGES[space]):
        assert low - 0.01 <= float(found[:, channel].min()) and float(found[:, channel].max()) <= high + 0.01


@pytest.mark.parametrize("space", sorted(colour.SPACES))
def test_any_axis_holds_the_channels(space):
    def on_each_axis(x):
        last = colour.from_rgb(x, space)
        axes = (0, 1, -2)
        moved = [colour.from_rgb(jnp.moveaxis(x, -1, axis), space, axis=axis) for axis in axes]
        return last, [jnp.moveaxis(y, axis, -1) for axis, y in zip(axes, moved, strict=True)]

    last, moved = jax.jit(on_each_axis)(jnp.asarray(RANDOM, jnp.float32))
    assert last.shape == RANDOM.shape
    for other in moved:
        np.testing.assert_allclose(other, last, rtol=1e-5, atol=1e-4)


def test_rgb_is_itself_and_half_precision_is_widened_first():
    np.testing.assert_array_equal(colour.from_rgb(jnp.asarray(CORNERS), "rgb"), CORNERS)
    half = jnp.asarray(RANDOM, jnp.bfloat16)
    np.testing.assert_array_equal(colour.rgb_to_lab(half), colour.rgb_to_lab(half.astype(jnp.float32)))


def test_gradients_are_finite_on_black_white_and_both_sides_of_the_knees():
    x = jnp.asarray(np.concatenate([CORNERS, GREYS[:20], NEAR_KNEES[0]]), jnp.float32)

    def squared(x):
        return sum(jnp.sum(colour.from_rgb(x, space) ** 2) for space in colour.SPACES)

    assert bool(jnp.all(jnp.isfinite(jax.jit(jax.grad(squared))(x))))


def test_an_unknown_space_is_named():
    with pytest.raises(UserError, match="unknown colour space 'laab'; did you mean 'lab'"):
        colour.from_rgb(jnp.zeros(3), "laab")


def test_the_examples_run():
    found = doctest.testmod(colour)
    assert found.failed == 0 and found.attempted >= 3
