"""Checkpoints: one strict wrapper around Orbax. A step's folder is whole or absent; a leaf that doesn't match refuses.

The tree saved is a nested dict of arrays with string keys, the item `state` of `checkpoints/<step>/`; beside it the
item `meta` is a small JSON object: the step, and a checksum of every leaf (0.1.0 wrote none, and its checkpoints are
read unverified). A checkpoint that can't be read, or whose leaves don't have their checksums, is damaged: the newest
whole one is taken, with a line that says so.
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

from mi_contrast.core.checksums import checksums
from mi_contrast.core.errors import FileError, UserError, cannot_write, find_disk_error, nearest
from mi_contrast.core.layout import set_aside

Tree = dict[str, Any]
HALF = ".orbax-checkpoint-tmp"  # in the name of a folder that Orbax is still writing

logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname or record.levelno > logging.ERROR)


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
    return max((step for step in all_steps(directory) if before is None or step < before), default=None)


def all_steps(directory: Path) -> list[int]:
    """The steps in a checkpoints folder, newest first."""
    if not directory.is_dir():
        return []
    return sorted((int(p.name) for p in directory.iterdir() if p.is_dir() and p.name.isdigit()), reverse=True)


class DamagedError(Exception):
    """A checkpoint that is not as it was written; the text says how that was seen."""


def _none_is_whole(directory: Path, damaged: Mapping[int, str]) -> UserError:
    told = "; ".join(f"{directory / str(step)} can't be read ({why})" for step, why in damaged.items())
    return FileError(
        f"no checkpoint is whole: {told}", fix=f"restore one from a copy, or remove {directory} to begin again"
    )


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _reading() -> Iterator[None]:
    """Turns what Orbax raises on damaged files, bare exceptions, into a DamagedError."""
    _quiet_closed_loops()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise DamagedError(_in_a_line(error)) from error


def _quiet_closed_loops() -> None:
    """Keeps threads of tensorstore from printing a traceback each where a read or a save of another leaf has failed.

    They find the event loop of that call closed, at any time after it; the failure itself is raised to the caller.
    """
    before = sys.unraisablehook
    if getattr(before, "quiets_closed_loops", False):
        return

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    hook.quiets_closed_loops = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _metadata(directory: Path, step: int) -> Tree:
    """Shapes and dtypes of the leaves of a checkpoint. DamagedError where they can't be read."""
    import orbax.checkpoint as ocp

    with _reading(), ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.metadata(directory.absolute() / str(step) / "state").item_metadata
    if found is None or found.tree is None:
        raise DamagedError("no metadata of the state")
    return found.tree


def _sums(directory: Path, step: int) -> dict[str, str] | None:
    """The checksums that a checkpoint was written with, by leaf; None of one that 0.1.0 wrote.

    DamagedError where its item `meta` is not as we write it: nothing then says what the leaves should be.
    """
    try:
        meta = json.loads((directory / str(step) / "meta" / "metadata").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"its meta: {_in_a_line(error)}") from error
    if not isinstance(meta, dict) or meta.pop("step", None) != step or set(meta) - {"checksums"}:
        raise DamagedError("its meta is of another step or has other fields")
    sums = meta.get("checksums")
    if sums is not None and not isinstance(sums, dict):
        raise DamagedError("its meta has no table of checksums")
    return sums


def _check_leaves(saved: Tree, sums: Mapping[str, str] | None) -> None:
    """DamagedError where the metadata of the leaves differ from what the checksums say of dtypes and shapes."""
    if sums is None:
        return
    there = {name: f"{x.dtype}[{','.join(map(str, x.shape))}]" for name, x in flatten(saved).items()}
    told = {name: text.rpartition(" ")[0] for name, text in sums.items()}
    for name in sorted(there.keys() | told.keys()):
        if there.get(name) != told.get(name):
            raise DamagedError(f"leaf {name!r} is {there.get(name, 'not there')}, not {told.get(name, 'expected')}")


def _check_sums(tree: Tree, sums: Mapping[str, str] | None) -> None:
    """DamagedError naming the first leaf that doesn't have the checksum it was written with."""
    if sums is None:
        return
    wrong = [name for name, found in checksums(flatten(tree)).items() if sums.get(name) != found]
    if wrong:
        more = f", and of {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DamagedError(f"the checksum of leaf {wrong[0]!r} differs{more}")


def read(directory: Path, step: int | None = None, subtree: tuple[str, ...] = ()) -> tuple[int, Tree]:
    """Reads one checkpoint, or a part of it, as numpy arrays on the host, whatever devices wrote it.

    Args:
      directory: the folder `checkpoints` of a run.
      step: which one; by default the newest that is whole, with a line about newer ones that are damaged.
      subtree: top-level names to read, such as ('online',); all by default.

    Returns:
      (step, nested dict of numpy arrays).
    Raises UserError where there is no checkpoint, or all are damaged, or a name is not in it.
    """
    steps = all_steps(directory)
    if not steps:
        raise FileError(f"no checkpoint in {directory}", fix="train first, or name a run directory or an export")
    if step is not None and step not in steps:
        raise FileError(f"no checkpoint of step {step} in {directory}", fix=f"the newest is {steps[0]}")
    damaged: dict[int, str] = {}
    for at in steps if step is None else [step]:
        try:
            tree = _read_step(directory, at, subtree)
        except DamagedError as error:
            damaged[at] = str(error)
            continue
        for other, why in damaged.items():
            print(f"checkpoint {directory / str(other)} is damaged ({why}): step {at} is read", file=sys.stderr)
        return at, tree
    raise _none_is_whole(directory, damaged)


def _read_step(directory: Path, step: int, subtree: tuple[str, ...]) -> Tree:
    import orbax.checkpoint as ocp

    sums, tree = _sums(directory, step), _metadata(directory, step)
    _check_leaves(tree, sums)
    for name in subtree:
        if name not in tree:
            raise UserError(f"checkpoint {directory / str(step)} has no {name!r}", nearest=nearest(name, tree))
    wanted = {name: tree[name] for name in (subtree or tree)}
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), wanted)
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    with _reading(), ocp.PyTreeCheckpointer() as checkpointer:
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        found: Tree = checkpointer.restore(directory.absolute() / str(step) / "state", args=arguments)
    _check_sums(found, sums)
    return found


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
        import orbax.checkpoint as ocp

        self.directory = directory
        self._failed = False
        with self._writing():
            directory.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                self._remove_halves()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """The newest whole step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], *, wait: bool = False) -> None:
        """Saves `state` (nested dict of arrays) as `step`; with `wait`, returns only when it is on disk.

        Raises UserError where the disk could not take this save or the one before, which was written meanwhile.
        """
        import orbax.checkpoint as ocp

        told = {**meta, "step": step, "checksums": checksums(flatten(state))}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(told))
        with self._writing():
            os.rmdir(tempfile.mkdtemp(prefix=".", dir=self.directory))  # Orbax, refused a folder, waits for minutes
            written = self._manager.save(step, args=items, force=True)
        if not written:
            raise RuntimeError(f"checkpoint of step {step} was not written; the newest is {self.latest()}")
        if wait:
            self.wait()

    def restore(self, wanted: Tree, retired: re.Pattern[str] | None = None) -> tuple[int, Tree]:
        """The newest checkpoint in the shapes, dtypes and shardings of `wanted` (nested dict of ShapeDtypeStructs).

        Leaves of an earlier version whose dotted name matches `retired` and that `wanted` lacks are left out.

        Damaged ones are set aside as <step>.damaged, with a line each, and the newest whole one is taken.

        Raises UserError where a leaf is missing, unexpected or of another shape or dtype, or no checkpoint is whole.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree = self._restore_step(step, wanted, retired)
            except DamagedError as error:
                damaged[step] = str(error)
                continue
            self._set_aside(damaged, step)
            return step, tree
        if damaged:
            raise _none_is_whole(self.directory, damaged)
        raise FileError(f"no checkpoint in {self.directory}")

    def _restore_step(self, step: int, wanted: Tree, retired: re.Pattern[str] | None) -> Tree:
        import orbax.checkpoint as ocp

        sums, saved = _sums(self.directory, step), _metadata(self.directory, step)
        _check_leaves(saved, sums)
        dropped = [n for n in flatten(saved).keys() - flatten(wanted).keys() if retired and retired.fullmatch(n)]
        target = _with_leaves(wanted, saved, dropped)
        check_match(saved, target, f"checkpoint {self.directory / str(step)}")
        with _reading():
            restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))
        _check_sums(restored["state"], sums)
        return _in_structure_of(wanted, restored["state"])

    def _set_aside(self, damaged: Mapping[int, str], taken: int) -> None:
        """Renames damaged checkpoints, says so, and forgets them."""
        for step, why in damaged.items():
            if jax.process_index() == 0:
                there = set_aside(self.directory / str(step), "damaged")
                print(f"checkpoint of step {step} is damaged ({why}): kept as {there}, step {taken} is taken")
        if damaged:
            self._manager.reload()

    def abandon(self) -> None:
        """Lets `close` not wait for saves that are not over: they end, or come to nothing, on their own."""
        self._failed = True

    def check(self) -> None:
        """Raises UserError if a save in the background is over and failed."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when all saves are on disk. Raises UserError where the disk could not take them."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and closes. A save that failed before is not told again."""
        if not self._failed:
            with self._writing():
                self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what Orbax raises where a disk can't be written into a UserError; nothing half written is left."""
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
            self._remove_halves()
            raise cannot_write(self.directory, number) from error

    def _remove_halves(self) -> None:
        """Removes folders of saves that did not come to their end."""
        for half in self.directory.glob(f"*{HALF}*"):
            shutil.rmtree(half, ignore_errors=True)
