"""Crop and resize, one axis at a time, as a linear map: the antialiased triangle filter of PIL's bilinear resize.

Inside this room an image is float32 [H, 3, W] in [0, 1]: rows of three colour lines. Columns are contiguous, so every
pixel op is one straight pass, and resampling either axis is a plain matrix product with nothing to transpose.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

Image = Float[Array, "H 3 W"]
Scalar = Float[Array, ""] | float
BLOCK = 32  # output columns a banded product


def to_lines(pixels: UInt8[Array, "H W 3"] | Float[Array, "H W 3"]) -> Image:
    """Pixels, uint8 or float in [0, 1], as float32 [H, 3, W] in [0, 1]."""
    lines = jnp.swapaxes(pixels, -1, -2)
    return lines.astype(jnp.float32) / 255.0 if lines.dtype == jnp.uint8 else lines.astype(jnp.float32)


def to_pixels(image: Image) -> Float[Array, "H W 3"]:
    """The inverse layout: float32 [H, W, 3]."""
    return jnp.swapaxes(image, -1, -2)


def pixel_centres(out: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool) -> Float[Array, " out"]:
    """Where the centres of `out` output pixels fall on the input axis, mirrored inside the box if `flip`."""
    place = jnp.arange(out, dtype=jnp.float32)
    return start + (jnp.where(flip, out - 1 - place, place) + 0.5) * (length / out)


def triangle_weights(
    position: Float[Array, "out n"], centre: Float[Array, " out"], support: Scalar, start: Scalar, length: Scalar
) -> Float[Array, "out n"]:
    """Weights max(0, 1 - |position - centre| / support) of the samples inside (start, start + length), summing to 1."""
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(position - centre[:, None]) / support)
    weights = jnp.where((position > start) & (position < start + length), weights, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def resampling_matrix(
    size: int, out: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool = False
) -> Float[Array, "out size"]:
    """The linear map from an axis of `size` samples to `out` samples of its part [start, start + length).

    The support is that of the triangle filter: one input sample, or length / out where the axis shrinks (antialiasing).
    """
    support = jnp.maximum(1.0, length / out)
    position = jnp.arange(size, dtype=jnp.float32)[None] + 0.5
    return triangle_weights(position, pixel_centres(out, start, length, flip), support, start, length)


def resampling_taps(
    size: int, out: int, start: Scalar, length: Scalar
) -> tuple[Int[Array, "out k"], Float[Array, "out k"]]:
    """Returns the non-zero entries of `resampling_matrix` without a flip, k = ceil(2 max(1, size / out)) a row."""
    support = jnp.maximum(1.0, length / out)
    centre = pixel_centres(out, start, length, False)
    first = jnp.maximum(jnp.floor(centre - support + 0.5), start)
    column = first[:, None] + jnp.arange(math.ceil(2 * max(1.0, size / out)), dtype=jnp.float32)
    return jnp.minimum(column.astype(jnp.int32), size - 1), triangle_weights(
        column + 0.5, centre, support, start, length
    )


def resample(
    image: Image, box: Float[Array, " 4"], size: int, flip: Bool[Array, ""] | bool = False, *, banded: bool = False
) -> Float[Array, "size 3 size"]:
    """The part `box` of the image, resized to size x size, mirrored left to right if `flip`.

    Equal to cutting the box out and resizing it with PIL's BILINEAR (nothing outside the box is read).

    Args:
      image: float32 [H, 3, W].
      box: top, left, height, width in pixels; inside the image; may be traced.
      banded: leave out the zeros of the two matrices (the faster way on a CPU, where full products are the faster way
        on an accelerator); the same value.
    """
    top, left, tall, wide = box
    rows, columns = (resample_rows_banded, resample_columns_banded) if banded else (resample_rows, resample_columns)
    return columns(rows(image, size, top, tall), size, left, wide, flip)


def resample_rows(image: Image, size: int, start: Scalar, length: Scalar) -> Float[Array, "size 3 W"]:
    """Rows resampled by one matrix product."""
    height, _, width = image.shape
    return matmul_exact(resampling_matrix(height, size, start, length), image.reshape(height, 3 * width)).reshape(
        size, 3, width
    )


def resample_columns(
    image: Image, size: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool
) -> Float[Array, "H 3 size"]:
    """Columns resampled by one matrix product."""
    height, _, width = image.shape
    columns = resampling_matrix(width, size, start, length, flip)
    return matmul_exact(image.reshape(height * 3, width), columns.T).reshape(height, 3, size)


def resample_rows_banded(image: Image, size: int, start: Scalar, length: Scalar) -> Float[Array, "size 3 W"]:
    """Each output row from the few rows that it needs."""
    rows, weights = resampling_taps(image.shape[0], size, start, length)
    first, *rest = (
        weights[:, k, None, None] * image.at[rows[:, k]].get(mode="promise_in_bounds") for k in range(rows.shape[1])
    )
    return sum(rest, start=first)


def resample_columns_banded(
    image: Image, size: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool
) -> Float[Array, "H 3 size"]:
    """Each block of output columns from the part of the image's columns that it needs."""
    height, _, width = image.shape
    block = block_width(size)
    most = max(1.0, width / size)
    span = min(width, math.ceil(block * most) + 2 * math.ceil(most))
    support = jnp.maximum(1.0, length / size)
    lines = image.reshape(height * 3, width)

    def make(centre: Float[Array, " block"]) -> Float[Array, "lines block"]:
        first = jnp.clip(jnp.floor(jnp.min(centre) - support), 0, width - span).astype(jnp.int32)
        position = first + jnp.arange(span, dtype=jnp.float32)[None] + 0.5
        part = lax.dynamic_slice_in_dim(lines, first, span, axis=1)
        return matmul_exact(part, triangle_weights(position, centre, support, start, length).T)

    made = lax.map(make, pixel_centres(size, start, length, flip).reshape(size // block, block))
    return jnp.swapaxes(made, 0, 1).reshape(height, 3, size)


def block_width(size: int) -> int:
    """How many of `size` columns a product makes: `BLOCK`, or the largest divisor from half to twice that, or all."""
    if size % BLOCK == 0:
        return BLOCK
    return next((n for n in range(2 * BLOCK, BLOCK // 2 - 1, -1) if size % n == 0), size)


def matmul_exact(a: Float[Array, "n m"], b: Float[Array, "m k"]) -> Float[Array, "n k"]:
    """The product in full float32: accelerators round to 8 or 11 bits otherwise, which a photograph would show."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
