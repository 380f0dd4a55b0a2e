"""Interleaved timing: every round runs each contender once, so that a noisy moment hits them all alike.

`repeated` times one alone, for devices that nothing else disturbs.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleaved(contenders: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each contender in each of `repeats` rounds, after one round unmeasured. A contender waits for its
    own result before it returns.
    """
    for contender in contenders.values():
        contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def repeated(call: Callable[[int], Any], repeats: int, at_least: float = 0.3) -> list[float]:
    """Returns the seconds of one call in each of `repeats` rounds of many.

    Args:
      call: makes so many calls, one after the other, and waits for the last. Its first round is not measured.
      at_least: seconds of a round, which has as many calls as that takes, so that a device is never waited for.
    """
    call(1)
    began = time.perf_counter()
    call(2)
    count = min(max(1, math.ceil(2 * at_least / max(time.perf_counter() - began, 1e-6))), 1000)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call(count)
        seconds.append((time.perf_counter() - began) / count)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Least, median and largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Theirs / ours of every round (above 1: ours is faster), its least, median and largest."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])
