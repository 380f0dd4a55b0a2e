"""From RGB to the spaces whose channels are split into two views: Lab, YDbDr, YCbCr, as scikit-image defines them.

Sums of three products a channel, written out: as a matrix product they would be rounded to bfloat16 or TF32 on
accelerators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mi_contrast.core.errors import unknown

YDBDR = ((0.299, 0.587, 0.114), (-0.45, -0.883, 1.333), (-1.333, 1.116, 0.217))
YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
YCBCR_OFFSET = (16.0, 128.0, 128.0)
XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
D65 = (0.95047, 1.0, 1.08883)  # white, 2 degree observer
SRGB_KNEE, LAB_KNEE = 0.04045, 0.008856

Channels = tuple[Array, Array, Array]


def mixed(channels: Channels, matrix: tuple[tuple[float, float, float], ...]) -> Channels:
    """Sum_j matrix[i][j] channels[j], for each i."""
    first, second, third = (a * channels[0] + b * channels[1] + c * channels[2] for a, b, c in matrix)
    return first, second, third


def rgb_to_ydbdr(rgb: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Luma and two colour differences: Y in [0, 1], Db and Dr in [-1.333, 1.333].

    Args:
      rgb: floating, R'G'B' in [0, 1] along `axis`, of length 3.

    Returns:
      f32 of the same shape, Y, Db, Dr along `axis`.
    Source: the SECAM constants of skimage.color.rgb2ydbdr.

    >>> import jax.numpy as jnp
    >>> [round(float(x), 3) for x in rgb_to_ydbdr(jnp.array([1.0, 0.0, 0.0]))]
    [0.299, -0.45, -1.333]
    """
    return _converted(rgb, axis, lambda channels: mixed(channels, YDBDR))


def rgb_to_ycbcr(rgb: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """ITU-R 601 with studio swing: Y in [16, 235], Cb and Cr in [16, 240], not rounded.

    Args:
      rgb: floating, R'G'B' in [0, 1] along `axis`, of length 3.

    Returns:
      f32 of the same shape, Y, Cb, Cr along `axis`.
    Source: skimage.color.rgb2ycbcr.

    >>> import jax.numpy as jnp
    >>> [round(float(x)) for x in rgb_to_ycbcr(jnp.ones(3))]
    [235, 128, 128]
    """

    def convert(channels: Channels) -> Channels:
        y, cb, cr = mixed(channels, YCBCR)
        return y + YCBCR_OFFSET[0], cb + YCBCR_OFFSET[1], cr + YCBCR_OFFSET[2]

    return _converted(rgb, axis, convert)


def rgb_to_lab(rgb: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """CIE L*a*b* of sRGB under D65: L in [0, 100], a in [-86.2, 98.3], b in [-107.9, 94.5].

        linear = c / 12.92 where c <= .04045, else ((c + .055) / 1.055)^2.4;  XYZ = M linear / white
        f(t) = t^{1/3} where t > .008856, else 7.787 t + 16/116
        L = 116 f(Y) - 16,  a = 500 (f(X) - f(Y)),  b = 200 (f(Y) - f(Z))

    Args:
      rgb: floating, R'G'B' in [0, 1] along `axis`, of length 3.

    Returns:
      f32 of the same shape, L, a, b along `axis`; the gradient is finite everywhere.
    Source: skimage.color.rgb2lab.

    >>> import jax.numpy as jnp
    >>> [round(float(x), 1) for x in rgb_to_lab(jnp.array([1.0, 0.0, 0.0]))]
    [53.2, 80.1, 67.2]
    """

    def linear(c: Array) -> Array:
        curved = jnp.power((jnp.maximum(c, SRGB_KNEE) + 0.055) / 1.055, 2.4)
        return jnp.where(c > SRGB_KNEE, curved, c / 12.92)

    def f(t: Array) -> Array:
        return jnp.where(t > LAB_KNEE, jnp.cbrt(jnp.maximum(t, LAB_KNEE)), 7.787 * t + 16.0 / 116.0)

    def convert(channels: Channels) -> Channels:
        red, green, blue = channels
        xyz = mixed((linear(red), linear(green), linear(blue)), XYZ)
        x, y, z = (f(t / white) for t, white in zip(xyz, D65, strict=True))
        return 116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)

    return _converted(rgb, axis, convert)


def rgb_to_rgb(rgb: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """The same, in float32: red beside green and blue is a split too."""
    del axis
    return rgb.astype(jnp.float32)


SPACES: Mapping[str, Callable[..., Array]] = {
    "lab": rgb_to_lab,
    "ydbdr": rgb_to_ydbdr,
    "ycbcr": rgb_to_ycbcr,
    "rgb": rgb_to_rgb,
}


def from_rgb(rgb: Float[Array, "..."], space: str, *, axis: int = -1) -> Float[Array, "..."]:
    """RGB in [0, 1] along `axis` in the space named, f32. Raises UserError on an unknown name.

    >>> import jax.numpy as jnp
    >>> from_rgb(jnp.zeros((2, 4, 4, 3)), "lab").shape
    (2, 4, 4, 3)
    """
    if space not in SPACES:
        raise unknown("colour space", space, SPACES)
    return SPACES[space](rgb, axis=axis)


def _converted(rgb: Array, axis: int, convert: Callable[[Channels], Channels]) -> Array:
    red, green, blue = (jnp.take(rgb.astype(jnp.float32), i, axis=axis) for i in range(3))
    return jnp.stack(convert((red, green, blue)), axis=axis)
