"""Where a run keeps things: the names inside a run directory, its lock, and writes that are whole or absent."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_contrast.core.errors import UserError


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run directory; making one touches no disk."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def data(self) -> Path:
        return self.root / "data.json"

    @property
    def starts(self) -> Path:
        return self.root / "run.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tb"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def profile(self) -> Path:
        return self.root / "profile"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        return self.root / "lock"


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` whole or not at all: a temporary file beside it, synced, then renamed."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """The JSON value in `path`. UserError where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error})", fix="restore it or use another directory") from None


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Holds the run directory's lock (made if need be), so that no second process writes there.

    Raises UserError where another process holds it or the directory can't be written.
    """
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        file = open(run.lock, "a+", encoding="utf-8")  # noqa: SIM115 - held for the whole run
    except FileExistsError:
        raise UserError(f"{run.root} is a file, not a directory", fix="give another --workdir") from None
    except OSError as error:
        raise UserError(
            f"can't write in {run.root} ({error.strerror})", fix="give a --workdir you may write to"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise UserError(
                f"{run.root} is in use by process {holder or 'unknown'}", fix="wait for it, or give another --workdir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
