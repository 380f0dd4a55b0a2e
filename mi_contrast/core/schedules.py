"""Values that move with progress: plain data in a config, a pure function of t in a step.

A schedule is a number (constant) or a dict made by one of the functions below, so that a config stays plain data;
`value(schedule, t)` reads it at progress t = step / total_steps, clipped to [0, 1], in float32, inside or outside jit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError, unknown

Schedule = float | Mapping[str, Any]

FIELDS = {
    "constant": {"v"},
    "linear": {"a", "b", "start", "end"},
    "step": {"values", "boundaries"},
    "cosine": {"a", "b", "start", "end"},
    "exponential": {"a", "b", "rate"},
}


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
    if not all(math.isfinite(x) for x in points(schedule)):
        raise UserError(f"{where} is not finite", fix="give finite numbers")


def points(schedule: Schedule) -> tuple[float, ...]:
    """The values between which a schedule stays: its extremes are among them."""
    if not isinstance(schedule, Mapping):
        return (float(schedule),)
    if schedule["kind"] == "constant":
        return (float(schedule["v"]),)
    if schedule["kind"] == "step":
        return tuple(float(v) for v in schedule["values"])
    return float(schedule["a"]), float(schedule["b"])


def value(schedule: Schedule, t: Float[Array, ""] | float) -> Float[Array, ""]:
    """The schedule at progress t, clipped to [0, 1]. float32 scalar; t may be traced."""
    t = jnp.clip(jnp.asarray(t, jnp.float32), 0.0, 1.0)
    if not isinstance(schedule, Mapping):
        return jnp.full((), schedule, jnp.float32)
    kind = schedule["kind"]
    if kind == "constant":
        return jnp.full((), schedule["v"], jnp.float32)
    if kind == "step":
        passed = jnp.sum(t >= jnp.asarray(schedule["boundaries"], jnp.float32))
        return jnp.asarray(schedule["values"], jnp.float32)[passed]
    a, b = jnp.float32(schedule["a"]), jnp.float32(schedule["b"])
    if kind == "exponential":
        last = math.exp(-schedule["rate"])
        return b + (a - b) * (jnp.exp(-schedule["rate"] * t) - last) / (1.0 - last)
    u = jnp.clip((t - schedule["start"]) / (schedule["end"] - schedule["start"]), 0.0, 1.0)
    if kind == "cosine":
        return b + (a - b) * 0.5 * (1.0 + jnp.cos(jnp.pi * u))
    return a + (b - a) * u
