"""Stops and kills runs that two processes share, and compares each final export with that of an uninterrupted run:

  python -m tests.drills.processes [--only=NAME,...] [--folder=DIRECTORY]

All runs are started by launch/local.sh 2. Prints what each of them printed and ends with a table, as
tests.drills.faults does. Exits with 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.drills.faults import (
    ARGUMENTS,
    EVERY,
    STOP,
    Drill,
    Outcome,
    damage,
    expect,
    go_on,
    reached,
    same_export,
    table,
    truncate,
    wait_for,
)
from tests.training import small

MINUTE = 60.0  # seconds within which the other process must have ended
LAUNCHER = ["bash", "launch/local.sh", "2"]


def members(session: int) -> dict[str, int]:
    """Returns the process ids of a session: 'launcher', and '0', '1' for the processes of the job."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                index = next((word.removeprefix("--process=") for word in words if word.startswith("--process=")), None)
                found[index or ("launcher" if int(folder.name) == session else folder.name)] = int(folder.name)
    return found


class Together(Drill):
    """A folder with an uninterrupted run of two processes and one that was stopped half way.

    After the stop there are steps for some seconds, because JAX's runtime looks for a notice once a second.
    """

    steps = 120

    def command(self, workdir: Path, *more: str, steps: int | None = None, hook: Sequence[str] = ()) -> list[str]:
        """The command of a training run in two processes."""
        run = [f"--workdir={workdir}", f"--config.steps={steps or self.steps}", f"--config.checkpoint.every={EVERY}"]
        return [*LAUNCHER, *ARGUMENTS, *run, *more]

    def train(self, workdir: Path, *more: str, **options: object) -> tuple[int, str]:
        """Runs the job to its end; no process of it outlives this call."""
        started: list[int] = []
        meanwhile = options.pop("meanwhile", None)

        def watch(process: subprocess.Popen[bytes]) -> None:
            started.append(process.pid)
            if callable(meanwhile):
                meanwhile(process)

        try:
            code, text = super().train(workdir, *more, meanwhile=watch, **options)  # type: ignore[arg-type]
            left = members(started[0])
            assert not left, f"still running: {left}"
            return code, text
        finally:
            for pid in members(started[0]).values() if started else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def print_output(text: str) -> None:
    """Prints what a run printed, without the lines of its progress."""
    for line in text.splitlines():
        if not line.startswith("training "):
            print(f"    | {line[:200]}")


def stop_by(number: signal.Signals, whom: str, code: int, cause: str) -> Callable[[Together, Outcome], None]:
    """Sends a signal to the launcher, or to one of the processes: all save, one line, one exit code."""

    def fault(drill: Together, outcome: Outcome) -> None:
        workdir = drill.fresh(f"stop_{number.name}_{whom}")

        def stop(process: subprocess.Popen[bytes]) -> None:
            wait_for(process, lambda: reached(workdir) > STOP)
            os.kill(members(process.pid)[whom], number)

        found, text = drill.train(workdir, meanwhile=stop)
        print_output(text)
        expect(outcome, found, text, code, f"stopped by {cause} at step")
        if code:
            go_on(drill, outcome, workdir)
        else:  # the launcher has gone on by itself
            outcome.equal = same(drill, outcome, workdir)

    return fault


def same(drill: Together, outcome: Outcome, workdir: Path) -> bool:
    """Whether the export is that of the uninterrupted run."""
    equal = same_export(workdir, drill.root / "whole")
    if not equal:
        outcome.wrong.append("another export")
    return equal


def kill(whom: str) -> Callable[[Together, Outcome], None]:
    """Kill -9 of one process: the other ends within a minute, one line, exit 1."""

    def fault(drill: Together, outcome: Outcome) -> None:
        workdir, killed = drill.fresh(f"kill_{whom}"), []

        def stop(process: subprocess.Popen[bytes]) -> None:
            wait_for(process, lambda: reached(workdir) > STOP)
            os.kill(members(process.pid)[whom], signal.SIGKILL)
            killed.append(time.monotonic())

        code, text = drill.train(workdir, meanwhile=stop)
        seconds = time.monotonic() - killed[0]
        print_output(text)
        expect(outcome, code, text, 1, "run the same command to resume")
        if sum(line.startswith("mi_contrast:") for line in text.splitlines()) != 1:
            outcome.wrong.append("not one line")
        outcome.note = f"the other ended after {seconds:.0f} s"
        if seconds > MINUTE:
            outcome.wrong.append("it took more than a minute")
        go_on(drill, outcome, workdir)

    return fault


def time_limit(drill: Together, outcome: Outcome) -> None:
    """The time limit, by the first process's clock: all save; the launcher goes on until the run is through."""
    workdir = drill.fresh("time_limit")
    code, text = drill.train(workdir, "--config.checkpoint.time_limit=15")
    print_output(text)
    outcome.codes.append(code)
    lines = [line for line in text.splitlines() if line.startswith("mi_contrast:")]
    if code != 0 or not lines or any("stopped by the time limit" not in line for line in lines):
        outcome.wrong.append("not stopped by the time limit, or not gone on")
    if text.count("stopped after saving; going on") != len(lines):
        outcome.wrong.append("not one line for each stop")
    outcome.equal = same(drill, outcome, workdir)


def mistake(first: Sequence[str], second: Sequence[str], said: str) -> Callable[[Together, Outcome], None]:
    """A mistake that one process makes: one line, exit 2 for both, within a minute."""

    def fault(drill: Together, outcome: Outcome) -> None:
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log, jobs = drill.root / "mistake.txt", []
        log.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(small.ROOT), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
        try:
            for i, own in enumerate((first, second)):
                command = [sys.executable, "-m", "mi_contrast.main", *ARGUMENTS, "--config.steps=4", *own]
                if not any(word.startswith("--workdir") for word in own):
                    command.append(f"--workdir={drill.root / 'mistake'}")
                command += [f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={i}"]
                with open(log, "ab") as output:
                    jobs.append(
                        subprocess.Popen(command, cwd=small.ROOT, stdout=output, stderr=output, env=environment)
                    )
            for job in jobs:
                job.wait(300)
        finally:
            for job in jobs:
                job.kill()
                job.wait()
        text = log.read_text(errors="replace")
        print_output(text)
        expect(outcome, jobs[0].returncode, text, 2, said)
        outcome.codes.append(jobs[1].returncode)
        if jobs[1].returncode != 2:
            outcome.wrong.append(f"the second: exit {jobs[1].returncode}, not 2")

    return fault


def faults() -> dict[str, Callable[[Together, Outcome], None]]:
    """Every fault by name."""
    terminate, interrupt, hang_up = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    return {
        "SIGINT_launcher": stop_by(interrupt, "launcher", 130, "Ctrl-C"),
        "SIGINT_second": stop_by(interrupt, "1", 130, "Ctrl-C"),
        "SIGTERM_launcher": stop_by(terminate, "launcher", 75, "SIGTERM"),
        "SIGTERM_first": stop_by(terminate, "0", 0, "SIGTERM"),
        "SIGTERM_second": stop_by(terminate, "1", 0, "SIGTERM"),
        "SIGHUP_launcher": stop_by(hang_up, "launcher", 75, "SIGHUP"),
        "kill_first": kill("0"),
        "kill_second": kill("1"),
        "time_limit": time_limit,
        "truncated": damage(truncate),  # type: ignore[dict-item]
        "another_config": mistake([], ["--config.optim.lr=.5"], "process 1 has config.optim.lr"),
        "another_directory": mistake([], ["--workdir=/tmp/mi_contrast_elsewhere"], "another directory to process 1"),
        "wrong_field": mistake(["--config.optim.lrr=1"], ["--config.optim.lrr=1"], "did you mean 'lr'"),
        "missing_data": mistake([], ["--config.data.name=folder:/nowhere", "--config.data.options={}"], "/nowhere"),
    }


def main() -> int:
    """Runs the drill. Returns 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one fault, or several with commas: " + ", ".join(faults()))
    parser.add_argument("--folder", help="where the runs go; a temporary folder by default")
    given = parser.parse_args()
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:  # by a shell that starts the drill in the background
            signal.signal(number, handler)
    chosen, outcomes = faults(), []
    if given.only:
        chosen = {name: chosen[name] for name in given.only.split(",")}
    with tempfile.TemporaryDirectory() as temporary:
        drill = Together(Path(given.folder or temporary))
        drill.root.mkdir(parents=True, exist_ok=True)
        if not all((drill.root / name).is_dir() for name in ("whole", "stopped")):
            drill.prepare()
        for name, fault in chosen.items():
            outcome, began = Outcome(name), time.monotonic()
            print(name, flush=True)
            try:
                fault(drill, outcome)
            except Exception as error:
                outcome.wrong.append(f"{type(error).__name__}: {error}")
            outcomes.append(outcome)
            words = "NOT as it should be" if outcome.wrong else "as it should be"
            print(f"  {words}, {time.monotonic() - began:.0f} s", flush=True)
    print(table(outcomes))
    return int(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
