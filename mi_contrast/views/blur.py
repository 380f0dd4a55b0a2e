"""Separable Gaussian blur of one image, float32 [H, 3, W], with a static number of taps."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.views.resampling import Image, Scalar


def count_taps(sigma: float) -> int:
    """Returns the number of taps on each side of the middle one: three standard deviations.

    The weights beyond them are about a hundredth of the middle one or less.
    """
    return math.ceil(3.0 * sigma)


def gaussian_kernel(sigma: Scalar, radius: int) -> Float[Array, " taps"]:
    """Returns e^{-t^2 / (2 sigma^2)} at t = -radius .. radius, divided by its sum.

    sigma is in pixels, above 0, and may be traced.
    """
    t = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * jnp.square(t / sigma))
    return weights / jnp.sum(weights)


def gaussian_blur(image: Image, sigma: Scalar, radius: int) -> Image:
    """Convolves rows and columns with `gaussian_kernel(sigma, radius)`. Edge pixels are repeated, as in PIL."""
    height, _, width = image.shape
    weights = gaussian_kernel(sigma, radius)
    padded = jnp.pad(image, ((radius, radius), (0, 0), (0, 0)), mode="edge")
    image = sum(weights[k] * padded[k : k + height] for k in range(2 * radius + 1))  # type: ignore[assignment]
    padded = jnp.pad(image, ((0, 0), (0, 0), (radius, radius)), mode="edge")
    return sum(weights[k] * padded[:, :, k : k + width] for k in range(2 * radius + 1))  # type: ignore[return-value]
