"""Prints the time during a long computation that cannot report its own progress."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from mi_contrast.core.progress import format_duration, is_notebook

BETWEEN = {"screen": 5.0, "log": 30.0}  # seconds between two lines in a terminal or a notebook, and in a log


@contextlib.contextmanager
def report_time(what: str, expected: float | None = None, *, seconds_between: float | None = None) -> Iterator[None]:
    """While the block runs, prints a line to stderr every `seconds_between` seconds with the time so far.

    Args:
      what: a word for the work.
      expected: how many seconds the work is expected to take. If given, the line also says how much time is left.
      seconds_between: time from the start to the first line, and from one line to the next; by default 5 in a terminal
        or a notebook, and 30 in a log.
    """
    wait = seconds_between or BETWEEN["screen" if sys.stderr.isatty() or is_notebook() else "log"]
    done = threading.Event()
    start = time.perf_counter()

    def print_lines() -> None:
        while not done.wait(wait):
            elapsed = time.perf_counter() - start
            left = "" if expected is None else f", about {format_duration(max(0.0, expected - elapsed))} left"
            print(f"{what}: {format_duration(elapsed)} so far{left}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
