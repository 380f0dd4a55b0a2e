"""Benchmarks: times each case and its peer in turns within one run, and prints and writes the figures:

  python -m mi_contrast.bench [--case=NAME|all] [--repeats=7] [--out=bench/]

Ratios are of medians. Every figure comes with its smallest and largest value, because absolute times depend on the
machine and its load. With --case=all, a case that can't run here is named and skipped.

  coverage     counts how often the interval of an estimate contains the true value; continues where it was stopped
  mi_tasks     compares estimates with the true value, and draws bench/mi_tasks.svg
  input        decodes and crops JPEGs against torchvision's DataLoader
  startup      starts runs, with an empty compile cache and with a full one
  peer         trains against lightly's MoCo on CIFAR-10
  accelerator  takes up to eight minutes of a GPU or TPU
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
    "input",
    "startup",
    "mi_tasks",
    "evaluate",
    "twins",
    "coverage",
    "peer",
    "accelerator",
)
REPEATS = 7
FILES = {
    "data": ("mi_tasks", "peer", "input"),
    "truth": ("mi_tasks",),
}  # flags that name files: the cases that read them
FLAGS = {
    "case=": f"one of {', '.join(CASES)}, or all",
    "repeats=": "how often each contender is timed, 7 by default; draws of mi_tasks (2), scenes of twins (20), "
    "draws per cell of coverage (50), races of peer (3)",
    "out=": "folder for <case>.json, bench/ by default",
    "data=": "mi_tasks: an .npz of samples x_00, y_00, x_01, ... to use instead of its own draws; "
    "peer: folder of TFDS sets with cifar10; input: kodak24.zip",
    "truth=": "mi_tasks: a .json of the true nats of --data, opened after all estimates",
    "small": "tiny sizes, to see that a case runs",
}


def run(case: str, repeats: int | None, small: bool, **files: str) -> tuple[dict[str, Any], ModuleType]:
    """Runs one case. Returns its figures, as plain data with the device and versions, and the module of the case."""
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
    """Runs the command line of this job."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "", positional="case").flags
    repeats = flags.get("repeats", "")
    if repeats and not (repeats.isdigit() and int(repeats) > 0):
        raise UserError(f"--repeats={repeats}", fix="give a whole number above 0")
    case_flag = flags.get("case", "all")
    files = {name: flags[name] for name in FILES if name in flags}
    for name in files:
        if case_flag not in FILES[name]:
            raise UserError(f"--{name} with --case={case_flag}", fix=f"it belongs to --case={' or '.join(FILES[name])}")
    for case in CASES if case_flag == "all" else (case_flag,):
        arguments_of_case = (
            {"rows": str(Path(flags.get("out", "bench")) / "coverage.jsonl")} if case == "coverage" else files
        )
        try:
            figures, module = run(case, int(repeats) if repeats else None, "small" in flags, **arguments_of_case)
        except UserError as error:
            if case_flag != "all":
                raise
            print(f"{case} was not run: {error}", file=sys.stderr)
            continue
        path = Path(flags.get("out", "bench")) / f"{case}.json"
        write_json(path, figures)
        print(module.format_figures(figures) if hasattr(module, "format_figures") else json.dumps(figures, indent=2))
        print(f"written to {path}", file=sys.stderr)
        if hasattr(module, "draw_figures") and (svg := module.draw_figures(figures)):
            write_text(path.with_suffix(".svg"), svg)
            print(f"drawn in {path.with_suffix('.svg')}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_job(main))
