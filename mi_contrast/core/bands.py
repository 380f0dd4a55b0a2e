"""Frequency bands: an image blurred, and what the blur took away. On the ground floor, since views are divided by them
and representations of two networks are read by them.

Source: Tian et al. 2020 (InfoMin), its views by frequency. Edge and number of taps are not told there: here the
outermost pixel goes on, and taps end at four standard deviations, as in scipy.ndimage.gaussian_filter(mode='nearest').
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError

GRID = 2.0**-18  # of the values of both bands; float32 holds its multiples up to 64
MAX_ABS = 32.0  # of |image|, up to which the bands sum exactly: the high one may come to twice as much


def split_bands(
    images: Float[Array, "*batch H W C"], sigma: float
) -> tuple[Float[Array, "*batch H W C"], Float[Array, "*batch H W C"]]:
    """The low band, G * x, and the high one, x - G * x; G a Gaussian of `sigma` pixels, each channel by itself.

    Their float32 sum is x, bit for bit: x and G * x are rounded to multiples of 2^-18 first, so that float32 holds the
    difference and the sum without rounding. x itself is moved by 2^-19 at most, less than a thousandth of a grey level,
    and not at all where it is of such multiples already (`round_to_grid`). (Of any two floats near 1 the sum is a
    multiple of 2^-24: no low band near 1 can leave an x of more bits than that whole.) It holds for |x| up to 32, which normalised
    images are well within.

    Args:
      images: [..., H, W, C] of any H and W, also smaller than the blur is wide.
      sigma: standard deviation in pixels, above 0; below an eighth of a pixel nothing is blurred.

    Returns:
      low and high, float32, of the images' shape.

    Raises UserError where sigma is not above 0.

    >>> low, high = split_bands(jnp.array([[[0.0], [4.0], [0.0]]]), 0.5)
    >>> [round(float(x), 3) for x in low[0, :, 0]]
    [0.426, 3.146, 0.426]
    >>> [float(x) for x in (low + high)[0, :, 0]]
    [0.0, 4.0, 0.0]
    """
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0.0 < sigma < math.inf:
        raise UserError(f"sigma of the bands is {sigma!r}", fix="give a number of pixels above 0")
    whole = round_to_grid(images)
    down, across = (jnp.asarray(blur_matrix(size, sigma), jnp.float32) for size in whole.shape[-3:-1])
    low = jnp.einsum("ih,...hwc->...iwc", down, whole, precision=lax.Precision.HIGHEST)
    low = round_to_grid(jnp.einsum("jw,...iwc->...ijc", across, low, precision=lax.Precision.HIGHEST))
    return low, whole - low


def round_to_grid(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """The nearest multiples of 2^-18, float32: what the two bands sum to.

    >>> float(round_to_grid(jnp.array(1.0 + 2.0**-20)))
    1.0
    """
    return jnp.round(images.astype(jnp.float32) / GRID) * GRID


def blur_matrix(size: int, sigma: float) -> Float[np.ndarray, "size size"]:
    """The linear map of an axis of `size` samples to itself: e^{-t^2 / (2 sigma^2)} for |t| up to 4 sigma, rounded,
    summing to 1; past either end the last sample goes on. float64.

    >>> blur_matrix(3, 0.25).round(4).tolist()
    [[0.9997, 0.0003, 0.0], [0.0003, 0.9993, 0.0003], [0.0, 0.0003, 0.9997]]
    """
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    weights /= weights.sum()
    edged = np.pad(np.eye(size), ((radius, radius), (0, 0)), mode="edge")
    return sum((weights[k] * edged[k : k + size] for k in range(1, 2 * radius + 1)), weights[0] * edged[:size])
