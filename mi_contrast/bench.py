"""Times a case beside its peer, interleaved in one run, and prints and writes what it saw:

  python -m mi_contrast.bench [--case=NAME|all] [--repeats=7] [--out=bench/]

A ratio is of medians; every figure comes with its least and largest, since absolute times are this machine's today.
coverage counts how often the interval of an estimate holds the truth, and goes on where it was stopped.
mi_tasks asks of estimates how near the truth they are, and draws it: bench/mi_tasks.svg.
peer races lightly's MoCo on CIFAR-10; accelerator takes up to eight minutes of a GPU or TPU. Among all
cases, one that cannot run here is named, and the others go on.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job, unknown
from mi_contrast.core.layout import write_json, write_text

CASES = (
    "ring_loss",
    "large_pool",
    "bank_step",
    "augment",
    "train_step",
    "loop",
    "mi_tasks",
    "evaluate",
    "twins",
    "coverage",
    "peer",
    "accelerator",
)
REPEATS = 7
FILES = {"data": ("mi_tasks", "peer"), "truth": ("mi_tasks",)}  # the flags that name files, and whose they are
FLAGS = {
    "case=": f"one of {', '.join(CASES)}, or all",
    "repeats=": "how often each is timed, 7 by default; of mi_tasks the draws, 2 by default, of twins the scenes, 20, "
    "of coverage the draws a cell, 50, of peer the races, 3",
    "out=": "the folder for <case>.json, bench/ by default",
    "data=": "mi_tasks: an .npz of x_00, y_00, x_01, ... to estimate from, instead of its own draws; "
    "peer: the folder of TFDS sets that holds cifar10",
    "truth=": "mi_tasks: a .json of the true nats of --data, opened when all is estimated",
    "small": "tiny sizes, to see that a case runs",
}


def run(case: str, repeats: int | None, small: bool, **files: str) -> tuple[dict[str, Any], ModuleType]:
    """The figures of one case, as plain data, with the device and versions they were seen on; and the case's module."""
    if case not in CASES:
        raise unknown("case", case, (*CASES, "all"))
    module = importlib.import_module(f"mi_contrast.benchmarks.{case}")
    figures = module.run(repeats or getattr(module, "REPEATS", REPEATS), small, **files)
    device = jax.devices()[0]
    return {
        "case": case,
        "device": f"{device.platform} {device.device_kind}",
        "jax": jax.__version__,
        **figures,
    }, module


def main(arguments: list[str]) -> None:
    """The command line's job. See the module's text."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "", positional="case").flags
    repeats = flags.get("repeats", "")
    if repeats and not (repeats.isdigit() and int(repeats) > 0):
        raise UserError(f"--repeats={repeats}", fix="give a whole number above 0")
    asked = flags.get("case", "all")
    files = {name: flags[name] for name in FILES if name in flags}
    for name in files:
        if asked not in FILES[name]:
            raise UserError(f"--{name} with --case={asked}", fix=f"it belongs to --case={' or '.join(FILES[name])}")
    for case in CASES if asked == "all" else (asked,):
        given = {"rows": str(Path(flags.get("out", "bench")) / "coverage.jsonl")} if case == "coverage" else files
        try:
            figures, module = run(case, int(repeats) if repeats else None, "small" in flags, **given)
        except UserError as error:  # among all cases, one that cannot run here does not stop the others
            if asked != "all":
                raise
            print(f"{case} was not run: {error}", file=sys.stderr)
            continue
        path = Path(flags.get("out", "bench")) / f"{case}.json"
        write_json(path, figures)
        print(module.words(figures) if hasattr(module, "words") else json.dumps(figures, indent=2))
        print(f"written to {path}", file=sys.stderr)
        if hasattr(module, "picture") and (drawn := module.picture(figures)):
            write_text(path.with_suffix(".svg"), drawn)
            print(f"drawn in {path.with_suffix('.svg')}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_job(main))
