"""Separable Gaussian blur with a static number of taps, on one image float32 [H, 3, W]."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.views.resampling import Image, Scalar


def count_taps(sigma: float) -> int:
    """Taps on either side of the middle one: three standard deviations; what lies beyond weighs a thousandth."""
    return math.ceil(3.0 * sigma)


def gaussian_kernel(sigma: Scalar, radius: int) -> Float[Array, " taps"]:
    """e^{-t^2 / (2 sigma^2)} at t = -radius .. radius, summing to 1. sigma in pixels, above 0; may be traced."""
    t = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    weights = jnp.exp(-0.5 * jnp.square(t / sigma))
    return weights / jnp.sum(weights)


def gaussian_blur(image: Image, sigma: Scalar, radius: int) -> Image:
    """Rows and columns convolved with `kernel(sigma, radius)`; past the edge the outermost pixel goes on, as in PIL."""
    height, _, width = image.shape
    weights = gaussian_kernel(sigma, radius)
    padded = jnp.pad(image, ((radius, radius), (0, 0), (0, 0)), mode="edge")
    image = sum(weights[k] * padded[k : k + height] for k in range(2 * radius + 1))  # type: ignore[assignment]
    padded = jnp.pad(image, ((0, 0), (0, 0), (radius, radius)), mode="edge")
    return sum(weights[k] * padded[:, :, k : k + width] for k in range(2 * radius + 1))  # type: ignore[return-value]
