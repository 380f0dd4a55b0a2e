"""Starts a job by a short name:

  mi-contrast train ring_moco:digits                 python -m mi_contrast.main --config=configs/ring_moco.py:digits
  mi-contrast train simclr photos/                   python -m mi_contrast.main --config=configs/simclr.py:folder
                                                       --config.data.name=folder:photos
  mi-contrast evaluate linear runs/ring_moco-digits  python -m mi_contrast.evaluate --config=... --backbone=...
  mi-contrast study negatives                        python -m mi_contrast.study --config=...
  mi-contrast plan ring_moco:imagenet v5e:4x4        python -m mi_contrast.plan --config=... --topology=...
  mi-contrast pairs --clips=PATH --workdir=FOLDER    python -m mi_contrast.pairs ...
  mi-contrast estimate table.csv                     python -m mi_contrast.estimate ...
  mi-contrast encode RUN photos/                     python -m mi_contrast.encode --backbone=... --pictures=...
  mi-contrast export RUN FORMAT                      python -m mi_contrast.export --backbone=... --format=...
  mi-contrast report RUN [MORE RUNS]                 python -m mi_contrast.report ...
  mi-contrast bench CASE                             python -m mi_contrast.bench ...
  mi-contrast data JOB                               python -m mi_contrast.data ...
  mi-contrast statistics NAME                        python -m mi_contrast.data.statistics ...
  mi-contrast --list[=TABLE]                         methods, variants, data, views, tasks, formats or studies

`python -m mi_contrast` is the same as `mi-contrast`. The first words after a job stand for the flags shown; all other
flags follow as they are. `mi-contrast JOB --help` lists them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from mi_contrast.core.errors import UserError, run_job, unknown


class Job(NamedTuple):
    """A job's module, the flags that its first words stand for, and whether more words may follow these."""

    module: str
    flags: tuple[str, ...]
    takes_more: bool = False


JOBS = {
    "train": Job("mi_contrast.main", ("config", "pictures")),
    "evaluate": Job("mi_contrast.evaluate", ("config", "backbone")),
    "study": Job("mi_contrast.study", ("config",)),
    "plan": Job("mi_contrast.plan", ("config", "topology")),
    "pairs": Job("mi_contrast.pairs", ("clips",)),
    "estimate": Job("mi_contrast.estimate", ("file",)),
    "encode": Job("mi_contrast.encode", ("backbone", "pictures")),
    "export": Job("mi_contrast.export", ("backbone", "format")),
    "report": Job("mi_contrast.report", ("workdir",), takes_more=True),
    "bench": Job("mi_contrast.bench", ("case",)),
    "data": Job("mi_contrast.data.__main__", ()),
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
    named = [f"--{flag}={word}" for flag, word in zip(job.flags, words[:count], strict=False)]
    if count == 2 and job.flags == ("config", "pictures"):
        named = name_pictures(*words[:2])
    return named + words[min(count, len(job.flags)) :]


def name_pictures(config: str, pictures: str) -> list[str]:
    """Returns the flags that train a config, by default its variant :folder, on one's own pictures."""
    from mi_contrast.data import own

    return [
        f"--config={config}" + ("" if ":" in config else ":folder"),
        f"--config.data.name={own.name_pictures(pictures)}",
    ]


def start(arguments: list[str]) -> None:
    """Runs the job that the first argument names with the others. Raises what the job raises, and UserError."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print((__doc__ or "").strip())
        return
    name, *words = arguments
    if name.partition("=")[0] == "--list":
        importlib.import_module("mi_contrast.main").main(arguments)
        return
    if name not in JOBS:
        raise unknown("job", name, JOBS)
    if name == "evaluate" and words and Path(words[0]).is_dir():
        fix = f"name the task first: mi-contrast evaluate linear {words[0]}"
        raise UserError(f"{words[0]!r} is a folder, not a task", fix=fix)
    importlib.import_module(JOBS[name].module).main(words if name == "data" else expand(JOBS[name], words))


def run() -> int:
    """Runs the command line of this process and returns its exit code, as every job does."""
    return run_job(start)


if __name__ == "__main__":
    sys.exit(run())
