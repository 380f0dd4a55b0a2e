"""Checkpoints: one strict wrapper around Orbax. A step's folder is whole or absent; a leaf that doesn't match refuses.

The tree saved is a nested dict of arrays with string keys, the item `state` of `checkpoints/<step>/`; beside it the
item `meta` is a small JSON object.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mi_contrast.core.errors import UserError, nearest

Tree = dict[str, Any]

logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno >= logging.ERROR)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a.b.c': leaf} of a nested dict."""
    flat: dict[str, Any] = {}
    for key, item in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(item, f"{name}.") if isinstance(item, Mapping) else {name: item})
    return flat


def check_match(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """UserError naming the first leaf that is missing, unexpected, or of another shape or dtype in `saved`.

    Args:
      saved, wanted: nested dicts whose leaves have `shape` and `dtype`.
      where: what holds `saved`, for the message.
    """
    have, want = flatten(saved), flatten(wanted)
    matched = [n for n in want if n in have and tuple(have[n].shape) == tuple(want[n].shape)]
    count = f"{len(matched)} of {len(want)} leaves match"
    for name in want:
        if name not in have:
            raise UserError(f"{where} has no leaf {name!r} ({count})", nearest=nearest(name, set(have) - set(want)))
    for name in have:
        if name not in want:
            raise UserError(f"{where} has a leaf {name!r} that this config doesn't have ({count})")
    for name in want:
        saved_as, wanted_as = have[name], want[name]
        if tuple(saved_as.shape) != tuple(wanted_as.shape) or saved_as.dtype != wanted_as.dtype:
            raise UserError(
                f"{where}: leaf {name!r} is {saved_as.dtype}{list(saved_as.shape)}, "
                f"this config needs {wanted_as.dtype}{list(wanted_as.shape)} ({count})"
            )


def latest(directory: Path, *, before: int | None = None) -> int | None:
    """The newest whole step in a checkpoints folder, or the newest below `before`; None where there is none."""
    if not directory.is_dir():
        return None
    steps = [int(p.name) for p in directory.iterdir() if p.is_dir() and p.name.isdigit()]
    return max((step for step in steps if before is None or step < before), default=None)


def _damaged(directory: Path, step: int, error: Exception) -> UserError:
    before = latest(directory, before=step)
    way_on = f"remove {directory / str(step)} to go on from " + ("the start" if before is None else f"step {before}")
    return UserError(
        f"checkpoint {directory / str(step)} can't be read ({' '.join(str(error).split())[:120]})", fix=way_on
    )


def _metadata(directory: Path, step: int) -> Tree:
    with ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.metadata(directory.absolute() / str(step) / "state").item_metadata
    if found is None or found.tree is None:
        raise ValueError("no metadata of the state")
    return found.tree


def read(directory: Path, step: int | None = None, subtree: tuple[str, ...] = ()) -> tuple[int, Tree]:
    """Reads one checkpoint, or a part of it, as numpy arrays on the host, whatever devices wrote it.

    Args:
      directory: the folder `checkpoints` of a run.
      step: which one; the newest by default.
      subtree: top-level names to read, such as ('online',); all by default.

    Returns:
      (step, nested dict of numpy arrays).
    Raises UserError where there is no checkpoint, or it is damaged, or a name is not in it.
    """
    step = latest(directory) if step is None else step
    if step is None:
        raise UserError(f"no checkpoint in {directory}", fix="train first, or name a run directory or an export")
    if not (directory / str(step)).is_dir():
        raise UserError(f"no checkpoint of step {step} in {directory}", fix=f"the newest is {latest(directory)}")
    try:
        tree = _metadata(directory, step)
        for name in subtree:
            if name not in tree:
                raise UserError(f"checkpoint {directory / str(step)} has no {name!r}", nearest=nearest(name, tree))
        wanted = {name: tree[name] for name in (subtree or tree)}
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), wanted)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        with ocp.PyTreeCheckpointer() as checkpointer:
            arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
            return step, checkpointer.restore(directory.absolute() / str(step) / "state", args=arguments)
    except UserError:
        raise
    except Exception as error:  # Orbax raises bare exceptions on damaged files
        raise _damaged(directory, step, error) from error


def _with_leaves(wanted: Tree, saved: Tree, names: list[str]) -> Tree:
    """The tree with more leaves of `saved`, placed as the first leaf of `wanted` is."""
    sharding = jax.tree.leaves(wanted)[0].sharding
    for name in names:
        *way, last = name.split(".")
        branch = wanted = dict(wanted)
        source = saved
        for part in way:
            branch[part] = dict(branch.get(part, {}))
            branch, source = branch[part], source[part]
        branch[last] = jax.ShapeDtypeStruct(source[last].shape, source[last].dtype, sharding=sharding)
    return wanted


def _in_structure_of(wanted: Mapping[str, Any], tree: Mapping[str, Any]) -> Tree:
    """The leaves of `tree` that `wanted` has, in its structure."""
    return {
        name: _in_structure_of(part, tree.get(name, {})) if isinstance(part, Mapping) else tree[name]
        for name, part in wanted.items()
    }


class Checkpoints:
    """The checkpoints of one run: saved in the background, restored to given placements, oldest dropped.

    Args:
      directory: the folder, made if need be.
      keep: how many to keep.
    """

    def __init__(self, directory: Path, keep: int):
        self.directory = directory
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """The newest whole step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], *, wait: bool = False) -> None:
        """Saves `state` (nested dict of arrays) as `step`; with `wait`, returns only when it is on disk."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(dict(meta)))
        if not self._manager.save(step, args=items, force=True):
            raise RuntimeError(f"checkpoint of step {step} was not written; the newest is {self.latest()}")
        if wait:
            self.wait()

    def restore(self, wanted: Tree, retired: re.Pattern[str] | None = None) -> tuple[int, Tree]:
        """The newest checkpoint in the shapes, dtypes and shardings of `wanted` (nested dict of ShapeDtypeStructs).

        Leaves of an earlier version whose dotted name matches `retired` and that `wanted` lacks are left out.

        Raises UserError where a leaf is missing, unexpected or of another shape or dtype, or a file is damaged.
        """
        step = self.latest()
        if step is None:
            raise UserError(f"no checkpoint in {self.directory}")
        try:
            saved = _metadata(self.directory, step)
        except Exception as error:
            raise _damaged(self.directory, step, error) from error
        dropped = [n for n in flatten(saved).keys() - flatten(wanted).keys() if retired and retired.fullmatch(n)]
        target = _with_leaves(wanted, saved, dropped)
        check_match(saved, target, f"checkpoint {self.directory / str(step)}")
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))
        except Exception as error:
            raise _damaged(self.directory, step, error) from error
        return step, _in_structure_of(wanted, restored["state"])

    def wait(self) -> None:
        """Returns when all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and closes."""
        self._manager.close()
