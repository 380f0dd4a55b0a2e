"""Errors that a user can correct, in one line each, and the exit codes of every job."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

DONE, OUR_ERROR, USER_ERROR, BAD_NUMBERS, STOPPED, INTERRUPTED = 0, 1, 2, 3, 75, 130

# The error numbers with which a disk refuses a write, and what the user can do about each.
FREE_SPACE, MAKE_WRITABLE = "free some space and give the same command again", "make it writable, or write elsewhere"
DISK = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EROFS: MAKE_WRITABLE,
    errno.EACCES: MAKE_WRITABLE,
    errno.EPERM: MAKE_WRITABLE,
    errno.EIO: "look at the disk, then give the same command again",
    errno.ESTALE: "mount it again, then give the same command again",
}


class UserError(ValueError):
    """A value that the user can correct: a setting, a name, an array, a combination of them.

    It is a ValueError, so that Python code catches it as it catches any other. A handler of ValueError, OSError or
    Exception in this package must let it through (`except UserError: raise` above it): `tests/test_handlers.py`.

    Args:
      what: what is wrong, in one line without a full stop.
      nearest: the word that was probably meant, or None.
      fix: what to do about it.
    """

    def __init__(self, what: str, *, nearest: str | None = None, fix: str = ""):
        self.what, self.nearest, self.fix = what, nearest, fix
        hint = f"; did you mean {nearest!r}?" if nearest else ";" if fix else ""
        super().__init__(" ".join(f"{what}{hint} {fix}".split()))


class FileError(UserError, OSError):
    """A file or folder that is missing, damaged, of another kind than expected, or can't be read or written.

    It is an OSError as well; `errno` and `filename` are None unless the system gave them.
    """

    def __str__(self) -> str:
        return str(self.args[0])  # OSError would print errno and filename instead


class DiskError(FileError):
    """A disk that refused a write; `errno` is one of `DISK`."""


class BadNumbersError(Exception):
    """The loss or its gradient was not finite for too many steps in a row; the last good state is kept."""


class DamagedError(Exception):
    """A checkpoint has changed since it was written, or can't be read. The text says how this was noticed."""


class StoppedError(Exception):
    """A run that a signal or a time limit stopped after saving; the same command continues it."""


class InterruptedSavedError(KeyboardInterrupt):
    """A run that Ctrl-C stopped after saving; the same command continues it."""


def find_disk_error(error: BaseException) -> int | None:
    """Returns the number in `DISK` that an error or one of its causes stands for, or None.

    Libraries that write in threads of their own turn an OSError into another kind, so the texts are searched too.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in DISK:
            return cause.errno
        for number in DISK:
            if getattr(cause, "errno", None) is None and os.strerror(number).lower() in str(cause).lower():
                return number
        cause = cause.__cause__ or cause.__context__
    return None


def cannot_write(path: str | Path, number: int) -> DiskError:
    """Returns the error for a file or folder that the disk refused to write, given the number in `DISK`."""
    error = DiskError(f"can't write {path} ({os.strerror(number)})", fix=DISK[number])
    error.errno, error.filename = number, str(path)
    return error


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Returns the most similar of `words`, or None where nothing is similar."""
    similar = difflib.get_close_matches(str(word), [str(w) for w in words], n=1, cutoff=0.5)
    return similar[0] if similar else None


def unknown(kind: str, word: object, words: Iterable[str]) -> UserError:
    """Returns the error for a word that is not in a table; it lists the table's words."""
    words = sorted(str(w) for w in words)
    shown = ", ".join(words[:24]) + (", ..." if len(words) > 24 else "")
    return UserError(f"unknown {kind} {word!r}", nearest=nearest(str(word), words), fix=f"one of: {shown}")


def add_place(where: str, error: UserError) -> UserError:
    """Returns the error with `where` in front of its text, as a FileError if it was one."""
    kind = FileError if isinstance(error, FileError) else UserError
    return kind(f"{where}: {error.what}", nearest=error.nearest, fix=error.fix)


def run_job(job: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Runs `job(arguments)`, turns what it raises into one line on stderr, and returns the exit code.

    Exit codes: 0 done; 1 an error of ours, with its traceback; 2 a mistake of the user's, or a disk that can't be
    written; 3 the numbers went bad; 75 stopped after saving; 130 stopped by Ctrl-C.

    With `arguments` None, the process is a command. Where Ctrl-C stops it before it has saved, or a disk refuses a
    write, it then ends without waiting for its threads, which may wait for the disk for minutes. Nothing is lost by
    that: every file is written whole or not at all.

    Of several processes, the first to fail prints the line, and all end with its exit code. They end at once, because
    JAX's runtime would wait for those that can't come any more.
    """
    from mi_contrast.core import processes

    try:
        job(sys.argv[1:] if arguments is None else arguments)
        with processes.together():
            pass
    except (Exception, KeyboardInterrupt) as error:
        code, text, is_urgent = _explain(error)
        if processes.count() == 1:
            _say(text)
            if is_urgent and arguments is None:
                _leave(code)
            return code
        patience = processes.LEAVING
        if processes.is_lost(error):
            patience = processes.LEAVING_THE_LOST
            reported = processes.find_failure(seconds=3.0)
            if reported is not None:
                processes.leave(reported)
            code, text = OUR_ERROR, f"error: another process of this job has ended; {GO_ON} ({_first_line(error)})"
        if processes.report_failure(code, error):
            _say(text)
        processes.leave(code, patience)
        return code  # only where a test replaces `leave`
    return DONE


GO_ON = "run the same command to resume from the last checkpoint"


def _explain(error: Exception | KeyboardInterrupt) -> tuple[int, str | None, bool]:
    """Returns the exit code of an error, its line, and whether a command ends at once, without waiting for threads.

    The line is None for an error of ours, whose traceback is printed instead.
    """
    match error:
        case UserError():
            return USER_ERROR, f"error: {error}", isinstance(error, DiskError)
        case BadNumbersError():
            return BAD_NUMBERS, f"numbers went bad: {error}", False
        case StoppedError():
            return STOPPED, str(error), False
        case InterruptedSavedError():
            return INTERRUPTED, str(error), False
        case KeyboardInterrupt():
            return INTERRUPTED, "stopped at once by Ctrl-C; what was saved before is whole", True
        case OSError() if error.errno in DISK:
            return USER_ERROR, f"error: {cannot_write(error.filename or 'to the disk', error.errno)}", False
    return OUR_ERROR, None, False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _say(text: str | None) -> None:
    """Prints a job's last line, or the traceback of the current error if it is None.

    A terminal that has gone away does not change the exit code.
    """
    from mi_contrast.core import processes

    with contextlib.suppress(OSError):
        if text is None:
            traceback.print_exc(file=processes.stderr())
        else:
            print(f"mi_contrast: {text}", file=processes.stderr(), flush=True)


def _leave(code: int) -> None:
    """Ends this process without waiting for threads."""
    try:
        sys.stdout.flush()
    finally:
        os._exit(code)
