"""Levels of adaptive schedules. They are part of the train state (`carried`) and change only at fixed intervals.

Schedules of the same pace (`core.schedules.pace`) share a level. A step first resolves the method, a
template whose adaptive schedules each become a number, so that nothing below the step has to know of levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_contrast.core import schedules
from mi_contrast.methods.method import Method

Pace = tuple[str, int, float, int]  # on, every, by, window


@flax.struct.dataclass
class Level:
    """The level of one pace, and what decides its next move.

    Attributes:
      level: f32 in [0, 1].
      total, count: sum and number of the values since the last move.
      past: the means of the values before the last `window` moves, the newest first.
      seen: the number of moves so far.
    """

    level: Float[Array, ""]
    total: Float[Array, ""]
    count: Int[Array, ""]
    past: Float[Array, " window"]
    seen: Int[Array, ""]


def find_paces(template: Method) -> dict[str, Pace]:
    """Returns the paces of the template's adaptive schedules, by the names of their levels in `carried`."""
    paces = dict.fromkeys(pace for pace in map(schedules.pace, _mappings(template)) if pace is not None)
    return {_name(pace): pace for pace in paces}


def _name(pace: Pace) -> str:
    on, every, by, window = pace
    return f"level_on_{on}_every_{every}_by_{by:g}_of_{window}"


def init_levels(template: Method) -> dict[str, Level]:
    """Returns the initial levels: each is 0 and has no past values."""
    return {
        name: Level(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros(window), jnp.zeros((), jnp.int32))
        for name, (_, _, _, window) in find_paces(template).items()
    }


def resolve(template: Method, carried: Mapping[str, Any]) -> Method:
    """Returns the method: the template with every adaptive schedule replaced by its value, a + (b - a) level."""
    return template if not find_paces(template) else _resolve(template, carried)


def update_levels(
    template: Method, carried: Mapping[str, Any], step: Int[Array, ""], objective: Array
) -> dict[str, Level]:
    """Returns the levels after a step.

    Args:
      step: int32, 0 for the first step.
      objective: of this step, in nats.
    """
    levels = {}
    for name, (on, every, by, _) in find_paces(template).items():
        level: Level = carried[name]
        if on == "objective":
            level = _add_value(level, objective)
        due = ((step + 1) % every == 0) & (level.count > 0)
        levels[name] = _move(level, by, due)
    return levels


def add_measurements(template: Method, carried: Mapping[str, Any], numbers: Mapping[str, float]) -> dict[str, Any]:
    """Returns `carried` after adding each measurement to the levels of the schedules that track it."""
    levels = {
        name: _add_value(carried[name], np.float32(numbers[on]))
        for name, (on, *_) in find_paces(template).items()
        if on != "objective"
    }
    return {**carried, **levels}


def _add_value(level: Level, value: Array | np.float32) -> Level:
    return level.replace(total=level.total + value, count=level.count + 1)  # type: ignore[attr-defined]


def _move(level: Level, by: float, due: Array) -> Level:
    """Returns the level, moved if `due`: up if the latest mean exceeds the mean of the past ones, down if below."""
    latest = level.total / jnp.maximum(level.count, 1)
    known = jnp.minimum(level.seen, len(level.past))
    before = jnp.sum(jnp.where(jnp.arange(len(level.past)) < known, level.past, 0.0)) / jnp.maximum(known, 1)
    direction = jnp.where(known > 0, jnp.sign(latest - before), 0.0)
    moved = Level(
        level=jnp.clip(level.level + by * direction, 0.0, 1.0),
        total=jnp.zeros(()),
        count=jnp.zeros((), jnp.int32),
        past=jnp.concatenate([latest[None], level.past[:-1]]),
        seen=level.seen + 1,
    )
    return Level(*(jnp.where(due, getattr(moved, f.name), getattr(level, f.name)) for f in fields(Level)))


def _mappings(item: Any) -> Iterator[Mapping[str, Any]]:
    """Yields every mapping inside a method, schedules among them."""
    if isinstance(item, Mapping):
        yield item
        for inner in item.values():
            yield from _mappings(inner)
    elif isinstance(item, tuple):
        for inner in item:
            yield from _mappings(inner)
    elif is_dataclass(item):
        for field in fields(item):
            yield from _mappings(getattr(item, field.name))


def _resolve(item: Any, carried: Mapping[str, Any]) -> Any:
    if isinstance(item, Mapping):
        pace = schedules.pace(item)
        if pace is not None:
            return item["a"] + (item["b"] - item["a"]) * carried[_name(pace)].level
        return {name: _resolve(inner, carried) for name, inner in item.items()}
    if isinstance(item, tuple):
        return tuple(_resolve(inner, carried) for inner in item)
    if is_dataclass(item) and not isinstance(item, type):  # the method, its pools and terms
        return replace(item, **{field.name: _resolve(getattr(item, field.name), carried) for field in fields(item)})
    return item
