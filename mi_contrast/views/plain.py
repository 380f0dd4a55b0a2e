"""Images as an evaluation sees them, and back to pictures: nothing here is random."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from mi_contrast.views.resampling import resample, to_lines, to_pixels


def plain(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
    size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "B size size 3"]:
    """The evaluation transform: the centre square of each image, resized to size x size, normalised.

    That is a resize of the short side with antialiasing and a centre crop, in one; an image of size x size is left as
    it is.

    Args:
      images: uint8, or float in [0, 1], [B, H, W, 3].
      size: pixels a side.
      mean, std: per channel, of images in [0, 1].

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
    """(pixels - mean) / std per channel, float32."""
    return (pixels - jnp.array(mean, jnp.float32)) / jnp.array(std, jnp.float32)


def unnormalise(
    images: Float[Array, "... 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> UInt8[np.ndarray, "... 3"]:
    """Normalised images as a picture file holds them: uint8, round(255 (images x std + mean)), on the host."""
    pixels = np.asarray(images) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    return np.round(255.0 * np.clip(pixels, 0.0, 1.0)).astype(np.uint8)
