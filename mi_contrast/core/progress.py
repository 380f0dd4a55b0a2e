"""Progress with an ETA: a bar in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def format_duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows how far work has come.

    Args:
      what: a word for the work.
      total, start: in units of work; a resumed job starts above 0.
      unit: the name of a unit; each: how many images, say, a unit holds (the rate shown is of these).
      seconds_between: the least time between plain lines.
    """

    def __init__(
        self, what: str, total: int, *, start: int = 0, unit: str = "step", each: int = 1, seconds_between: float = 10.0
    ):
        self.what, self.total, self.done, self.unit, self.each = what, total, start, unit, each
        self._first: int | None = None  # units done when the first ones were, which alone may compile
        self._began = self._last = time.perf_counter()
        self._between = seconds_between
        self._bar: Any = None
        if sys.stderr.isatty() or _is_notebook():
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, initial=start, desc=what, unit=unit, dynamic_ncols=True)

    @property
    def rate(self) -> float:
        """Units of `each` a second since the first were done; 0 before more are."""
        since = 0 if self._first is None else self.done - self._first
        return since * self.each / max(time.perf_counter() - self._began, 1e-9)

    def advance(self, by: int = 1, note: str = "") -> None:
        """Moves on by so many units; `note` is shown beside."""
        self.done += by
        if self._first is None:
            self._first, self._began = self.done, time.perf_counter()
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(by)
        elif time.perf_counter() - self._last >= self._between:
            self._last = time.perf_counter()
            self.line(note)

    def line(self, note: str = "") -> None:
        """A plain line now: work, how far, time left, rate, note."""
        left = format_duration((self.total - self.done) * self.each / self.rate) if self.rate > 0 else "?"
        rate = f"{self.rate:,.0f} {'images' if self.each > 1 else self.unit + 's'}/s"
        text = f"{self.what} {self.done}/{self.total} {self.unit}s, {rate}, {left} left"
        self.say(f"{text}  {note}".rstrip())

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()
