"""Interleaved timing: every round runs each contender once, so that a noisy moment hits them all alike."""

from __future__ import annotations

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


def spread(values: list[float]) -> dict[str, float]:
    """Least, median and largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Theirs / ours of every round (above 1: ours is faster), its least, median and largest."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])
