"""Lines that say that a long computation, which cannot be interrupted to report, is still running."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from mi_contrast.core.progress import format_duration


@contextlib.contextmanager
def report_time(what: str, expected: float | None = None, *, seconds_between: float = 5.0) -> Iterator[None]:
    """Prints a line to stderr every so many seconds while the block runs: what, time so far, and the time left.

    Args:
      what: a word for the work.
      expected: how many seconds it is thought to take, or None.
      seconds_between: time between lines; nothing is printed before the first has passed.
    """
    done = threading.Event()
    began = time.perf_counter()

    def speak() -> None:
        while not done.wait(seconds_between):
            passed = time.perf_counter() - began
            left = "" if expected is None else f", about {format_duration(max(0.0, expected - passed))} left"
            print(f"{what}: {format_duration(passed)} so far{left}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
