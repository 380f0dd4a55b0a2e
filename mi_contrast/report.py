"""Writes the page of a run, report.html, from its run directory. The run may still be training.

python -m mi_contrast.report runs/x
"""

from __future__ import annotations

import sys
from pathlib import Path

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.reporting.page import write_report

FLAGS = {"workdir=": "the run directory (the name of the flag may be left out)"}


def main(arguments: list[str]) -> None:
    """Writes the page of one run directory and prints its path."""
    call = parse(arguments, FLAGS, positional="workdir", usage=__doc__ or "")
    if "workdir" not in call.flags:
        raise UserError("no run directory", fix="python -m mi_contrast.report RUN_DIRECTORY")
    print(write_report(Path(call.flags["workdir"])))


if __name__ == "__main__":
    sys.exit(run_job(main))
