"""Writes bytes and seconds for a reader."""

from __future__ import annotations

THIN = "\N{NARROW NO-BREAK SPACE}"


def duration(seconds: float) -> str:
    """Returns seconds in words: '42 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{THIN}s"
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60:02d}{THIN}s"
    return f"{whole // 3600}{THIN}h {whole % 3600 // 60:02d}{THIN}min"


def size(value: float) -> str:
    """Returns bytes in words: '9.2 GiB', '151 MiB', '12 B'."""
    words = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 1000 and len(words) > 1:
        value, words = value / 1024, words[1:]
    text = f"{value:,.0f}" if words[0] == "B" or abs(value) >= 100 else f"{value:.3g}"
    return f"{text}{THIN}{words[0]}"


def interval(seconds: float) -> str:
    """Returns seconds in words, also where they are few: '1.2 µs', '154 ms', '2.1 s', '3 min 20 s'."""
    for scale, unit, limit in ((1e6, "µs", 1e-3), (1e3, "ms", 1.0), (1.0, "s", 60.0)):
        if seconds < limit:
            return f"{scale * seconds:.3g}{THIN}{unit}"
    return duration(seconds)
