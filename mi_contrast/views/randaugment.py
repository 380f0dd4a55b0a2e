"""RandAugment: in each layer an op chosen at random, or none. On whole levels 0 to 255, as PIL's ops are.

Every op is one of three kinds, so three passes serve a layer, whatever each image of a batch has drawn: a table of 256
levels a channel, a blend with a base image, or an affine resample. Levels are whole numbers held as float32; what PIL
truncates is truncated here.

Source: Cubuk et al. 2020 (RandAugment), as InfoMin's released code has it: an op is drawn with replacement and skipped
with probability 1 - p, the magnitude is normal around its mean and clipped to [0, 10], rotations, shears and
translations go either way, resampling is bilinear or bicubic, each half of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from mi_contrast.views.resampling import Image, Scalar

Table = Int[Array, "3 256"]
MAX_MAGNITUDE = 10.0  # magnitudes run from 0 to 10
NONE, TABLE, BLEND, WARP = range(4)  # the kinds of op


class Op(NamedTuple):
    """Its kind, its place among those of its kind, and its argument start + slope x magnitude / 10."""

    kind: int
    place: int
    start: float = 0.0
    slope: float = 0.0
    whole: bool = False  # the argument is truncated to a whole number
    signed: bool = False  # either way, half of the time each


OPS: Mapping[str, Op] = {
    "identity": Op(NONE, 0),
    "autocontrast": Op(TABLE, 0),
    "equalize": Op(TABLE, 1),
    "invert": Op(TABLE, 2),
    "posterize": Op(TABLE, 3, slope=4.0, whole=True),  # bits kept
    "solarize": Op(TABLE, 4, slope=256.0, whole=True),  # the threshold: at 10 nothing is inverted, as released
    "solarize_add": Op(TABLE, 5, slope=110.0, whole=True),  # what is added below 128
    "colour": Op(BLEND, 0, start=0.1, slope=1.8),
    "contrast": Op(BLEND, 1, start=0.1, slope=1.8),
    "brightness": Op(BLEND, 2, start=0.1, slope=1.8),
    "sharpness": Op(BLEND, 3, start=0.1, slope=1.8),
    "rotate": Op(WARP, 0, slope=30.0, signed=True),  # degrees
    "shear_x": Op(WARP, 1, slope=0.3, signed=True),
    "shear_y": Op(WARP, 2, slope=0.3, signed=True),
    "translate_x": Op(WARP, 3, slope=0.45, signed=True),  # shares of the side
    "translate_y": Op(WARP, 4, slope=0.45, signed=True),
}
ALL = tuple(name for name in OPS if name != "identity")  # the 15
GEOMETRY = ("identity", "autocontrast", "rotate", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y")


class Layers(NamedTuple):
    """What chance decides, a row a layer."""

    kind: Int[Array, " layers"]
    place: Int[Array, " layers"]
    argument: Float[Array, " layers"]
    cubic: Bool[Array, " layers"]


def draw_layers(settings: Mapping[str, Any], key: Key[Array, ""]) -> Layers:
    """The layers' decisions, from a key alone. `settings` as the policies' module says."""
    count, ops = settings["layers"], [OPS[name] for name in settings["ops"]]
    column = {field: jnp.array([getattr(op, field) for op in ops]) for field in Op._fields}
    choice, chance, sign, cubic = jax.random.uniform(jax.random.fold_in(key, 0), (count, 4)).T
    spread = jax.random.normal(jax.random.fold_in(key, 1), (count,))
    level = jnp.clip(settings["magnitude"] + settings["std"] * spread, 0.0, MAX_MAGNITUDE)
    at = jnp.int32(len(ops) * choice)
    argument = column["start"][at] + column["slope"][at] * (level / MAX_MAGNITUDE)
    argument = jnp.where(column["whole"][at], jnp.floor(argument), argument)
    return Layers(
        kind=jnp.where(chance < settings["p"], column["kind"][at], NONE),
        place=column["place"][at],
        argument=jnp.where(column["signed"][at] & (sign < 0.5), -argument, argument),
        cubic=cubic < 0.5,
    )


def randaugment(image: Image, layers: Layers, fill: tuple[float, ...]) -> Image:
    """The layers one after the other, on the image rounded to 256 levels.

    Args:
      image: float32 [H, 3, W] in [0, 1].
      fill: three levels, 0 to 255, of what a resample finds outside the image.

    Returns:
      float32 [H, 3, W] in [0, 1], whole multiples of 1 / 255.
    """
    levels = jnp.round(255.0 * jnp.clip(image, 0.0, 1.0))
    levels, _ = lax.scan(lambda x, one: (apply_layer(x, one, fill), None), levels, layers)
    return levels / 255.0


def apply_layer(levels: Image, one: Layers, fill: tuple[float, ...]) -> Image:
    """One layer on float32 [H, 3, W] of whole levels; `one` without its axis of layers."""
    return lax.switch(
        one.kind,
        [
            lambda x: x,
            lambda x: look_up(lax.switch(one.place, TABLES, x, one.argument), x),
            lambda x: blend(lax.switch(one.place, BASES, x), x, one.argument),
            lambda x: warp_affine(x, affine_matrix(one.place, one.argument, x.shape[0], x.shape[2]), one.cubic, fill),
        ],
        levels,
    )


def look_up(table: Table, levels: Image) -> Image:
    """Each level by its channel's table."""
    at = levels.astype(jnp.int32) + 256 * jnp.arange(3, dtype=jnp.int32)[:, None]
    return table.reshape(-1).at[at].get(mode="promise_in_bounds").astype(jnp.float32)


def identity_table() -> Table:
    """The table that changes nothing."""
    return jnp.broadcast_to(jnp.arange(256, dtype=jnp.int32), (3, 256))


def autocontrast(levels: Image, _: Scalar) -> Table:
    """Each channel stretched to 0 .. 255: 255 (x - least) / (largest - least); as it is where they are equal."""
    least, most = (pick(levels, (0, 2)).astype(jnp.int32)[:, None] for pick in (jnp.min, jnp.max))
    stretched = 255 * (identity_table() - least) // jnp.maximum(most - least, 1)
    return jnp.where(most > least, jnp.clip(stretched, 0, 255), identity_table())


def equalize(levels: Image, _: Scalar) -> Table:
    """Each channel's levels by rank: (step // 2 + pixels below) // step, where step = (all pixels - those of the
    largest level) // 255; as it is where step is 0.
    """
    counts = histogram(levels)
    most = jnp.max(levels, (0, 2)).astype(jnp.int32)[:, None]
    step = (jnp.sum(counts, 1, keepdims=True) - jnp.take_along_axis(counts, most, 1)) // 255
    below = jnp.cumsum(counts, 1) - counts
    return jnp.where(step > 0, jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255), identity_table())


def invert(levels: Image, _: Scalar) -> Table:
    """255 - x."""
    return 255 - identity_table()


def posterize(levels: Image, bits: Scalar) -> Table:
    """The highest `bits` bits kept, the others 0."""
    step = jnp.left_shift(1, 8 - bits.astype(jnp.int32))  # type: ignore[union-attr]
    return identity_table() // step * step


def solarize(levels: Image, threshold: Scalar) -> Table:
    """Levels at or above the threshold are inverted."""
    return jnp.where(identity_table() < threshold, identity_table(), 255 - identity_table())


def solarize_add(levels: Image, amount: Scalar) -> Table:
    """Levels below 128 are raised, to 255 at most."""
    raised = jnp.minimum(identity_table() + amount.astype(jnp.int32), 255)  # type: ignore[union-attr]
    return jnp.where(identity_table() < 128, raised, identity_table())


TABLES = (autocontrast, equalize, invert, posterize, solarize, solarize_add)


def histogram(levels: Image) -> Table:
    """How many pixels of each channel have each level."""
    return lax.platform_dependent(levels.astype(jnp.int32), tpu=count_by_product, default=count_by_scatter)


def count_by_scatter(levels: Int[Array, "H 3 W"]) -> Table:
    """Counted one by one."""
    at = (levels + 256 * jnp.arange(3, dtype=jnp.int32)[:, None]).reshape(-1)
    return jnp.zeros(3 * 256, jnp.int32).at[at].add(1, mode="promise_in_bounds").reshape(3, 256)


def count_by_product(levels: Int[Array, "H 3 W"]) -> Table:
    """The product of the one-hot high and low halves of the level: a TPU counts one at a time, and multiplies many.
    Exact: zeros and ones in bfloat16, their sums in float32.
    """
    flat = jnp.swapaxes(levels, 0, 1).reshape(3, 1, -1)
    digits = jnp.arange(16, dtype=jnp.int32)[:, None]
    high, low = ((part == digits).astype(jnp.bfloat16) for part in (flat // 16, flat % 16))
    counts = jnp.einsum("chn,cln->chl", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(3, 256).astype(jnp.int32)


def blend(base: Image, levels: Image, factor: Scalar) -> Image:
    """With b the base: b + factor (x - b), clipped and truncated: PIL's ImageEnhance."""
    return jnp.floor(jnp.clip(base + factor * (levels - base), 0.0, 255.0))


def grey(levels: Image) -> Image:
    """The luma of PIL's convert("L"): (19595 R + 38470 G + 7471 B + 2^15) / 2^16, truncated; exact in float32."""
    red, green, blue = levels[:, 0:1], levels[:, 1:2], levels[:, 2:3]
    return jnp.floor((19595.0 * red + 38470.0 * green + 7471.0 * blue + 32768.0) / 65536.0)


def colour_base(levels: Image) -> Image:
    """The greyscale."""
    return jnp.broadcast_to(grey(levels), levels.shape)


def contrast_base(levels: Image) -> Image:
    """The mean of the greyscale, rounded to a whole level."""
    luma = grey(levels)
    total = jnp.sum(luma.astype(jnp.int32))
    return jnp.full_like(levels, 1.0) * ((2 * total + luma.size) // (2 * luma.size))


def brightness_base(levels: Image) -> Image:
    """Black."""
    return jnp.zeros_like(levels)


def sharpness_base(levels: Image) -> Image:
    """Smoothed: the mean of 3 x 3 pixels, the middle one weighing 5, rounded; the border stays."""
    height, _, width = levels.shape
    if height < 3 or width < 3:
        return levels
    middle = levels[1:-1, :, 1:-1]
    total = 4.0 * middle
    for down in range(3):
        for right in range(3):
            total = total + levels[down : down + height - 2, :, right : right + width - 2]
    return levels.at[1:-1, :, 1:-1].set(jnp.floor((total + 6.5) / 13.0))


BASES = (colour_base, contrast_base, brightness_base, sharpness_base)


def affine_matrix(place: Int[Array, ""], argument: Scalar, height: int, width: int) -> Float[Array, "2 3"]:
    """Where an output pixel (x, y, 1) is read from: rotation about the centre (counter-clockwise in degrees), shear
    x + argument y or y + argument x, translation by a share of the side.
    """
    turn = -jnp.deg2rad(argument)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    x, y = width / 2.0, height / 2.0
    zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
    return jnp.array(
        [
            [[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]],
            [[one, argument, zero], [zero, one, zero]],
            [[one, zero, zero], [argument, one, zero]],
            [[one, zero, argument * width], [zero, one, zero]],
            [[one, zero, zero], [zero, one, argument * height]],
        ]
    )[place]


def warp_affine(levels: Image, matrix: Float[Array, "2 3"], cubic: Bool[Array, ""], fill: tuple[float, ...]) -> Image:
    """The image read at matrix (x, y, 1), pixel centres at halves: PIL's Image.transform, bilinear or bicubic (of
    parameter -1), clipped and truncated; beyond its edge lies `fill`.
    """
    height, _, width = levels.shape
    across, down = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    x, y = (row[0] * across + row[1] * down + row[2] for row in matrix)
    outside = (x < 0.0) | (x >= width) | (y < 0.0) | (y >= height)
    x, y = x - 0.5, y - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    right_of, below = (x - left)[:, None], (y - top)[:, None]  # [H, 1, W]
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    flat = levels.reshape(-1)

    def read(row: int | Array, column: int) -> Image:
        at = 3 * width * jnp.clip(top + row, 0, height - 1) + jnp.clip(left + column, 0, width - 1)
        places = at[:, None] + width * jnp.arange(3, dtype=jnp.int32)[:, None]
        return flat.at[places].get(mode="promise_in_bounds")

    def bilinear() -> Image:
        upper, lower = (interpolate_linear(read(row, 0), read(row, 1), right_of) for row in (0, 1))
        return interpolate_linear(upper, lower, below)

    def bicubic() -> Image:
        rows = lax.map(
            lambda row: interpolate_cubic([read(row, i) for i in (-1, 0, 1, 2)], right_of), jnp.arange(-1, 3)
        )
        return interpolate_cubic(rows, below)

    made = lax.cond(cubic, bicubic, bilinear)
    made = jnp.floor(jnp.clip(made, 0.0, 255.0))
    return jnp.where(outside[:, None], jnp.array(fill, jnp.float32)[:, None], made)


def interpolate_linear(a: Array, b: Array, t: Array) -> Array:
    """From a at t = 0 to b at t = 1; exactly a where a = b."""
    return a + (b - a) * t


def interpolate_cubic(points: Sequence[Array] | Array, t: Array) -> Array:
    """The cubic convolution of parameter -1 through the second of four points at t = 0 and the third at t = 1, in
    the order of PIL's arithmetic.
    """
    a, b, c, d = points
    return b + t * ((c - a) + t * ((2.0 * (a - b) + c - d) + t * (b - a - c + d)))
