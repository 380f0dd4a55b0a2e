"""Accuracies with the number of images that they were taken on, and their 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mi_contrast.readout.accuracy import interval95
from mi_contrast.reporting.held_out import HeldOut
from mi_contrast.reporting.words import count, number, signed

ENOUGH = 200  # images below which an accuracy is greyed out, and no difference is read from it


@dataclass(frozen=True)
class Share:
    """An accuracy, and how sure it is.

    Attributes:
      value: in [0, 1].
      n: the number of images it was taken on; None if that is unknown.
      low, high: the ends of its 95 % interval; None if n is unknown.
      independent: the number of independent images that are as informative as those n; None if that is unknown.
    """

    value: float
    n: int | None = None
    low: float | None = None
    high: float | None = None
    independent: float | None = None

    @property
    def is_uncertain(self) -> bool:
        """Whether it was taken on fewer than `ENOUGH` images, or on an unknown number."""
        return self.n is None or self.n < ENOUGH

    @property
    def informative(self) -> float:
        """The number of independent images that say as much; frames of one object say less than their number."""
        return min(self.n or 0, math.inf if self.independent is None else self.independent)

    def describe(self) -> str:
        """Returns how sure the accuracy is, in words: 'n = 1,437, 95 % interval 78.1 % to 82.0 %'."""
        if self.n is None or self.low is None or self.high is None:
            return "n unknown"
        alike = self.informative < 0.95 * self.n
        n = f"n = {count(self.n)}" + (f" (as informative as {count(round(self.informative))})" if alike else "")
        return f"{n}, 95 % interval {number(self.low, '%')} to {number(self.high, '%')}"


def measure_share(held_out: HeldOut, metric: str, step: int, value: float) -> Share:
    """Returns an accuracy on held-out images at a step of training, with its n and Wilson's interval if n is known."""
    n, independent = held_out.count_queries(step), held_out.count_independent(step, metric)
    if n is None or not math.isfinite(value):
        return Share(value)
    effective = n if independent is None else independent
    return Share(value, n, *interval95(min(max(value, 0.0), 1.0), max(effective, 1.0)), independent)


def read_share(result: Mapping[str, Any]) -> Share:
    """Returns the top-1 of a result file."""
    low, high = result["interval95"]
    n = result.get("test", {}).get("examples")
    return Share(result["top1"], n if isinstance(n, int) else None, low, high, result.get("independent_examples"))


def describe_gain(before: Share, after: Share) -> str:
    """Returns what was gained, in points; where n is unknown or small, that nothing can be read from it.

    Where the two 95 % intervals meet, the text says that the difference may be luck.
    """
    if after.n is None or before.n is None:
        return "n unknown: no gain is read from it"
    if after.is_uncertain or before.is_uncertain:
        return f"n = {count(min(after.n, before.n))}: too few to tell a gain"
    gain = f"{signed(100 * (after.value - before.value), 'points')} over untrained"
    return gain + ("" if are_apart(before, after) else ", which may be luck")


def are_apart(first: Share, second: Share) -> bool:
    """Whether the 95 % intervals of two accuracies do not meet."""
    low, high = (second, first) if second.value < first.value else (first, second)
    return low.high is not None and high.low is not None and low.high < high.low


def class_rows(
    measured: Mapping[str, Any], classes: tuple[str, ...], metric: str, kind: str
) -> Iterator[dict[str, Any]]:
    """Yields the rows of `charts.draw_accuracies` for the accuracy of each class that has queries.

    Args:
      measured: a line of measurements.jsonl.
      classes: the names of the classes, or () for their numbers.
      kind: 'trained' or 'untrained'.
    """
    for i, (n, hits) in enumerate(zip(measured["queries"], measured["hits"][metric], strict=True)):
        if n > 0:
            low, high = interval95(hits / n, n)
            name = f"{classes[i] if i < len(classes) else i}, n = {count(n)}"
            yield {"name": name, "kind": kind, "top1": hits / n, "low": low, "high": high, "n": n, "chance": None}
