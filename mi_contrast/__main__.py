"""Starts a job by a short name:

  mi-contrast train ring_moco:digits                 python -m mi_contrast.main --config=configs/ring_moco.py:digits
  mi-contrast evaluate linear runs/ring_moco-digits  python -m mi_contrast.evaluate --config=... --backbone=...
  mi-contrast study negatives                        python -m mi_contrast.study --config=...
  mi-contrast plan ring_moco:imagenet v5e:4x4        python -m mi_contrast.plan --config=... --topology=...
  mi-contrast pairs --clips=PATH --workdir=FOLDER    python -m mi_contrast.pairs ...
  mi-contrast estimate samples.npz                   python -m mi_contrast.estimate ...
  mi-contrast export RUN FORMAT                      python -m mi_contrast.export --backbone=... --format=...
  mi-contrast report RUN [MORE RUNS]                 python -m mi_contrast.report ...
  mi-contrast bench CASE                             python -m mi_contrast.bench ...
  mi-contrast statistics NAME                        python -m mi_contrast.data.statistics ...

`python -m mi_contrast` is the same as `mi-contrast`. The first words after a job stand for the flags shown; all other
flags follow as they are. `mi-contrast JOB --help` lists them.
"""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

from mi_contrast.core.errors import UserError, run_job, unknown


class Job(NamedTuple):
    """A job's module, the flags that its first words stand for, and whether more words may follow these."""

    module: str
    flags: tuple[str, ...]
    takes_more: bool = False


JOBS = {
    "train": Job("mi_contrast.main", ("config",)),
    "evaluate": Job("mi_contrast.evaluate", ("config", "backbone")),
    "study": Job("mi_contrast.study", ("config",)),
    "plan": Job("mi_contrast.plan", ("config", "topology")),
    "pairs": Job("mi_contrast.pairs", ("clips",)),
    "estimate": Job("mi_contrast.estimate", ("file",)),
    "export": Job("mi_contrast.export", ("backbone", "format")),
    "report": Job("mi_contrast.report", ("workdir",), takes_more=True),
    "bench": Job("mi_contrast.bench", ("case",)),
    "statistics": Job("mi_contrast.data.statistics", ("name",)),
}


def expand(job: Job, words: list[str]) -> list[str]:
    """Returns the command line with the words before the first flag written as the flags that they stand for.

    Raises UserError if there are more words than the job has flags for them.
    """
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    if count > len(job.flags) and not job.takes_more:
        form = " ".join(flag.upper() for flag in job.flags)
        raise UserError(f"unexpected argument {words[len(job.flags)]!r}", fix=f"the words are {form}; flags follow")
    return [f"--{flag}={word}" for flag, word in zip(job.flags, words[:count], strict=False)] + words[
        min(count, len(job.flags)) :
    ]


def start(arguments: list[str]) -> None:
    """Runs the job that the first argument names with the others. Raises what the job raises, and UserError."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print((__doc__ or "").strip())
        return
    name, *words = arguments
    if name not in JOBS:
        raise unknown("job", name, JOBS)
    importlib.import_module(JOBS[name].module).main(expand(JOBS[name], words))


def run() -> int:
    """Runs the command line of this process and returns its exit code, as every job does."""
    return run_job(start)


if __name__ == "__main__":
    sys.exit(run())
