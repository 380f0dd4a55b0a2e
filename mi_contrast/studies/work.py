"""Checks the runs of a study, and trains and judges one run; both in processes of their own.

The study's own process therefore never takes hold of a device, and a run that fails doesn't end the study.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mi_contrast.core import processes
from mi_contrast.core.config import differences
from mi_contrast.core.errors import UserError, add_place, run_job, unknown
from mi_contrast.core.layout import RunDirectory, read_json, write_json
from mi_contrast.data.imageset import ImageSet
from mi_contrast.reporting.run import read_run
from mi_contrast.reporting.study_runs import find_result
from mi_contrast.studies.plan import StudyPlan, StudyRun, find_source, locate_source

GENERATOR_VIEWS = ("split", "mean", "std")  # fields of `views` that must be equal where a generator is shared
PREPROCESSING = ("size", "mean", "std")  # fields of `views` that prepare pixels for the network
# Fields of `data` and `model` that make no difference to an untrained network.
IRRELEVANT_TO_TWIN = ("shared", "partner", "twin", "crop")
CACHE = "compiled"  # folder of compiled programs, shared by the runs, if no other cache is set


def check_runs(plan: StudyPlan, runs: Sequence[StudyRun]) -> None:
    """Checks the configs of these runs, their data and the tasks in a new process. Raises UserError on a mistake."""
    if not runs:
        return
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_check_in_process, args=(runs, plan, sender, processes.count() > 1))
    process.start()
    sender.close()
    try:
        mistake = receiver.recv()
    except EOFError:  # the process failed by an error of ours, and has printed its traceback
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
    if mistake is not None:
        what, likely, fix = mistake
        raise UserError(what, nearest=likely, fix=fix)


def _check_in_process(runs: Sequence[StudyRun], plan: StudyPlan, sender: Connection, several: bool = False) -> None:
    """Sends (what, nearest, fix) of the first mistake, or None. `several`: whether the study has several processes."""
    import jax

    from mi_contrast.evaluation.tasks import TASKS

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if several:
        jax.config.update("jax_platforms", "cpu")  # it is alone, and must not wait for other hosts' accelerators
    shapes: dict[str, tuple[int, ...]] = {}
    labels: set[str] = set()
    try:
        for task in plan.tasks:
            if task["task"]["kind"] not in TASKS:
                raise unknown("task", task["task"]["kind"], TASKS)
        for run in runs:
            if run.label in labels:
                continue  # runs of one label differ only in the seed
            labels.add(run.label)
            try:
                _check_run(plan, run, shapes)
            except UserError as error:
                raise add_place(f"run {run.label!r}", error) from None
    except UserError as error:
        sender.send((error.what, error.nearest, error.fix))
    else:
        sender.send(None)


def _check_run(plan: StudyPlan, run: StudyRun, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError on a mistake in one run. `shapes` caches the image shape of every split that was opened."""
    from mi_contrast.evaluation.task_config import load_split, load_test_split, resolve_data
    from mi_contrast.training import assemble

    config = assemble.check(run.config)
    source = find_source(plan, run)
    # The run that this one starts from may not exist yet; `has_checkpoint` makes no attempt to load it.
    parts = assemble.make_parts(config, 0, assemble.make_mesh(), has_checkpoint=source is not None)
    if source is not None:
        source_views = [source.config["views"][name] for name in GENERATOR_VIEWS]
        if different := differences(source_views, [config["views"][name] for name in GENERATOR_VIEWS]):
            words = ", ".join(sorted({f"views.{GENERATOR_VIEWS[int(path.split('.')[0])]}" for path in different}))
            raise UserError(f"it starts from {source.label!r}, whose {words} are others",
                            fix="give both the same views.split and model.split, mean and std")  # fmt: skip

    def read_shape(load: Callable[..., ImageSet], *arguments: Any) -> tuple[int, ...]:
        key = json.dumps([load.__name__, *arguments], sort_keys=True)
        if key not in shapes:
            shapes[key] = load(*arguments).image_shape
        return shapes[key]

    task_data = [resolve_data(task["data"], config["data"]) for task in plan.tasks]
    training_shape = read_shape(load_split, config["data"], config["data"]["split"], config["data"]["size"])
    for data in task_data:
        read_shape(load_split, data, data["split"], config["views"]["size"])
        read_shape(load_test_split, data, config["views"]["size"])
    parts.augmentation.check_image_size(*training_shape[:2])


def start_process(run: StudyRun, plan: StudyPlan, root: Path) -> multiprocessing.process.BaseProcess:
    """Starts a new process that trains and judges a run, and prints to output.txt in the run's folder.

    Where several processes run the study, each starts one, and the new ones share the run.
    Its exit codes are those of every job. At SIGTERM, or when its parent process ends, it saves and exits with 75.
    """
    others = [root / other.folder for other in plan.runs if other.folder != run.folder]
    arguments = run, plan, root, others, processes.make_child_flags()
    process = multiprocessing.get_context("spawn").Process(target=_run_in_process, args=arguments)
    process.start()
    return process


def _run_in_process(
    run: StudyRun, plan: StudyPlan, root: Path, others: Sequence[Path], flags: Sequence[str] = ()
) -> None:
    def job(_: list[str]) -> None:
        processes.start(flags, polls_stops=True)
        train_and_judge(run, plan, root, others)

    with open(root / run.folder / "output.txt", "a", encoding="utf-8") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too, but the study decides on the stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run_job(job, []))


def _end_with_parent() -> None:
    """Sends this process SIGTERM when its parent process has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def train_and_judge(run: StudyRun, plan: StudyPlan, root: Path, others: Sequence[Path]) -> None:
    """Trains a run, or continues it, and judges it and its untrained twin by every task that has no result yet.

    If another run has the same untrained twin (network, data and seed), the twin's result is copied from there.

    Args:
      root: the study's folder.
      others: folders of the other runs.
    Raises what `mi_contrast.main.train` and `judge` raise.
    """
    import jax

    from mi_contrast.evaluation.judge import judge
    from mi_contrast.interchange import open_source
    from mi_contrast.main import train
    from mi_contrast.reporting.page import write_report

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str((root / CACHE).resolve()))
    source = find_source(plan, run)
    if source is not None and not (RunDirectory(root / source.folder).export / "manifest.json").is_file():
        raise UserError(f"{source.label!r}, seed {source.seed}, which this starts from, is not trained to its end",
                        fix="run that first: the study without --only, or with --retry")  # fmt: skip
    folder = train(locate_source(plan, run, root), root / run.folder, name=run.name, variant=run.variant)
    backbone = None
    for task, record in zip(plan.tasks, plan.record["tasks"], strict=True):
        for untrained in (False, True):
            is_done = find_result(read_run(folder), record, untrained) is not None
            with processes.together():
                if not is_done and untrained and processes.is_first():
                    is_done = copy_twin_result(folder, others, record)
            if processes.agree(is_done):
                continue
            backbone = backbone or open_source(folder)
            print(judge(task, backbone, untrained=untrained))
    with processes.together():
        if processes.is_first():
            write_report(folder)


def copy_twin_result(folder: Path, others: Sequence[Path], task: Mapping[str, Any]) -> bool:
    """Copies the result of the untrained twin from another run with the same twin. Returns False if no run has it."""
    identity = _identify_twin(read_json(RunDirectory(folder).config)["config"])
    for other in others:
        run = RunDirectory(other)
        if not run.config.is_file() or _identify_twin(read_json(run.config)["config"]) != identity:
            continue
        result = find_result(read_run(other), task, True)
        for path in run.results.glob("*.json") if result else ():
            if read_json(path) == result:
                write_json(RunDirectory(folder).results / path.name, result)
                return True
    return False


def _identify_twin(config: Mapping[str, Any]) -> str:
    """Returns, as JSON, all that an untrained twin depends on: network, seed, data and preprocessing."""
    network_and_data = [
        {name: value for name, value in config[section].items() if name not in IRRELEVANT_TO_TWIN}
        for section in ("model", "data")
    ]
    preprocessing = {name: config["views"].get(name) for name in PREPROCESSING}
    return json.dumps([*network_and_data, config["seed"], config.get("generator"), preprocessing], sort_keys=True)
