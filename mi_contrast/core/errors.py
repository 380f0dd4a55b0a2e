"""Mistakes a user can make, said in one line, and the exit codes of every job."""

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

# What a disk can answer to a write that is no error of ours, and what to do about it.
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


class UserError(Exception):
    """A mistake of the user's: what is wrong, the nearest right word, and the fix, in one line.

    Args:
      what: the fact, without a full stop.
      nearest: the word that was probably meant, or None.
      fix: what to do about it.
    """

    def __init__(self, what: str, *, nearest: str | None = None, fix: str = ""):
        self.what, self.nearest, self.fix = what, nearest, fix
        hint = f"; did you mean {nearest!r}?" if nearest else ";" if fix else ""
        super().__init__(" ".join(f"{what}{hint} {fix}".split()))


class DiskError(UserError):
    """A disk that refused a write."""


class BadNumbersError(Exception):
    """The loss or its gradient was not finite for too many steps in a row; the last good state is kept."""


class StoppedError(Exception):
    """Stopped by a signal or a time limit, after saving; the same command goes on from there."""


class InterruptedSavedError(KeyboardInterrupt):
    """Stopped by Ctrl-C, after saving; the same command goes on from there."""


def find_disk_error(error: BaseException) -> int | None:
    """The number in `DISK` of a disk that could not be written, looked for in an error and in its causes.

    Libraries that write in threads of their own turn an OSError into another kind, so their texts are searched too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK:
            return seen.errno
        for number in DISK:
            if not isinstance(seen, OSError) and os.strerror(number).lower() in str(seen).lower():
                return number
        seen = seen.__cause__ or seen.__context__
    return None


def cannot_write(path: str | Path, number: int) -> DiskError:
    """The error for a file or folder that the disk refused to take, by its number in `DISK`."""
    return DiskError(f"can't write {path} ({os.strerror(number)})", fix=DISK[number])


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The most similar of `words`, or None where nothing is similar."""
    found = difflib.get_close_matches(str(word), [str(w) for w in words], n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(kind: str, word: object, words: Iterable[str]) -> UserError:
    """The error for a word that is not in a table, naming the table's words."""
    words = sorted(str(w) for w in words)
    shown = ", ".join(words[:24]) + (", ..." if len(words) > 24 else "")
    return UserError(f"unknown {kind} {word!r}", nearest=nearest(str(word), words), fix=f"one of: {shown}")


def run_job(job: Callable[[list[str]], None], arguments: list[str] | None = None) -> int:
    """Runs `job(arguments)` and turns what it raises into one line and an exit code.

    Returns: 0 done; 2 a user's mistake, or a disk that can't be written; 3 numbers went bad; 75 stopped after saving;
    130 stopped by Ctrl-C; 1 our own error, with traceback. A process that Ctrl-C stops before it has saved, or that a
    disk refuses a write, ends here without waiting for its threads, which may wait for the disk for minutes; every file
    is written whole or not at all.
    """
    try:
        job(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        _say(f"error: {error}")
        if arguments is None and isinstance(error, DiskError):
            _leave(USER_ERROR)
        return USER_ERROR
    except BadNumbersError as error:
        _say(f"numbers went bad: {error}")
        return BAD_NUMBERS
    except StoppedError as error:
        _say(str(error))
        return STOPPED
    except InterruptedSavedError as error:
        _say(str(error))
        return INTERRUPTED
    except KeyboardInterrupt:
        _say("stopped at once by Ctrl-C; what was saved before is whole")
        if arguments is None:
            _leave(INTERRUPTED)
        return INTERRUPTED
    except OSError as error:
        if error.errno not in DISK:
            traceback.print_exc()
            return OUR_ERROR
        _say(f"error: {cannot_write(error.filename or 'to the disk', error.errno)}")
        return USER_ERROR
    except Exception:  # the one place where an error of our own is allowed to end
        traceback.print_exc()
        return OUR_ERROR
    return DONE


def _say(text: str) -> None:
    """Prints a job's last line; a terminal that has gone away changes no exit code."""
    with contextlib.suppress(OSError):
        print(f"mi_contrast: {text}", file=sys.stderr, flush=True)


def _leave(code: int) -> None:
    """Ends this process without waiting for threads."""
    try:
        sys.stdout.flush()
    finally:
        os._exit(code)
