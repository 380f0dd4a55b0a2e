"""The training job: a config and a folder in, a trained run directory out. The same call resumes it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast.core import checkpoint as checkpoints
from mi_contrast.core import legacy, mesh, processes
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory, check_mounted, hold_shared, read_json, remove_leftovers
from mi_contrast.core.mesh import take_local
from mi_contrast.core.progress import ProgressBar
from mi_contrast.core.stopping import SIGNALS, StopRequest, catch_stop_signals
from mi_contrast.core.user_cache import use_compile_cache
from mi_contrast.data.readers import Reader
from mi_contrast.interchange.export import write_export
from mi_contrast.training import assemble, first_start, weights
from mi_contrast.training.assemble import Job
from mi_contrast.training.forecast import describe_start
from mi_contrast.training.held_out_record import HeldOutRecord
from mi_contrast.training.metrics import Log, NoLog, cut_back
from mi_contrast.training.pictures import draw_channels, draw_pairs
from mi_contrast.training.starts import (
    check_allowed,
    check_same,
    claim_config,
    claim_data,
    commit,
    find_changes,
    record_start,
    record_wandb,
)
from mi_contrast.training.state import State, abstract, from_tree, placement, to_tree
from mi_contrast.training.trainer import Trainer


@dataclass(frozen=True)
class RunOutcome:
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
) -> RunOutcome:
    """Trains a config in `workdir`, resuming from the newest checkpoint there, and returns how it ended.

    Args:
      config: plain data.
      name, variant: of the config, for the record.
      stop_at: stop after this step and save; schedules stay those of the whole run.
      allow: sections of the config that may differ from the start before, such as 'optim'. They are recorded.
    Raises:
      UserError: a mistake; nothing on disk is lost.
      BadNumbersError: too many steps in a row were not finite.
      StoppedError: SIGTERM, SIGHUP or the time limit, after saving.
      KeyboardInterrupt: Ctrl-C, after saving; a second Ctrl-C raises it at once.
    """
    check_mounted(str(workdir), "--workdir")
    folder = RunDirectory(Path(workdir))
    use_compile_cache()
    allow = check_allowed(allow)
    if stop_at is not None and stop_at < 1:
        raise UserError(f"--stop_at={stop_at}", fix="give a step of 1 or more")
    config = legacy.complete(config)
    stored = read_json(folder.config) if folder.config.is_file() else None
    config = first_start.settle(config, None if stored is None else legacy.complete(stored["config"]))
    if stored is not None:
        config = legacy.adopt(stored, config)
    has_checkpoint = checkpoints.latest_step(folder.checkpoints) is not None
    recorded = read_json(folder.data) if has_checkpoint and folder.data.is_file() else None
    known = None if recorded is None else recorded.get("broken", ())
    # Every mistake in the config is found before anything is written.
    job = assemble.build(config, has_checkpoint, known)
    if not has_checkpoint:
        weights.check_weights(config)
    with hold_shared(folder):
        check_same(config, job.images.fingerprint, {"stop_at": stop_at, "allow": allow})
        if processes.is_first():
            remove_leftovers(folder)
        newest, total = processes.agree(checkpoints.latest_step(folder.checkpoints)), job.parts.total_steps
        has_export = (folder.export / "manifest.json").is_file()
        finished = processes.agree(newest is not None and newest >= total and has_export)
        if newest is not None and newest > total and not finished:
            raise UserError(
                f"steps is {total} and {folder.root} has reached step {newest}", fix=f"give steps of {newest} or more"
            )
        changes = find_changes(folder, config, allow)
        with processes.together():
            if processes.is_first():
                claim_config(folder, config, name, variant, allow, finished=finished)
                claim_data(folder, job.images, recorded, has_checkpoint, config["data"])
        if newest is not None and finished:
            return RunOutcome(folder, newest, complete=True)
        with job.open() as reader:
            return _train(folder, job, reader, config, stop_at, changes)


def _train(
    folder: RunDirectory,
    job: Job,
    reader: Reader,
    config: Mapping[str, Any],
    stop_at: int | None,
    changes: Mapping[str, Any],
) -> RunOutcome:
    """Restores or begins the run, trains to its end or to `stop_at`, and exports what is complete."""
    total = job.parts.total_steps
    last = total if stop_at is None else min(stop_at, total)
    saved = checkpoints.Checkpoints(folder.checkpoints, config["checkpoint"]["keep"])
    state, start = _restore_or_begin(saved, job, config)
    log: Log | NoLog = NoLog()
    with processes.together():
        if processes.is_first():
            cut_back(folder, start if start > 0 else -1)  # at step 0 nothing was saved, its numbers are written again
            log = Log(folder, config, record_start(folder, config, start, changes))
            record_wandb(folder, log.wandb_id)
    progress = ProgressBar("training", total, start=start, each=job.batch_size, compiles=True)
    for line in describe_start(state, config, last - start, len(job.train_ids), len(job.held_out_ids), folder.root):
        progress.say(line)
    record = HeldOutRecord(folder, job, progress.say) if processes.is_first() else None
    if record is not None:
        record.begin(start)
    trainer = Trainer(job, reader, config, saved, log, progress, state, start, last, record)
    try:
        with _catch_stops() as request, _profile(folder, config["log"]["profile"]) as profile:
            if start == 0:
                with processes.together():
                    if processes.is_first():
                        draw_pairs(folder.pictures / "pairs.png", job, take_local(state))
                trainer.measure(0)
            trainer.train(start, request, profile)
    except KeyboardInterrupt:
        saved.abandon()
        raise
    finally:
        progress.close()
        log.close()
        saved.close()
    if last == total:
        with processes.together():
            if processes.is_first():
                state = take_local(trainer.state)
                if job.parts.generator_training is not None:
                    draw_channels(folder.pictures / "channels.png", job, state)
                _export(folder, job, state, config)
    return RunOutcome(folder, max(last, start), complete=last == total)


def place(state: State, shardings: State) -> State:
    """Returns a copy of the state on the devices, committed and strongly typed.

    A fresh start and a resumed one then compile the same program, and no two leaves share memory that a step donates.

    Args:
      shardings: a prefix of the state, as `state.placement` returns it.
    """
    return jax.tree.map(
        lambda sharding, part: jax.tree.map(lambda leaf: _place_leaf(leaf, sharding), part),
        shardings,
        state,
        is_leaf=lambda x: isinstance(x, jax.sharding.Sharding),
    )


def _place_leaf(leaf: jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return jax.jit(jnp.copy, out_shardings=sharding)(leaf)  # parts of it are with other processes, and stay there
    return mesh.place(np.array(leaf), sharding)


@contextmanager
def _catch_stops() -> Iterator[StopRequest]:
    """Yields the request to stop. Of several processes, the one that is asked passes it on to the others.

    SIGTERM is then left to JAX's runtime, which is told of the other signals by it.
    """
    if processes.count() == 1:
        with catch_stop_signals(*SIGNALS) as request:
            yield request
        return
    signals = [number for number in SIGNALS if number != signal.SIGTERM]
    with catch_stop_signals(*signals, notify=processes.request_stop) as request:
        yield request


def _restore_or_begin(saved: checkpoints.Checkpoints, job: Job, config: Mapping[str, Any]) -> tuple[State, int]:
    """Returns the newest state in this folder, or the first one, placed over the mesh; and its step."""
    shardings = placement(job.parts.method, job.parts.mesh)
    if saved.latest() is None:
        state = place(job.first_state(), shardings)
        if config["checkpoint"]["start_from"] is not None:
            state = _start_from(state, Path(config["checkpoint"]["start_from"]), shardings, config["model"])
        return job.fill_banks(state), 0
    wanted = abstract(jax.eval_shape(job.first_state), shardings)
    step, tree = saved.restore(to_tree(wanted), legacy.RETIRED)
    print(f"resuming from step {step}, checkpoint {saved.directory / str(step)}")
    return from_tree(wanted, tree), step


def _start_from(state: State, path: Path, shardings: State, model: Mapping[str, Any]) -> State:
    """Returns the first state with the weights of a run, an export or a file. Raises UserError unless they match.

    Args:
      model: config.model, which a backbone must fit.
    """
    if weights.has_backbone(path):
        loaded, line = weights.load_backbone(state, model, path)
    else:
        loaded, line = weights.load_networks(state, path)
    print(line)
    return place(loaded, shardings)


def _export(folder: RunDirectory, job: Job, state: State, config: Mapping[str, Any]) -> None:
    representation = job.represent(state, config["export"]["weights"])
    write_export(folder.export, representation, config=dict(config), commit=commit(), step=int(state.step))


@contextmanager
def _profile(folder: RunDirectory, steps: tuple[int, int] | None) -> Iterator[Callable[[int], None]]:
    """Yields a function of the step that starts a profiler trace before the first of two steps and stops it before the
    second; it does nothing where `steps` is None.
    """
    tracing = False
    steps = steps if processes.is_first() else None

    def start_or_stop(step: int) -> None:
        nonlocal tracing
        if steps is not None and step == steps[0] and not tracing:
            jax.profiler.start_trace(str(folder.profile))
            tracing = True
        elif steps is not None and tracing and step >= steps[1]:
            jax.profiler.stop_trace()
            tracing = False

    try:
        yield start_or_stop
    finally:
        if tracing:
            jax.profiler.stop_trace()
