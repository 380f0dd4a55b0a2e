"""Frequency bands against scipy in double precision, and their sum bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mi_contrast.core.bands import MAX_ABS, blur_matrix, round_to_grid, split_bands
from mi_contrast.core.errors import UserError

SHAPES = ((2, 24, 40, 3), (3, 5, 1), (2, 2, 1, 7, 2))
SIGMAS = (0.1, 0.7, 1.0, 3.0)  # of reach 0, 3, 4 and 12: wider than some of these images


def normalised(shape, seed=0):
    """Photographs' values as a view has them: bytes, less a mean, by a deviation."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape)
    return jnp.asarray((pixels / np.float32(255) - np.float32(0.449)) / np.float32(0.226), jnp.float32)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_low_band_is_scipys_and_both_sum_to_the_image(shape, sigma):
    images = normalised(shape)
    low, high = jax.jit(split_bands, static_argnums=1)(images, sigma)
    assert low.dtype == high.dtype == jnp.float32 and low.shape == high.shape == shape
    widths = (0,) * (len(shape) - 3) + (sigma, sigma, 0)
    theirs = gaussian_filter(np.asarray(images, np.float64), widths, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(low, theirs, atol=1e-5)
    np.testing.assert_allclose(high, np.asarray(images, np.float64) - theirs, atol=1e-5)
    whole = np.asarray(round_to_grid(images))
    np.testing.assert_array_equal(np.asarray(low + high), whole)  # bit for bit
    assert np.abs(whole - np.asarray(images, np.float64)).max() <= 2.0**-19
    np.testing.assert_array_equal(sum(split_bands(whole, sigma)), whole)  # what is on the grid is not moved


def test_sums_are_exact_at_every_magnitude_up_to_the_most():
    """Values from the smallest to 32, of either sign, side by side: where a plain difference loses bits."""
    draws = np.random.default_rng(1)
    wild = draws.choice([-1.0, 1.0], (4, 32, 32, 3)) * MAX_ABS * 2.0 ** -draws.uniform(0, 30, (4, 32, 32, 3))
    images = round_to_grid(jnp.asarray(wild))
    low, high = split_bands(images, 1.3)
    np.testing.assert_array_equal(np.asarray(low + high), np.asarray(images))
    exact = np.asarray(low, np.float64) + np.asarray(high, np.float64)
    np.testing.assert_array_equal(exact, np.asarray(images))  # not by a lucky rounding either
    # Control: off the grid, the difference does not give the image back.
    rough = jnp.asarray(gaussian_filter(wild, (0, 1.3, 1.3, 0), mode="nearest"), jnp.float32)
    assert (np.asarray(rough + (jnp.asarray(wild, jnp.float32) - rough)) != wild.astype(np.float32)).mean() > 0.1


def test_a_blur_keeps_what_is_flat():
    for size in (1, 2, 9, 64):
        np.testing.assert_allclose(blur_matrix(size, 2.0).sum(axis=1), 1.0, rtol=1e-12)
    low, high = split_bands(jnp.full((1, 9, 9, 3), 0.75), 2.0)
    np.testing.assert_array_equal(low, 0.75)
    np.testing.assert_array_equal(high, 0.0)


def test_an_image_knows_itself_alone():
    images = normalised((3, 8, 8, 3))
    low, _ = split_bands(images, 1.0)
    np.testing.assert_allclose(split_bands(images[1], 1.0)[0], low[1], atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), True, "1"])
def test_a_width_that_is_none_is_named(sigma):
    with pytest.raises(UserError, match=r"sigma of the bands is .*; give a number of pixels above 0"):
        split_bands(jnp.zeros((4, 4, 3)), sigma)
