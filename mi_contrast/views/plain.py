"""The deterministic transform of evaluations, and its inverse for pictures."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from mi_contrast.views.resampling import resample, to_lines, to_pixels


def make_plain_view(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "B size size 3"]:
    """Applies the evaluation transform: crops the centre square of each image, resizes it to `size`, and normalises.

    This equals a resize of the short side with antialiasing, then a centre crop. An image of size x size is not
    resampled.

    Args:
      images: uint8, or float in [0, 1], [B, H, W, 3].
      size: pixels a side.
      mean, std: of each channel of images in [0, 1].

    Returns:
      float32 [B, size, size, 3].
    """
    images = jnp.asarray(images)
    height, width = images.shape[1:3]
    lines = to_lines(images)
    if (height, width) != (size, size):
        short = min(height, width)
        box = jnp.array([(height - short) / 2, (width - short) / 2, short, short], jnp.float32)
        lines = jax.vmap(partial(resample, box=box, size=size))(lines)
    return normalise(to_pixels(lines), mean, std)


def normalise(pixels: Float[Array, "... 3"], mean: tuple[float, ...], std: tuple[float, ...]) -> Float[Array, "... 3"]:
    """Returns (pixels - mean) / std for each channel, float32."""
    return (pixels - jnp.array(mean, jnp.float32)) / jnp.array(std, jnp.float32)


def unnormalise(
    images: Float[Array, "... 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> UInt8[np.ndarray, "... 3"]:
    """Returns pictures of normalised images: round(255 (images * std + mean)), uint8, on the host."""
    pixels = np.asarray(images) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    return np.round(255.0 * np.clip(pixels, 0.0, 1.0)).astype(np.uint8)
