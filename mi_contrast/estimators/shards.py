"""Sums and extremes over devices, inside `shard_map`; over one device, the identity.

An axis is a mesh axis's name, several, or None for "all of it is here". Results are the same on every device, and are
marked as varying, so that they mix freely with what each device has for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jax import lax

Axis = str | tuple[str, ...] | None
Tree = TypeVar("Tree")  # a pytree of arrays


def _over(axis: Axis, operation: Callable[..., jax.Array], tree: Tree) -> Tree:
    if axis is None:
        return tree
    return jax.tree.map(lambda x: lax.pcast(operation(x, axis), axis, to="varying"), tree)


def total(tree: Tree, axis: Axis) -> Tree:
    """The sum over devices of each array."""
    return _over(axis, lax.psum, tree)


def greatest(tree: Tree, axis: Axis) -> Tree:
    """The largest over devices of each array, element by element."""
    return _over(axis, lax.pmax, tree)


def least(tree: Tree, axis: Axis) -> Tree:
    """The smallest over devices of each array, element by element."""
    return _over(axis, lax.pmin, tree)


def everyone(tree: Tree, axis: Axis) -> Tree:
    """Every device's rows, one after another, on every device: arrays [B, ...] to [devices x B, ...]."""
    return tree if axis is None else jax.tree.map(lambda x: lax.all_gather(x, axis, tiled=True), tree)


def own(tree: Tree, axis: Axis) -> Tree:
    """The device's own part of arrays [devices x B, ...] that are the same everywhere: the inverse of `everyone`."""
    if axis is None:
        return tree

    def part(x: jax.Array) -> jax.Array:
        rows = len(x) // lax.axis_size(axis)
        return lax.dynamic_slice_in_dim(x, lax.axis_index(axis) * rows, rows)

    return jax.tree.map(part, tree)


def own_of_total(x: jax.Array, axis: Axis) -> jax.Array:
    """The device's own rows of the sum over devices of [devices x B, ...]."""
    return x if axis is None else lax.psum_scatter(x, axis, scatter_dimension=0, tiled=True)


def first_row(rows: int, axis: Axis) -> jax.Array | int:
    """Where this device's `rows` rows begin among everyone's."""
    return 0 if axis is None else lax.axis_index(axis) * rows


def devices(axis: Axis) -> int:
    """How many devices share."""
    return 1 if axis is None else lax.axis_size(axis)
