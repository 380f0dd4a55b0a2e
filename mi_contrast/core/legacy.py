"""Configs and checkpoints of earlier versions: which fields they lack, which defaults have changed since.

A config.json without a `version` was written by 0.1.0. A run keeps the values it began with, whatever the defaults are
now; a config given from Python without a newer field takes the field's 0.1.0 value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Change(NamedTuple):
    """A field's default in 0.1.0 and its default now."""

    before: Any
    now: Any


# Fields that 0.1.0 did not have; `before` keeps its behaviour.
ADDED: Mapping[str, Change] = {
    "optim.decay_after_warmup": Change(False, True),
    "data.broken": Change(0.0, 0.0),
}
# Fields whose default differs.
ABSENT = object()  # in place of a value: 0.1.0's default had no such field
CHANGED: Mapping[str, Change] = {
    "optim.decay_all": Change(True, None),
    "model.norm.groups": Change(8, 1),
    "model.head.kind": Change("mlp", "mlp_bn"),
    "model.head.layers": Change(ABSENT, 2),
    "model.twin.kind": Change("mlp", "mlp_bn"),
    "model.twin.layers": Change(ABSENT, 2),
}
# Rows whose terms changed: a run keeps those that it began with.
ROWS = ("cave_ir", "la")
# Leaves of the state that 0.1.0 kept and nothing reads any more: the optimisers' own counts of steps for their rates.
RETIRED = re.compile(r"(generator\.)?optimiser\.(\d+\.)*\d+\.count")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config with each newer field that it lacks at its 0.1.0 value; sections it lacks stay absent."""
    completed = dict(config)
    for path, change in ADDED.items():
        section = path.rpartition(".")[0]
        if _holds(completed, section) and not _holds(completed, path):
            completed = _replaced(completed, path, change.before)
    return completed


def adopt(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `config` with the defaults that the run began with, where today's stand in it.

    Args:
      stored: the run's config.json: {'config', and 'version' from 0.2.0 on}.
      config: the config of this start. A field that differs from today's default was set by the user and stays.
    """
    adopted, began = dict(config), complete(stored["config"])
    if "version" in stored:
        return adopted
    if stored.get("name") in ROWS and adopted["method"] != began["method"]:
        print(f"this run of 0.1.0 keeps its terms; those of configs/{stored['name']}.py have changed since")
        adopted["method"] = began["method"]
    for path, change in {**ADDED, **CHANGED}.items():
        if not _holds(adopted, path) or _value(adopted, path) != change.now:
            continue
        before = _value(began, path) if _holds(began, path) else ABSENT
        if before == change.before and _holds(began, path.rpartition(".")[0]):
            adopted = _replaced(adopted, path, before)
    return adopted


def _holds(tree: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _value(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree[name]
    return tree


def _replaced(tree: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if value is ABSENT and not rest:
        return {field: v for field, v in tree.items() if field != name}
    return {**tree, name: _replaced(tree[name], rest, value) if rest else value}
