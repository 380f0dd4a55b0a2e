"""The files of a run directory: their names, the directory's lock, and atomic writes."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mi_contrast.core import processes
from mi_contrast.core.errors import DISK, FileError, UserError, cannot_write

SEEING = 30.0  # seconds until a new file must be seen on other hosts; NFS remembers for a while that there is none
# Temporary files and folders that a killed process leaves in a run directory.
LEFT_BEHIND = re.compile(
    r"\.(config\.json|data\.json|run\.json|metrics\.jsonl(\.bad)?|report\.html|export\.(new|old)|seen_by_all)\.\d+"
)
LEFT_IN_FOLDERS = re.compile(r"\..+\.(png|npz|jsonl)\.\d+")


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run directory. Constructing it does not access the disk."""

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
    def held_out(self) -> Path:
        return self.root / "held_out"

    @property
    def profile(self) -> Path:
        return self.root / "profile"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        return self.root / "lock"


def default_workdir(name: str | None, word: str | None) -> Path:
    """Returns the run directory of a call that names none: runs/<name>-<word>."""
    return Path("runs") / "-".join(part for part in (name, word) if part).replace("/", "-")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` whole or not at all."""
    with write_atomically(path) as file:
        file.write(text.encode())


@contextmanager
def write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary binary file that replaces `path` when the block ends, whole or not at all.

    The file is synced to disk before it is renamed. If the block raises, the temporary file is removed and `path` is
    unchanged. Missing folders are created. Of several processes only the first writes; the others' file is in memory
    and is dropped. Raises UserError if the disk can't be written.
    """
    if not processes.is_first():
        yield io.BytesIO()
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except UserError:
        raise
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise cannot_write(path, error.errno) from error
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path, word: str) -> Path:
    """Renames a file or folder to <name>.<word>, or to <name>.<word>.2 and so on. Returns the new path."""
    target, count = path.with_name(f"{path.name}.{word}"), 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}.{word}.{count}")
    os.rename(path, target)
    return target


def remove_leftovers(run: RunDirectory) -> None:
    """Removes the temporary files of killed processes from a run directory. The caller must hold its lock."""
    left = [path for path in run.root.iterdir() if LEFT_BEHIND.fullmatch(path.name)]
    for folder in (run.pictures, run.held_out):
        left += [path for path in folder.glob(".*") if LEFT_IN_FOLDERS.fullmatch(path.name)]
    for path in left:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def read_record(run: RunDirectory) -> dict[str, Any]:
    """Reads run.json, {'starts': [...]}.

    If the file is missing or broken, there are no starts: it is a log for people, and no job depends on it.
    """
    try:
        record = read_json(run.starts)
    except (UserError, OSError, UnicodeDecodeError):
        return {"starts": []}
    is_valid = isinstance(record, dict) and isinstance(record.get("starts"), list)
    return record if is_valid and all(isinstance(start, dict) for start in record["starts"]) else {"starts": []}


def read_json(path: Path) -> Any:
    """Reads the JSON value in `path`. Raises UserError if the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except json.JSONDecodeError as error:
        raise FileError(f"{path} is not valid JSON ({error})", fix="restore it or use another directory") from None


def open_lock(path: Path) -> IO[str]:
    """Opens a lock's file to read and append, and creates it if it does not exist.

    Raises:
      FileError: it is a symbolic link. The link's target is left as it is.
      OSError: it can't be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise FileError(f"{path} is a symbolic link", fix="remove it: the lock is a file of its own") from None
        raise
    return os.fdopen(descriptor, "a+", encoding="utf-8")


def take_lock(file: IO[str], folder: Path, *, wait: bool = False) -> None:
    """Takes the lock of an open file, until the file is closed.

    Not every network file system can lock. On such a one, the user is told and the lock is not taken.

    Args:
      folder: what the lock protects, for the message.
      wait: whether to wait while another process holds the lock.
    Raises:
      BlockingIOError: another process holds the lock, and `wait` is False.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        print(
            f"{folder} can't be locked ({error.strerror}): make sure that no second process writes there",
            file=sys.stderr,
        )


@contextmanager
def hold_lock(run: RunDirectory) -> Iterator[None]:
    """Holds the run directory's lock while the block runs, so that no other process writes there.

    Creates the directory if it does not exist. Raises UserError if another process holds the lock, or if the directory
    can't be written.
    """
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        file = open_lock(run.lock)
    except UserError:
        raise
    except FileExistsError:
        raise FileError(f"{run.root} is a file, not a directory", fix="give another --workdir") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise cannot_write(run.root, error.errno) from None
        raise FileError(
            f"can't write in {run.root} ({error.strerror})", fix="give a --workdir you may write to"
        ) from None
    with file:
        try:
            take_lock(file, run.root)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise UserError(
                f"{run.root} is in use by process {holder or 'unknown'}", fix="wait for it, or give another --workdir"
            ) from None
        try:
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError as error:
            if error.errno not in DISK:
                raise
            raise cannot_write(run.lock, error.errno) from None
        yield


@contextmanager
def hold_shared(run: RunDirectory) -> Iterator[None]:
    """Holds the run directory for all processes of this job: the first locks it, the others see that it is the same.

    Raises:
      UserError: as `hold_lock` does, or a process does not see the first one's directory.
    """
    with ExitStack() as stack:
        with processes.together():
            if processes.is_first():
                stack.enter_context(hold_lock(run))
        check_shared(run.root)
        yield


def check_shared(folder: Path) -> None:
    """Raises UserError unless every process sees what the first one writes in this folder."""
    if processes.count() == 1:
        return
    sign = folder / f".seen_by_all.{processes.agree(time.time_ns())}"
    try:
        with processes.together():
            if processes.is_first():
                sign.write_bytes(b"")
        with processes.together():
            end = time.monotonic() + SEEING
            while not (folder.is_dir() and sign.name in os.listdir(folder)):
                if time.monotonic() > end:
                    raise FileError(
                        f"{folder} is another directory to process {processes.index()} than to the first process",
                        fix="give a --workdir on a disk that all hosts share",
                    )
                time.sleep(0.2)
    finally:
        if processes.is_first():
            sign.unlink(missing_ok=True)


def check_mounted(path: str, flag: str) -> None:
    """Raises UserError if the path is an address of a bucket, such as gs://bucket/runs, and not a path on a disk.

    Args:
      flag: what gives the path, such as '--workdir'.
    """
    scheme, separator, rest = str(path).partition("://")
    if not separator:
        return
    bucket, _, folder = rest.partition("/")
    mount = f"gcsfuse --implicit-dirs {bucket} /mnt/{bucket}" if scheme == "gs" else f"mount {bucket} as /mnt/{bucket}"
    local = f"/mnt/{bucket}/{folder}".rstrip("/")
    raise UserError(
        f"{flag}={path} is in a bucket, which is used through a mount",
        fix=f"on every host: {mount}; then {flag}={local}",
    )
