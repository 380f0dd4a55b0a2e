"""Reads dates, and finds columns that say in which order rows were drawn: by a date, or by a count of the rows."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

DAYS = ("%Y/%m/%d", "%Y-%m", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S")
FEWEST_COUNTED = 8  # rows, below which equal steps are no count
SHARE_OF_STEPS, STEP_TOLERANCE = 0.9, 0.01  # the share of steps that are equal in a count, and by how much they differ


def _read_with(form: str) -> Callable[[str], datetime.datetime]:
    return lambda word: datetime.datetime.strptime(word, form)


PARSERS = (datetime.datetime.fromisoformat, *(_read_with(day + clock) for day in DAYS for clock in CLOCKS))


def number_dates(words: Sequence[str | None]) -> np.ndarray | None:
    """Returns the place of each date among all different ones in time, float64 [N]; NaN for None.

    Returns None unless all words are dates of one form: ISO 8601, or one of `DAYS` with or without a time.

    >>> number_dates(["2.1.2024", None, "1.2.2024", "2.1.2024"]).tolist()
    [0.0, nan, 1.0, 0.0]
    """
    different = {word for word in words if word is not None}
    for parse in PARSERS if different else ():
        try:
            times = {word: _count_seconds(parse(word)) for word in different}
        except ValueError:
            continue
        return number_values([None if word is None else times[word] for word in words])
    return None


def number_times(array: np.ndarray) -> np.ndarray | None:
    """Returns the place in time of each value of an array of datetime64 or of dates; None if it holds anything else."""
    if array.dtype.kind == "M":
        is_known = ~np.isnat(array)
        places = np.full(len(array), np.nan)
        places[is_known] = np.unique(array[is_known], return_inverse=True)[1].reshape(-1)
        return places
    if array.dtype.kind != "O" or array.ndim != 1:
        return None
    is_missing = [value is None or (isinstance(value, (float, datetime.date)) and value != value) for value in array]
    values = [None if missing else value for value, missing in zip(array, is_missing, strict=True)]
    known = [value for value in values if value is not None]
    if not known or not all(isinstance(value, datetime.date) for value in known):
        return None
    return number_values([None if value is None else _count_seconds(value) for value in values])


def number_values(values: Sequence[Any]) -> np.ndarray:
    """Returns the place of each value among all different ones in ascending order, float64 [N]; NaN for None."""
    places = {value: place for place, value in enumerate(sorted({value for value in values if value is not None}))}
    return np.array([np.nan if value is None else places[value] for value in values], np.float64)


def _count_seconds(value: datetime.date) -> float:
    if not isinstance(value, datetime.datetime):
        return value.toordinal() * 86400.0
    aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    return (aware - datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)).total_seconds()


def counts_rows(array: np.ndarray) -> bool:
    """Returns whether numbers count rows or times: none occurs twice, and nine in ten follow by the same step.

    >>> counts_rows(np.random.default_rng(0).permutation(50)), counts_rows(np.random.default_rng(0).normal(size=50))
    (True, False)
    """
    if array.ndim != 1 or array.dtype.kind not in "iuf" or len(array) < FEWEST_COUNTED:
        return False
    steps = np.diff(np.sort(array.astype(np.float64)))
    if not np.isfinite(steps).all() or steps.min() <= 0:
        return False
    step = np.median(steps)
    return bool((np.abs(steps - step) <= STEP_TOLERANCE * step).mean() >= SHARE_OF_STEPS)


def is_out_of_order(places: np.ndarray) -> bool:
    """Returns whether rows neither rise nor fall throughout, so that sorting by these numbers moves some of them."""
    steps = np.diff(places[np.isfinite(places)].astype(np.float64))
    return bool((steps > 0).any() and (steps < 0).any())
