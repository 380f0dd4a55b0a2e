"""Jobs on data sets:

  mi-contrast data prepare photos/ --out=DIR    one's own pictures, made small once: python -m mi_contrast.data.prepare
  mi-contrast data statistics NAME              mean and deviation of channels: python -m mi_contrast.data.statistics
  mi-contrast data convert DIRECTORY            a TFDS set as ArrayRecord: python -m mi_contrast.data.convert
  mi-contrast --list=data                       the names that data.name takes

`mi-contrast data JOB --help` lists a job's flags.
"""

from __future__ import annotations

import importlib
import sys

from mi_contrast.core.errors import run_job, unknown

FLAGS: dict[str, str] = {}
JOBS = {name: f"mi_contrast.data.{name}" for name in ("prepare", "statistics", "convert")}


def main(arguments: list[str]) -> None:
    """Runs the job that the first argument names, or prints their list."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print((__doc__ or "").strip())
        return
    name, *rest = arguments
    if name not in JOBS:
        raise unknown("job on data", name, JOBS)
    importlib.import_module(JOBS[name]).main(rest)


if __name__ == "__main__":
    sys.exit(run_job(main))
