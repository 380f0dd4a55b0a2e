"""Injects faults into small training runs and compares each final export with that of an uninterrupted run:

  python -m tests.drills.faults [--small] [--only=NAME] [--folder=DIRECTORY]

Prints what each fault printed and ends with a table: exit codes, steps lost, whether the export is the same bit for
bit. Exits with 1 if anything was not as it should be. --small kills 3 times instead of 20. Faults of the disk need to
mount a tmpfs of a few MiB (root); where that can't be done they are left out and named.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mi_contrast.core import checkpoint
from mi_contrast.core.layout import RunDirectory, read_json
from mi_contrast.training.metrics import read
from tests.drills.hooks import fill
from tests.training import small

ARGUMENTS = [
    "--config=configs/ring_moco.py", f"--config.data.dir={small.DATA}", "--config.data.batch=32",
    "--config.data.options.length=2", "--config.model.width=8", "--config.eval.pairs=16", "--config.eval.knn_bank=64",
    "--config.eval.every=100000", "--config.log.every=1", "--config.log.tensorboard=False",
    "--config.method.pools.queue.size=100",
]  # fmt: skip
KNN = [
    "--config=configs/evaluate/knn.py", "--config.task.k=9", "--config.data.name=moving_digits",
    f"--config.data.dir={small.DATA}", "--config.data.options=dict(length=2)",
]  # fmt: skip
SHORT, STOP = 40, 20  # steps of a run for one fault, and where it is stopped before the fault
EVERY = 10  # steps between checkpoints
LONG = {False: 600, True: 200}  # steps of the run that is killed, and the kills
KILLS = {False: 20, True: 3}


@dataclass
class Outcome:
    """What one fault led to."""

    name: str
    codes: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    equal: bool | None = None
    wrong: list[str] = field(default_factory=list)
    note: str = ""


class Drill:
    """A folder with an uninterrupted short run and one that was stopped half way, which each fault begins from."""

    steps = SHORT

    def __init__(self, root: Path):
        self.root = root

    def prepare(self) -> None:
        """Trains both."""
        for name, more in (("whole", []), ("stopped", [f"--stop_at={STOP}"])):
            code, text = self.train(self.root / name, *more)
            assert code == 0, text

    def command(self, workdir: Path, *more: str, steps: int | None = None, hook: Sequence[str] = ()) -> list[str]:
        """The command of a training run."""
        job = ["mi_contrast.main"] if not hook else ["tests.drills.hooks", "main", *hook, "--"]
        job += ARGUMENTS
        return [
            sys.executable, "-m", *job, f"--workdir={workdir}", f"--config.steps={steps or self.steps}",
            f"--config.checkpoint.every={EVERY}", *more,
        ]  # fmt: skip

    def start(self, command: Sequence[str], log: Path, **env: str | None) -> subprocess.Popen[bytes]:
        """Starts a command in a process group of its own; its output goes to `log`."""
        environment = {**os.environ, "PYTHONPATH": str(small.ROOT), "JAX_PLATFORMS": "cpu"} | env
        environment = {name: value for name, value in environment.items() if value is not None}
        with open(log, "wb") as output:
            return subprocess.Popen(
                command,
                cwd=small.ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def train(
        self,
        workdir: Path,
        *more: str,
        steps: int | None = None,
        hook: Sequence[str] = (),
        before: Sequence[str] = (),
        meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None,
        **env: str | None,
    ) -> tuple[int, str]:
        """Runs the job to its end. Returns its exit code and what it printed."""
        return self.run([*before, *self.command(workdir, *more, steps=steps, hook=hook)], meanwhile, **env)

    def run(
        self,
        command: Sequence[str],
        meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None,
        **env: str | None,
    ) -> tuple[int, str]:
        """Runs a command to its end. Returns its exit code and what it printed."""
        log = self.root / "log.txt"
        process = self.start(command, log, **env)
        try:
            if meanwhile is not None:
                meanwhile(process)
            process.wait(600)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        text = log.read_text(errors="replace")
        return process.returncode, text

    def fresh(self, name: str, where: Path | None = None) -> Path:
        """A copy of the stopped run."""
        workdir = (where or self.root) / name
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(self.root / "stopped", workdir)
        return workdir


def reached(workdir: Path) -> int:
    """The last step that a run has logged."""
    return max((row["step"] for row in read(RunDirectory(workdir))), default=0)


def restored(text: str) -> int:
    """The step that a start went on from, from what it printed."""
    for line in text.splitlines():
        if line.startswith("resuming from step "):
            return int(line.split()[3].rstrip(","))
    return 0


def same_export(a: Path, b: Path) -> bool:
    """Whether two exports hold the same weights bit for bit."""
    files = [RunDirectory(path).export / "backbone.safetensors" for path in (a, b)]
    return all(file.is_file() for file in files) and files[0].read_bytes() == files[1].read_bytes()


def leftovers(workdir: Path) -> list[str]:
    """Temporary files and folders in a run directory."""
    return [
        str(p.relative_to(workdir))
        for p in workdir.rglob("*")
        if p.name.startswith(".") or checkpoint.UNFINISHED in p.name
    ]


def last_line(text: str) -> str:
    """The job's own last line, or the last one printed."""
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("mi_contrast:")]
    return (said or lines or [""])[-1]


def expect(outcome: Outcome, code: int, text: str, wanted: int, said: str = "") -> None:
    """Notes an exit code and what was printed, and what of it is wrong."""
    outcome.codes.append(code)
    print(f"  exit {code}: {last_line(text)[:240]}")
    if code != wanted:
        outcome.wrong.append(f"exit {code}, not {wanted}")
    if "Traceback" in text:
        outcome.wrong.append("a traceback")
        print(text[-3000:])
    if said and said not in text:
        outcome.wrong.append(f"nothing about {said!r}")
        print(text[-1500:])
    if wanted in (2, 3, 75, 130) and sum(line.startswith("mi_contrast:") for line in text.splitlines()) != 1:
        outcome.wrong.append("not one line")


def go_on(
    drill: Drill, outcome: Outcome, workdir: Path, *more: str, said: str = "", before_reached: int | None = None
) -> None:
    """Gives the same command again, and compares the export with that of the uninterrupted run."""
    at = reached(workdir) if before_reached is None else before_reached
    code, text = drill.train(workdir, *more)
    expect(outcome, code, text, 0, said)
    outcome.lost.append(max(at - restored(text), 0))
    outcome.equal = same_export(workdir, drill.root / "whole")
    if not outcome.equal:
        outcome.wrong.append("another export")
    steps = [row["step"] for row in read(RunDirectory(workdir)) if "objective" in row]
    if steps != list(range(1, drill.steps + 1)) and not any("log.every" in word for word in more):
        outcome.wrong.append("metrics.jsonl lacks or repeats steps")
    if left := leftovers(workdir):
        outcome.wrong.append(f"left behind: {', '.join(left)}")


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], bool], seconds: float = 240.0) -> None:
    """Returns when the condition holds or the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and not condition() and time.monotonic() < end:
        time.sleep(0.002)


# --- faults ---------------------------------------------------------------------------------------------------------


def kills(drill: Drill, outcome: Outcome, *, few: bool) -> None:
    """Kill -9 at random moments, every third of them while a checkpoint is being written."""
    steps, count, draw = LONG[few], KILLS[few], random.Random(0)
    whole, workdir = drill.root / "kills_whole", drill.root / "kills"
    code, text = drill.train(whole, steps=steps)
    expect(outcome, code, text, 0)
    run, during, later = RunDirectory(workdir), 0, []
    aim = steps / (count + 1)  # so that the kills are spread over the run

    def kill(process: subprocess.Popen[bytes]) -> None:
        nonlocal during
        begun = reached(workdir)
        wait_for(process, lambda: reached(workdir) >= begun + draw.uniform(1, aim))
        if number % 3 == 0:
            wait_for(process, lambda: any(checkpoint.UNFINISHED in p.name for p in run.checkpoints.glob("*")), 60)
        else:
            time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.wait()
        during += any(checkpoint.UNFINISHED in p.name for p in run.checkpoints.glob("*"))

    for number in range(count):
        before = reached(workdir)
        code, text = drill.train(workdir, steps=steps, meanwhile=kill)
        if number:
            later.append(max(before - restored(text), 0))
        if "Traceback" in text or code not in (0, -signal.SIGKILL):
            outcome.wrong.append(f"start {number}: exit {code}")
            print(text[-2000:])
        newest = checkpoint.latest_step(run.checkpoints)
        print(f"  kill {number + 1}: at step {reached(workdir)}, newest checkpoint {newest}")
        if code == 0:
            outcome.wrong.append(f"the run ended before kill {number + 1}")
            break
    before = reached(workdir)
    code, text = drill.train(workdir, steps=steps)
    expect(outcome, code, text, 0)
    outcome.lost = [*later, max(before - restored(text), 0)]
    outcome.equal = same_export(workdir, whole)
    outcome.note = f"{count} kills, {during} during a save"
    if not outcome.equal:
        outcome.wrong.append("another export")
    logged = [row["step"] for row in read(run)]
    if logged.count(0) != 1 or [s for s in logged if s][:steps] != list(range(1, steps + 1)):
        outcome.wrong.append("metrics.jsonl lacks or repeats steps")
    if left := leftovers(workdir):
        outcome.wrong.append(f"left behind: {', '.join(left)}")
    if not few and during < 5:
        outcome.wrong.append("fewer than 5 kills during a save")


def stop_by(number: signal.Signals, code: int, cause: str) -> Callable[[Drill, Outcome], None]:
    """A signal half way: saved, one line, its exit code."""

    def fault(drill: Drill, outcome: Outcome) -> None:
        workdir = drill.fresh(f"stop_{number.name}")

        def stop(process: subprocess.Popen[bytes]) -> None:
            wait_for(process, lambda: reached(workdir) > STOP)
            process.send_signal(number)

        found, text = drill.train(workdir, meanwhile=stop)
        expect(outcome, found, text, code, f"stopped by {cause} at step")
        go_on(drill, outcome, workdir)

    return fault


def ctrl_c_twice(drill: Drill, outcome: Outcome) -> None:
    """Ctrl-C twice: stops at once, what was saved before is whole."""
    workdir = drill.fresh("twice")

    def stop(process: subprocess.Popen[bytes]) -> None:
        wait_for(process, lambda: "resuming from step" in (drill.root / "log.txt").read_text(errors="replace"))
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)

    code, text = drill.train(workdir, meanwhile=stop)
    expect(outcome, code, text, 130, "Ctrl-C")
    go_on(drill, outcome, workdir)


def ctrl_c_early(drill: Drill, outcome: Outcome) -> None:
    """Ctrl-C while the job is still starting."""
    workdir = drill.fresh("early")

    def stop(process: subprocess.Popen[bytes]) -> None:
        wait_for(process, lambda: (workdir / "lock").stat().st_mtime > time.time() - 1, 60)
        process.send_signal(signal.SIGINT)

    os.utime(workdir / "lock", (0, 0))
    code, text = drill.train(workdir, meanwhile=stop)
    expect(outcome, code, text, 130, "Ctrl-C")
    go_on(drill, outcome, workdir)


def data_files(workdir: Path) -> list[Path]:
    """Data files of the newest checkpoint, largest first."""
    newest = RunDirectory(workdir).checkpoints / str(checkpoint.latest_step(RunDirectory(workdir).checkpoints))
    return sorted(newest.rglob("d/*"), key=lambda p: -p.stat().st_size)


def truncate(workdir: Path) -> None:
    for file in data_files(workdir):
        os.truncate(file, file.stat().st_size // 2)


def flip(workdir: Path) -> None:
    file = data_files(workdir)[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def lose(part: str) -> Callable[[Path], None]:
    def lose_part(workdir: Path) -> None:
        newest = RunDirectory(workdir).checkpoints / str(checkpoint.latest_step(RunDirectory(workdir).checkpoints))
        shutil.rmtree(newest / part) if (newest / part).is_dir() else (newest / part).unlink()

    return lose_part


def damage(how: Callable[[Path], None]) -> Callable[[Drill, Outcome], None]:
    """A damaged newest checkpoint: set aside, the one before is taken, the export is the same."""

    def fault(drill: Drill, outcome: Outcome) -> None:
        workdir = drill.fresh("damaged")
        how(workdir)
        go_on(drill, outcome, workdir, said=f"checkpoint of step {STOP} is damaged")
        if not (RunDirectory(workdir).checkpoints / f"{STOP}.damaged").is_dir():
            outcome.wrong.append("the damaged one is not kept aside")

    return fault


def none_whole(drill: Drill, outcome: Outcome) -> None:
    """All checkpoints damaged: refused, nothing is touched; with one of them restored it goes on."""
    workdir = drill.fresh("none_whole")
    folder = RunDirectory(workdir).checkpoints
    for step in checkpoint.all_steps(folder):
        (folder / str(step) / "state" / "manifest.ocdbt").unlink()
    code, text = drill.train(workdir)
    expect(outcome, code, text, 2, "no checkpoint is whole")
    shutil.rmtree(folder)
    shutil.copytree(RunDirectory(drill.root / "stopped").checkpoints, folder)
    go_on(drill, outcome, workdir)


@contextmanager
def mounted(drill: Drill, size: str) -> Iterator[Path]:
    """A small file system of its own."""
    folder = drill.root / "disk"
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        for _ in range(20):
            if subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.2)


def full_at(
    pattern: str, said: str, *more: str, prepare: Callable[[Path], None] | None = None, new: bool = False
) -> Callable[[Drill, Outcome], None]:
    """The disk is full from the moment at which a path that matches is opened for writing.

    Args:
      prepare: changes the stopped run before it goes on.
      new: whether the run begins there, and does not go on.
    """

    def fault(drill: Drill, outcome: Outcome) -> None:
        with mounted(drill, "12m") as disk:
            workdir = disk / "run" if new else drill.fresh("run", disk)
            if prepare is not None:
                prepare(workdir)
            filler = disk / "filler"
            code, text = drill.train(workdir, *more, hook=("fill", pattern, str(filler)))
            expect(outcome, code, text, 2, "No space left on device")
            if not filler.is_file():
                outcome.wrong.append("the disk was not filled")
            if said not in last_line(text):
                outcome.wrong.append(f"the line doesn't name {said}")
            if left := leftovers(workdir):
                outcome.wrong.append(f"left behind: {', '.join(left)}")
            for step in checkpoint.all_steps(RunDirectory(workdir).checkpoints):
                checkpoint.read(RunDirectory(workdir).checkpoints, step)
            filler.unlink(missing_ok=True)
            go_on(drill, outcome, workdir, *more)

    return fault


def add_bad_line(workdir: Path) -> None:
    """Adds a line that is no row, which the next start moves to metrics.jsonl.bad."""
    with RunDirectory(workdir).metrics.open("ab") as file:
        file.write(b'{"step": 5, "obj\xff\n')


def full_in(job: str, pattern: str, said: str, *arguments: str) -> Callable[[Drill, Outcome], None]:
    """The disk is full while another job works on the finished run; with space it does its work."""

    def fault(drill: Drill, outcome: Outcome) -> None:
        with mounted(drill, "12m") as disk:
            filler, backbone = disk / "filler", RunDirectory(drill.root / "whole").export
            shared = [f"--backbone={backbone}", f"--workdir={disk / 'out'}", *arguments]
            hook = ["tests.drills.hooks", job, "fill", pattern, str(filler), "--"]
            code, text = drill.run([sys.executable, "-m", *hook, *shared])
            expect(outcome, code, text, 2, "No space left on device")
            if not filler.is_file():
                outcome.wrong.append("the disk was not filled")
            if said not in last_line(text):
                outcome.wrong.append(f"the line doesn't name {said}")
            if left := leftovers(disk):
                outcome.wrong.append(f"left behind: {', '.join(left)}")
            filler.unlink(missing_ok=True)
            code, text = drill.run([sys.executable, "-m", f"mi_contrast.{job}", *shared])
            expect(outcome, code, text, 0)

    return fault


def full_at_digits(drill: Drill, outcome: Outcome) -> None:
    """The disk is full while moving_digits is made: one line, nothing half made; with space it is made."""
    with mounted(drill, "24m") as disk:
        filler, data = disk / "filler", f"--config.data.dir={disk / 'data'}"
        workdir = drill.root / "digits"
        shutil.rmtree(workdir, ignore_errors=True)
        code, text = drill.train(workdir, data, hook=("fill", r"/data/moving_digits/.*incomplete", str(filler)))
        expect(outcome, code, text, 2, "No space left on device")
        if not filler.is_file():
            outcome.wrong.append("the disk was not filled")
        if half_made := [p.name for p in (disk / "data").rglob("*") if "incomplete" in p.name or "record" in p.name]:
            outcome.wrong.append(f"left behind: {', '.join(half_made)}")
        filler.unlink(missing_ok=True)
        go_on(drill, outcome, workdir, data, before_reached=0)


def full_before(drill: Drill, outcome: Outcome) -> None:
    """The disk is full before the job starts."""
    with mounted(drill, "12m") as disk:
        workdir = drill.fresh("run", disk)
        fill(str(disk / "filler"))
        code, text = drill.train(workdir)
        expect(outcome, code, text, 2, "No space left on device")
        (disk / "filler").unlink()
        go_on(drill, outcome, workdir)


def read_only(drill: Drill, outcome: Outcome) -> None:
    """The run directory becomes read-only half way, for a process without root's way around permissions."""
    workdir = drill.fresh("read_only")
    folders = [workdir, RunDirectory(workdir).checkpoints]
    plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]

    def close(process: subprocess.Popen[bytes]) -> None:
        wait_for(process, lambda: reached(workdir) > STOP)
        for folder in folders:
            folder.chmod(0o555)

    try:
        code, text = drill.train(workdir, before=plain if os.geteuid() == 0 else [], meanwhile=close)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    expect(outcome, code, text, 2, "Permission denied")
    go_on(drill, outcome, workdir)


def bad_numbers(drill: Drill, outcome: Outcome) -> None:
    """Numbers that go bad: exit 3, again exit 3, then another rate by --allow=optim."""
    workdir = drill.fresh("bad_numbers")
    bad = ["--allow=optim", "--config.optim.lr=1e30", "--config.optim.patience=3"]
    for _ in range(2):
        code, text = drill.train(workdir, *bad)
        expect(outcome, code, text, 3, "--allow=optim")
    code, text = drill.train(workdir)
    expect(outcome, code, text, 2, "optim.lr")
    go_on(drill, outcome, workdir, "--allow=optim", before_reached=STOP)
    last = read_json(RunDirectory(workdir).starts)["starts"][-1]
    if "optim.patience" not in last.get("allowed", {}):
        outcome.wrong.append("run.json does not say what was allowed")


def nan_data(drill: Drill, outcome: Outcome) -> None:
    """Data that are NaN from a step on: exit 3, twice; with whole data the same command ends as if nothing had been."""
    workdir, bad = drill.fresh("nan_data"), ["--allow=optim", "--config.optim.patience=3"]
    hook = ("nan_data", str(STOP + 3), str(SHORT))
    for _ in range(2):
        code, text = drill.train(workdir, *bad, hook=hook)
        expect(outcome, code, text, 3, "look for bad values in the data")
    if reached(workdir) != STOP + 5:
        outcome.wrong.append(f"stopped at step {reached(workdir)}, not {STOP + 5}")
    go_on(drill, outcome, workdir, "--allow=optim", before_reached=STOP)


def nan_batch(drill: Drill, outcome: Outcome) -> None:
    """Two batches that are NaN: their steps change nothing and the run goes on to its end."""
    workdir = drill.fresh("nan_batch")
    code, text = drill.train(workdir, hook=("nan_data", str(STOP + 3), str(STOP + 4)))
    expect(outcome, code, text, 0)
    bad = {row["step"]: row["bad_steps"] for row in read(RunDirectory(workdir)) if "bad_steps" in row}
    if {step for step, count in bad.items() if count} != {STOP + 3, STOP + 4}:
        outcome.wrong.append("the log does not count the two steps")
    outcome.equal = same_export(workdir, drill.root / "whole")
    if outcome.equal or not RunDirectory(workdir).export.is_dir():
        outcome.wrong.append("the export is that of a run without bad steps, or none")


def broken_record(drill: Drill, outcome: Outcome) -> None:
    """run.json is broken and a line of metrics.jsonl is unreadable."""
    workdir = drill.fresh("broken_record")
    RunDirectory(workdir).starts.write_text("{")
    lines = RunDirectory(workdir).metrics.read_bytes().splitlines()
    kept, rows = len(lines), read(RunDirectory(workdir))
    RunDirectory(workdir).metrics.write_bytes(b"\n".join([*lines[:10], b'{"step": 5, "obj\xff', *lines[10:]]) + b"\n")
    go_on(drill, outcome, workdir, said="moved to metrics.jsonl.bad")
    if read(RunDirectory(workdir))[:kept] != rows or not (workdir / "run.json.broken").is_file():
        outcome.wrong.append("rows or the record were lost")


def changed(name: str, said: str = "", hook: Sequence[str] = (), **env: str | None) -> Callable[[Drill, Outcome], None]:
    """Another environment, with no fault of the run's own: it goes on and the export is the same."""

    def fault(drill: Drill, outcome: Outcome) -> None:
        workdir = drill.fresh(name)
        at = reached(workdir)
        code, text = drill.train(workdir, hook=hook, **env)
        expect(outcome, code, text, 0, said)
        outcome.lost.append(at - restored(text))
        outcome.equal = same_export(workdir, drill.root / "whole")
        if not outcome.equal:
            outcome.wrong.append("another export")

    return fault


def faults() -> dict[str, Callable[[Drill, Outcome], None]]:
    """Every fault but the kills, by name."""
    return {
        "SIGTERM": stop_by(signal.SIGTERM, 75, "SIGTERM"),
        "SIGINT": stop_by(signal.SIGINT, 130, "Ctrl-C"),
        "SIGHUP": stop_by(signal.SIGHUP, 75, "SIGHUP"),
        "SIGINT_twice": ctrl_c_twice,
        "SIGINT_early": ctrl_c_early,
        "truncated": damage(truncate),
        "flipped": damage(flip),
        "no_state": damage(lose("state")),
        "no_meta": damage(lose("meta")),
        "no_manifest": damage(lose("state/manifest.ocdbt")),
        "no_leaf_metadata": damage(lose("state/_METADATA")),
        "none_whole": none_whole,
        "full_before": full_before,
        "full_at_data": full_at(r"/\.data\.json\.\d+$", "data.json", new=True),
        "full_at_pictures": full_at(r"/pictures/\..+\.png\.\d+$", "pictures", new=True),
        "full_at_bad_lines": full_at(r"/\.metrics\.jsonl\.bad\.\d+$", "metrics.jsonl.bad", prepare=add_bad_line),
        "full_at_config": full_at(r"/\.config\.json\.\d+$", "config.json"),
        "full_at_record": full_at(r"/\.run\.json\.\d+$", "run.json"),
        "full_at_cut_back": full_at(r"/\.metrics\.jsonl\.\d+$", "metrics.jsonl"),
        "full_at_row": full_at(r"/metrics\.jsonl$", "metrics.jsonl"),
        "full_at_tensorboard": full_at(r"/tb/events", "tb", "--config.log.tensorboard=True"),
        "full_at_checkpoint": full_at(r"/30\.orbax-checkpoint-tmp", "checkpoints", "--config.log.every=100"),
        "full_at_export": full_at(r"/\.export\.new\.\d+", "export"),
        "full_at_report": full_at(r"/\.report\.html\.\d+$", "report.html"),
        "full_at_features": full_in("evaluate", r"/features/\.", "features", *KNN),
        "full_at_result": full_in("evaluate", r"/results/\.", "results", *KNN),
        "full_at_formats": full_in("export", r"/\.native\.new\.\d+", "native", "--format=native"),
        "full_at_digits": full_at_digits,
        "read_only": read_only,
        "bad_numbers": bad_numbers,
        "nan_data": nan_data,
        "nan_batch": nan_batch,
        "broken_record": broken_record,
        "no_flock": changed("no_flock", "can't be locked", hook=("no_flock",)),
        "LC_ALL": changed("lc_all", LC_ALL="C", LANG=None, PYTHONUTF8=None),
        "no_HOME": changed("no_home", HOME=None),
        "no_cache": changed("no_cache", JAX_COMPILATION_CACHE_DIR="/proc/nowhere"),
    }


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], capture_output=True, check=False)
        return True


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table."""
    rows = [("fault", "exit codes", "steps lost", "export equal", "as it should be", "")]
    for o in outcomes:
        lost = ",".join(map(str, o.lost)) if len(o.lost) < 4 else f"{min(o.lost)} to {max(o.lost)}"
        equal = {True: "yes", False: "NO", None: "-"}[o.equal]
        rows.append(
            (
                o.name,
                ",".join(map(str, o.codes)),
                lost,
                equal,
                "NO" if o.wrong else "yes",
                "; ".join([o.note, *o.wrong]).strip("; "),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]).rstrip() for row in rows
    )


def main() -> int:
    """Runs the drill. Returns 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="3 kills instead of 20")
    parser.add_argument("--only", help="one fault, or several with commas: kills, " + ", ".join(faults()))
    parser.add_argument("--folder", help="where the runs go; a temporary folder by default")
    given = parser.parse_args()
    chosen = {"kills": lambda d, o: kills(d, o, few=given.small), **faults()}
    if given.only:
        unknown = set(given.only.split(",")) - set(chosen)
        if unknown:
            parser.error(f"unknown fault {', '.join(sorted(unknown))}")
        chosen = {name: chosen[name] for name in given.only.split(",")}
    mounts, outcomes, left_out = can_mount(), [], []
    with tempfile.TemporaryDirectory() as temporary:
        drill = Drill(Path(given.folder or temporary))
        drill.root.mkdir(parents=True, exist_ok=True)
        if set(chosen) - {"kills"}:
            drill.prepare()
        for name, fault in chosen.items():
            if name.startswith("full") and not mounts:
                left_out.append(name)
                continue
            outcome, began = Outcome(name), time.monotonic()
            print(f"{name}", flush=True)
            try:
                fault(drill, outcome)
            except Exception as error:
                outcome.wrong.append(f"{type(error).__name__}: {error}")
            outcomes.append(outcome)
            print(
                f"  {'NOT as it should be' if outcome.wrong else 'as it should be'}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    print(table(outcomes))
    if left_out:
        print(f"left out, for no file system can be mounted here: {', '.join(left_out)}")
    return int(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
