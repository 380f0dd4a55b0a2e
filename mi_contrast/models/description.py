"""What config.model may say: its words, its defaults, and every mistake named with the nearest right word."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mi_contrast.core.errors import UserError, unknown

BACKBONES = ("resnet18", "resnet34", "resnet50", "tiny")
STEMS = ("imagenet", "small")
DTYPES = ("float32", "bfloat16")
NORMS: Mapping[str, Mapping[str, Any]] = {"batch": {"groups": 1}, "frozen": {}}
HEADS: Mapping[str, Mapping[str, Any]] = {"linear": {"dim": 128}, "mlp": {"hidden": None, "dim": 128}}
DEFAULTS: Mapping[str, Any] = {
    "width": 64,
    "stem": "imagenet",
    "norm": {"kind": "batch", "groups": 1},
    "head": {"kind": "linear", "dim": 128},
    "dtype": "float32",
    "remat": False,
}


def resolve(model: Mapping[str, Any]) -> dict[str, Any]:
    """The description with defaults filled in, as plain data, every word checked. Raises UserError."""
    model = {name: dict(field) if hasattr(field, "items") else field for name, field in model.items()}
    for name in model:
        if name not in ("backbone", *DEFAULTS):
            raise unknown("field of config.model", name, ("backbone", *DEFAULTS))
    if "backbone" not in model:
        raise UserError("config.model names no backbone", fix=f"one of: {', '.join(BACKBONES)}")
    stem = "small" if model["backbone"] == "tiny" else DEFAULTS["stem"]
    model = {"backbone": model["backbone"], **DEFAULTS, "stem": stem, **model}
    one_of(model["backbone"], BACKBONES, "backbone")
    one_of(model["stem"], STEMS, "stem")
    one_of(model["dtype"], DTYPES, "dtype")
    whole(model["width"], "width")
    if not isinstance(model["remat"], bool):
        raise UserError(f"config.model.remat is {model['remat']!r}", fix="give True or False")
    model["norm"] = chosen(model["norm"], NORMS, "norm")
    model["head"] = chosen(model["head"], HEADS, "head")
    if model["backbone"] == "tiny":
        if model["width"] % 4:
            raise UserError(f"config.model.width of tiny is {model['width']}", fix="give a multiple of 4")
        if model["stem"] != "small" or model["remat"]:
            field = "stem" if model["stem"] != "small" else "remat"
            raise UserError(f"tiny has no {field} {model[field]!r}", fix="set stem='small' and remat=False")
    return model


def chosen(field: Any, kinds: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """{'kind': .., its fields with defaults}. A field of another kind is let pass where it is None or a default."""
    if not isinstance(field, Mapping) or "kind" not in field:
        raise UserError(f"config.model.{name} is {field!r}", fix=f"give dict(kind=...), one of: {', '.join(kinds)}")
    kind = one_of(field["kind"], kinds, f"{name}.kind")
    fields = {n: v for others in kinds.values() for n, v in others.items()}
    for word, given in field.items():
        if word != "kind" and word not in fields:
            raise unknown(f"field of config.model.{name}", word, ("kind", *fields))
        if word != "kind" and word not in kinds[kind] and given != fields[word]:
            raise UserError(
                f"config.model.{name}: kind {kind!r} has no {word}", fix=f"set {name}.{word}={fields[word]}"
            )
    resolved = {"kind": kind, **{n: field.get(n, default) for n, default in kinds[kind].items()}}
    for word, given in resolved.items():
        if word != "kind" and not (given is None and kinds[kind][word] is None):
            whole(given, f"{name}.{word}")
    return resolved


def one_of(word: Any, words: Collection[str], name: str) -> str:
    """The word, or UserError where it isn't one of `words`."""
    if word not in tuple(words):
        raise unknown(f"config.model.{name}", word, words)
    return str(word)


def whole(number: Any, name: str) -> None:
    """UserError unless `number` is a whole number above 0."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"config.model.{name} is {number!r}", fix="give a whole number above 0")
