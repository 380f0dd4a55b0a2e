"""Runs a job in a process where something goes wrong at a chosen moment. JOB is main, evaluate or export.

python -m tests.drills.hooks JOB fill REGEX FILLER -- ARGUMENTS    fills the file system of FILLER when a path that
matches is first opened or made as a folder
python -m tests.drills.hooks JOB no_flock -- ARGUMENTS             the file system can't lock
python -m tests.drills.hooks main nan_data FIRST LAST -- ARGUMENTS    the images of these steps are NaN
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys

from mi_contrast import evaluate, export, main
from mi_contrast.core.errors import run_job

JOBS = {"main": main.main, "evaluate": evaluate.main, "export": export.main}


def fill(filler: str) -> None:
    """Writes to a file until the file system is full."""
    opened = os.open(filler, os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while os.write(opened, b"\0" * size):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
    os.close(opened)


def fill_at(pattern: str, filler: str) -> None:
    """Fills the file system at the first open or mkdir of a path that matches."""
    state = {"full": False}

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.mkdir") and not state["full"] and re.search(pattern, str(arguments[0])):
            writing = event == "os.mkdir" or (
                isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if writing:
                state["full"] = True
                fill(filler)

    sys.addaudithook(look)


def refuse_locks() -> None:
    """Makes flock fail as on a network file system without it."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    fcntl.flock = refuse  # type: ignore[assignment]


def spoil_data(first: str, last: str) -> None:
    """Makes the images of the steps `first` to `last` NaN, as a broken camera or a broken conversion would."""
    import jax
    import jax.numpy as jnp

    from mi_contrast.training import step as training

    make = training.make_crops

    def make_spoiled(views, seed, step, batch):  # type: ignore[no-untyped-def]
        is_bad = (step + 1 >= int(first)) & (step + 1 <= int(last))  # `step` counts from 0, the log from 1
        return jax.tree.map(lambda x: jnp.where(is_bad, jnp.nan, x), make(views, seed, step, batch))

    training.make_crops = make_spoiled


HOOKS = {"fill": fill_at, "no_flock": refuse_locks, "nan_data": spoil_data}


if __name__ == "__main__":
    at = sys.argv.index("--")
    HOOKS[sys.argv[2]](*sys.argv[3:at])
    sys.exit(run_job(JOBS[sys.argv[1]], sys.argv[at + 1 :]))
