"""Compatibility with runs of earlier versions: the config fields that are new since, and the changed defaults.

A config.json without a `version` was written by 0.1.0. A resumed run keeps the values that it was started with,
whatever the defaults are now. A config that lacks a newer field takes the value that reproduces 0.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mi_contrast.core.paths import drop_field, get_field, has_field, set_field
from mi_contrast.core.schedules import cosine


class Change(NamedTuple):
    """A field's default in 0.1.0 and its default now."""

    before: Any
    now: Any


# Fields that 0.1.0 did not have. `before` is the value that reproduces its behaviour.
ADDED: Mapping[str, Change] = {
    "optim.decay_after_warmup": Change(False, True),
    "data.broken": Change(0.0, 0.0),
    "data.crop": Change("square", "whole"),
    "eval.held_out": Change(2, 2),
    "data.labels": Change(None, None),
    "data.group": Change(None, None),
    "data.test_share": Change(0.0, 0.0),
}
ABSENT = object()  # stands for a value where the default of 0.1.0 had no such field
# Fields whose default has changed.
CHANGED: Mapping[str, Change] = {
    "optim.decay_all": Change(True, None),
    "model.norm.groups": Change(8, 1),
    "model.head.kind": Change("mlp", "mlp_bn"),
    "model.head.layers": Change(ABSENT, 2),
    "model.head.hidden": Change(None, 256),
    "model.width": Change(64, 128),
    "model.twin.kind": Change("mlp", "mlp_bn"),
    "model.twin.layers": Change(ABSENT, 2),
    "model.twin.hidden": Change(None, 256),
    "steps": Change(3000, 1500),
    "eval.every": Change(1000, 500),
    "checkpoint.every": Change(1000, 500),
    "optim.weight_decay": Change(1e-4, 0.05),
    "optim.lr": Change(cosine(0.003, 0.0), cosine(0.006, 0.0)),
}
# Methods whose terms have changed. A resumed run keeps its own terms.
METHODS = ("cave_ir", "la")
# Leaves that 0.1.0 saved and nothing reads any more: the step counts of the optimisers' learning rate schedules.
RETIRED = re.compile(r"(generator\.)?optimiser\.(\d+\.)*\d+\.count")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the fields that 0.1.0 did not have, with the values that reproduce it. Adds no missing sections."""
    completed = dict(config)
    for path, change in ADDED.items():
        section = path.rpartition(".")[0]
        if has_field(completed, section) and not has_field(completed, path):
            completed = set_field(completed, path, change.before)
    return completed


def adopt(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces today's defaults in `config` by the defaults that the run was started with.

    Args:
      stored: the run's config.json, a dict with 'config' and, since 0.2.0, 'version'.
      config: the config of this start. A field that differs from today's default was set by the user, and is kept.
    """
    adopted, original = dict(config), complete(stored["config"])
    if "version" in stored:
        return adopted
    if stored.get("name") in METHODS and adopted["method"] != original["method"]:
        print(f"this run of 0.1.0 keeps its terms; those of configs/{stored['name']}.py have changed since")
        adopted["method"] = original["method"]
    for path, change in {**ADDED, **CHANGED}.items():
        if not has_field(adopted, path) or get_field(adopted, path) != change.now:
            continue
        before = get_field(original, path) if has_field(original, path) else ABSENT
        if before == change.before and has_field(original, path.rpartition(".")[0]):
            adopted = drop_field(adopted, path) if before is ABSENT else set_field(adopted, path, before)
    return adopted


def list_new_rules(config: Mapping[str, Any]) -> list[str]:
    """Returns what a run of 0.1.0 with this config does otherwise from here on, without a flag that restores it."""
    rules = []
    if config["data"]["name"] != "moving_digits":  # whose images are small PNGs of 8 bits
        rules.append(
            "images are turned by their EXIF orientation, 16-bit images are read by their upper 8 bits, and images of "
            "more than 89 million pixels are refused"
        )
    supports = [term.get("support", {}) for term in config["method"]["terms"]]
    if any(support.get("kind") == "drawn" for support in supports):
        rules.append("candidates are drawn by another generator, with the same distribution")
    if config["model"].get("norm", {}).get("groups", 1) > 1:
        rules.append("keys change groups by one permutation for the whole run")
    return rules
