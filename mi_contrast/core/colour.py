"""Conversions between RGB and other colour spaces, in float32 and differentiable, with the constants of scikit-image.

Pixels are [..., 3], or have their three channels on the axis `axis`. RGB is in [0, 1], and `SPACES` lists the ranges of
the other spaces. Products with 3 x 3 matrices are written out as sums, because accelerators round the factors of a
matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mi_contrast.core.errors import unknown

Pixels = Float[Array, "..."]
Convert = Callable[..., Pixels]

XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees
KNEE = 6.0 / 29.0  # the value of Lab's f where its cube root begins; scikit-image writes the cube of it as .008856
PRIMARIES = {  # a matrix (rows: the space's channels; columns: R, G, B) and an offset
    "ydbdr": ([[0.299, 0.587, 0.114], [-0.45, -0.883, 1.333], [-1.333, 1.116, 0.217]], (0.0, 0.0, 0.0)),
    "ycbcr": ([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], (16.0, 128.0, 128.0)),
    "ypbpr": ([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], (0.0, 0.0, 0.0)),
    "yiq": (
        [[0.299, 0.587, 0.114], [0.59590059, -0.27455667, -0.32134392], [0.21153661, -0.52273617, 0.31119955]],
        (0.0, 0.0, 0.0),
    ),
    "yuv": (
        [[0.299, 0.587, 0.114], [-0.14714119, -0.28886916, 0.43601035], [0.61497538, -0.51496512, -0.10001026]],
        (0.0, 0.0, 0.0),
    ),
}


def split_channels(pixels: Pixels, axis: int) -> list[Pixels]:
    """Splits pixels into three channels, float32, each with the axis kept at length 1."""
    return jnp.split(jnp.asarray(pixels).astype(jnp.float32), 3, axis)


def multiply_channels(matrix: np.ndarray, pixels: Pixels, axis: int) -> Pixels:
    """Multiplies the channels by a matrix [3, 3]."""
    a, b, c = split_channels(pixels, axis)
    return jnp.concatenate([float(u) * a + float(v) * b + float(w) * c for u, v, w in matrix], axis)


def broadcast_along(values: tuple[float, ...], like: Pixels, axis: int) -> Pixels:
    """Reshapes three numbers so that they broadcast along the axis of `like`."""
    shape = [1] * like.ndim
    shape[axis] = 3
    return jnp.array(values, jnp.float32).reshape(shape)


def from_rgb_linear(name: str, pixels: Pixels, axis: int = -1) -> Pixels:
    """Returns M rgb + c, where M and c are those of a space of `PRIMARIES`."""
    matrix, offset = PRIMARIES[name]
    product = multiply_channels(np.array(matrix), pixels, axis)
    return product + broadcast_along(offset, product, axis) if any(offset) else product


def to_rgb_linear(name: str, pixels: Pixels, axis: int = -1) -> Pixels:
    """Returns M^-1 (x - c), where M and c are those of a space of `PRIMARIES`."""
    matrix, offset = PRIMARIES[name]
    return multiply_channels(np.linalg.inv(np.array(matrix)), pixels - broadcast_along(offset, pixels, axis), axis)


rgb_to_ydbdr, ydbdr_to_rgb = partial(from_rgb_linear, "ydbdr"), partial(to_rgb_linear, "ydbdr")
rgb_to_ycbcr, ycbcr_to_rgb = partial(from_rgb_linear, "ycbcr"), partial(to_rgb_linear, "ycbcr")
rgb_to_ypbpr, ypbpr_to_rgb = partial(from_rgb_linear, "ypbpr"), partial(to_rgb_linear, "ypbpr")
rgb_to_yiq, yiq_to_rgb = partial(from_rgb_linear, "yiq"), partial(to_rgb_linear, "yiq")
rgb_to_yuv, yuv_to_rgb = partial(from_rgb_linear, "yuv"), partial(to_rgb_linear, "yuv")


def rgb_to_lab(pixels: Pixels, axis: int = -1) -> Pixels:
    """Converts RGB to CIE L*a*b* (D65, 2 degrees).

    L = 116 f(Y) - 16, a = 500 (f(X) - f(Y)), b = 200 (f(Y) - f(Z)). X, Y, Z are a matrix times linear light (the sRGB
    curve is inverted first), divided by the white point. f(t) is t^(1/3) above .008856 and 7.787 t + 16/116 below.

    >>> [round(float(x), 2) for x in rgb_to_lab(jnp.array([1.0, 0.0, 0.0]))]
    [53.24, 80.09, 67.2]
    """
    # lax.map keeps the powers apart from the sums: fused with them, XLA on a CPU computes each power 9 times.
    light = lax.map(linear_light, jnp.moveaxis(jnp.asarray(pixels).astype(jnp.float32), axis, 0))
    f = lax.map(cube_root, multiply_channels(XYZ / np.array(WHITE)[:, None], light, 0))
    x, y, z = split_channels(f, 0)
    return jnp.moveaxis(jnp.concatenate([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], 0), 0, axis)


def linear_light(curved: Pixels) -> Pixels:
    """Inverts the sRGB curve: c / 12.92 up to .04045, ((c + .055) / 1.055)^2.4 above."""
    light = jnp.power((jnp.maximum(curved, 0.04045) + 0.055) / 1.055, 2.4)
    return jnp.where(curved > 0.04045, light, curved / 12.92)


def cube_root(t: Pixels) -> Pixels:
    """Returns Lab's f(t): t^(1/3) above .008856, 7.787 t + 16/116 below.

    The root is computed as e^{log(t) / 3} and one Newton step. This is accurate to the last bits of float32 and takes a
    sixth of the time of `cbrt` on a CPU.
    """
    above = jnp.maximum(t, 0.008856)
    root = jnp.exp(jnp.log(above) / 3.0)
    root = root - (root * root * root - above) / (3.0 * root * root)
    return jnp.where(t > 0.008856, root, 7.787 * t + 16.0 / 116.0)


def lab_to_rgb(pixels: Pixels, axis: int = -1) -> Pixels:
    """Inverts `rgb_to_lab`. The result is clipped to [0, 1], because L*a*b* has colours that sRGB lacks."""
    lightness, a, b = split_channels(pixels, axis)
    y = (lightness + 16.0) / 116.0
    f = jnp.concatenate([y + a / 500.0, y, jnp.maximum(y - b / 200.0, 0.0)], axis)
    t = jnp.where(f > KNEE, f**3, (f - 16.0 / 116.0) / 7.787)
    light = multiply_channels(np.linalg.inv(XYZ) * np.array(WHITE), t, axis)
    curved = 1.055 * jnp.power(jnp.maximum(light, 0.0031308), 1.0 / 2.4) - 0.055
    return jnp.clip(jnp.where(light > 0.0031308, curved, 12.92 * light), 0.0, 1.0)


def rgb_to_hsv(pixels: Pixels, axis: int = -1) -> Pixels:
    """Converts RGB to HSV: V = max, S = (max - min) / max (0 for black), H = hue as a share of the circle (0 for grey).

    >>> [round(float(x), 4) for x in rgb_to_hsv(jnp.array([0.5, 0.25, 0.25]))]
    [0.0, 0.5, 0.5]
    """
    red, green, blue = split_channels(pixels, axis)
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.where(chroma > 0.0, chroma, 1.0)
    # If two channels are both the largest, the later one decides, as in scikit-image.
    sixths = jnp.where(value == red, (green - blue) / divisor, 0.0)
    sixths = jnp.where(value == green, 2.0 + (blue - red) / divisor, sixths)
    sixths = jnp.where(value == blue, 4.0 + (red - green) / divisor, sixths)
    turns = sixths / 6.0
    hue = jnp.where(chroma > 0.0, turns - jnp.floor(turns), 0.0)
    saturation = chroma / jnp.where(value > 0.0, value, 1.0)
    return jnp.concatenate([hue, saturation, value], axis)


def hsv_to_rgb(pixels: Pixels, axis: int = -1) -> Pixels:
    """Inverts `rgb_to_hsv`.

    R, G and B are V - V S clip(min(k, 4 - k), 0, 1) with k = (n + 6 H) mod 6 and n = 5, 3 and 1.
    """
    hue, saturation, value = split_channels(pixels, axis)
    k = jnp.mod(6.0 * hue + broadcast_along((5.0, 3.0, 1.0), pixels, axis), 6.0)
    return value - value * saturation * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)


def to_float(pixels: Pixels, axis: int = -1) -> Pixels:
    """Returns RGB unchanged, in float32."""
    return jnp.asarray(pixels).astype(jnp.float32)


SPACES: Mapping[str, tuple[Convert, Convert]] = {  # name: from RGB, to RGB
    "rgb": (to_float, to_float),
    "lab": (rgb_to_lab, lab_to_rgb),  # L 0 to 100; of sRGB, a -86.2 to 98.2 and b -107.9 to 94.5
    "ydbdr": (rgb_to_ydbdr, ydbdr_to_rgb),  # Y 0 to 1, Db and Dr +-1.333
    "ycbcr": (rgb_to_ycbcr, ycbcr_to_rgb),  # Y 16 to 235, Cb and Cr 16 to 240
    "ypbpr": (rgb_to_ypbpr, ypbpr_to_rgb),  # Y 0 to 1, Pb and Pr +-.5
    "yiq": (rgb_to_yiq, yiq_to_rgb),  # Y 0 to 1, I +-.596, Q +-.523
    "yuv": (rgb_to_yuv, yuv_to_rgb),  # Y 0 to 1, U +-.436, V +-.615
    "hsv": (rgb_to_hsv, hsv_to_rgb),  # 0 to 1, the hue a circle
}


def from_rgb(rgb: Pixels, space: str, axis: int = -1) -> Pixels:
    """Converts RGB in [0, 1] to the colour space `space`, float32. Raises UserError if the name is unknown.

    >>> from_rgb(jnp.zeros((2, 4, 4, 3)), "lab").shape
    (2, 4, 4, 3)
    """
    return SPACES[check_space(space)][0](rgb, axis)


def check_space(space: object, path: str = "colour space") -> str:
    """Returns `space` if it is a name in `SPACES`, else raises UserError. `path` names the config's field."""
    if not isinstance(space, str) or space not in SPACES:
        raise unknown(path, space, SPACES)
    return space
