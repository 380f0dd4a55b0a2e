"""Makes report.html of a run, from its run directory alone, while it trains or after.

python -m mi_contrast.report runs/x
"""

from __future__ import annotations

import sys
from pathlib import Path

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.reporting.page import write_report

FLAGS = {"workdir=": "the run directory (may be given without the flag's name)"}


def main(arguments: list[str]) -> None:
    """The job: one run directory, one page."""
    call = parse(arguments, FLAGS, positional="workdir", usage=__doc__ or "")
    if "workdir" not in call.flags:
        raise UserError("no run directory", fix="python -m mi_contrast.report RUN_DIRECTORY")
    print(write_report(Path(call.flags["workdir"])))


if __name__ == "__main__":
    sys.exit(run_job(main))
