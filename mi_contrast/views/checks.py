"""What a policy may say: every mistake is one line, with the nearest right word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mi_contrast.core import division
from mi_contrast.core.config import fields
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.views import patches, randaugment, two_crops
from mi_contrast.views.colour import JITTERS

SETTINGS = ("kind", "size", "mean", "std")
KINDS: Mapping[str, tuple[str, ...]] = {  # each kind's views, or what they share
    "two_crops": tuple(two_crops.SOURCES),
    "channels": ("both",),
    "patches": (),
}
OPS: Mapping[str, tuple[str, ...]] = {  # each op's fields; () where it is a probability
    "crop": ("area", "aspect"),
    "flip": (),
    "jitter": (*JITTERS, "p"),
    "grey": (),
    "blur": ("sigma", "p"),
    "solarize": ("threshold", "p"),
    "randaugment": ("layers", "magnitude", "std", "p", "ops", "fill"),
}
CUTS = ("grid", "cell", "patch")  # what a jigsaw has beside ops
MORE = ("count", "size")  # what local crops have beside ops


def check(policy: Mapping[str, Any]) -> None:
    """Raises UserError on an unknown or missing field, or a value out of its range, with the nearest right word."""
    fields("the views", policy, ("kind",), policy)
    if policy["kind"] not in KINDS:
        raise unknown("kind of views", policy["kind"], KINDS)
    sections = KINDS[policy["kind"]]
    if policy["kind"] == "channels":
        fields("the views", policy, (*SETTINGS, "split", *sections))
        division.named(policy["split"], "views.split")
    elif policy["kind"] == "patches":
        fields("the views", policy, (*SETTINGS, "distance"), tuple(patches.SOURCES))
        sections = tuple(name for name in patches.SOURCES if name in policy)
        check_patches(policy, sections)
    else:
        fields("the views", policy, (*SETTINGS, *sections), (two_crops.TWIN, two_crops.JIGSAW, two_crops.LOCAL))
        if two_crops.TWIN in policy:
            sections = (*sections, two_crops.TWIN)
            if two_crops.JIGSAW in policy:
                raise UserError(
                    "the views have a twin and a jigsaw", fix="leave out one of views.twin and views.jigsaw"
                )
    whole("views.size", policy["size"], "pixels")
    for name in ("mean", "std"):
        low = 0.0 if name == "std" or policy["kind"] != "channels" else -math.inf
        numbers(f"views.{name}", policy[name], 3, low, math.inf)
    if not all(policy["std"]):
        raise UserError(f"views.std is {policy['std']!r}", fix="give three numbers above 0")
    for name in sections:
        check_ops(f"views.{name}", policy[name])
    if two_crops.JIGSAW in policy:
        check_jigsaw(f"views.{two_crops.JIGSAW}", policy[two_crops.JIGSAW])
    if two_crops.LOCAL in policy:
        check_local(f"views.{two_crops.LOCAL}", policy[two_crops.LOCAL])


def check_patches(policy: Mapping[str, Any], sections: tuple[str, ...]) -> None:
    """Raises UserError where the distance is not a whole number, or a patch would be cropped."""
    distance = policy["distance"]
    if not isinstance(distance, int) or isinstance(distance, bool) or distance < 0:
        raise UserError(f"views.distance is {distance!r}", fix="give a whole number of pixels, 0 or more")
    for name in sections:
        if isinstance(policy[name], Mapping) and "crop" in policy[name]:
            raise UserError(f"views.{name} has a crop", fix="leave it out: a patch is cut at its place, as it is")


def check_local(where: str, section: Mapping[str, Any]) -> None:
    """Raises UserError where the section is not an op list with a count and a size."""
    fields(where, section, (*MORE, "order"), OPS)
    for name in MORE:
        whole(f"{where}.{name}", section[name], "crops" if name == "count" else "pixels")
    check_ops(where, {name: value for name, value in section.items() if name not in MORE})


def check_jigsaw(where: str, section: Mapping[str, Any]) -> None:
    """Raises UserError where the section is not an op list with a grid, a cell and a patch that fits it."""
    fields(where, section, (*CUTS, "order"), OPS)
    for name in CUTS:
        whole(f"{where}.{name}", section[name], "cells a side" if name == "grid" else "pixels")
    if section["patch"] > section["cell"]:
        raise UserError(
            f"{where}.patch is {section['patch']}, its cell {section['cell']}", fix="a patch is cut out of a cell"
        )
    check_ops(where, {name: value for name, value in section.items() if name not in CUTS})


def check_randaugment(where: str, settings: Mapping[str, Any]) -> None:
    """Raises UserError where the settings of RandAugment are not as the policies' text says."""
    whole(f"{where}.layers", settings["layers"], "layers")
    numbers(f"{where}.magnitude", (settings["magnitude"],), 1, 0.0, randaugment.HIGHEST)
    numbers(f"{where}.std", (settings["std"],), 1, 0.0, math.inf)
    numbers(f"{where}.p", (settings["p"],), 1, 0.0, 1.0)
    numbers(f"{where}.fill", settings["fill"], 3, 0.0, 255.0)
    if isinstance(settings["ops"], str) or not settings["ops"]:
        raise UserError(f"{where}.ops is {settings['ops']!r}", fix=f"give some of {', '.join(randaugment.OPS)}")
    for name in settings["ops"]:
        if name not in randaugment.OPS:
            raise unknown(f"op in {where}.ops", name, randaugment.OPS)


def whole(where: str, given: object, what: str) -> None:
    """Raises UserError where `given` is not a whole number above 0."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise UserError(f"{where} is {given!r}", fix=f"give a whole number of {what} above 0")


def check_ops(where: str, ops: Mapping[str, Any]) -> None:
    """Raises UserError where one view's ops are not as the module's text says."""
    fields(where, ops, ("order",), OPS)
    for name in ops:
        at = f"{where}.{name}"
        if name == "order":
            continue
        if not OPS[name]:
            numbers(at, (ops[name],), 1, 0.0, 1.0)
            continue
        fields(at, ops[name], OPS[name])
        if name == "randaugment":
            check_randaugment(at, ops[name])
            continue
        for field, value in ops[name].items():
            check_field(f"{at}.{field}", field, value)
    order, given = tuple(ops["order"]), [name for name in ops if name != "order"]
    for name in order:
        if name not in given:
            raise unknown(f"op in {where}.order", name, given)
    if sorted(order) != sorted(given) or ("crop" in given and order[0] != "crop"):
        raise UserError(f"{where}.order is {', '.join(order)}", fix=f"name each of {', '.join(given)} once, crop first")


def check_field(where: str, field: str, value: Any) -> None:
    """Raises UserError where one number or pair of an op is out of its range."""
    if field in ("area", "aspect", "sigma"):
        low, high = numbers(where, value, 2, 0.0, 1.0 if field == "area" else math.inf)
        if not 0.0 < low <= high:
            raise UserError(f"{where} is {value!r}", fix="give (low, high) with 0 < low <= high")
        return
    limit = {"hue": 0.5, "p": 1.0, "threshold": 1.0}.get(field, math.inf)
    numbers(where, (value,), 1, 0.0, limit)


def numbers(where: str, given: object, count: int, low: float, high: float) -> tuple[float, ...]:
    """The `count` numbers given, each in [low, high], else UserError."""
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    right = len(values) == count and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high and math.isfinite(v)
        for v in values
    )
    if not right:
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of {low:g} or more"
        bounds = bounds if math.isfinite(low) else "that are finite"
        shown = given if count > 1 else values[0] if values else given
        raise UserError(f"{where} is {shown!r}", fix=f"give {count} number{'s' * (count > 1)} {bounds}")
    return values
