"""The log of a run: metrics.jsonl with one JSON object on each line and, if asked for, TensorBoard and W&B curves."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from mi_contrast.core.errors import DISK, UserError, cannot_write
from mi_contrast.core.layout import RunDirectory, write_atomically, write_text

Numbers = dict[str, Any]  # one line: the step, seconds since the start, and numbers by name


def split_rows(run: RunDirectory) -> tuple[list[Numbers], list[bytes]]:
    """Returns the rows of metrics.jsonl and the unreadable lines (truncated, damaged or without a step)."""
    rows, bad = [], []
    for line in run.metrics.read_bytes().split(b"\n") if run.metrics.is_file() else ():
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or type(row.get("step")) is not int:
                raise ValueError("not a row of a step")
            rows.append(row)
        except ValueError:  # JSON's and UTF-8's errors are ValueErrors too
            if line.strip():
                bad.append(line)
    return rows, bad


def read(run: RunDirectory) -> list[Numbers]:
    """Returns the rows of metrics.jsonl in their order; [] without such a file. Lines that are no rows are left out."""
    return split_rows(run)[0]


def cut_back(run: RunDirectory, step: int) -> None:
    """Removes the rows after `step` from metrics.jsonl: they belong to steps that will be taken again.

    Lines that cannot be read are moved to metrics.jsonl.bad, and the user is told.
    """
    rows, bad = split_rows(run)
    if bad:
        aside = run.metrics.with_name(f"{run.metrics.name}.bad")
        before = aside.read_bytes() if aside.is_file() else b""
        with write_atomically(aside) as file:
            file.write(before + b"".join(line + b"\n" for line in bad))
        print(f"{run.metrics}: {len(bad)} line{'s' * (len(bad) > 1)} can't be read; moved to {aside.name}")
    write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))


class Log:
    """Writes rows of numbers. NaN and infinities are written as NaN and Infinity.

    Args:
      run: the run directory.
      config: the run's config as plain data. Its section `log` says where else to write.
      wandb_id: the id of the W&B run that is continued; None for a new one.
    """

    def __init__(self, run: RunDirectory, config: Mapping[str, Any], wandb_id: str | None = None):
        self._board, self._wandb = None, None
        if config["log"]["wandb"]:
            try:
                import wandb
            except ImportError:
                raise UserError("log.wandb is set but wandb is not installed", fix="pip install wandb") from None
            self._wandb = wandb.init(
                project=config["log"]["wandb"], id=wandb_id, resume="allow", dir=str(run.root), config=dict(config)
            )
        if config["log"]["tensorboard"]:
            from tensorboardX.event_file_writer import EventsWriter

            with _writing(run.tensorboard):
                run.tensorboard.mkdir(parents=True, exist_ok=True)
                self._board = EventsWriter(str(run.tensorboard / "events"))
        self._path, self._board_path = run.metrics, run.tensorboard
        self._file = open(run.metrics, "ab", buffering=0)  # noqa: SIM115 - held for the whole run

    @property
    def wandb_id(self) -> str | None:
        """The id of the W&B run, with which a resumed run continues the same curves; None without W&B."""
        return None if self._wandb is None else self._wandb.id

    def write(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Appends one row, and returns when it is on disk.

        Raises:
          UserError: the disk cannot take the row. Nothing of it is written.
        """
        row = {"step": step, "seconds": round(seconds, 3), **numbers}
        with _writing(self._path):
            append(self._file, json.dumps(row).encode() + b"\n")
        if self._board is not None:
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.summary import scalar

            with _writing(self._board_path):
                for name, number in numbers.items():
                    if math.isfinite(number):
                        event = Event(step=step, wall_time=time.time(), summary=scalar(name, number))
                        self._board.write_event(event)
                self._board.flush()
        if self._wandb is not None:
            self._wandb.log(dict(numbers), step=step)

    def close(self) -> None:
        """Closes every writer."""
        self._file.close()
        if self._board is not None:
            with suppress(OSError):  # every write was flushed, or has raised already
                self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


class NoLog:
    """The log of a process that is not the first of several: it writes nothing."""

    wandb_id = None

    def write(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def append(file: FileIO, line: bytes) -> None:
    """Appends a whole line, and returns when it is on disk. On an error the file is cut back to what it was."""
    size = os.fstat(file.fileno()).st_size
    try:
        written = file.write(line)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            file.truncate(size)
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raises UserError in place of an OSError that means the disk cannot be written."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise cannot_write(path, error.errno) from error
