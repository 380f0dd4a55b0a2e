"""RandAugment: each layer applies a randomly chosen op, or none, on whole grey levels 0 to 255, as PIL's ops do.

Every op is one of three kinds: a lookup table of 256 levels a channel, a blend with a base image, or an affine
resampling. A layer therefore needs only three computations for a whole batch. Levels are whole numbers stored as
float32, and are truncated where PIL truncates.

Source: Cubuk et al. 2020 (RandAugment), in the variant of InfoMin's released code. Ops are drawn with replacement, and
each is skipped with probability 1 - p. The magnitude is normal around its mean, clipped to [0, 10]. Rotations, shears
and translations have a random sign. Resampling is bilinear or bicubic with probability one half each.
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
    """An op. Its argument is start + slope * magnitude / 10."""

    kind: int
    place: int  # its index among the ops of its kind
    start: float = 0.0
    slope: float = 0.0
    whole: bool = False  # whether the argument is truncated to a whole number
    signed: bool = False  # whether the argument has a random sign


OPS: Mapping[str, Op] = {
    "identity": Op(NONE, 0),
    "autocontrast": Op(TABLE, 0),
    "equalize": Op(TABLE, 1),
    "invert": Op(TABLE, 2),
    "posterize": Op(TABLE, 3, slope=4.0, whole=True),  # the number of bits that are kept
    "solarize": Op(TABLE, 4, slope=256.0, whole=True),  # the threshold; magnitude 10 inverts nothing, as released
    "solarize_add": Op(TABLE, 5, slope=110.0, whole=True),  # the amount that is added to levels below 128
    "colour": Op(BLEND, 0, start=0.1, slope=1.8),
    "contrast": Op(BLEND, 1, start=0.1, slope=1.8),
    "brightness": Op(BLEND, 2, start=0.1, slope=1.8),
    "sharpness": Op(BLEND, 3, start=0.1, slope=1.8),
    "rotate": Op(WARP, 0, slope=30.0, signed=True),  # degrees
    "shear_x": Op(WARP, 1, slope=0.3, signed=True),
    "shear_y": Op(WARP, 2, slope=0.3, signed=True),
    "translate_x": Op(WARP, 3, slope=0.45, signed=True),  # as a share of the side
    "translate_y": Op(WARP, 4, slope=0.45, signed=True),
}
ALL = tuple(name for name in OPS if name != "identity")  # the 15
GEOMETRY = ("identity", "autocontrast", "rotate", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y")


class Layers(NamedTuple):
    """The random choices, one entry a layer."""

    kind: Int[Array, " layers"]
    place: Int[Array, " layers"]
    argument: Float[Array, " layers"]
    cubic: Bool[Array, " layers"]


def draw_layers(settings: Mapping[str, Any], rng: Key[Array, ""]) -> Layers:
    """Draws the choices of all layers. The docstring of `policies` explains the settings."""
    count, ops = settings["layers"], [OPS[name] for name in settings["ops"]]
    column = {field: jnp.array([getattr(op, field) for op in ops]) for field in Op._fields}
    choice, chance, sign, cubic = jax.random.uniform(jax.random.fold_in(rng, 0), (count, 4)).T
    noise = jax.random.normal(jax.random.fold_in(rng, 1), (count,))
    magnitude = jnp.clip(settings["magnitude"] + settings["std"] * noise, 0.0, MAX_MAGNITUDE)
    index = jnp.int32(len(ops) * choice)
    argument = column["start"][index] + column["slope"][index] * (magnitude / MAX_MAGNITUDE)
    argument = jnp.where(column["whole"][index], jnp.floor(argument), argument)
    return Layers(
        kind=jnp.where(chance < settings["p"], column["kind"][index], NONE),
        place=column["place"][index],
        argument=jnp.where(column["signed"][index] & (sign < 0.5), -argument, argument),
        cubic=cubic < 0.5,
    )


def randaugment(image: Image, layers: Layers, fill: tuple[float, ...]) -> Image:
    """Rounds an image to 256 levels and applies the layers one after the other.

    Args:
      image: float32 [H, 3, W] in [0, 1].
      layers: the random choices.
      fill: the level of each channel, 0 to 255, that resampling reads outside the image.

    Returns:
      float32 [H, 3, W] in [0, 1], whole multiples of 1 / 255.
    """
    levels = jnp.round(255.0 * jnp.clip(image, 0.0, 1.0))
    levels, _ = lax.scan(lambda x, layer: (apply_layer(x, layer, fill), None), levels, layers)
    return levels / 255.0


def apply_layer(levels: Image, layer: Layers, fill: tuple[float, ...]) -> Image:
    """Applies one layer, `Layers` without their axis, to whole levels, float32 [H, 3, W]."""

    def apply_table(x: Image) -> Image:
        return look_up(lax.switch(layer.place, TABLES, x, layer.argument), x)

    def apply_blend(x: Image) -> Image:
        return blend(lax.switch(layer.place, BASES, x), x, layer.argument)

    def apply_warp(x: Image) -> Image:
        matrix = affine_matrix(layer.place, layer.argument, x.shape[0], x.shape[2])
        return warp_affine(x, matrix, layer.cubic, fill)

    return lax.switch(layer.kind, [lambda x: x, apply_table, apply_blend, apply_warp], levels)


def look_up(table: Table, levels: Image) -> Image:
    """Replaces each level by the entry of its channel's table."""
    index = levels.astype(jnp.int32) + 256 * jnp.arange(3, dtype=jnp.int32)[:, None]
    return table.reshape(-1).at[index].get(mode="promise_in_bounds").astype(jnp.float32)


def identity_table() -> Table:
    """Returns the table that changes nothing."""
    return jnp.broadcast_to(jnp.arange(256, dtype=jnp.int32), (3, 256))


def autocontrast(levels: Image, _: Scalar) -> Table:
    """Stretches each channel to 0 .. 255: 255 (x - min) / (max - min). A constant channel is unchanged."""
    least, most = (pick(levels, (0, 2)).astype(jnp.int32)[:, None] for pick in (jnp.min, jnp.max))
    stretched = 255 * (identity_table() - least) // jnp.maximum(most - least, 1)
    return jnp.where(most > least, jnp.clip(stretched, 0, 255), identity_table())


def equalize(levels: Image, _: Scalar) -> Table:
    """Equalises the histogram of each channel: x becomes (step // 2 + number of pixels below x) // step.

    step = (number of pixels - number of those at the maximum) // 255. A channel whose step is 0 is unchanged.
    """
    counts = histogram(levels)
    most = jnp.max(levels, (0, 2)).astype(jnp.int32)[:, None]
    step = (jnp.sum(counts, 1, keepdims=True) - jnp.take_along_axis(counts, most, 1)) // 255
    below = jnp.cumsum(counts, 1) - counts
    return jnp.where(step > 0, jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255), identity_table())


def invert(levels: Image, _: Scalar) -> Table:
    """Maps x to 255 - x."""
    return 255 - identity_table()


def posterize(levels: Image, bits: Scalar) -> Table:
    """Keeps the highest `bits` bits and sets the others to 0."""
    step = jnp.left_shift(1, 8 - bits.astype(jnp.int32))  # type: ignore[union-attr]
    return identity_table() // step * step


def solarize(levels: Image, threshold: Scalar) -> Table:
    """Inverts levels at or above the threshold."""
    return jnp.where(identity_table() < threshold, identity_table(), 255 - identity_table())


def solarize_add(levels: Image, amount: Scalar) -> Table:
    """Adds `amount` to levels below 128, up to 255."""
    raised = jnp.minimum(identity_table() + amount.astype(jnp.int32), 255)  # type: ignore[union-attr]
    return jnp.where(identity_table() < 128, raised, identity_table())


TABLES = (autocontrast, equalize, invert, posterize, solarize, solarize_add)


def histogram(levels: Image) -> Table:
    """Counts the pixels of each channel at each level."""
    return lax.platform_dependent(levels.astype(jnp.int32), tpu=count_by_product, default=count_by_scatter)


def count_by_scatter(levels: Int[Array, "H 3 W"]) -> Table:
    """Counts by scatter-add."""
    index = (levels + 256 * jnp.arange(3, dtype=jnp.int32)[:, None]).reshape(-1)
    return jnp.zeros(3 * 256, jnp.int32).at[index].add(1, mode="promise_in_bounds").reshape(3, 256)


def count_by_product(levels: Int[Array, "H 3 W"]) -> Table:
    """Counts by the product of one-hot codes of the high and the low 4 bits of each level.

    On a TPU, scatter-add handles one pixel at a time, while products are fast. The result is exact: the factors are 0
    and 1 in bfloat16, and their sums are in float32.
    """
    flat = jnp.swapaxes(levels, 0, 1).reshape(3, 1, -1)
    digits = jnp.arange(16, dtype=jnp.int32)[:, None]
    high, low = ((part == digits).astype(jnp.bfloat16) for part in (flat // 16, flat % 16))
    counts = jnp.einsum("chn,cln->chl", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(3, 256).astype(jnp.int32)


def blend(base: Image, levels: Image, factor: Scalar) -> Image:
    """Returns base + factor (x - base), clipped and truncated, as PIL's ImageEnhance does."""
    return jnp.floor(jnp.clip(base + factor * (levels - base), 0.0, 255.0))


def grey(levels: Image) -> Image:
    """Returns the luma of PIL's convert("L"): floor((19595 R + 38470 G + 7471 B + 2^15) / 2^16). Exact in float32."""
    red, green, blue = levels[:, 0:1], levels[:, 1:2], levels[:, 2:3]
    return jnp.floor((19595.0 * red + 38470.0 * green + 7471.0 * blue + 32768.0) / 65536.0)


def colour_base(levels: Image) -> Image:
    """Returns the image in greyscale."""
    return jnp.broadcast_to(grey(levels), levels.shape)


def contrast_base(levels: Image) -> Image:
    """Returns the mean of the greyscale image, rounded to a whole level."""
    luma = grey(levels)
    total = jnp.sum(luma.astype(jnp.int32))
    return jnp.full_like(levels, 1.0) * ((2 * total + luma.size) // (2 * luma.size))


def brightness_base(levels: Image) -> Image:
    """Returns black."""
    return jnp.zeros_like(levels)


def sharpness_base(levels: Image) -> Image:
    """Smooths the image: the rounded mean of 3 x 3 pixels, the middle one with weight 5. The border is unchanged."""
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
    """Returns the matrix from output pixels (x, y, 1) to the positions that they are read from.

    The five ops, by place: rotation about the centre by `argument` degrees counter-clockwise; shear to x + argument y;
    shear to y + argument x; translation in x, and in y, by the share `argument` of the side.
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
    """Reads the image at matrix (x, y, 1), as PIL's Image.transform does, bilinear or bicubic (with parameter -1).

    Pixel centres are at halves. The result is clipped and truncated. Outside the image the value is `fill`.
    """
    height, _, width = levels.shape
    across, down = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5
    x, y = (row[0] * across + row[1] * down + row[2] for row in matrix)
    outside = (x < 0.0) | (x >= width) | (y < 0.0) | (y >= height)
    x, y = x - 0.5, y - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    weight_x, weight_y = (x - left)[:, None], (y - top)[:, None]  # [H, 1, W]
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    flat = levels.reshape(-1)

    def read(row: int | Array, column: int) -> Image:
        first = 3 * width * jnp.clip(top + row, 0, height - 1) + jnp.clip(left + column, 0, width - 1)
        index = first[:, None] + width * jnp.arange(3, dtype=jnp.int32)[:, None]
        return flat.at[index].get(mode="promise_in_bounds")

    def bilinear() -> Image:
        upper, lower = (interpolate_linear(read(row, 0), read(row, 1), weight_x) for row in (0, 1))
        return interpolate_linear(upper, lower, weight_y)

    def bicubic() -> Image:
        rows = lax.map(
            lambda row: interpolate_cubic([read(row, i) for i in (-1, 0, 1, 2)], weight_x), jnp.arange(-1, 3)
        )
        return interpolate_cubic(rows, weight_y)

    levels = lax.cond(cubic, bicubic, bilinear)
    levels = jnp.floor(jnp.clip(levels, 0.0, 255.0))
    return jnp.where(outside[:, None], jnp.array(fill, jnp.float32)[:, None], levels)


def interpolate_linear(a: Array, b: Array, t: Array) -> Array:
    """Interpolates from a at t = 0 to b at t = 1. The result is exactly a if a = b."""
    return a + (b - a) * t


def interpolate_cubic(points: Sequence[Array] | Array, t: Array) -> Array:
    """Interpolates from the second of four points at t = 0 to the third at t = 1, by cubic convolution.

    The parameter is -1, and the operations are in the order of PIL's arithmetic.
    """
    a, b, c, d = points
    return b + t * ((c - a) + t * ((2.0 * (a - b) + c - d) + t * (b - a - c + d)))
