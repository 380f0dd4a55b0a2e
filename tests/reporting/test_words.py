import math

import pytest

from mi_contrast.reporting.words import count, duration, number, signed


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.8734, "%", "87.3 %"),
        (math.log(1024), "nats", "6.93 nats"),
        (-1.204, "nats", "\N{MINUS SIGN}1.20 nats"),
        (4211.7, "", "4,212"),
        (0.0123456, "", "0.0123"),
        (3e-7, "", "3e-07"),
        (12.0, "", "12"),
        (-0.0004, "nats", "0.00 nats"),
        (-0.0, "", "0"),
        (math.nan, "nats", "not finite"),
        (math.inf, "%", "not finite"),
    ],
)
def test_numbers_read_as_a_reader_wants_them(value, unit, expected):
    assert number(value, unit).replace("\N{NARROW NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, expected):
    assert duration(seconds).replace("\N{NARROW NO-BREAK SPACE}", " ") == expected


def test_counts_and_differences():
    assert count(22992) == "22,992"
    assert signed(3.25, "points").startswith("+3.2") and signed(-3.25, "points").startswith("\N{MINUS SIGN}3.2")
