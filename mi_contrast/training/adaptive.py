"""Adaptive schedules: the levels they have come to, kept in the state's `carried`, moved at fixed steps only.

Schedules of one pace (core.schedules.pace) share a level. In a step the row is first `settled`: every adaptive
schedule in it becomes a number, and nobody below knows of levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_contrast.core import schedules
from mi_contrast.methods.rows import Row, Term

Pace = tuple[str, int, float, int]  # on, every, by, window


@flax.struct.dataclass
class Level:
    """The level of one pace, and what its next move is taken from.

    level: f32 in [0, 1]; total, count: of what was watched since the last move; past: the means of the last `window`
    times, the newest first; seen: how many there have been.
    """

    level: Float[Array, ""]
    total: Float[Array, ""]
    count: Int[Array, ""]
    past: Float[Array, " window"]
    seen: Int[Array, ""]


def paces(row: Row) -> dict[str, Pace]:
    """The paces of the row's adaptive schedules, by the name under which `carried` has their level."""
    found = dict.fromkeys(pace for pace in map(schedules.pace, _sections(row)) if pace is not None)
    return {_name(pace): pace for pace in found}


def _name(pace: Pace) -> str:
    on, every, by, window = pace
    return f"level_on_{on}_every_{every}_by_{by:g}_of_{window}"


def first(row: Row) -> dict[str, Level]:
    """The levels before the first step: 0, nothing seen."""
    return {
        name: Level(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros(window), jnp.zeros((), jnp.int32))
        for name, (_, _, _, window) in paces(row).items()
    }


def settled(row: Row, carried: Mapping[str, Any]) -> Row:
    """The row with every adaptive schedule replaced by its value a + (b - a) level."""
    return row if not paces(row) else _settled(row, carried)


def after_step(row: Row, carried: Mapping[str, Any], step: Int[Array, ""], objective: Array) -> dict[str, Level]:
    """The levels after step `step` (0 is the first), whose objective was this, in nats."""
    found = {}
    for name, (on, every, by, _) in paces(row).items():
        level: Level = carried[name]
        if on == "objective":
            level = _told(level, objective)
        due = ((step + 1) % every == 0) & (level.count > 0)
        found[name] = _moved(level, by, due)
    return found


def after_measuring(row: Row, carried: Mapping[str, Any], numbers: Mapping[str, float]) -> dict[str, Any]:
    """`carried` with the levels told what has just been measured."""
    told = {
        name: _told(carried[name], jnp.float32(numbers[on]))
        for name, (on, *_) in paces(row).items()
        if on != "objective"
    }
    return {**carried, **told}


def _told(level: Level, value: Array) -> Level:
    return level.replace(total=level.total + value, count=level.count + 1)  # type: ignore[attr-defined]


def _moved(level: Level, by: float, due: Array) -> Level:
    """One move of a level where `due`: up where the mean since the last is above the mean of those before."""
    now = level.total / jnp.maximum(level.count, 1)
    known = jnp.minimum(level.seen, len(level.past))
    before = jnp.sum(jnp.where(jnp.arange(len(level.past)) < known, level.past, 0.0)) / jnp.maximum(known, 1)
    way = jnp.where(known > 0, jnp.sign(now - before), 0.0)
    moved = Level(
        level=jnp.clip(level.level + by * way, 0.0, 1.0),
        total=jnp.zeros(()),
        count=jnp.zeros((), jnp.int32),
        past=jnp.concatenate([now[None], level.past[:-1]]),
        seen=level.seen + 1,
    )
    return Level(*(jnp.where(due, getattr(moved, f.name), getattr(level, f.name)) for f in fields(Level)))


def _sections(item: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping inside a row."""
    if isinstance(item, Mapping):
        yield item
        for inner in item.values():
            yield from _sections(inner)
    elif isinstance(item, tuple):
        for inner in item:
            yield from _sections(inner)
    elif is_dataclass(item):
        for field in fields(item):
            yield from _sections(getattr(item, field.name))


def _settled(item: Any, carried: Mapping[str, Any]) -> Any:
    if isinstance(item, Mapping):
        pace = schedules.pace(item)
        if pace is not None:
            return item["a"] + (item["b"] - item["a"]) * carried[_name(pace)].level
        return {name: _settled(inner, carried) for name, inner in item.items()}
    if isinstance(item, tuple):
        return tuple(_settled(inner, carried) for inner in item)
    if isinstance(item, Row | Term):
        return replace(item, **{field.name: _settled(getattr(item, field.name), carried) for field in fields(item)})
    return item
