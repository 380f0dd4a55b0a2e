"""Mistakes a user can make, said in one line, and the exit codes of every job."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Callable, Iterable

DONE, OUR_ERROR, USER_ERROR, BAD_NUMBERS, STOPPED = 0, 1, 2, 3, 75


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


class BadNumbersError(Exception):
    """The loss or its gradient was not finite for too many steps in a row; the last good state is kept."""


class StoppedError(Exception):
    """Stopped by a signal or a time limit, after saving; the same command goes on from there."""


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

    Returns: 0 done; 2 a user's mistake; 3 numbers went bad; 75 stopped after saving; 1 our own error, with traceback.
    """
    try:
        job(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"mi_contrast: error: {error}", file=sys.stderr)
        return USER_ERROR
    except BadNumbersError as error:
        print(f"mi_contrast: numbers went bad: {error}", file=sys.stderr)
        return BAD_NUMBERS
    except StoppedError as error:
        print(f"mi_contrast: {error}", file=sys.stderr)
        return STOPPED
    except Exception:  # the one place where an error of our own is allowed to end
        traceback.print_exc()
        return OUR_ERROR
    return DONE
