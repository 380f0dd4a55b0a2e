"""Times a case beside its peer, interleaved in one run, and prints and writes what it saw:

  python -m mi_contrast.bench [--case=ring_loss|augment|train_step|loop|all] [--repeats=7] [--out=bench/]

A ratio is of medians; every figure comes with its least and largest, since absolute times are this machine's today.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import jax

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job, unknown
from mi_contrast.core.layout import write_json

CASES = ("ring_loss", "augment", "train_step", "loop")
FLAGS = {
    "case=": f"one of {', '.join(CASES)}, or all",
    "repeats=": "how often each is timed, 7 by default",
    "out=": "the folder for <case>.json, bench/ by default",
    "small": "tiny sizes, to see that a case runs",
}


def run(case: str, repeats: int, small: bool) -> dict[str, Any]:
    """The figures of one case, as plain data, with the device and versions they were seen on."""
    if case not in CASES:
        raise unknown("case", case, (*CASES, "all"))
    figures = importlib.import_module(f"mi_contrast.benchmarks.{case}").run(repeats, small)
    device = jax.devices()[0]
    return {"case": case, "device": f"{device.platform} {device.device_kind}", "jax": jax.__version__, **figures}


def main(arguments: list[str]) -> None:
    """The command line's job. See the module's text."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "", positional="case").flags
    repeats = flags.get("repeats", "7")
    if not repeats.isdigit() or int(repeats) < 1:
        raise UserError(f"--repeats={repeats}", fix="give a whole number above 0")
    asked = flags.get("case", "all")
    for case in CASES if asked == "all" else (asked,):
        figures = run(case, int(repeats), "small" in flags)
        path = Path(flags.get("out", "bench")) / f"{case}.json"
        write_json(path, figures)
        print(json.dumps(figures, indent=2))
        print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_job(main))
