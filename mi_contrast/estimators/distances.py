"""Max-norm distances between samples, computed in blocks, and the k-th smallest of them without sorting.

A block [N, C] holds the distances from all N samples (rows) to C of them (columns). Minima, maxima and counts are taken
along the rows of a column, which vectorises well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.blocks import map_blocks

CPU_DISTANCES, DEVICE_DISTANCES = 2**19, 2**24  # per block: what fits a CPU's cache, what keeps an accelerator busy
MIN_COLUMNS = 64  # of a block, however many rows it has


class Space(NamedTuple):
    """Samples of one variable, and the unit of length in each column."""

    rows: Float[Array, "N d"]
    unit: Float[Array, "1 d"]


def max_norm_distances(space: Space, points: Float[Array, "C d"], indices: Int[Array, " C"]) -> Float[Array, "N C"]:
    """Returns max_j |row_j - point_j| / unit_j from all rows to C of them; infinite from a sample to itself.

    The differences are scaled and not the samples. A compiler may compute a scaled sample twice with different
    rounding, and equal samples would then have a distance above 0.

    Args:
      space: all samples.
      points: the C samples.
      indices: the rows of the C samples.

    >>> space = Space(jnp.array([[0.0], [2.0], [5.0]]), jnp.ones((1, 1)))
    >>> max_norm_distances(space, jnp.array([[2.0]]), jnp.array([1]))[:, 0]
    Array([ 2., inf,  3.], dtype=float32)
    """

    def update(distances: Array, coordinate: tuple[Array, Array, Array]) -> tuple[Array, None]:
        row, point, scale = coordinate
        return jnp.maximum(distances, jnp.abs(row[:, None] - point) * scale), None

    # One coordinate at a time: XLA does not vectorise a maximum over the last axis.
    distances = jnp.where(jnp.arange(len(space.rows))[:, None] == indices, jnp.inf, 0.0)
    return lax.scan(update, distances, (space.rows.T, points.T, 1 / space.unit[0]))[0]


def kth_smallest(distances: Float[Array, "N C"], k: int) -> Float[Array, " C"]:
    """Returns the k-th smallest entry of each column, with multiplicity. It takes k passes, so k should be small.

    >>> kth_smallest(jnp.array([[3.0], [1.0], [1.0], [2.0]]), 2)
    Array([1.], dtype=float32)
    """
    kth = jnp.min(distances, axis=0)
    for _ in range(k - 1):
        next_larger = jnp.min(jnp.where(distances > kth, distances, jnp.inf), axis=0)
        kth = jnp.where(count_true(distances <= kth) >= k, kth, next_larger)
    return kth


def count_true(mask: Array) -> Float[Array, " C"]:
    """Returns the number of True entries of each column in float32, which adds faster than integers; exact to 2^24."""
    return jnp.sum(mask, axis=0, dtype=jnp.float32)


def choose_block_sizes(num_samples: int, num_pairs: int, chunk: int | None) -> tuple[int, int]:
    """Returns how many pairs of variables to compute at once, and how many samples (columns) of each.

    Args:
      num_samples: N.
      num_pairs: number of pairs of variables.
      chunk: number of columns if the caller chooses it.
    Raises:
      UserError: a chunk below 1.

    >>> choose_block_sizes(40, 1000, 40)[1], choose_block_sizes(40, 1000, 7)
    (40, (1, 7))
    """
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk {chunk} holds no samples", fix="give at least 1, or None")
    num_columns = min(num_samples, chunk or max(MIN_COLUMNS, distances_per_block() // num_samples))
    if num_columns < num_samples:
        return 1, num_columns
    return max(1, min(num_pairs, distances_per_block() // num_samples**2)), num_columns


def distances_per_block() -> int:
    """Returns how many distances a block should hold on the default backend."""
    return CPU_DISTANCES if jax.default_backend() == "cpu" else DEVICE_DISTANCES


def map_pairs(function: Callable[..., Any], block_size: int, *arrays: Array) -> Any:
    """Applies a function of one pair of variables over all leading axes, `block_size` pairs at a time.

    Under `jax.vmap` the mapped axis becomes another leading axis, so memory stays bounded there too.

    Args:
      function: maps arrays with two axes to a pytree of arrays.
      block_size: number of pairs at a time.
      arrays: arrays [..., n, d] with equal leading axes.
    Returns:
      pytree of arrays [..., *shape of the function's result].
    """

    @custom_vmap
    def mapped(*arrays: Array) -> Any:
        leading_shape = arrays[0].shape[:-2]
        flat = tuple(a.reshape(-1, *a.shape[-2:]) for a in arrays)
        results = map_blocks(lambda block: jax.vmap(function)(*block), flat, block_size)
        return jax.tree.map(lambda r: r.reshape(*leading_shape, *r.shape[1:]), results)

    @mapped.def_vmap
    def _(size: int, batched: list[bool], *arrays: Array) -> Any:
        arrays = tuple(
            a if is_batched else jnp.broadcast_to(a, (size, *a.shape))
            for a, is_batched in zip(arrays, batched, strict=True)
        )
        results = mapped(*arrays)
        return results, jax.tree.map(lambda _: True, results)

    return mapped(*arrays)
