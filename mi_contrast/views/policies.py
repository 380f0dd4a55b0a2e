"""Policies of augmentation as plain data, and what is made of them.

A policy of kind 'two_crops': size (pixels a side), mean and std (per channel, of images in [0, 1]), and for each view,
`query` and `key`, its ops. An op that is left out does not happen:

  crop      dict(area=(low, high), aspect=(low, high))    share of the source's area, width / height
  flip      p                                             left to right
  jitter    dict(brightness, contrast, saturation, hue, p)   strengths; the four in random order
  grey      p
  blur      dict(sigma=(low, high), p)                    Gaussian, pixels of the view
  solarize  dict(threshold, p)
  order     the ops' names in the order they are applied, crop first
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

from jax.sharding import Mesh

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.views.colour import JITTERS
from mi_contrast.views.plain import normalise, plain, unnormalise
from mi_contrast.views.two_crops import SOURCES, Views

__all__ = [
    "Views",
    "build",
    "check",
    "moco_v1",
    "moco_v2",
    "normalise",
    "plain",
    "simclr",
    "unnormalise",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = ("two_crops",)
FIELDS = ("kind", "size", "mean", "std", *SOURCES)
OPS: dict[str, tuple[str, ...]] = {  # each op's fields; () where it is a probability
    "crop": ("area", "aspect"),
    "flip": (),
    "jitter": (*JITTERS, "p"),
    "grey": (),
    "blur": ("sigma", "p"),
    "solarize": ("threshold", "p"),
}


def crop(low: float) -> dict[str, Any]:
    """A random resized crop of at least `low` of the area, aspect 3/4 to 4/3."""
    return {"area": (low, 1.0), "aspect": (3 / 4, 4 / 3)}


def two_crops(size: int, ops: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """The policy that makes both views by the same ops, in the order in which `ops` gives them. The two share no dict:
    a change to one view leaves the other alone.
    """
    both = {name: {**copy.deepcopy(dict(ops)), "order": tuple(ops)} for name in SOURCES}
    return {"kind": "two_crops", "size": size, "mean": mean, "std": std, **both}


def moco_v1(size: int) -> dict[str, Any]:
    """MoCo v1's (and instance discrimination's): crop, greyscale, then a strong jitter always, flip.

    Source: He et al. 2020 (MoCo), the released code; ImageNet's mean and std at every size, as there.
    """
    ops = {
        "crop": crop(0.2),
        "grey": 0.2,
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4, "p": 1.0},
        "flip": 0.5,
    }
    return two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD)


def moco_v2(size: int) -> dict[str, Any]:
    """MoCo v2's: crop, jitter, greyscale, blur, flip.

    Source: Chen et al. 2020 (MoCo v2) and Wu et al. 2021 (Ring), the released code; sigma in pixels at every size, as
    there. Its blur is PIL's approximation of a Gaussian, ours a Gaussian.
    """
    ops = {
        "crop": crop(0.2),
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
        "grey": 0.2,
        "blur": {"sigma": (0.1, 2.0), "p": 0.5},
        "flip": 0.5,
    }
    return two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD)


def simclr(size: int, strength: float = 1.0, blur: float = 0.5) -> dict[str, Any]:
    """SimCLR's: crop, flip, jitter of the given strength, greyscale, blur; images stay in [0, 1].

    For CIFAR-10 the released recipe has strength .5 and blur 0.

    Source: Chen et al. 2020 (SimCLR), the released code. It resizes bicubically, where ours is bilinear with
    antialiasing, and ends its blur at a tenth of the image's side.
    """
    ops: dict[str, Any] = {
        "crop": crop(0.08),
        "flip": 0.5,
        "jitter": {
            "brightness": 0.8 * strength,
            "contrast": 0.8 * strength,
            "saturation": 0.8 * strength,
            "hue": 0.2 * strength,
            "p": 0.8,
        },
        "grey": 0.2,
    }
    if blur > 0.0:
        ops["blur"] = {"sigma": (0.1, 2.0), "p": blur}
    return two_crops(size, ops, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def build(policy: Mapping[str, Any], mesh: Mesh | None = None) -> Views:
    """The views of a policy; over a mesh of several devices each makes those of its own part of the batch.

    Raises UserError as `check` does.
    """
    check(policy)
    return Views(policy, mesh)


def check(policy: Mapping[str, Any]) -> None:
    """Raises UserError on an unknown or missing field, or a value out of its range, with the nearest right word."""
    known_fields("the views", policy, FIELDS)
    if policy["kind"] not in KINDS:
        raise unknown("kind of views", policy["kind"], KINDS)
    if not isinstance(policy["size"], int) or policy["size"] < 1:
        raise UserError(f"views.size is {policy['size']!r}", fix="give a whole number of pixels above 0")
    for name in ("mean", "std"):
        numbers(f"views.{name}", policy[name], 3, 0.0, math.inf)
    if not all(policy["std"]):
        raise UserError(f"views.std is {policy['std']!r}", fix="give three numbers above 0")
    for name in SOURCES:
        check_ops(f"views.{name}", policy[name])


def check_ops(where: str, ops: Mapping[str, Any]) -> None:
    """Raises UserError where one view's ops are not as the module's text says."""
    known_fields(where, ops, (*OPS, "order"), required=("order",))
    for name in ops:
        at = f"{where}.{name}"
        if name == "order":
            continue
        if not OPS[name]:
            numbers(at, (ops[name],), 1, 0.0, 1.0)
            continue
        known_fields(at, ops[name], OPS[name])
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


def known_fields(where: str, given: Any, known: Iterable[str], required: Iterable[str] | None = None) -> None:
    """Raises UserError where `given` is no section, or has an unknown field, or lacks a required one (default: all)."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} is {given!r}", fix="it is a section with fields of its own")
    for name in given:
        if name not in known:
            raise unknown(f"field of {where}", name, known)
    for name in known if required is None else required:
        if name not in given:
            raise UserError(f"{where} has no field {name!r}", fix="begin from moco_v1, moco_v2 or simclr")


def numbers(where: str, given: Any, count: int, low: float, high: float) -> tuple[float, ...]:
    """The `count` numbers given, each in [low, high], else UserError."""
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    right = len(values) == count and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and low <= v <= high and math.isfinite(v)
        for v in values
    )
    if not right:
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of {low:g} or more"
        shown = given if count > 1 else values[0] if values else given
        raise UserError(f"{where} is {shown!r}", fix=f"give {count} number{'s' * (count > 1)} {bounds}")
    return values
