"""Crops and resizes images by one linear map for each axis: the antialiased triangle filter of PIL's bilinear resize.

In the package `views` an image is float32 [H, 3, W] in [0, 1]. With the columns last in memory, pixel ops are one pass
over contiguous data, and each axis is resampled by a matrix product without a transpose.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

Image = Float[Array, "H 3 W"]
Scalar = Float[Array, ""] | float
BLOCK = 32  # output columns that one product of `resample_columns_banded` computes


def to_lines(pixels: UInt8[Array, "H W 3"] | Float[Array, "H W 3"]) -> Image:
    """Converts pixels, uint8 or float in [0, 1], to float32 [H, 3, W] in [0, 1]."""
    lines = jnp.swapaxes(pixels, -1, -2)
    return lines.astype(jnp.float32) / 255.0 if lines.dtype == jnp.uint8 else lines.astype(jnp.float32)


def to_pixels(image: Image) -> Float[Array, "H W 3"]:
    """Converts [H, 3, W] to [H, W, 3]."""
    return jnp.swapaxes(image, -1, -2)


def pixel_centres(out: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool) -> Float[Array, " out"]:
    """Returns the positions of the centres of `out` output pixels on the input axis, mirrored in the box if `flip`."""
    place = jnp.arange(out, dtype=jnp.float32)
    return start + (jnp.where(flip, out - 1 - place, place) + 0.5) * (length / out)


def triangle_weights(
    position: Float[Array, "out n"], centre: Float[Array, " out"], support: Scalar, start: Scalar, length: Scalar
) -> Float[Array, "out n"]:
    """Returns weights max(0, 1 - |position - centre| / support) of the samples in (start, start + length).

    The weights of each output pixel sum to 1.
    """
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(position - centre[:, None]) / support)
    weights = jnp.where((position > start) & (position < start + length), weights, 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def resampling_matrix(
    size: int, out: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool = False
) -> Float[Array, "out size"]:
    """Returns the linear map from an axis of `size` samples to `out` samples of its part [start, start + length).

    The support of the triangle filter is one input sample, or length / out if the axis shrinks (antialiasing).
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
    """Resizes the part `box` of an image to size x size, and mirrors it left to right if `flip`.

    Equals PIL's BILINEAR resize of the box after it is cut out: nothing outside the box is read.

    Args:
      image: float32 [H, 3, W].
      box: top, left, height and width in pixels, inside the image. May be traced.
      size: pixels a side of the result.
      flip: may be traced.
      banded: skip the zeros of the two matrices. This is faster on a CPU, full products are faster on an accelerator,
        and the result is the same.
    """
    top, left, tall, wide = box
    rows, columns = (resample_rows_banded, resample_columns_banded) if banded else (resample_rows, resample_columns)
    return columns(rows(image, size, top, tall), size, left, wide, flip)


def resample_rows(image: Image, size: int, start: Scalar, length: Scalar) -> Float[Array, "size 3 W"]:
    """Resamples the rows by one matrix product."""
    height, _, width = image.shape
    return matmul_exact(resampling_matrix(height, size, start, length), image.reshape(height, 3 * width)).reshape(
        size, 3, width
    )


def resample_columns(
    image: Image, size: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool
) -> Float[Array, "H 3 size"]:
    """Resamples the columns by one matrix product."""
    height, _, width = image.shape
    columns = resampling_matrix(width, size, start, length, flip)
    return matmul_exact(image.reshape(height * 3, width), columns.T).reshape(height, 3, size)


def resample_rows_banded(image: Image, size: int, start: Scalar, length: Scalar) -> Float[Array, "size 3 W"]:
    """Computes each output row from the few input rows that it needs."""
    rows, weights = resampling_taps(image.shape[0], size, start, length)
    first, *rest = (
        weights[:, k, None, None] * image.at[rows[:, k]].get(mode="promise_in_bounds") for k in range(rows.shape[1])
    )
    return sum(rest, start=first)


def resample_columns_banded(
    image: Image, size: int, start: Scalar, length: Scalar, flip: Bool[Array, ""] | bool
) -> Float[Array, "H 3 size"]:
    """Computes each block of output columns from the input columns that it needs."""
    height, _, width = image.shape
    block = block_width(size)
    scale = max(1.0, width / size)
    span = min(width, math.ceil(block * scale) + 2 * math.ceil(scale))
    support = jnp.maximum(1.0, length / size)
    lines = image.reshape(height * 3, width)

    def resample_block(centre: Float[Array, " block"]) -> Float[Array, "lines block"]:
        first = jnp.clip(jnp.floor(jnp.min(centre) - support), 0, width - span).astype(jnp.int32)
        position = first + jnp.arange(span, dtype=jnp.float32)[None] + 0.5
        part = lax.dynamic_slice_in_dim(lines, first, span, axis=1)
        return matmul_exact(part, triangle_weights(position, centre, support, start, length).T)

    blocks = lax.map(resample_block, pixel_centres(size, start, length, flip).reshape(size // block, block))
    return jnp.swapaxes(blocks, 0, 1).reshape(height, 3, size)


def block_width(size: int) -> int:
    """Returns how many of `size` columns one product computes.

    It is `BLOCK` if that divides `size`, else the largest divisor between half and twice `BLOCK`, else `size`.
    """
    if size % BLOCK == 0:
        return BLOCK
    return next((n for n in range(2 * BLOCK, BLOCK // 2 - 1, -1) if size % n == 0), size)


def matmul_exact(a: Float[Array, "n m"], b: Float[Array, "m k"]) -> Float[Array, "n k"]:
    """Multiplies in full float32. By default accelerators round factors to 8 or 11 bits, which is visible in photos."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
