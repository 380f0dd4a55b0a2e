"""Schedules against plain Python, from their definitions."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError


def clip(t, low=0.0, high=1.0):
    return min(max(t, low), high)


CASES = [
    (0.25, lambda t: 0.25),
    (schedules.constant(3.0), lambda t: 3.0),
    (schedules.linear(1.0, 0.1, 0.0, 0.5), lambda t: 1.0 + (0.1 - 1.0) * clip(t / 0.5)),
    (schedules.cosine(0.03, 0.001, 0.2), lambda t: 0.001 + 0.029 * (1 + math.cos(math.pi * clip((t - 0.2) / 0.8))) / 2),
    (schedules.step((1.0, 0.5, 0.1), (0.3, 0.6)), lambda t: 1.0 if t < 0.3 else 0.5 if t < 0.6 else 0.1),
    (
        schedules.exponential(1.0, 0.1, 5.0),
        lambda t: 0.1 + 0.9 * (math.exp(-5 * t) - math.exp(-5)) / (1 - math.exp(-5)),
    ),
]


@pytest.mark.parametrize(("schedule", "expected"), CASES)
def test_values(schedule, expected):
    for t in (-0.5, 0.0, 0.1, 0.25, 0.31, 0.5, 0.61, 0.99, 1.0, 7.0):
        want = expected(clip(t))
        assert float(schedules.value(schedule, t)) == pytest.approx(want, rel=1e-5, abs=1e-6)
        assert float(jax.jit(lambda t, s=schedule: schedules.value(s, t))(t)) == pytest.approx(want, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("schedule", "expected"), CASES)
def test_points_enclose_the_values(schedule, expected):
    low, high = min(schedules.extreme_values(schedule)), max(schedules.extreme_values(schedule))
    values = [float(schedules.value(schedule, t)) for t in np.linspace(0, 1, 101)]
    assert low - 1e-6 <= min(values)
    assert max(values) <= high + 1e-6


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("fast", "give a number or a schedule"),
        (True, "give a number or a schedule"),
        ({"kind": "liner", "a": 0, "b": 1}, "did you mean 'linear'"),
        ({"kind": "linear", "a": 0.0, "b": 1.0}, "has fields"),
        (schedules.step((1.0, 0.5), (0.3, 0.6)), "one value more"),
        (schedules.linear(0.0, 1.0, 0.5, 0.5), "start >= end"),
        (schedules.exponential(1.0, 0.0, 0.0), "rate above 0"),
        (float("nan"), "not finite"),
    ],
)
def test_mistakes_are_named(schedule, said):
    with pytest.raises(UserError, match=said):
        schedules.check(schedule, "config.x")


@pytest.mark.parametrize("total", [7, 400, 999, 3000, 37_000])
@pytest.mark.parametrize("boundary", [0.1, 0.3, 0.6, 0.7, 0.9])
def test_steps_fire_at_the_integer_step_jitted_and_not(total, boundary):
    """The first step at or beyond the boundary, by exact fractions."""
    first = math.ceil(Fraction(str(boundary)) * total)
    schedule = schedules.step((1.0, 0.1), (boundary,))
    steps = np.arange(max(first - 2, 0), first + 3, dtype=np.int32)
    read = lambda step: schedules.value(schedule, schedules.Progress(step, total))  # noqa: E731
    expected = np.where(steps >= first, np.float32(0.1), np.float32(1.0))
    np.testing.assert_array_equal(jax.jit(jax.vmap(read))(steps), expected)
    np.testing.assert_array_equal([jax.jit(read)(step) for step in steps], expected)
    np.testing.assert_array_equal([read(step) for step in steps], expected)


@pytest.mark.parametrize(("schedule", "expected"), CASES)
def test_values_at_steps_of_a_run(schedule, expected):
    for step in (0, 3, 30, 31, 50, 61, 99, 100, 250):
        found = schedules.value(schedule, schedules.Progress(jnp.int32(step), 100))
        assert float(found) == pytest.approx(expected(clip(step / 100)), rel=1e-5, abs=1e-6)


def test_good_schedules_pass():
    for schedule, _ in CASES:
        schedules.check(schedule, "config.x")
