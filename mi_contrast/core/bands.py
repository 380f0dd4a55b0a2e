"""Frequency bands of an image: its Gaussian blur, and the difference between the image and the blur.

`views` makes contrastive views of the two bands, and `models` encodes them with one network each.

Source: Tian et al. 2020 (InfoMin), views by frequency. The paper does not say how it treats edges or how many taps it
uses. Ours repeats the outermost pixel and cuts the kernel at four standard deviations, as
scipy.ndimage.gaussian_filter(mode='nearest') does.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError

GRID = 2.0**-18  # step of the grid that both bands lie on; float32 represents its multiples up to 64 exactly
MAX_ABS = 32.0  # largest |image| whose bands sum exactly, since |high| can be twice |image|


def split_bands(
    images: Float[Array, "*batch H W C"], sigma: float
) -> tuple[Float[Array, "*batch H W C"], Float[Array, "*batch H W C"]]:
    """Returns the low band G * x and the high band x - G * x, where G is a Gaussian applied to each channel.

    The two bands sum to `round_to_grid(x)` bit for bit. To make the sum exact, x and G * x are rounded to multiples of
    2^-18 first. This changes x by at most 2^-19, less than a thousandth of a grey level. It holds for |x| up to 32,
    and normalised images stay well below that.

    Args:
      images: [..., H, W, C] of any H and W, including sizes smaller than the kernel.
      sigma: standard deviation of G in pixels, above 0. Below an eighth of a pixel nothing is blurred.

    Returns:
      low, high: float32, of the images' shape.

    Raises:
      UserError: sigma is not a finite number above 0.

    >>> low, high = split_bands(jnp.array([[[0.0], [4.0], [0.0]]]), 0.5)
    >>> [round(float(x), 3) for x in low[0, :, 0]]
    [0.426, 3.146, 0.426]
    >>> [float(x) for x in (low + high)[0, :, 0]]
    [0.0, 4.0, 0.0]
    """
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0.0 < sigma < math.inf:
        raise UserError(f"sigma of the bands is {sigma!r}", fix="give a number of pixels above 0")
    rounded = round_to_grid(images)
    rows, columns = (jnp.asarray(blur_matrix(size, sigma), jnp.float32) for size in rounded.shape[-3:-1])
    low = jnp.einsum("ih,...hwc->...iwc", rows, rounded, precision=lax.Precision.HIGHEST)
    low = round_to_grid(jnp.einsum("jw,...iwc->...ijc", columns, low, precision=lax.Precision.HIGHEST))
    return low, rounded - low


def round_to_grid(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rounds to the nearest multiples of 2^-18, float32. The two bands sum to this.

    >>> float(round_to_grid(jnp.array(1.0 + 2.0**-20)))
    1.0
    """
    return jnp.round(images.astype(jnp.float32) / GRID) * GRID


def blur_matrix(size: int, sigma: float) -> Float[np.ndarray, "size size"]:
    """Returns the Gaussian blur of an axis of `size` samples as a matrix, float64.

    The weights are e^{-t^2 / (2 sigma^2)} for |t| up to round(4 sigma), divided by their sum. The first and the last
    sample are repeated beyond the ends.

    >>> blur_matrix(3, 0.25).round(4).tolist()
    [[0.9997, 0.0003, 0.0], [0.0003, 0.9993, 0.0003], [0.0, 0.0003, 0.9997]]
    """
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    weights /= weights.sum()
    padded = np.pad(np.eye(size), ((radius, radius), (0, 0)), mode="edge")
    return sum((weights[k] * padded[k : k + size] for k in range(1, 2 * radius + 1)), weights[0] * padded[:size])
