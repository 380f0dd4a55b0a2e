"""Schedules: numbers that change over a run, written as plain data and evaluated as pure functions of the step.

A schedule is a number (constant) or a dict that one of the functions below makes. `value(schedule, progress)` evaluates
it at `Progress(step, total_steps)` in float32, inside or outside jit. In the docstrings below, t is step / total_steps,
clipped to [0, 1].

The kind `adaptive` follows a measurement instead of t. Its current level is part of the train state, and
`training.adaptive` replaces the schedule by a number before `value` is called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError, unknown

Schedule = float | Mapping[str, Any]

FIELDS = {
    "constant": {"v"},
    "linear": {"a", "b", "start", "end"},
    "step": {"values", "boundaries"},
    "cosine": {"a", "b", "start", "end"},
    "exponential": {"a", "b", "rate"},
    "adaptive": {"a", "b", "on", "every", "by", "window"},
}
KINDS_WITH_DECAY = ("linear", "cosine", "exponential")
MEASURES = ("objective", "mi_nats", "knn_top1")  # what an adaptive schedule can follow; higher is better for each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Progress:
    """The current step (int32, may be traced) and the total number of steps.

    Step schedules compare their boundaries with the integer `step`, so that jitted and eager code agree at every step.
    A comparison of floats would not: compiled code divides by multiplying with the reciprocal, and 22,200 / 37,000
    then comes out below float32's .6.
    """

    step: Int[Array, "..."]
    total_steps: int = field(metadata=dict(static=True))

    @property
    def fraction(self) -> Float[Array, "..."]:
        """Step / total_steps, clipped to [0, 1], float32."""
        return jnp.clip(self.step / self.total_steps, 0.0, 1.0).astype(jnp.float32)

    def has_passed(self, boundary: float) -> Array:
        """Whether step / total_steps >= boundary. The boundary is taken as the decimal number that the config shows."""
        return jnp.asarray(self.step) >= math.ceil(Fraction(repr(float(boundary))) * self.total_steps)


def constant(v: float) -> dict[str, Any]:
    """The schedule that is v for every t."""
    return {"kind": "constant", "v": v}


def linear(a: float, b: float, start: float = 0.0, end: float = 1.0) -> dict[str, Any]:
    """The schedule that is a until `start`, falls or rises on a straight line to b at `end`, and stays at b."""
    return {"kind": "linear", "a": a, "b": b, "start": start, "end": end}


def step(values: tuple[float, ...], boundaries: tuple[float, ...]) -> dict[str, Any]:
    """The schedule that is values[i], where i is the number of boundaries at or below t.

    It takes one value more than boundaries.
    """
    return {"kind": "step", "values": tuple(values), "boundaries": tuple(boundaries)}


def cosine(a: float, b: float, start: float = 0.0, end: float = 1.0) -> dict[str, Any]:
    """The schedule b + (a - b)(1 + cos(pi u)) / 2, where u = (t - start) / (end - start), clipped to [0, 1]."""
    return {"kind": "cosine", "a": a, "b": b, "start": start, "end": end}


def exponential(a: float, b: float, rate: float) -> dict[str, Any]:
    """The schedule b + (a - b)(e^{-rate t} - e^{-rate}) / (1 - e^{-rate}): it is a at t = 0 and b at t = 1."""
    return {"kind": "exponential", "a": a, "b": b, "rate": rate}


def adaptive(
    a: float, b: float, on: str = "objective", every: int = 100, by: float = 0.05, window: int = 5
) -> dict[str, Any]:
    """The schedule a + (b - a) level, whose level starts at 0, stays in [0, 1] and follows a measurement.

    Args:
      a, b: the values at level 0 and at level 1.
      on: the measurement: 'objective' (nats, one value a step), 'mi_nats' or 'knn_top1' (one value a measurement).
      every: steps from one update of the level to the next.
      by: how much an update changes the level.
      window: number of earlier means that an update compares with.

    An update takes the mean of `on` since the last update and compares it with the average of the last `window` such
    means. A higher mean raises the level by `by`, a lower one lowers it by as much.

    Source: Wu et al. 2021 (Ring), released code. Its first update compares with an empty window; ours leaves the level
    unchanged until there is an earlier mean.
    """
    return {"kind": "adaptive", "a": a, "b": b, "on": on, "every": every, "by": by, "window": window}


def pace(schedule: Schedule) -> tuple[str, int, float, int] | None:
    """The (on, every, by, window) of an adaptive schedule, None for other kinds.

    Schedules of the same pace share one level.
    """
    if not isinstance(schedule, Mapping) or schedule.get("kind") != "adaptive":
        return None
    return schedule["on"], schedule["every"], schedule["by"], schedule["window"]


def check(schedule: Schedule, path: str) -> None:
    """Raises UserError unless `schedule` is a number or of one of the kinds above. `path` names the config's field."""
    if isinstance(schedule, bool) or not isinstance(schedule, (int, float, Mapping)):
        raise UserError(f"{path} is {schedule!r}", fix="give a number or a schedule such as linear(0., .9)")
    if isinstance(schedule, Mapping):
        kind = schedule.get("kind")
        if kind not in FIELDS:
            raise unknown(f"schedule of {path}", kind, FIELDS)
        fields = set(schedule) - {"kind"}
        if fields != FIELDS[kind]:
            raise UserError(
                f"{path}: schedule {kind} has fields {sorted(fields)}", fix=f"it takes {sorted(FIELDS[kind])}"
            )
        if kind == "step" and len(schedule["values"]) != len(schedule["boundaries"]) + 1:
            raise UserError(f"{path}: schedule step needs one value more than boundaries")
        if kind in ("linear", "cosine") and not schedule["start"] < schedule["end"]:
            raise UserError(f"{path}: schedule {kind} has start >= end", fix="give start < end")
        if kind == "exponential" and not schedule["rate"] > 0:
            raise UserError(f"{path}: schedule exponential has rate {schedule['rate']}", fix="give a rate above 0")
        if kind == "adaptive":
            _check_pace(schedule, path)
    if not all(math.isfinite(x) for x in extreme_values(schedule)):
        raise UserError(f"{path} is not finite", fix="give finite numbers")


def _check_pace(schedule: Mapping[str, Any], path: str) -> None:
    if schedule["on"] not in MEASURES:
        raise unknown(f"`on` of {path}", schedule["on"], MEASURES)
    for name in ("every", "window"):
        if isinstance(schedule[name], bool) or not isinstance(schedule[name], int) or schedule[name] < 1:
            raise UserError(
                f"{path}: schedule adaptive has {name} {schedule[name]!r}", fix="give a whole number above 0"
            )
    if not 0 < schedule["by"] <= 1:
        raise UserError(f"{path}: schedule adaptive has by {schedule['by']!r}", fix="give a number above 0, at most 1")


def extreme_values(schedule: Schedule) -> tuple[float, ...]:
    """The values that bound a schedule: its minimum and its maximum are among them."""
    if not isinstance(schedule, Mapping):
        return (float(schedule),)
    if schedule["kind"] == "constant":
        return (float(schedule["v"]),)
    if schedule["kind"] == "step":
        return tuple(float(v) for v in schedule["values"])
    return float(schedule["a"]), float(schedule["b"])


def value(schedule: Schedule, progress: Progress | Float[Array, ""] | float) -> Float[Array, ""]:
    """Returns the schedule's value, a float32 scalar.

    Args:
      schedule: a number or a dict of one of the kinds above.
      progress: a `Progress`, or t as a float, which is clipped to [0, 1] and compared with boundaries in float32.
    Raises:
      UserError: the schedule is adaptive, which is no function of progress.
    """
    if isinstance(progress, Progress):
        t, passed = progress.fraction, progress.has_passed
    else:
        t = jnp.clip(jnp.asarray(progress, jnp.float32), 0.0, 1.0)
        passed = lambda boundary: t >= jnp.float32(boundary)  # noqa: E731
    if not isinstance(schedule, Mapping):
        return jnp.full((), schedule, jnp.float32)
    kind = schedule["kind"]
    if kind == "constant":
        return jnp.full((), schedule["v"], jnp.float32)
    if kind == "step":
        index = sum((passed(boundary).astype(jnp.int32) for boundary in schedule["boundaries"]), jnp.int32(0))
        return jnp.asarray(schedule["values"], jnp.float32)[index]
    if kind == "adaptive":
        raise UserError(
            "an adaptive schedule is used where only the step is known", fix="use a schedule of another kind"
        )
    a, b = jnp.float32(schedule["a"]), jnp.float32(schedule["b"])
    if kind == "exponential":
        last = math.exp(-schedule["rate"])
        return b + (a - b) * (jnp.exp(-schedule["rate"] * t) - last) / (1.0 - last)
    u = jnp.clip((t - schedule["start"]) / (schedule["end"] - schedule["start"]), 0.0, 1.0)
    if kind == "cosine":
        return b + (a - b) * 0.5 * (1.0 + jnp.cos(jnp.pi * u))
    return a + (b - a) * u
