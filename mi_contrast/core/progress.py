"""A progress bar with an ETA in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

BEAT = {"terminal": 1.0, "lines": 10.0}  # seconds between two signs of life while nothing is timed yet


def is_notebook() -> bool:
    """Returns whether this is a cell of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def format_duration(seconds: float) -> str:
    """Writes a duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar:
    """Shows the progress of a loop: a tqdm bar in a terminal or a notebook, plain lines on stderr elsewhere.

    Until a unit has been timed there is no rate, so the time so far is shown in its place.

    Args:
      what: a word for the work.
      total: units of work in all.
      start: units that are done already, above 0 in a resumed job.
      unit: the name of a unit.
      each: images in a unit. If above 1, the rate is shown in images a second.
      seconds_between: the least time between plain lines.
      compiles: whether the first unit compiles a program, which may take longer than all others. The bar then says so,
        and a thread shows the time so far; `close` ends it, so call that in any case.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        start: int = 0,
        unit: str = "step",
        each: int = 1,
        seconds_between: float = 10.0,
        compiles: bool = False,
    ):
        self.what, self.total, self.done, self.unit, self.each = what, total, start, unit, each
        # The rate is measured from the end of the first `advance`, because only the first unit compiles.
        self._first_done: int | None = None
        self._began = self._start_time = self._last_line = time.perf_counter()
        self._seconds_between, self._compiles = seconds_between, compiles
        self._bar: Any = None
        if sys.stderr.isatty() or is_notebook():
            # tqdm would count compiling into its rate. This bar has none, and `_show_rate` replaces it.
            text = f"{{desc}}: {{n_fmt}}/{{total_fmt}} {unit}s, {self._word}{{elapsed}} so far"
            self._bar = self._make_bar(initial=start, bar_format=text, leave=False)
        self._is_timed = threading.Event()
        if compiles:
            threading.Thread(target=self._show_time, daemon=True).start()

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
        elif not self._is_timed.is_set():
            self._is_timed.set()
            self._show_rate()
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(self.done - self._bar.n)
        elif time.perf_counter() - self._last_line >= self._seconds_between:
            self.line(note)

    def line(self, note: str = "") -> None:
        """Prints a plain line now, with the units done, the rate, the time left and `note`."""
        self._last_line = time.perf_counter()
        if self.rate > 0:
            rate = f"{self.rate:,.0f} {'images' if self.each > 1 else self.unit + 's'}/s"
            pace = f"{rate}, {format_duration((self.total - self.done) * self.each / self.rate)} left"
        elif self.done >= self.total:
            pace = f"in {format_duration(time.perf_counter() - self._began)}"
        else:
            pace = f"{self._word}{format_duration(time.perf_counter() - self._began)} so far"
        self.say(f"{self.what} {self.done}/{self.total} {self.unit}s, {pace}  {note}".rstrip())

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the bar."""
        self._is_timed.set()
        if self._bar is not None:
            self._bar.close()

    def _make_bar(self, **settings: Any) -> Any:
        from tqdm.auto import tqdm

        return tqdm(total=self.total, desc=self.what, unit=self.unit, dynamic_ncols=True, **settings)

    def _show_rate(self) -> None:
        """Replaces the bar without a rate by one whose clock starts at the end of the first unit."""
        if self._bar is not None:
            self._bar.close()
            self._bar = self._make_bar(initial=self._first_done)
            self._bar.start_t -= time.perf_counter() - self._start_time
            self._bar.last_print_t = self._bar.start_t

    def _show_time(self) -> None:
        """Shows the time so far, again and again until a unit has been timed or the bar is closed."""
        while not self._is_timed.wait(BEAT["lines" if self._bar is None else "terminal"]):
            if self._bar is None:
                self.line()
            else:
                self._bar.refresh()

    @property
    def _word(self) -> str:
        return "compiling, " if self._compiles else ""
