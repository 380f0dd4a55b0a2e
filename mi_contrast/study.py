"""Trains and judges every setting of a study with every seed, and writes a table, a figure and a page:

  python -m mi_contrast.study --config=configs/studies/negatives.py[:variant] [--workdir=runs/study]
      [--config.data_dir=/data/tfds] [--config.steps=N] [--only=LABEL] [--list] [--retry] [--time_limit=SECONDS]

The same command continues a study that was stopped; on a finished study it says so. Each run is an ordinary run
directory, runs/<label>-seed<n>, trained and judged in a process of its own. A run that fails doesn't stop the others;
the table shows the reason. The study writes study.json, table.csv, table.json, table.md, figure.svg and study.html.

Exit codes are those of every job, and 1 if all runs have ended but some failed.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mi_contrast import tables
from mi_contrast.core import processes
from mi_contrast.core.config import parse
from mi_contrast.core.errors import STOPPED, UserError, run_job
from mi_contrast.core.layout import RunDirectory, check_mounted, hold_lock, hold_shared, write_json
from mi_contrast.core.progress import format_duration
from mi_contrast.core.stopping import SIGNALS, StopRequest, catch_stop_signals
from mi_contrast.reporting.run import read_rows
from mi_contrast.reporting.study_page import PAGE, write_study
from mi_contrast.reporting.study_runs import FAILED, STUDY, Study, list_failures, read_state, read_study
from mi_contrast.reporting.study_table import as_markdown
from mi_contrast.studies.plan import StudyPlan, StudyRun, make_plan, refuse_other_configs, select_runs
from mi_contrast.studies.work import check_runs, start_process

FLAGS = {
    "config=": "a study's config, configs/studies/negatives.py[:variant]; --config.a.b=v changes a field",
    "workdir=": "the study's folder; runs/<config>-<variant> by default",
    "only=": "run only the setting of this label, or those that a pattern matches: --only='ring*'",
    "list": "print the runs and how far each is, and stop; without a config, the table of studies",
    "retry": "try again the runs that failed",
    "time_limit=": "save and stop after this many seconds",
    **processes.FLAGS,
}
REPORT_EVERY = 20.0  # seconds between lines of progress


def run(
    plan: StudyPlan,
    workdir: str | Path,
    *,
    only: str | None = None,
    retry: bool = False,
    time_limit: float | None = None,
) -> Study:
    """Runs what the study's folder lacks of the plan, and writes tables, figure and page after each run.

    Args:
      plan: as `make_plan` returns it.
      workdir: the study's folder.
      only: a label or a pattern; the runs of other labels are skipped.
      retry: whether to try runs again that failed before.
      time_limit: seconds after which the study saves and stops.
    Raises:
      UserError on a mistake, before anything is run; StoppedError after SIGTERM, SIGHUP or the time limit, and
      KeyboardInterrupt after Ctrl-C, all runs saved.
    """
    check_mounted(str(workdir), "--workdir")
    root = Path(workdir)
    selected = select_runs(plan, only)
    refuse_other_configs(plan, root)
    skip = ("done",) if retry else ("done", "failed")
    todo = [run for run in selected if read_state(root / run.folder, plan.record["tasks"]).word not in skip]
    folders = processes.agree([run.folder for run in todo])
    todo = [run for run in selected if run.folder in folders]
    with processes.together():
        if processes.is_first():
            _check(plan, todo, root)
    with hold_shared(RunDirectory(root)), catch_stop_signals(*SIGNALS) as stop_request:
        write_json(root / STUDY, plan.record)
        others = {path.name for path in (root / "runs").glob("*/")} - {Path(r.folder).name for r in plan.runs}
        if others:
            print(f"not of this study, left as they are: {', '.join(sorted(others))}", file=sys.stderr)
        _write_tables(root)
        runner = _Runner(todo, root, stop_request, time_limit)
        for number, run_todo in enumerate(todo):
            failure = RunDirectory(root / run_todo.folder).root / FAILED
            failure.parent.mkdir(parents=True, exist_ok=True)
            if processes.is_first():
                failure.unlink(missing_ok=True)
            reason = runner.run_one(number, run_todo, plan)
            if reason is not None:
                write_json(failure, {"reason": reason})
                print(f"{run_todo.label}, seed {run_todo.seed} failed: {reason}", file=sys.stderr, flush=True)
            _write_tables(root)
        return _write_tables(root)


def _write_tables(root: Path) -> Study:
    """Writes tables, figure and page, the first of several processes does, and returns the study."""
    with processes.together():
        if processes.is_first():
            return write_study(root)
    return read_study(root)


def _check(plan: StudyPlan, todo: Sequence[StudyRun], root: Path) -> None:
    """Raises UserError if another process trains in one of the runs, or on a mistake in one of them."""
    for run_todo in todo:
        if (root / run_todo.folder).is_dir():
            with hold_lock(RunDirectory(root / run_todo.folder)):
                pass
    check_runs(plan, todo)


class _Runner:
    """Runs one run after another, each in a process of its own, and reports progress."""

    def __init__(self, todo: Sequence[StudyRun], root: Path, stop_request: StopRequest, time_limit: float | None):
        self.todo, self.root, self.stop_request, self.limit = todo, root, stop_request, time_limit
        self.start_time, self.overtime = time.monotonic(), False
        self.steps_before = sum(self.last_step(run) for run in todo)

    def last_step(self, run: StudyRun) -> int:
        """Returns the last step that the run has logged."""
        rows, _ = read_rows(RunDirectory(self.root / run.folder).metrics)
        return max((row["step"] for row in rows), default=0)

    def run_one(self, number: int, run: StudyRun, plan: StudyPlan) -> str | None:
        """Runs a run to its end. Returns why it failed, or None. Raises StoppedError if the study is to stop."""
        if self.must_stop():
            raise self.make_stop_error(f"before {run.label}, seed {run.seed}")
        output = self.root / run.folder / "output.txt"
        old_bytes = output.stat().st_size if output.is_file() else 0
        reported = time.monotonic()
        self.report_progress(number, run)
        process = start_process(run, plan, self.root)
        try:
            while process.is_alive():
                process.join(0.2)
                seconds = time.monotonic() - self.start_time
                if self.limit is not None and seconds > self.limit and not self.stop_request.is_set():
                    self.overtime = True
                    self.stop_request.set()
                if self.stop_request.is_set():
                    process.terminate()  # at SIGTERM the run saves
                    process.join()
                elif time.monotonic() - reported > REPORT_EVERY:
                    reported = time.monotonic()
                    self.report_progress(number, run)
        finally:
            if process.is_alive():
                process.kill()
        code = processes.agree(process.exitcode, _choose_code)
        if code == STOPPED or (self.must_stop() and code != 0):
            raise self.make_stop_error(f"in {run.label}, seed {run.seed}, saved")
        return None if code == 0 else _find_reason(output, old_bytes, code)

    def must_stop(self) -> bool:
        """Returns whether any process of the study was asked to stop."""
        return processes.agree(self.stop_request.is_set(), any)

    def make_stop_error(self, place: str) -> BaseException:
        """Writes the tables, and returns the error that says where the study stopped."""
        done = _count_done(_write_tables(self.root))
        cause = "the time limit" if self.overtime else self.stop_request.cause
        cause = processes.agree(cause, lambda causes: min(causes, key=lambda word: word == "a signal"))
        return self.stop_request.error(f"stopped by {cause} {place}; {done} are done; run the same command to resume")

    def report_progress(self, number: int, run: StudyRun) -> None:
        """Prints which run is running, its step, and the time that all runs need at the pace so far."""
        steps = {r.folder: self.last_step(r) for r in self.todo}
        done = sum(steps.values()) - self.steps_before
        left = sum(r.config["steps"] - steps[r.folder] for r in self.todo)
        passed = time.monotonic() - self.start_time
        eta = f"about {format_duration(passed / max(done, 1) * left)} left for all"
        if done == 0:  # the first steps compile, and nothing is logged yet
            eta = f"starting and compiling, {format_duration(passed)} so far"
        step = f"step {steps[run.folder]:,} of {run.config['steps']:,}"
        line = f"run {number + 1} of {len(self.todo)}: {run.label}, seed {run.seed}: {step}; {eta}"
        print(line, file=sys.stderr, flush=True)


def _choose_code(codes: list[int | None]) -> int | None:
    """Returns the exit code of a run that several processes shared: that of a failure before that of a death."""
    return next((code for code in codes if code is not None and code > 0), min(codes, key=lambda code: code or 0))


def _find_reason(output: Path, old_bytes: int, code: int | None) -> str:
    """Returns why a process failed, in a line, from its exit code and what it printed after `old_bytes`."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (was memory short?)" if -code == signal.SIGKILL else "")
    text = output.read_bytes()[old_bytes:].decode(errors="replace") if output.is_file() else ""
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    messages = [line.removeprefix("mi_contrast: ") for line in lines if line.startswith("mi_contrast: ")]
    return (messages or lines or [f"exit code {code}"])[-1].removeprefix("error: ")


def list_runs(plan: StudyPlan, root: Path, only: str | None = None) -> str:
    """Returns a line for each run: label, seed, number of steps, and how far it is."""
    rows = []
    for run in select_runs(plan, only):
        state = read_state(root / run.folder, plan.record["tasks"])
        rows.append((run.label, f"seed {run.seed}", f"{run.config['steps']:,} steps", str(state)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    aligned = ([cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def _count_done(study: Study) -> str:
    return f"{sum(state.word == 'done' for *_, state in study.runs)} of {len(study.runs)} runs"


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    processes.start(arguments)
    call = parse(arguments, FLAGS, usage=__doc__ or "", folder="studies")
    if call.config is None:
        if "list" in call.flags:
            print(tables.write_table("studies"))
            return
        raise UserError("no --config", fix="give --config=configs/studies/negatives.py, or --list")
    limit = call.flags.get("time_limit")
    if limit is not None and not limit.isdigit():
        raise UserError(f"--time_limit={limit} is not a number of seconds", fix="give a whole number")
    plan, only = make_plan(call.config, call.name or "study", call.variant), call.flags.get("only")
    root = Path(call.flags.get("workdir") or Path("runs") / "-".join(w for w in (call.name, call.variant) if w))
    if "list" in call.flags:
        print(list_runs(plan, root, only))
        return
    study = run(plan, root, only=only, retry="retry" in call.flags, time_limit=None if limit is None else int(limit))
    print(as_markdown(study))
    failed = list_failures(study)
    waiting = [state for *_, state in study.runs if state.word not in ("done", "failed")]
    end = " The study is through; --retry tries them again." if failed else " The study is finished."
    print(f"{_count_done(study)} are done, {len(failed)} failed.{'' if waiting else end}\nlook at {root / PAGE}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(run_job(main))
