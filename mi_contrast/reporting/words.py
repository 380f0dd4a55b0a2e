"""Writes numbers for a reader."""

from __future__ import annotations

import math

from mi_contrast.core.quantities import THIN, duration, interval, size

__all__ = ["MINUS", "THIN", "count", "duration", "interval", "number", "signed", "size"]

MINUS = "\N{MINUS SIGN}"


def number(value: float, unit: str = "") -> str:
    """Returns a number with its unit: '87.3 %' for .873, '4.32 nats', '1,204 images/s', '0.0123', 'not finite'."""
    if not math.isfinite(value):
        return "not finite"
    if unit == "%":
        text = f"{100 * value:.1f}"
    elif unit == "nats":
        text = f"{value:.2f}"
    elif abs(value) >= 1000 or value == int(value):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # no minus before a zero
    text = text.replace("-", MINUS) if "e" not in text else text
    return f"{text}{THIN}{unit}" if unit else text


def count(value: int) -> str:
    """Returns a whole number with its thousands separated: '22,992'."""
    return f"{value:,}"


def signed(value: float, unit: str) -> str:
    """Returns a difference with its sign: '+15.2 points', or with a minus."""
    return f"{'+' if value >= 0 else MINUS}{abs(value):.1f}{THIN}{unit}"
