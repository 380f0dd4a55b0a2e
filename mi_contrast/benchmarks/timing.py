"""Times contenders in turns: every round runs each of them once, so that a noisy moment affects all alike.

`time_repeated` times one contender, for devices that nothing else uses.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def time_interleaved(contenders: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of each contender in each of `repeats` rounds, after one round that is not measured.

    A contender must wait for its result before it returns.
    """
    for contender in contenders.values():
        contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            start_time = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - start_time)
    return seconds


def time_repeated(call: Callable[[int], Any], repeats: int, at_least: float = 0.3) -> list[float]:
    """Returns the mean seconds of one call in each of `repeats` rounds. A round has many calls.

    Args:
      call: makes the given number of calls, one after another, and waits for the last. The first round is not measured.
      at_least: duration of a round in seconds, long enough that the wait at its end doesn't matter.
    """
    call(1)
    start_time = time.perf_counter()
    call(2)
    count = min(max(1, math.ceil(2 * at_least / max(time.perf_counter() - start_time, 1e-6))), 1000)
    seconds = []
    for _ in range(repeats):
        start_time = time.perf_counter()
        call(count)
        seconds.append((time.perf_counter() - start_time) / count)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Returns the smallest value, the median and the largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Returns the spread over rounds of the ratio theirs / ours; above 1 ours is faster."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])
