import jax
import numpy as np
import pytest
from scipy import ndimage

from mi_contrast.views.blur import count_taps, gaussian_blur, gaussian_kernel
from mi_contrast.views.resampling import to_lines, to_pixels
from tests.views.conftest import pictures

PICTURES = pictures(32, 24)


@jax.jit
def blurred(pixels, sigma):
    return to_pixels(gaussian_blur(to_lines(pixels), sigma, 6))


def ours(pixels, sigma):
    return np.asarray(blurred(pixels, sigma))


def by_scipy(pixels, weights):
    for axis in (0, 1):
        pixels = ndimage.correlate1d(pixels.astype(np.float64), weights, axis=axis, mode="nearest")
    return pixels


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_equals_scipy_with_the_same_kernel(sigma):
    weights = np.exp(-0.5 * (np.arange(-6, 7) / sigma) ** 2)
    for name, pixels in PICTURES.items():
        np.testing.assert_allclose(
            ours(pixels, sigma), by_scipy(pixels, weights / weights.sum()), atol=2e-6, err_msg=name
        )


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_cut_at_three_standard_deviations_is_below_half_a_level(sigma):
    for name, pixels in PICTURES.items():
        whole = ndimage.gaussian_filter(pixels.astype(np.float64), (sigma, sigma, 0), mode="nearest", truncate=8.0)
        assert np.abs(ours(pixels, sigma) - whole).max() < 0.5 / 255, name


def test_the_smallest_sigma_changes_nothing():
    np.testing.assert_array_equal(ours(PICTURES["noise"], 0.05), PICTURES["noise"])
    assert np.abs(ours(PICTURES["noise"], 1.0) - PICTURES["noise"]).max() > 0.1


def test_an_image_smaller_than_the_kernel():
    pixels = PICTURES["noise"][:4, :5]
    weights = np.asarray(gaussian_kernel(2.0, 6), np.float64)
    np.testing.assert_allclose(ours(pixels, 2.0), by_scipy(pixels, weights), atol=2e-6)


def test_the_kernel_is_odd_and_sums_to_one():
    assert count_taps(2.0) == 6
    weights = np.asarray(gaussian_kernel(1.3, 6))
    assert len(weights) == 13
    np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-6)
