"""The training job: a config and a folder in, a trained run directory out; resumed by the same call."""

from __future__ import annotations

import platform
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import mi_contrast
from mi_contrast.core import checkpoint as checkpoints
from mi_contrast.core import legacy
from mi_contrast.core.config import differences
from mi_contrast.core.errors import BadNumbersError, StoppedError, UserError
from mi_contrast.core.layout import RunDirectory, locked, read_json, write_json
from mi_contrast.core.progress import Progress
from mi_contrast.core.stopping import asked_to_stop
from mi_contrast.data import fingerprint, sets
from mi_contrast.data.readers import Reader
from mi_contrast.interchange.export import write_export
from mi_contrast.training import adaptive, assemble, pools
from mi_contrast.training.assemble import Job
from mi_contrast.training.diagnostics import make_support_statistics
from mi_contrast.training.metrics import Log, cut_back
from mi_contrast.training.pictures import draw_channels, draw_pairs
from mi_contrast.training.state import State, abstract, from_tree, placement, to_tree
from mi_contrast.training.step import make_step

FREE = ("steps", "log", "checkpoint")  # what may differ between the starts of one run


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
) -> Outcome:
    """Trains `config` (plain data) in `workdir`, from where the newest checkpoint there left off.

    Args:
      name, variant: of the config, for the record.
      stop_at: stop after this step, saved, the schedules unchanged.
    Raises UserError (nothing on disk is lost), BadNumbersError, StoppedError after SIGTERM or the time limit.
    """
    folder = RunDirectory(Path(workdir))
    if stop_at is not None and stop_at < 1:
        raise UserError(f"--stop_at={stop_at}", fix="give a step of 1 or more")
    config = legacy.complete(config)
    if folder.config.is_file():
        config = legacy.adopt(read_json(folder.config), config)
    begun = checkpoints.latest(folder.checkpoints) is not None
    recorded = read_json(folder.data) if begun and folder.data.is_file() else None
    known = None if recorded is None else recorded.get("broken", ())
    job = assemble.build(config, begun, known)  # every mistake in the config is found before anything is written
    with locked(folder):
        _claim(folder, config, name, variant)
        _claim_data(folder, job, recorded, begun, config["data"])
        newest = checkpoints.latest(folder.checkpoints)
        if newest is not None and newest >= job.parts.total_steps and (folder.export / "manifest.json").is_file():
            return Outcome(folder, newest, complete=True)
        with job.open() as reader:
            return _train(folder, job, reader, config, stop_at)


def _claim(folder: RunDirectory, config: Mapping[str, Any], name: str, variant: str | None) -> None:
    """Writes config.json, or refuses a folder that holds another config's run."""
    given = {"version": mi_contrast.__version__, "name": name, "variant": variant, "config": config}
    if folder.config.is_file():
        there = read_json(folder.config)
        given = {name: value for name, value in given.items() if name != "version" or name in there}
        different = differences(legacy.complete(there["config"]), config)
        fixed = [d for d in different if d.split(".")[0] not in FREE]
        if fixed:
            raise UserError(
                f"{folder.root} holds a run of another config: {', '.join(fixed[:8])} differ",
                fix="give another --workdir, or the config it was started with",
            )
        if "steps" in different:
            print(
                f"steps {there['config']['steps']} -> {config['steps']}: schedules stretch, so the result no longer "
                "equals that of one uninterrupted run bit for bit"
            )
    elif folder.checkpoints.is_dir() and any(folder.checkpoints.iterdir()):
        raise UserError(
            f"{folder.root} has checkpoints but no config.json", fix="restore it, or give another --workdir"
        )
    write_json(folder.config, given)


def _claim_data(
    folder: RunDirectory, job: Job, recorded: Mapping[str, Any] | None, begun: bool, data: Mapping[str, Any]
) -> None:
    """Writes data.json, the data's fingerprint, or refuses data that are not those that the run began with."""
    if recorded is not None:
        if why := fingerprint.changed(recorded, job.images.fingerprint):
            raise UserError(why, fix="restore the data as they were, or give another --workdir")
        return
    if begun and not sets.lists_alike(data["name"], data["split"], data["dir"]):
        raise UserError(
            f"{folder.root} began under 0.1.0, which lists other files of {data['name']} than are listed now",
            fix="end it with 0.1.0, or give another --workdir",
        )
    write_json(folder.data, dict(job.images.fingerprint))


def _train(folder: RunDirectory, job: Job, reader: Reader, config: Mapping[str, Any], stop_at: int | None) -> Outcome:
    parts, total = job.parts, job.parts.total_steps
    last = total if stop_at is None else min(stop_at, total)
    kept = checkpoints.Checkpoints(folder.checkpoints, config["checkpoint"]["keep"])
    state, start = _restore_or_begin(kept, job, config)
    cut_back(folder, start)
    log = Log(folder, config, _record_start(folder, config, start))
    _record_wandb(folder, log.wandb_id)
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
            most = numbers.get("objective_ceiling")
            note = f"objective {numbers['objective']:.3f} " + ("nats" if most is None else f"of {most:.2f} nats")
        if bad >= config["optim"]["patience"]:
            raise BadNumbersError(
                f"{bad} steps in a row up to step {at} had a loss or gradient that is not finite; the network is as it "
                f"was before them, the newest checkpoint is of step {kept.latest()}"
            )

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
        with asked_to_stop(signal.SIGTERM) as asked, _profile(folder, config["log"]["profile"]) as profile:
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
                    why = "the time limit" if overtime else "SIGTERM"
                    raise StoppedError(f"stopped by {why} at step {at} of {total}, saved; the same command goes on")
            kept.wait()
    finally:
        progress.close()
        log.close()
        kept.close()
    if last == total:
        if parts.learning is not None:
            draw_channels(folder.pictures / "channels.png", job, state)
        _export(folder, job, state, config)
    return Outcome(folder, max(last, start), complete=last == total)


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


def _record_start(folder: RunDirectory, config: Mapping[str, Any], start: int) -> str | None:
    """Adds this start to run.json. Returns the W&B id of earlier starts, if any."""
    record = read_json(folder.starts) if folder.starts.is_file() else {"starts": []}
    packages = ("mi-contrast", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    record["starts"].append(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "from_step": start,
            "seed": config["seed"],
            "commit": commit(),
            "devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()],
            "processes": jax.process_count(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in packages},
        }
    )
    write_json(folder.starts, record)
    return record.get("wandb_id")


def _record_wandb(folder: RunDirectory, wandb_id: str | None) -> None:
    if wandb_id is not None:
        write_json(folder.starts, read_json(folder.starts) | {"wandb_id": wandb_id})


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout this package runs from, or None where it is not one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


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
