"""Checks of single values of a config: each returns the value, or raises a UserError that names the field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Schedule


def check_word(what: str, value: Any, words: Iterable[str]) -> str:
    """Returns the word. Raises UserError with the nearest right word where `words` lacks it."""
    if value not in tuple(words):
        raise unknown(what, value, words)
    return str(value)


def check_whole(field: str, value: Any, low: int = 1) -> int:
    """Returns the whole number. Raises UserError where it is none, or below `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise UserError(f"{field} is {value!r}", fix=f"give a whole number above {low - 1}")
    return value


def check_flag(field: str, value: Any, fix: str = "give True or False") -> bool:
    """Returns the flag. Raises UserError where the value is neither True nor False."""
    if not isinstance(value, bool):
        raise UserError(f"{field} is {value!r}", fix=fix)
    return value


def check_schedule(field: str, schedule: Any, low: float, high: float = np.inf, *, above: bool = False) -> Schedule:
    """Returns the number or schedule. Raises UserError where one of its values lies outside [low, high].

    Args:
      above: values must lie above `low`, not at it.
    """
    schedules.check(schedule, field)
    for point in schedules.extreme_values(schedule):
        if not (low < point if above else low <= point) or point > high:
            bounds = f"{'above' if above else 'at least'} {low:g}" + (
                "" if np.isinf(high) else f" and at most {high:g}"
            )
            raise UserError(f"{field} is {point:g}", fix=f"give a number {bounds}")
    return schedule
