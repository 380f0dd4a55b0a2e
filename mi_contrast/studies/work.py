"""What a study does in processes of their own, so that it never takes hold of a device, and a run that fails fails
alone: looking its configs over, and training and judging one run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mi_contrast.core.config import differences
from mi_contrast.core.errors import UserError, run_job, unknown
from mi_contrast.core.layout import RunDirectory, read_json, write_json
from mi_contrast.reporting.run import read_run
from mi_contrast.reporting.study_runs import find_result
from mi_contrast.studies.plan import Plan, Start, placed, source_of

SPLITS = ("split", "test_split")
DIVIDE = ("split", "mean", "std")  # of a run's views, what a generator belongs to
PREPARED = ("size", "mean", "std")  # of a run's views, how pixels are prepared for its network
UNSEEN = ("shared", "partner", "twin")  # of a run's data and model, what a network at step 0 knows nothing of
CACHE = "compiled"  # in the study's folder: programs that its runs share, where no other cache is set


def look_over(plan: Plan, starts: Sequence[Start]) -> None:
    """UserError on the first mistake in these starts' configs, their data or the tasks; looked for in a new process."""
    if not starts:
        return
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_look, args=(starts, plan, there))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:  # an error of our own: its traceback was printed there
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
    if found is not None:
        what, likely, fix = found
        raise UserError(what, nearest=likely, fix=fix)


def _look(starts: Sequence[Start], plan: Plan, answer: Connection) -> None:
    from mi_contrast.evaluation.judge import chosen_data, load_split
    from mi_contrast.evaluation.tasks import TASKS
    from mi_contrast.training import assemble

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shapes: dict[str, tuple[int, ...]] = {}
    labels: set[str] = set()
    try:
        for task in plan.tasks:
            if task["task"]["kind"] not in TASKS:
                raise unknown("task", task["task"]["kind"], TASKS)
        for start in starts:
            if start.label in labels:
                continue  # seeds differ in nothing else
            labels.add(start.label)
            try:
                config = assemble.check(start.config)
                source = source_of(plan, start)
                parts = assemble.make_parts(config, 0, assemble.make_mesh(), begun=source is not None)
                if source is not None:  # it may not be there yet
                    theirs = [source.config["views"][name] for name in DIVIDE]
                    if different := differences(theirs, [config["views"][name] for name in DIVIDE]):
                        words = ", ".join(sorted({f"views.{DIVIDE[int(at.split('.')[0])]}" for at in different}))
                        raise UserError(f"it starts from {source.label!r}, whose {words} are others",
                                        fix="give both the same views.split and model.split, mean and std")  # fmt: skip
                judged = [chosen_data(task["data"], config["data"]) for task in plan.tasks]
                looked_at = [(data, data[split], config["views"]["size"]) for data in judged for split in SPLITS]
                own = config["data"], config["data"]["split"], config["data"]["size"]
                for each in (own, *looked_at):
                    if (key := json.dumps(each, sort_keys=True)) not in shapes:
                        shapes[key] = load_split(*each).image_shape
                parts.views.fit(*shapes[json.dumps(own, sort_keys=True)][:2])
            except UserError as error:
                raise UserError(f"run {start.label!r}: {error.what}", nearest=error.nearest, fix=error.fix) from None
    except UserError as error:
        answer.send((error.what, error.nearest, error.fix))
    else:
        answer.send(None)


def begin(start: Start, plan: Plan, root: Path) -> multiprocessing.process.BaseProcess:
    """Starts training and judging a run in a new process, which prints to output.txt in the run's folder.

    It exits as every job does; SIGTERM, or the end of the process that began it, makes it save and exit 75.
    """
    others = [root / other.folder for other in plan.starts if other.folder != start.folder]
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(start, plan, root, others))
    process.start()
    return process


def _work(start: Start, plan: Plan, root: Path, others: Sequence[Path]) -> None:
    run = root / start.folder
    with open(run / "output.txt", "a", encoding="utf-8") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the study's turns it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run_job(lambda _: train_and_judge(start, plan, root, others), []))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def train_and_judge(start: Start, plan: Plan, root: Path, others: Sequence[Path]) -> None:
    """Trains a run, or goes on with it, then judges it and its untrained twin by every task not yet judged.

    The twin's result is taken from another run of the same network, data and seed where there is one.
    Raises as `mi_contrast.main.train` and `judge` do.
    """
    import jax

    from mi_contrast.evaluation.judge import judge
    from mi_contrast.interchange import open_source
    from mi_contrast.main import train
    from mi_contrast.reporting.page import write_report

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str((root / CACHE).resolve()))
    source = source_of(plan, start)
    if source is not None and not (RunDirectory(root / source.folder).export / "manifest.json").is_file():
        raise UserError(f"{source.label!r}, seed {source.seed}, which this starts from, is not trained to its end",
                        fix="run that first: the study without --only, or with --retry")  # fmt: skip
    folder = train(placed(plan, start, root), root / start.folder, name=start.name, variant=start.variant)
    backbone = None
    for task, told in zip(plan.tasks, plan.told["tasks"], strict=True):
        for twin in (False, True):
            if find_result(read_run(folder), told, twin) is not None:
                continue
            if twin and borrow_twin(folder, others, told):
                continue
            backbone = backbone or open_source(folder)
            print(judge(task, backbone, twin=twin))
    write_report(folder)


def borrow_twin(folder: Path, others: Sequence[Path], task: Mapping[str, Any]) -> bool:
    """Lays the twin's result of another run of the same birth beside this run's; False where no other has it."""
    born = _birth(read_json(RunDirectory(folder).config)["config"])
    for other in others:
        run = RunDirectory(other)
        if not run.config.is_file() or _birth(read_json(run.config)["config"]) != born:
            continue
        found = find_result(read_run(other), task, True)
        for path in run.results.glob("*.json") if found else ():
            if read_json(path) == found:
                write_json(RunDirectory(folder).results / path.name, found)
                return True
    return False


def _birth(config: Mapping[str, Any]) -> str:
    """What an untrained twin depends on: network, seed, data, and how pixels are prepared."""
    seen = [{n: v for n, v in config[section].items() if n not in UNSEEN} for section in ("model", "data")]
    born = [*seen, config["seed"], config.get("generator")]
    return json.dumps([*born, {name: config["views"].get(name) for name in PREPARED}], sort_keys=True)
