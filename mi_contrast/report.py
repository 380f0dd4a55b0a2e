"""Writes the page of a run, report.html, from its run directory. The run may still be training.

python -m mi_contrast.report runs/x
python -m mi_contrast.report runs/a runs/b [--out=comparison.html]     several runs side by side
"""

from __future__ import annotations

import sys
from pathlib import Path

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.reporting.comparison import Comparison
from mi_contrast.reporting.page import write_report

FLAGS = {
    "workdir=": "the run directory (the name of the flag may be left out; several directories follow each other)",
    "out=": "the page of several runs; comparison.html beside the first run by default",
}


def main(arguments: list[str]) -> None:
    """Writes the page of one run directory, or of several side by side, and prints its path."""
    names: list[str] = []
    flags: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        is_flag = word.startswith("-") or before in ("--workdir", "--out")
        (flags if is_flag else names).append(word)
    call = parse(flags, FLAGS, usage=__doc__ or "")
    roots = [Path(name) for name in [*([call.flags["workdir"]] if "workdir" in call.flags else []), *names]]
    if not roots:
        raise UserError("no run directory", fix="python -m mi_contrast.report RUN_DIRECTORY")
    if len(roots) > 1:
        print(Comparison.of(roots).write(call.flags.get("out")))
    elif "out" in call.flags:
        raise UserError("--out is for the page of several runs", fix="leave it out, or name more run directories")
    else:
        print(write_report(roots[0]))


if __name__ == "__main__":
    sys.exit(run_job(main))
