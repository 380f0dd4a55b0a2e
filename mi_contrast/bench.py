"""Benchmarks: times each case and its peer in turns within one run, and prints and writes the figures:

  python -m mi_contrast.bench --case=NAME|all [--repeats=7] [--out=bench/]

Ratios are of medians. Every figure comes with its smallest and largest value, because absolute times depend on the
machine and its load. With --case=all, a case that can't run here is named and skipped. Without a case they are
listed.
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

# name: what is timed, or counted, and beside what
CASES = {
    "ring_loss": "the ring and other supports over InfoNCE, and torch's sort",
    "large_pool": "the ring over a pool of 1,048,576 rows, and its memory",
    "bank_step": "a step with a bank of ImageNet's size, and its memory",
    "augment": "two views of an image, beside torchvision with PIL",
    "train_step": "a whole training step, beside torch's",
    "loop": "the training loop over the bare step",
    "input": "decoding and cropping JPEGs, beside torchvision's DataLoader",
    "startup": "starts of a run, with an empty compile cache and a full one",
    "mi_tasks": "estimates beside the truth, in a figure (ten minutes)",
    "evaluate": "features and linear probes, beside torchvision and scikit-learn",
    "twins": "pairs by shared motion: errors, and the time beside SciPy's trees",
    "coverage": "how often the interval of an estimate contains the truth (20 minutes)",
    "peer": "MoCo on CIFAR-10, beside lightly's (wants --data)",
    "accelerator": "steps, losses and views on a GPU or TPU (eight minutes)",
}
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
    if "case" not in flags:
        print("\n".join(f"  --case={name:<12} {what}" for name, what in CASES.items()))
        return
    repeats = flags.get("repeats", "")
    if repeats and not (repeats.isdigit() and int(repeats) > 0):
        raise UserError(f"--repeats={repeats}", fix="give a whole number above 0")
    case_flag = flags["case"]
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
