"""Trains small methods on one device, on eight virtual ones, and in two and four processes, and compares the runs:

  python -m tests.training.equality [--steps=5] [--layouts=eight,two,four] [--resume] [METHOD ...]

Every run is a whole run directory of the training job. Prints, for each method and layout, the largest differences
from one device: of the losses at the first step and over all, in nats; of the parameters in relative L2 norm; of the
measured nats and of kNN. Each stands beside what is allowed. With --resume it then stops runs half way and continues
them in the same layout (which must change no bit) and in another one. Exits with 1 if a difference is too large.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mi_contrast.core import checkpoint
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training.metrics import read
from tests import devices
from tests.training import small

METHODS = ("moco", "ring_moco", "ir", "ring_ir", "simclr", "cmc", "infomin", "infoaug")
STEPS = 5
FIRST, OVER = 1e-5, 2e-4  # of a loss, times max(1, its ceiling): at the first step, and over all
WEIGHTS, KNN = 1e-3, 0.005  # relative L2 norm of parameters; share of the queries


class Layout(NamedTuple):
    """How a run is spread: over processes of so many devices each."""

    processes: int
    devices: int

    def __str__(self) -> str:
        if self.processes > 1:
            return f"{self.processes} processes"
        return f"{self.devices} device{'s' if self.devices > 1 else ''}"


ONE, EIGHT, TWO, FOUR = Layout(1, 1), Layout(1, 8), Layout(2, 1), Layout(4, 1)
LAYOUTS = {"eight": EIGHT, "two": TWO, "four": FOUR}


class Work(NamedTuple):
    """A run to begin or to continue: the method, the run directory, and the step to stop after."""

    method: str
    workdir: str
    stop_at: int | None = None


def train(layout: Layout, work: Sequence[Work], steps: int = STEPS, timeout: float = 3600.0) -> None:
    """Does the work in new processes, one piece after another. Raises AssertionError with the output if it fails."""
    arguments = [sys.executable, "-m", "tests.training.equality", "--child", str(steps), json.dumps(work)]
    environment = devices.environment(layout.devices, TF_CPP_MIN_LOG_LEVEL="2", PYTHONPATH=str(small.ROOT))
    with socket.socket() as free, tempfile.TemporaryFile("w+") as output:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        jobs: list[subprocess.Popen[bytes]] = []
        try:
            for i in range(layout.processes):
                flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={layout.processes}", f"--process={i}"]
                jobs.append(
                    subprocess.Popen(arguments + flags, cwd=small.ROOT, stdout=output, stderr=output, env=environment)
                )
            codes = [job.wait(timeout) for job in jobs]
        finally:
            for job in jobs:
                job.kill()
                job.wait()
        output.seek(0)
        assert not any(codes), f"{layout}: exit codes {codes}\n{output.read()[-4000:]}"


def train_here(steps: int, work: Sequence[Sequence[str]], flags: list[str]) -> None:
    """Does the work in this process, which may be one of several."""
    from mi_contrast.core import processes
    from mi_contrast.training import loop
    from tests.training import rows, test_two_branches

    processes.start(flags, polls_stops=True)
    for method, workdir, stop_at in work:
        if method.startswith("infoaug"):
            pairs = Path(workdir).parents[1] / "pairs"
            with processes.together():
                if processes.is_first() and not pairs.is_dir():
                    test_two_branches.write_set(pairs)
            config = test_two_branches.of_pairs(method, pairs)
        else:
            config = rows.whole(method)
        config["steps"] = config["eval"]["every"] = steps
        config["optim"]["warmup"] = 0  # with it, five steps would hardly move the parameters
        config["checkpoint"]["keep"] = 9
        loop.run(config, workdir, stop_at=None if stop_at is None else int(stop_at))


class Numbers(NamedTuple):
    """What a run came to: its objectives and their ceilings by step, the last measures, and the final leaves."""

    objectives: dict[int, float]
    ceilings: dict[int, float]
    measures: dict[str, float]
    leaves: dict[str, np.ndarray]


def read_numbers(workdir: Path) -> Numbers:
    """Returns the numbers of a finished run."""
    rows = read(RunDirectory(workdir))
    steps = [row["step"] for row in rows if "objective" in row]
    assert steps == sorted(set(steps)), f"{workdir}: metrics repeat steps: {steps}"
    logged = {row["step"]: row for row in rows if "objective" in row}
    measured = [row for row in rows if "mi_nats" in row][-1]
    _, tree = checkpoint.read(RunDirectory(workdir).checkpoints)
    return Numbers(
        {step: row["objective"] for step, row in logged.items()},
        {step: row.get("objective_ceiling", 0.0) for step, row in logged.items()},
        {name: measured[name] for name in ("mi_nats", "knn_top1") if name in measured},
        {name: np.asarray(leaf) for name, leaf in checkpoint.flatten(tree).items()},
    )


def differences(one: Numbers, other: Numbers) -> dict[str, tuple[float, float]]:
    """Returns (difference, allowed) of the first loss, all losses, parameters, nats and kNN."""
    limit = max(1.0, *one.ceilings.values())
    apart = [abs(one.objectives[step] - other.objectives[step]) for step in one.objectives]
    names = [name for name in one.leaves if name.startswith("online.params")]
    squares = [(np.square(one.leaves[n] - other.leaves[n]).sum(), np.square(one.leaves[n]).sum()) for n in names]
    weights = math.sqrt(sum(float(a) for a, _ in squares) / sum(float(b) for _, b in squares))
    measures = {name: abs(one.measures[name] - other.measures[name]) for name in one.measures}
    found = {
        "first loss": (apart[0], FIRST * limit),
        "losses": (max(apart), OVER * limit),
        "parameters": (weights, WEIGHTS),
        "nats": (measures["mi_nats"], OVER * math.log(16)),
    }
    return found | ({"kNN": (measures["knn_top1"], KNN)} if "knn_top1" in measures else {})


def changed_leaves(a: Path, b: Path) -> list[str]:
    """Returns the leaves of two runs' newest checkpoints that differ in a bit."""
    one, other = read_numbers(a).leaves, read_numbers(b).leaves
    assert one.keys() == other.keys()
    return [name for name in one if one[name].tobytes() != other[name].tobytes()]


def compare(folder: Path, methods: Sequence[str], layouts: Sequence[Layout], steps: int) -> int:
    """Trains every method in every layout and prints the table. Returns the number of rows that are too far apart."""
    bad = 0
    for layout in (ONE, *layouts):
        train(layout, [Work(name, str(folder / str(layout) / name)) for name in methods], steps)
        for name in methods if layout is not ONE else ():
            one = read_numbers(folder / str(ONE) / name)
            bad += show(f"{name}, {layout}", differences(one, read_numbers(folder / str(layout) / name)))
    return bad


def show(what: str, found: dict[str, tuple[float, float]]) -> bool:
    """Prints a row. Returns whether a difference is larger than allowed, or not a number."""
    good = all(apart <= allowed for apart, allowed in found.values())
    cells = "  ".join(f"{name} {apart:.1e} of {allowed:.0e}" for name, (apart, allowed) in found.items())
    print(f"{what:24} {cells}{'' if good else '  TOO FAR APART'}", flush=True)
    return not good


def compare_resumed(folder: Path, method: str, steps: int) -> int:
    """Stops runs half way and continues them, in the same layout and in others. Returns how many went wrong."""
    half, bad = steps // 2, 0

    def run(begun: Layout, ended: Layout) -> Path:
        workdir = folder / f"{begun}, then {ended}"
        train(begun, [Work(method, str(workdir), half)], steps)
        train(ended, [Work(method, str(workdir))], steps)
        return workdir

    whole = folder / "whole"
    train(TWO, [Work(method, str(whole))], steps)
    changed = changed_leaves(whole, run(TWO, TWO))
    print(f"{method}, 2 processes, stopped and continued: {len(changed)} leaves differ in a bit", flush=True)
    bad += bool(changed)
    for begun, ended in ((TWO, ONE), (TWO, FOUR), (ONE, TWO), (FOUR, TWO)):
        workdir = run(begun, ended)
        found = differences(read_numbers(whole), read_numbers(workdir))
        bad += show(f"{method}, {workdir.name}", found)
    return bad


def main(arguments: list[str]) -> int:
    """The command; see above."""
    if arguments[0:1] == ["--child"]:
        train_here(int(arguments[1]), json.loads(arguments[2]), arguments[3:])
        return 0
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in arguments if word.startswith("--"))
    methods = [word for word in arguments if not word.startswith("--")] or list(METHODS)
    steps = int(flags.get("steps", STEPS))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.get("folder") or temporary)
        layouts = [LAYOUTS[word] for word in flags.get("layouts", ",".join(LAYOUTS)).split(",") if word]
        bad = compare(folder, methods, layouts, steps) if layouts else 0
        if "resume" in flags:
            bad += sum(compare_resumed(folder / "resumed" / name, name, max(steps, 6)) for name in methods)
    return int(bad > 0)


if __name__ == "__main__":
    from mi_contrast.core.errors import run_job

    if "--child" in sys.argv[1:2]:
        sys.exit(run_job(main))  # type: ignore[arg-type]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main(sys.argv[1:]))
