"""Saves and restores checkpoints with Orbax, and checks every leaf's name, shape, dtype and checksum.

`checkpoints/<step>/` is written whole or not at all. It has two items: `state`, a nested dict of arrays with string
keys, and `meta`, a small JSON object with the step and a checksum of every leaf. Version 0.1.0 wrote no checksums, so
its checkpoints are read unverified.

A checkpoint is damaged if it can't be read, or if a leaf differs from its checksum. Readers then use the newest
undamaged checkpoint instead, and print a line that says so.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mi_contrast.core import processes
from mi_contrast.core.checksums import compute_checksums
from mi_contrast.core.errors import DamagedError, FileError, UserError, cannot_write, find_disk_error, nearest
from mi_contrast.core.layout import set_aside
from mi_contrast.core.leaves import Tree, add_leaves, check_finite, check_match, flatten, select_leaves

__all__ = ["Checkpoints", "Tree", "all_steps", "check_finite", "check_match", "flatten", "latest_step", "read"]

UNFINISHED = ".orbax-checkpoint-tmp"  # part of the name of a folder that Orbax is still writing

logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno > logging.ERROR)


def latest_step(directory: Path, *, before: int | None = None) -> int | None:
    """Returns the newest step in a checkpoints folder, or the newest below `before`. None if there is none."""
    return max((step for step in all_steps(directory) if before is None or step < before), default=None)


def all_steps(directory: Path) -> list[int]:
    """Returns the steps in a checkpoints folder, newest first."""
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if p.is_dir() and p.name.isdigit()), reverse=True)


def _no_whole_checkpoint(directory: Path, damaged: Mapping[int, str]) -> UserError:
    reasons = "; ".join(f"{directory / str(step)} can't be read ({why})" for step, why in damaged.items())
    return FileError(
        f"no checkpoint is whole: {reasons}", fix=f"restore one from a copy, or remove {directory} to begin again"
    )


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _raise_damaged() -> Iterator[None]:
    """Raises DamagedError instead of the bare exceptions that Orbax raises on damaged files."""
    _quiet_closed_loops()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise DamagedError(_shorten(error)) from error


def _quiet_closed_loops() -> None:
    """Hides the tracebacks that tensorstore's threads print after the read or the save of another leaf has failed.

    At any time after the failure, these threads find the event loop of the failed call closed. The failure itself is
    raised to the caller, so their tracebacks add nothing.
    """
    previous_hook = sys.unraisablehook
    if getattr(previous_hook, "quiets_closed_loops", False):
        return

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
            previous_hook(unraisable)

    hook.quiets_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _read_metadata(directory: Path, step: int) -> Tree:
    """Returns the shapes and dtypes of a checkpoint's leaves. Raises DamagedError if they can't be read."""
    with _raise_damaged(), _make_reader() as checkpointer:
        metadata = checkpointer.metadata(directory.absolute() / str(step) / "state").item_metadata
    if metadata is None or metadata.tree is None:
        raise DamagedError("no metadata of the state")
    return metadata.tree


def _read_checksums(directory: Path, step: int) -> dict[str, str] | None:
    """Returns the checksums in the item `meta` by the leaf's name, or None if version 0.1.0 wrote the checkpoint.

    Raises DamagedError if `meta` can't be read or has other fields than the ones we write.
    """
    try:
        meta = json.loads((directory / str(step) / "meta" / "metadata").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"its meta: {_shorten(error)}") from error
    if not isinstance(meta, dict) or meta.pop("step", None) != step or set(meta) - {"checksums"}:
        raise DamagedError("its meta is of another step or has other fields")
    sums = meta.get("checksums")
    if sums is not None and not isinstance(sums, dict):
        raise DamagedError("its meta has no table of checksums")
    return sums


def _check_leaves(saved: Tree, sums: Mapping[str, str] | None) -> None:
    """Raises DamagedError if the leaves' dtypes and shapes differ from those that the checksums record."""
    if sums is None:
        return
    actual = {name: f"{x.dtype}[{','.join(map(str, x.shape))}]" for name, x in flatten(saved).items()}
    recorded = {name: text.rpartition(" ")[0] for name, text in sums.items()}
    for name in sorted(actual.keys() | recorded.keys()):
        if actual.get(name) != recorded.get(name):
            leaf = actual.get(name, "not there")
            raise DamagedError(f"leaf {name!r} is {leaf}, not {recorded.get(name, 'expected')}")


def _check_checksums(tree: Tree, sums: Mapping[str, str] | None) -> None:
    """Raises DamagedError if a leaf's checksum differs from the recorded one, naming the first such leaf."""
    if sums is None:
        return
    wrong = [name for name, actual in compute_checksums(flatten(tree)).items() if sums.get(name) != actual]
    if wrong:
        more = f", and of {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DamagedError(f"the checksum of leaf {wrong[0]!r} differs{more}")


def read(directory: Path, step: int | None = None, subtree: tuple[str, ...] = ()) -> tuple[int, Tree]:
    """Reads a checkpoint, or a part of it, as numpy arrays on the host, whatever devices wrote it.

    Args:
      directory: the folder `checkpoints` of a run.
      step: the step to read. The default is the newest undamaged one; a line is printed about newer, damaged ones.
      subtree: top-level names to read, such as ('online',). The default is all.

    Returns:
      The step, and a nested dict of numpy arrays.
    Raises:
      UserError: there is no checkpoint, all are damaged, or the checkpoint lacks a name in `subtree`.
    """
    steps = all_steps(directory)
    if not steps:
        raise FileError(f"no checkpoint in {directory}", fix="train first, or name a run directory or an export")
    if step is not None and step not in steps:
        raise FileError(f"no checkpoint of step {step} in {directory}", fix=f"the newest is {steps[0]}")
    newest, tree, damaged = _read_newest(directory, steps if step is None else [step], subtree)
    for other, why in damaged.items():
        print(f"checkpoint {directory / str(other)} is damaged ({why}): step {newest} is read", file=sys.stderr)
    return newest, tree


def _read_newest(directory: Path, steps: list[int], subtree: tuple[str, ...]) -> tuple[int, Tree, dict[int, str]]:
    """Returns the first undamaged of these steps, its tree, and why the steps before it are damaged.

    Raises FileError if all are damaged.
    """
    damaged: dict[int, str] = {}
    for step in steps:
        try:
            return step, _read_step(directory, step, subtree), damaged
        except DamagedError as error:
            damaged[step] = str(error)
    raise _no_whole_checkpoint(directory, damaged)


def _make_reader() -> Any:
    """Returns Orbax's checkpointer for this process alone: it waits for no other process."""
    import orbax.checkpoint as ocp

    if processes.count() == 1:
        return ocp.PyTreeCheckpointer()
    own = processes.index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _read_step(directory: Path, step: int, subtree: tuple[str, ...]) -> Tree:
    import orbax.checkpoint as ocp

    sums, tree = _read_checksums(directory, step), _read_metadata(directory, step)
    _check_leaves(tree, sums)
    for name in subtree:
        if name not in tree:
            raise UserError(f"checkpoint {directory / str(step)} has no {name!r}", nearest=nearest(name, tree))
    target = {name: tree[name] for name in (subtree or tree)}
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    with _raise_damaged(), _make_reader() as checkpointer:
        arguments = ocp.args.PyTreeRestore(item=target, restore_args=as_numpy, partial_restore=True)
        restored: Tree = checkpointer.restore(directory.absolute() / str(step) / "state", args=arguments)
    _check_checksums(restored, sums)
    return restored


class Checkpoints:
    """The checkpoints of one run. Saves run in the background, and the oldest checkpoints are deleted.

    Args:
      directory: the folder `checkpoints`, created if it does not exist.
      keep: number of checkpoints to keep.
    """

    def __init__(self, directory: Path, keep: int):
        import orbax.checkpoint as ocp

        self.directory = directory
        self._failed = False
        with self._raise_disk_errors():
            directory.mkdir(parents=True, exist_ok=True)
            if processes.is_first():
                self._remove_unfinished()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """Returns the newest step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], *, wait: bool = False) -> None:
        """Saves `state`, a nested dict of arrays, as `step`. With `wait`, returns only when it is on disk.

        Raises UserError if the disk could not store this checkpoint, or the previous one, which was still being saved.
        """
        import orbax.checkpoint as ocp

        meta = {**meta, "step": step, "checksums": compute_checksums(flatten(state))}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._raise_disk_errors():
            # Orbax waits for minutes if it can't create a folder. Creating one here fails at once.
            os.rmdir(tempfile.mkdtemp(prefix=".", dir=self.directory))
            is_saved = self._manager.save(step, args=items, force=True)
        if not is_saved:
            raise RuntimeError(f"checkpoint of step {step} was not written; the newest is {self.latest()}")
        if wait:
            self.wait()

    def restore(self, target: Tree, retired: re.Pattern[str] | None = None) -> tuple[int, Tree]:
        """Returns the step and the state of the newest undamaged checkpoint.

        Damaged checkpoints are renamed to <step>.damaged, and a line is printed about each.

        Args:
          target: a nested dict of ShapeDtypeStructs, with the shapes, dtypes and shardings to restore to.
          retired: pattern of dotted names. Leaves that match it and that `target` lacks are dropped: earlier versions
            wrote them.

        Raises:
          UserError: a leaf is missing, unexpected, or of another shape or dtype; or every checkpoint is damaged.
        """
        self._check_newest()
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree = self._restore_step(step, target, retired)
            except DamagedError as error:
                damaged[step] = str(error)
                continue
            self._set_aside(damaged, step)
            return step, tree
        if damaged:
            raise _no_whole_checkpoint(self.directory, damaged)
        raise FileError(f"no checkpoint in {self.directory}")

    def _restore_step(self, step: int, target: Tree, retired: re.Pattern[str] | None) -> Tree:
        import orbax.checkpoint as ocp

        sums, saved = _read_checksums(self.directory, step), _read_metadata(self.directory, step)
        _check_leaves(saved, sums)
        dropped = [n for n in flatten(saved).keys() - flatten(target).keys() if retired and retired.fullmatch(n)]
        extended = add_leaves(target, saved, dropped)
        check_match(saved, extended, f"checkpoint {self.directory / str(step)}")
        with _raise_damaged():
            restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(extended)))
        _check_checksums(restored["state"], sums)
        return select_leaves(target, restored["state"])

    def _check_newest(self) -> None:
        """Of several processes, lets the first read what all will restore, and set damaged checkpoints aside.

        All restore at the same time and wait for each other, so that one which alone met damage would leave the others
        waiting. One process restores without this: it goes back to the checkpoint before.
        """
        if processes.count() == 1:
            return
        damaged: dict[int, str] = {}
        with processes.together():
            if processes.is_first():
                step, _, damaged = _read_newest(self.directory, all_steps(self.directory), ())
                self._set_aside(damaged, step)
        if processes.agree(bool(damaged)) and not processes.is_first():
            self._manager.reload()

    def _set_aside(self, damaged: Mapping[int, str], restored_step: int) -> None:
        """Renames damaged checkpoints, prints a line about each, and makes Orbax forget them."""
        for step, why in damaged.items():
            if processes.is_first():
                path = set_aside(self.directory / str(step), "damaged")
                print(f"checkpoint of step {step} is damaged ({why}): kept as {path}, step {restored_step} is restored")
        if damaged:
            self._manager.reload()

    def abandon(self) -> None:
        """Makes `close` return without waiting for saves that are still running."""
        self._failed = True

    def check(self) -> None:
        """Raises UserError if a save in the background has failed. Does not wait for a save that is still running."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until all saves are on disk. Raises UserError if the disk could not store them."""
        with self._raise_disk_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and closes Orbax's manager. An error that was raised before is not raised again."""
        if not self._failed:
            with self._raise_disk_errors():
                self._manager.close()

    @contextmanager
    def _raise_disk_errors(self) -> Iterator[None]:
        """Raises UserError instead of Orbax's error if a disk can't be written, and removes unfinished saves."""
        _quiet_closed_loops()
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            self._failed = True
            number = find_disk_error(error)
            if number is None:
                raise
            self._remove_unfinished()
            raise cannot_write(self.directory, number) from error

    def _remove_unfinished(self) -> None:
        """Removes the folders of saves that did not finish."""
        for folder in self.directory.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)
