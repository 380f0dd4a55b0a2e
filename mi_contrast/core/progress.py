"""A progress bar with an ETA in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def format_duration(seconds: float) -> str:
    """Writes a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar:
    """Shows the progress of a loop: a tqdm bar in a terminal or a notebook, plain lines on stderr elsewhere.

    Args:
      what: a word for the work.
      total: units of work in all.
      start: units that are done already, above 0 in a resumed job.
      unit: the name of a unit.
      each: images in a unit. If above 1, the rate is shown in images a second.
      seconds_between: the least time between plain lines.
    """

    def __init__(
        self, what: str, total: int, *, start: int = 0, unit: str = "step", each: int = 1, seconds_between: float = 10.0
    ):
        self.what, self.total, self.done, self.unit, self.each = what, total, start, unit, each
        # The rate is measured from the end of the first `advance`, because only the first unit compiles.
        self._first_done: int | None = None
        self._start_time = self._last_line = time.perf_counter()
        self._seconds_between = seconds_between
        self._bar: Any = None
        if sys.stderr.isatty() or _is_notebook():
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, initial=start, desc=what, unit=unit, dynamic_ncols=True)

    @property
    def rate(self) -> float:
        """Units times `each` a second, since the end of the first `advance`. 0 until the second."""
        count = 0 if self._first_done is None else self.done - self._first_done
        return count * self.each / max(time.perf_counter() - self._start_time, 1e-9)

    def advance(self, by: int = 1, note: str = "") -> None:
        """Counts `by` more units as done. `note` is shown after the rate."""
        self.done += by
        if self._first_done is None:
            self._first_done, self._start_time = self.done, time.perf_counter()
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(by)
        elif time.perf_counter() - self._last_line >= self._seconds_between:
            self._last_line = time.perf_counter()
            self.line(note)

    def line(self, note: str = "") -> None:
        """Prints a plain line now, with the units done, the rate, the time left and `note`."""
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
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
