"""Checks policies. Every mistake raises a UserError of one line that names the nearest right word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mi_contrast.core import division
from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.views import patches, randaugment, two_crops
from mi_contrast.views.colour import JITTERS

SETTINGS = ("kind", "size", "mean", "std")
KINDS: Mapping[str, tuple[str, ...]] = {  # the sections of ops that each kind must have
    "two_crops": tuple(two_crops.SOURCES),
    "channels": ("both",),
    "patches": (),
}
OPS: Mapping[str, tuple[str, ...]] = {  # the fields of each op; () for an op that is a probability
    "crop": ("area", "aspect"),
    "flip": (),
    "jitter": (*JITTERS, "p"),
    "grey": (),
    "blur": ("sigma", "p"),
    "solarize": ("threshold", "p"),
    "randaugment": ("layers", "magnitude", "std", "p", "ops", "fill"),
}
JIGSAW_SIZES = ("grid", "cell", "patch")  # the fields of a jigsaw that are not ops
LOCAL_SIZES = ("count", "size")  # the fields of local crops that are not ops


def check(policy: Mapping[str, Any]) -> None:
    """Raises UserError if a field is unknown or missing, or a value is out of range."""
    check_section("the views", policy, ("kind",), policy)
    if policy["kind"] not in KINDS:
        raise unknown("kind of views", policy["kind"], KINDS)
    sections = KINDS[policy["kind"]]
    if policy["kind"] == "channels":
        check_section("the views", policy, (*SETTINGS, "split", *sections))
        division.parse(policy["split"], "views.split")
    elif policy["kind"] == "patches":
        check_section("the views", policy, (*SETTINGS, "distance"), tuple(patches.SOURCES))
        sections = tuple(name for name in patches.SOURCES if name in policy)
        check_patches(policy, sections)
    else:
        optional = two_crops.TWIN_VIEW, two_crops.JIGSAW, two_crops.LOCAL
        check_section("the views", policy, (*SETTINGS, *sections), optional)
        if two_crops.TWIN_VIEW in policy:
            sections = (*sections, two_crops.TWIN_VIEW)
            if two_crops.JIGSAW in policy:
                raise UserError(
                    "the views have a twin and a jigsaw", fix="leave out one of views.twin and views.jigsaw"
                )
    check_whole_number("views.size", policy["size"], "pixels")
    for name in ("mean", "std"):
        low = 0.0 if name == "std" or policy["kind"] != "channels" else -math.inf
        check_numbers(f"views.{name}", policy[name], 3, low, math.inf)
    if not all(policy["std"]):
        raise UserError(f"views.std is {policy['std']!r}", fix="give three numbers above 0")
    for name in sections:
        check_ops(f"views.{name}", policy[name])
    if two_crops.JIGSAW in policy:
        check_jigsaw(f"views.{two_crops.JIGSAW}", policy[two_crops.JIGSAW])
    if two_crops.LOCAL in policy:
        check_local(f"views.{two_crops.LOCAL}", policy[two_crops.LOCAL])


def check_patches(policy: Mapping[str, Any], sections: tuple[str, ...]) -> None:
    """Raises UserError if the distance is not a whole number, or if a patch has a crop."""
    distance = policy["distance"]
    if not isinstance(distance, int) or isinstance(distance, bool) or distance < 0:
        raise UserError(f"views.distance is {distance!r}", fix="give a whole number of pixels, 0 or more")
    for name in sections:
        if isinstance(policy[name], Mapping) and "crop" in policy[name]:
            raise UserError(f"views.{name} has a crop", fix="leave it out: patches are not resampled")


def check_local(path: str, section: Mapping[str, Any]) -> None:
    """Raises UserError unless the section has ops, a count and a size."""
    check_section(path, section, (*LOCAL_SIZES, "order"), OPS)
    for name in LOCAL_SIZES:
        check_whole_number(f"{path}.{name}", section[name], "crops" if name == "count" else "pixels")
    check_ops(path, {name: value for name, value in section.items() if name not in LOCAL_SIZES})


def check_jigsaw(path: str, section: Mapping[str, Any]) -> None:
    """Raises UserError unless the section has ops, a grid, a cell, and a patch that fits into the cell."""
    check_section(path, section, (*JIGSAW_SIZES, "order"), OPS)
    for name in JIGSAW_SIZES:
        check_whole_number(f"{path}.{name}", section[name], "cells a side" if name == "grid" else "pixels")
    if section["patch"] > section["cell"]:
        raise UserError(
            f"{path}.patch is {section['patch']}, its cell {section['cell']}", fix="a patch is cut out of a cell"
        )
    check_ops(path, {name: value for name, value in section.items() if name not in JIGSAW_SIZES})


def check_randaugment(path: str, settings: Mapping[str, Any]) -> None:
    """Raises UserError unless the settings of RandAugment are as the docstring of `policies` says."""
    check_whole_number(f"{path}.layers", settings["layers"], "layers")
    check_numbers(f"{path}.magnitude", (settings["magnitude"],), 1, 0.0, randaugment.MAX_MAGNITUDE)
    check_numbers(f"{path}.std", (settings["std"],), 1, 0.0, math.inf)
    check_numbers(f"{path}.p", (settings["p"],), 1, 0.0, 1.0)
    check_numbers(f"{path}.fill", settings["fill"], 3, 0.0, 255.0)
    if isinstance(settings["ops"], str) or not settings["ops"]:
        raise UserError(f"{path}.ops is {settings['ops']!r}", fix=f"give some of {', '.join(randaugment.OPS)}")
    for name in settings["ops"]:
        if name not in randaugment.OPS:
            raise unknown(f"op in {path}.ops", name, randaugment.OPS)


def check_whole_number(path: str, value: object, what: str) -> None:
    """Raises UserError unless `value` is a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{path} is {value!r}", fix=f"give a whole number of {what} above 0")


def check_ops(path: str, ops: Mapping[str, Any]) -> None:
    """Raises UserError unless the ops of a view are as the docstring of `policies` says."""
    check_section(path, ops, ("order",), OPS)
    for name in ops:
        op_path = f"{path}.{name}"
        if name == "order":
            continue
        if not OPS[name]:
            check_numbers(op_path, (ops[name],), 1, 0.0, 1.0)
            continue
        check_section(op_path, ops[name], OPS[name])
        if name == "randaugment":
            check_randaugment(op_path, ops[name])
            continue
        for field, value in ops[name].items():
            check_field(f"{op_path}.{field}", field, value)
    order, names = tuple(ops["order"]), [name for name in ops if name != "order"]
    for name in order:
        if name not in names:
            raise unknown(f"op in {path}.order", name, names)
    if sorted(order) != sorted(names) or ("crop" in names and order[0] != "crop"):
        raise UserError(f"{path}.order is {', '.join(order)}", fix=f"name each of {', '.join(names)} once, crop first")


def check_field(path: str, field: str, value: Any) -> None:
    """Raises UserError if a number or a pair of an op is out of range."""
    if field in ("area", "aspect", "sigma"):
        low, high = check_numbers(path, value, 2, 0.0, 1.0 if field == "area" else math.inf)
        if not 0.0 < low <= high:
            raise UserError(f"{path} is {value!r}", fix="give (low, high) with 0 < low <= high")
        return
    limit = {"hue": 0.5, "p": 1.0, "threshold": 1.0}.get(field, math.inf)
    check_numbers(path, (value,), 1, 0.0, limit)


def check_numbers(path: str, value: object, count: int, low: float, high: float) -> tuple[float, ...]:
    """Returns `value` as a tuple. Raises UserError unless it has `count` numbers, each in [low, high]."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    is_valid = len(values) == count and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high and math.isfinite(v)
        for v in values
    )
    if not is_valid:
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of {low:g} or more"
        bounds = bounds if math.isfinite(low) else "that are finite"
        shown = value if count > 1 else values[0] if values else value
        raise UserError(f"{path} is {shown!r}", fix=f"give {count} number{'s' * (count > 1)} {bounds}")
    return values
