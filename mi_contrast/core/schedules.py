"""Values that move with progress: plain data in a config, a pure function of the step in a run.

A schedule is a number (constant) or a dict made by one of the functions below, so that a config stays plain data;
`value(schedule, progress)` reads it at `Progress(step, total_steps)`, in float32, inside or outside jit. Below, t is
step / total_steps, clipped to [0, 1].
One kind, `adaptive`, moves with what is learned and not with t: what it has come to is a run's state, and who keeps it
(training.adaptive) gives `value` the number.
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
MEASURES = ("objective", "mi_nats", "knn_top1")  # what an adaptive schedule may follow; more is better in each


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Progress:
    """How far a run has come: `step`, int32 and possibly traced, of `total_steps`.

    Boundaries of step schedules are compared with the integer, so that a jitted and an eager reading agree at every
    step. Compiled code divides by multiplying with a reciprocal: 22,200 / 37,000 then falls below float32's .6.
    """

    step: Int[Array, "..."]
    total_steps: int = field(metadata=dict(static=True))

    @property
    def fraction(self) -> Float[Array, "..."]:
        """Step / total_steps, clipped to [0, 1], float32."""
        return jnp.clip(self.step / self.total_steps, 0.0, 1.0).astype(jnp.float32)

    def has_passed(self, boundary: float) -> Array:
        """Whether step / total_steps >= boundary, the boundary read as the decimal number that a config shows."""
        return jnp.asarray(self.step) >= math.ceil(Fraction(repr(float(boundary))) * self.total_steps)


def constant(v: float) -> dict[str, Any]:
    """V for every t."""
    return {"kind": "constant", "v": v}


def linear(a: float, b: float, start: float = 0.0, end: float = 1.0) -> dict[str, Any]:
    """A until `start`, then a straight line to b at `end`, then b."""
    return {"kind": "linear", "a": a, "b": b, "start": start, "end": end}


def step(values: tuple[float, ...], boundaries: tuple[float, ...]) -> dict[str, Any]:
    """values[i], i the number of boundaries at or below t; one value more than boundaries."""
    return {"kind": "step", "values": tuple(values), "boundaries": tuple(boundaries)}


def cosine(a: float, b: float, start: float = 0.0, end: float = 1.0) -> dict[str, Any]:
    """B + (a - b)(1 + cos(pi u)) / 2, u the progress from `start` to `end`, clipped to [0, 1]."""
    return {"kind": "cosine", "a": a, "b": b, "start": start, "end": end}


def exponential(a: float, b: float, rate: float) -> dict[str, Any]:
    """B + (a - b)(e^{-rate t} - e^{-rate}) / (1 - e^{-rate}): a at t = 0, b at t = 1."""
    return {"kind": "exponential", "a": a, "b": b, "rate": rate}


def adaptive(
    a: float, b: float, on: str = "objective", every: int = 100, by: float = 0.05, window: int = 5
) -> dict[str, Any]:
    """A + (b - a) level, the level in [0, 1] and 0 at first.

    At every `every`-th step the mean of `on` since the last such step is held against the mean of the `window` ones
    before: where it is more, the level rises by `by`, where it is less, it falls by as much. `on` is the objective of
    each step, in nats, or one of the run's measurements, mi_nats or knn_top1, then of those since the last move.

    Source: Wu et al. 2021 (Ring), released code, whose first move compares with the mean of nothing: here nothing moves
    before there is something to compare with.
    """
    return {"kind": "adaptive", "a": a, "b": b, "on": on, "every": every, "by": by, "window": window}


def pace(schedule: Schedule) -> tuple[str, int, float, int] | None:
    """(on, every, by, window) of an adaptive schedule, else None: those of one pace share a level and move together."""
    if not isinstance(schedule, Mapping) or schedule.get("kind") != "adaptive":
        return None
    return schedule["on"], schedule["every"], schedule["by"], schedule["window"]


def check(schedule: Schedule, where: str) -> None:
    """Raises UserError where `schedule` is not a number or one of the kinds above; `where` names the field."""
    if isinstance(schedule, bool) or not isinstance(schedule, (int, float, Mapping)):
        raise UserError(f"{where} is {schedule!r}", fix="give a number or a schedule such as linear(0., .9)")
    if isinstance(schedule, Mapping):
        kind = schedule.get("kind")
        if kind not in FIELDS:
            raise unknown(f"schedule of {where}", kind, FIELDS)
        fields = set(schedule) - {"kind"}
        if fields != FIELDS[kind]:
            raise UserError(
                f"{where}: schedule {kind} has fields {sorted(fields)}", fix=f"it takes {sorted(FIELDS[kind])}"
            )
        if kind == "step" and len(schedule["values"]) != len(schedule["boundaries"]) + 1:
            raise UserError(f"{where}: schedule step needs one value more than boundaries")
        if kind in ("linear", "cosine") and not schedule["start"] < schedule["end"]:
            raise UserError(f"{where}: schedule {kind} has start >= end", fix="give start < end")
        if kind == "exponential" and not schedule["rate"] > 0:
            raise UserError(f"{where}: schedule exponential has rate {schedule['rate']}", fix="give a rate above 0")
        if kind == "adaptive":
            _check_pace(schedule, where)
    if not all(math.isfinite(x) for x in extreme_values(schedule)):
        raise UserError(f"{where} is not finite", fix="give finite numbers")


def _check_pace(schedule: Mapping[str, Any], where: str) -> None:
    if schedule["on"] not in MEASURES:
        raise unknown(f"`on` of {where}", schedule["on"], MEASURES)
    for name in ("every", "window"):
        if isinstance(schedule[name], bool) or not isinstance(schedule[name], int) or schedule[name] < 1:
            raise UserError(
                f"{where}: schedule adaptive has {name} {schedule[name]!r}", fix="give a whole number above 0"
            )
    if not 0 < schedule["by"] <= 1:
        raise UserError(f"{where}: schedule adaptive has by {schedule['by']!r}", fix="give a number above 0, at most 1")


def extreme_values(schedule: Schedule) -> tuple[float, ...]:
    """The values between which a schedule stays: its extremes are among them."""
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
      schedule: a number or one of the kinds above.
      progress: a `Progress`; or t in [0, 1], clipped, whose comparison with a boundary is then float32's.
    Raises:
      UserError: an adaptive schedule, which is no function of progress.
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
            "an adaptive schedule stands where values move with progress alone", fix="take another schedule"
        )
    a, b = jnp.float32(schedule["a"]), jnp.float32(schedule["b"])
    if kind == "exponential":
        last = math.exp(-schedule["rate"])
        return b + (a - b) * (jnp.exp(-schedule["rate"] * t) - last) / (1.0 - last)
    u = jnp.clip((t - schedule["start"]) / (schedule["end"] - schedule["start"]), 0.0, 1.0)
    if kind == "cosine":
        return b + (a - b) * 0.5 * (1.0 + jnp.cos(jnp.pi * u))
    return a + (b - a) * u
