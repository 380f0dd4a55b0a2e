"""Nested dicts of arrays with string keys, the form of checkpoints: their leaves by dotted name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mi_contrast.core.errors import UserError, nearest

Tree = dict[str, Any]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a nested dict to {'a.b.c': leaf}."""
    flat: dict[str, Any] = {}
    for key, item in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(item, f"{name}.") if isinstance(item, Mapping) else {name: item})
    return flat


def check_match(saved: Mapping[str, Any], target: Mapping[str, Any], where: str) -> None:
    """Raises UserError if a leaf of `saved` is missing, unexpected, or of another shape or dtype than in `target`.

    Args:
      saved, target: nested dicts whose leaves have `shape` and `dtype`.
      where: what holds `saved`, for the message, which names the first such leaf.
    """
    actual, expected = flatten(saved), flatten(target)
    matching = [n for n in expected if n in actual and tuple(actual[n].shape) == tuple(expected[n].shape)]
    count = f"{len(matching)} of {len(expected)} leaves match"
    for name in expected:
        if name not in actual:
            hint = nearest(name, set(actual) - set(expected))
            raise UserError(f"{where} has no leaf {name!r} ({count})", nearest=hint)
    for name in actual:
        if name not in expected:
            raise UserError(f"{where} has a leaf {name!r} that this config doesn't have ({count})")
    for name in expected:
        leaf, needed = actual[name], expected[name]
        if tuple(leaf.shape) != tuple(needed.shape) or leaf.dtype != needed.dtype:
            raise UserError(
                f"{where}: leaf {name!r} is {leaf.dtype}{list(leaf.shape)}, "
                f"this config needs {needed.dtype}{list(needed.shape)} ({count})"
            )


def add_leaves(target: Tree, saved: Tree, names: list[str]) -> Tree:
    """Adds the leaves of `saved` with these dotted names to `target`, sharded as the first leaf of `target` is."""
    sharding = jax.tree.leaves(target)[0].sharding
    for name in names:
        *parents, last = name.split(".")
        branch = target = dict(target)
        source = saved
        for part in parents:
            branch[part] = dict(branch.get(part, {}))
            branch, source = branch[part], source[part]
        branch[last] = jax.ShapeDtypeStruct(source[last].shape, source[last].dtype, sharding=sharding)
    return target


def select_leaves(target: Mapping[str, Any], tree: Mapping[str, Any]) -> Tree:
    """Returns the leaves of `tree` that `target` has too, in the structure of `target`."""
    return {
        name: select_leaves(part, tree.get(name, {})) if isinstance(part, Mapping) else tree[name]
        for name, part in target.items()
    }


def check_finite(leaves: Mapping[str, Any], origin: str) -> None:
    """Raises UserError, naming the leaf, if a leaf of a nested dict of arrays has a NaN or an infinity."""
    for name, leaf in flatten(leaves).items():
        if not (finite := np.isfinite(np.asarray(leaf, np.float32))).all():
            raise UserError(
                f"{origin}: leaf {name!r} has {finite.size - int(finite.sum())} of {finite.size} numbers that are NaN "
                "or infinite",
                fix="take a checkpoint from before its training diverged",
            )
