"""Runs every setting of a study with every seed, judges each run, and lays them side by side:

  python -m mi_contrast.study --config=configs/studies/negatives.py[:variant] [--workdir=runs/study]
      [--config.data_dir=/data/tfds] [--config.steps=N] [--only=LABEL] [--list] [--retry] [--time_limit=SECONDS]

The same command goes on where the study was stopped; on a finished one it says so. Each run is an ordinary run
directory, runs/<label>-seed<n>, trained and judged in a process of its own: one that fails doesn't stop the rest, and
stays in the table with its reason. What it leaves: study.json, table.csv, table.json, table.md, figure.svg, study.html.

Exit codes: those of every job, and 1 where the study is through but runs failed.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mi_contrast.core.config import parse
from mi_contrast.core.errors import STOPPED, UserError, run_job
from mi_contrast.core.layout import RunDirectory, locked, write_json
from mi_contrast.core.progress import clock
from mi_contrast.core.stopping import SIGNALS, StopRequest, asked_to_stop
from mi_contrast.reporting.run import read_rows
from mi_contrast.reporting.study_page import PAGE, write_study
from mi_contrast.reporting.study_runs import FAILED, STUDY, Study, list_failures, read_state
from mi_contrast.reporting.study_table import as_markdown
from mi_contrast.studies.plan import Plan, Start, chosen_starts, refuse_others, settle
from mi_contrast.studies.work import begin, look_over

FLAGS = {
    "config=": "a study's config, configs/studies/negatives.py[:variant]; --config.a.b=v changes a field",
    "workdir=": "the study's folder; runs/<config>-<variant> by default",
    "only=": "run the setting of this label alone",
    "list": "print what would be run and what is done, and stop",
    "retry": "try again the runs that failed",
    "time_limit=": "stop after so many seconds, saved",
}
BETWEEN = 20.0  # seconds between lines of progress


def run(
    plan: Plan, workdir: str | Path, *, only: str | None = None, retry: bool = False, time_limit: float | None = None
) -> Study:
    """Runs what the plan has and the folder lacks; writes tables, figure and page after each run.

    Args:
      plan: as `settle` makes it.
      workdir: the study's folder.
      only: a label; other settings are left as they are.
      retry: try again what failed before.
      time_limit: seconds, after which to stop, saved.
    Raises UserError on a mistake, before anything is run; StoppedError after SIGTERM, SIGHUP or the time
      limit, and KeyboardInterrupt after Ctrl-C, each with all runs saved.
    """
    root = Path(workdir)
    chosen = chosen_starts(plan, only)
    refuse_others(plan, root)
    skip = ("done",) if retry else ("done", "failed")
    todo = [s for s in chosen if read_state(root / s.folder, plan.told["tasks"]).word not in skip]
    for start in todo:
        if (root / start.folder).is_dir():
            with locked(RunDirectory(root / start.folder)):
                pass  # no other process trains there
    look_over(plan, todo)
    with locked(RunDirectory(root)), asked_to_stop(*SIGNALS) as asked:
        write_json(root / STUDY, plan.told)
        left_out = {path.name for path in (root / "runs").glob("*/")} - {Path(s.folder).name for s in plan.starts}
        if left_out:
            print(f"not of this study, left as they are: {', '.join(sorted(left_out))}", file=sys.stderr)
        write_study(root)
        watch = _Watch(todo, root, asked, time_limit)
        for at, start in enumerate(todo):
            failed = RunDirectory(root / start.folder).root / FAILED
            failed.parent.mkdir(parents=True, exist_ok=True)
            failed.unlink(missing_ok=True)
            reason = watch.attend(at, start, plan)
            if reason is not None:
                write_json(failed, {"reason": reason})
                print(f"{start.label}, seed {start.seed} failed: {reason}", file=sys.stderr, flush=True)
            write_study(root)
        return write_study(root)


class _Watch:
    """Runs one start after another, each in a process of its own, and tells how far they are."""

    def __init__(self, todo: Sequence[Start], root: Path, asked: StopRequest, time_limit: float | None):
        self.todo, self.root, self.asked, self.limit = todo, root, asked, time_limit
        self.began, self.overtime = time.monotonic(), False
        self.before = sum(self.step(start) for start in todo)

    def step(self, start: Start) -> int:
        """The last step that the run has logged."""
        rows, _ = read_rows(RunDirectory(self.root / start.folder).metrics)
        return max((row["step"] for row in rows), default=0)

    def attend(self, at: int, start: Start, plan: Plan) -> str | None:
        """Runs a start to its end. Returns why it failed, or None. StoppedError where the study was asked to stop."""
        if self.asked.is_set():
            raise self.stopped(f"before {start.label}, seed {start.seed}")
        output = self.root / start.folder / "output.txt"
        read, shown = output.stat().st_size if output.is_file() else 0, time.monotonic()
        self.tell(at, start)
        process = begin(start, plan, self.root)
        try:
            while process.is_alive():
                process.join(0.2)
                if self.limit is not None and time.monotonic() - self.began > self.limit and not self.asked.is_set():
                    self.overtime = True
                    self.asked.set()
                if self.asked.is_set():
                    process.terminate()  # SIGTERM: it saves
                    process.join()
                elif time.monotonic() - shown > BETWEEN:
                    shown = time.monotonic()
                    self.tell(at, start)
        finally:
            if process.is_alive():
                process.kill()
        if process.exitcode == STOPPED or (self.asked.is_set() and process.exitcode != 0):
            raise self.stopped(f"in {start.label}, seed {start.seed}, saved")
        return None if process.exitcode == 0 else _reason(output, read, process.exitcode)

    def stopped(self, where: str) -> BaseException:
        """The error that says where the study stopped; the tables are written."""
        done = _done(write_study(self.root))
        cause = "the time limit" if self.overtime else self.asked.cause
        return self.asked.error(f"stopped by {cause} {where}; {done} are done; the same command goes on")

    def tell(self, at: int, start: Start) -> None:
        """A line: which run, how far, and how long all will take at this session's pace."""
        steps = {s.folder: self.step(s) for s in self.todo}
        done, left = sum(steps.values()) - self.before, sum(s.config["steps"] - steps[s.folder] for s in self.todo)
        seconds = (time.monotonic() - self.began) / max(done, 1) * left
        eta = f"about {clock(seconds)} left" if done > 0 else "time left not known"
        here = f"step {steps[start.folder]:,} of {start.config['steps']:,}"
        line = f"run {at + 1} of {len(self.todo)}: {start.label}, seed {start.seed}: {here}; {eta} for all"
        print(line, file=sys.stderr, flush=True)


def _reason(output: Path, read: int, code: int | None) -> str:
    """Why a process failed, in a line, from what it printed after so many bytes."""
    if code is not None and code < 0:
        killed = f"killed by {signal.Signals(-code).name}"
        return killed + (" (was memory short?)" if -code == signal.SIGKILL else "")
    text = output.read_bytes()[read:].decode(errors="replace") if output.is_file() else ""
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    said = [line.removeprefix("mi_contrast: ") for line in lines if line.startswith("mi_contrast: ")]
    return (said or lines or [f"exit code {code}"])[-1].removeprefix("error: ")


def listing(plan: Plan, root: Path, only: str | None = None) -> str:
    """What the study runs, a line a run: label, seed, steps, and how far it is."""
    rows = []
    for start in chosen_starts(plan, only):
        state = read_state(root / start.folder, plan.told["tasks"])
        rows.append((start.label, f"seed {start.seed}", f"{start.config['steps']:,} steps", str(state)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lined = ([cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in lined)


def _done(study: Study) -> str:
    return f"{sum(state.word == 'done' for *_, state in study.runs)} of {len(study.runs)} runs"


def main(arguments: list[str]) -> None:
    """The command line's job. See the module's text."""
    call = parse(arguments, FLAGS, usage=__doc__ or "")
    if call.config is None:
        raise UserError("no --config", fix="give --config=configs/studies/negatives.py")
    limit = call.flags.get("time_limit")
    if limit is not None and not limit.isdigit():
        raise UserError(f"--time_limit={limit} is not a number of seconds", fix="give a whole number")
    plan, only = settle(call.config, call.name or "study", call.variant), call.flags.get("only")
    root = Path(call.flags.get("workdir") or Path("runs") / "-".join(w for w in (call.name, call.variant) if w))
    if "list" in call.flags:
        print(listing(plan, root, only))
        return
    study = run(plan, root, only=only, retry="retry" in call.flags, time_limit=None if limit is None else int(limit))
    print(as_markdown(study))
    failed = list_failures(study)
    waiting = [state for *_, state in study.runs if state.word not in ("done", "failed")]
    finished = " The study is through; --retry tries them again." if failed else " The study is finished."
    print(f"{_done(study)} are done, {len(failed)} failed.{'' if waiting else finished}\nlook at {root / PAGE}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(run_job(main))
