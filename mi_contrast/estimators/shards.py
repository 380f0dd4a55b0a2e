"""Collectives over the devices of a mesh axis, for code inside `shard_map`. With `axis=None` they do nothing.

An axis is the name of a mesh axis, a tuple of names, or None where one device holds everything. Sums, maxima and minima
are the same on every device. They are marked as varying over the axis, so that they combine with arrays that differ
between devices.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

Axis = str | tuple[str, ...] | None


def _reduce(axis: Axis, collective: Any, tree: Any) -> Any:
    if axis is None:
        return tree
    return jax.tree.map(lambda x: lax.pcast(collective(x, axis), axis, to="varying"), tree)


def sum_over_devices(tree: Any, axis: Axis) -> Any:
    """Returns the elementwise sum over devices of each array."""
    return _reduce(axis, lax.psum, tree)


def max_over_devices(tree: Any, axis: Axis) -> Any:
    """Returns the elementwise maximum over devices of each array."""
    return _reduce(axis, lax.pmax, tree)


def min_over_devices(tree: Any, axis: Axis) -> Any:
    """Returns the elementwise minimum over devices of each array."""
    return _reduce(axis, lax.pmin, tree)


def gather_rows(tree: Any, axis: Axis) -> Any:
    """Concatenates the rows of all devices: local arrays [B, ...] become [devices x B, ...] on every device."""
    return tree if axis is None else jax.tree.map(lambda x: lax.all_gather(x, axis, tiled=True), tree)


def take_local_rows(tree: Any, axis: Axis) -> Any:
    """Returns this device's rows [B, ...] of arrays [devices x B, ...]: the inverse of `gather_rows`."""
    if axis is None:
        return tree

    def take(x: jax.Array) -> jax.Array:
        num_rows = len(x) // lax.axis_size(axis)
        return lax.dynamic_slice_in_dim(x, lax.axis_index(axis) * num_rows, num_rows)

    return jax.tree.map(take, tree)


def sum_and_take_local_rows(x: jax.Array, axis: Axis) -> jax.Array:
    """Sums an array [devices x B, ...] over devices and returns this device's rows [B, ...] (a reduce-scatter)."""
    return x if axis is None else lax.psum_scatter(x, axis, scatter_dimension=0, tiled=True)


def first_row_index(num_rows: int, axis: Axis) -> Any:
    """Returns the index that this device's first row has in the output of `gather_rows`, with `num_rows` a device."""
    return 0 if axis is None else lax.axis_index(axis) * num_rows


def count_devices(axis: Axis) -> int:
    """Returns the number of devices along the axis; 1 for None."""
    return 1 if axis is None else lax.axis_size(axis)
