"""The training job: a config and a folder in, a trained run directory out; resumed by the same call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mi_contrast.core import checkpoint as checkpoints
from mi_contrast.core import legacy
from mi_contrast.core.errors import BadNumbersError, StoppedError, UserError
from mi_contrast.core.layout import RunDirectory, hold_lock, read_json, remove_leftovers
from mi_contrast.core.progress import Progress
from mi_contrast.core.stopping import SIGNALS, catch_stop_signals
from mi_contrast.data.readers import Reader
from mi_contrast.interchange.export import write_export
from mi_contrast.training import adaptive, assemble, pools
from mi_contrast.training.assemble import Job
from mi_contrast.training.diagnostics import make_support_statistics
from mi_contrast.training.metrics import Log, cut_back
from mi_contrast.training.pictures import draw_channels, draw_pairs
from mi_contrast.training.starts import (
    check_allowed,
    claim_config,
    claim_data,
    commit,
    find_changes,
    record_start,
    record_wandb,
)
from mi_contrast.training.state import State, abstract, from_tree, placement, to_tree
from mi_contrast.training.step import make_step


@dataclass(frozen=True)
class Outcome:
    """How a call of `run` ended: the run directory, the step reached, and whether the run is complete."""

    run: RunDirectory
    step: int
    complete: bool


def run(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    name: str = "",
    variant: str | None = None,
    stop_at: int | None = None,
    allow: Sequence[str] = (),
) -> Outcome:
    """Trains `config` (plain data) in `workdir`, from where the newest checkpoint there left off.

    Args:
      name, variant: of the config, for the record.
      stop_at: stop after this step, saved, the schedules unchanged.
      allow: sections of the config that may differ from the start before, such as 'optim'; kept in run.json.
    Raises UserError (nothing on disk is lost), BadNumbersError; after saving StoppedError at SIGTERM, SIGHUP or the
    time limit, and KeyboardInterrupt at Ctrl-C (a second Ctrl-C raises it at once).
    """
    folder = RunDirectory(Path(workdir))
    allow = check_allowed(allow)
    if stop_at is not None and stop_at < 1:
        raise UserError(f"--stop_at={stop_at}", fix="give a step of 1 or more")
    config = legacy.complete(config)
    if folder.config.is_file():
        config = legacy.adopt(read_json(folder.config), config)
    begun = checkpoints.latest_step(folder.checkpoints) is not None
    recorded = read_json(folder.data) if begun and folder.data.is_file() else None
    known = None if recorded is None else recorded.get("broken", ())
    job = assemble.build(config, begun, known)  # every mistake in the config is found before anything is written
    with hold_lock(folder):
        remove_leftovers(folder)
        newest, total = checkpoints.latest_step(folder.checkpoints), job.parts.total_steps
        finished = newest is not None and newest >= total and (folder.export / "manifest.json").is_file()
        if newest is not None and newest > total and not finished:
            raise UserError(
                f"steps is {total} and {folder.root} has reached step {newest}", fix=f"give steps of {newest} or more"
            )
        changes = find_changes(folder, config, allow)
        claim_config(folder, config, name, variant, allow, finished=finished)
        claim_data(folder, job.images, recorded, begun, config["data"])
        if newest is not None and finished:
            return Outcome(folder, newest, complete=True)
        with job.open() as reader:
            return _train(folder, job, reader, config, stop_at, changes)


def _train(
    folder: RunDirectory,
    job: Job,
    reader: Reader,
    config: Mapping[str, Any],
    stop_at: int | None,
    changes: Mapping[str, Any],
) -> Outcome:
    parts, total = job.parts, job.parts.total_steps
    last = total if stop_at is None else min(stop_at, total)
    kept = checkpoints.Checkpoints(folder.checkpoints, config["checkpoint"]["keep"])
    state, start = _restore_or_begin(kept, job, config)
    cut_back(folder, start if start > 0 else -1)  # at step 0 nothing was saved, and its row is written again
    log = Log(folder, config, record_start(folder, config, start, changes))
    record_wandb(folder, log.wandb_id)
    step, statistics = make_step(parts), make_support_statistics(parts)
    progress = Progress("training", total, start=start, each=job.batch_size)
    began, limit = time.perf_counter(), config["checkpoint"]["time_limit"]
    pending: tuple[int, dict[str, jax.Array], bool] | None = None
    last_logged = (start, began)
    note = ""

    def read_late() -> None:
        """Reads the scalars of the step before: the device is never kept waiting for the host."""
        nonlocal pending, note, last_logged
        if pending is None:
            return
        (at, scalars, logged), pending = pending, None
        bad = int(scalars["bad_steps"])
        if logged:
            numbers = {name: float(value) for name, value in scalars.items()}
            now = time.perf_counter()
            numbers["images_per_second"] = (at - last_logged[0]) * job.batch_size / (now - last_logged[1])
            last_logged = (at, now)
            log.write(at, now - began, numbers)
            kept.check()
            most = numbers.get("objective_ceiling")
            note = f"objective {numbers['objective']:.3f} " + ("nats" if most is None else f"of {most:.2f} nats")
        if bad >= config["optim"]["patience"]:
            raise BadNumbersError(_what_to_change(bad, at, kept.latest()))

    def measure(at: int) -> None:
        nonlocal state
        numbers = {name: value for judge in job.judges for name, value in judge(state).items()}
        log.write(at, time.perf_counter() - began, numbers)
        shown = [f"mi {numbers['mi_nats']:.3f} of {numbers['mi_ceiling']:.2f} nats"]
        shown += [f"{name} {100 * numbers[name]:.1f} %" for name in ("knn_top1", "probe_top1") if name in numbers]
        progress.say(f"step {at}: " + ", ".join(shown))
        state = replace(state, carried=adaptive.after_measuring(parts.row, state.carried, numbers))

    def save(at: int) -> None:
        if kept.latest() != at:
            kept.save(at, to_tree(state), {"step": at})

    try:
        with catch_stop_signals(*SIGNALS) as asked, _profile(folder, config["log"]["profile"]) as profile:
            if start == 0:
                draw_pairs(folder.pictures / "pairs.png", job, state)
                measure(0)
            for at in range(start + 1, last + 1):
                if (at - 1) % reader.steps_per_epoch == 0:
                    epoch = (at - 1) // reader.steps_per_epoch
                    carried = pools.refreshed(parts.row, state.pools, state.carried, epoch, parts.mesh)
                    state = replace(state, carried=carried)
                batch = reader.batch(at - 1)
                profile(at)
                logged = at % config["log"]["every"] == 0 or at == last
                extra = statistics(state, batch, job.tables) if logged else {}
                state, scalars = step(state, batch, job.tables)
                read_late()
                pending = (at, scalars | extra, logged)
                progress.advance(1, note)
                measuring = at % config["eval"]["every"] == 0 or at == total
                saving = at % config["checkpoint"]["every"] == 0 or at == last
                overtime = limit is not None and time.perf_counter() - began > limit
                stopping = at < last and (overtime or _agreed(asked, at))
                if measuring or saving or stopping:
                    read_late()
                if measuring:
                    measure(at)
                if saving or stopping:
                    save(at)
                if stopping:
                    kept.wait()
                    where = f"at step {at} of {total}, saved; the same command goes on"
                    if overtime and not asked.is_set():
                        raise StoppedError(f"stopped by the time limit {where}")
                    raise asked.error(f"stopped by {asked.cause} {where}")
            kept.wait()
    except KeyboardInterrupt:
        kept.abandon()
        raise
    finally:
        progress.close()
        log.close()
        kept.close()
    if last == total:
        if parts.learning is not None:
            draw_channels(folder.pictures / "channels.png", job, state)
        _export(folder, job, state, config)
    return Outcome(folder, max(last, start), complete=last == total)


def _what_to_change(bad: int, at: int, newest: int | None) -> str:
    """The text of a BadNumbersError: what happened, what is kept, and how to go on."""
    saved = "no checkpoint was written yet" if newest is None else f"the newest checkpoint is of step {newest}"
    return (
        f"{bad} steps in a row up to step {at} had a loss or gradient that is not finite; the network is as it was "
        f"before them, {saved}. The same command stops here again: look for bad values in the data, or go on with a "
        "lower rate (--allow=optim --config.optim.lr=VALUE) or other temperatures (--allow=method)"
    )


def placed(state: State, where: State) -> State:
    """A copy of the state over the devices: committed and strongly typed, so that a fresh start and a resumed one
    compile the same program, and no two leaves share memory that a step would donate.
    """
    return jax.device_put(jax.tree.map(np.array, state), where)


def _restore_or_begin(kept: checkpoints.Checkpoints, job: Job, config: Mapping[str, Any]) -> tuple[State, int]:
    """The newest state in this folder, or the first one, placed over the mesh."""
    where = placement(job.parts.row, job.parts.mesh)
    if kept.latest() is None:
        state = placed(job.first_state(), where)
        if config["checkpoint"]["start_from"] is not None:
            state = _start_from(state, Path(config["checkpoint"]["start_from"]), where)
        return job.fill(state), 0
    wanted = abstract(jax.eval_shape(job.first_state), where)
    step, tree = kept.restore(to_tree(wanted), legacy.RETIRED)
    print(f"going on from step {step}, checkpoint {kept.directory / str(step)}")
    return from_tree(wanted, tree), step


def _start_from(state: State, path: Path, where: State) -> State:
    """The first state with the networks of another run's newest checkpoint; every leaf must match."""
    wanted = {"online": dict(state.online)} | ({"target": dict(state.target)} if state.target else {})
    step, saved = checkpoints.read(RunDirectory(path).checkpoints, subtree=tuple(wanted))
    checkpoints.check_match(saved, wanted, f"checkpoint.start_from {path} (step {step})")
    count = len(checkpoints.flatten(wanted))
    print(f"weights of {path}, step {step}: {count} of {count} leaves loaded")
    return placed(replace(state, **saved), where)


def _export(folder: RunDirectory, job: Job, state: State, config: Mapping[str, Any]) -> None:
    representation = job.represent(state, config["export"]["weights"])
    write_export(folder.export, representation, config=dict(config), commit=commit(), step=int(state.step))


def _agreed(asked: threading.Event, at: int) -> bool:
    """Whether to stop: with several processes, at a step that all of them agree on."""
    if jax.process_count() > 1:
        return bool(multihost_utils.reached_preemption_sync_point(at))
    return asked.is_set()


@contextmanager
def _profile(folder: RunDirectory, between: tuple[int, int] | None) -> Iterator[Any]:
    """A function of the step that starts and stops a profiler trace between two steps, if asked for."""
    tracing = False

    def at_step(at: int) -> None:
        nonlocal tracing
        if between is not None and at == between[0] and not tracing:
            jax.profiler.start_trace(str(folder.profile))
            tracing = True
        elif tracing and between is not None and at >= between[1]:
            jax.profiler.stop_trace()
            tracing = False

    try:
        yield at_step
    finally:
        if tracing:
            jax.profiler.stop_trace()
