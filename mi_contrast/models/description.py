"""What config.model may say: its words, its defaults, and every mistake named with the nearest right word."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mi_contrast.core import division
from mi_contrast.core.errors import UserError, unknown

RESNETS = ("resnet18", "resnet34", "resnet50")
VITS: Mapping[str, int] = {"vit_tiny": 3, "vit_small": 6, "vit_base": 12}  # heads
BACKBONES = (*RESNETS, "tiny", *VITS)
STEMS = ("imagenet", "small")
PATCHES = {"imagenet": 16, "small": 4}  # of a transformer, whose stem they are
POSITIONS: Mapping[str, Mapping[str, Any]] = {"sincos": {}, "learned": {"grid": 14}}
EMBED_MODES = ("frozen", "trained")
DTYPES = ("float32", "bfloat16")
NORMS: Mapping[str, Mapping[str, Any]] = {"batch": {"groups": 1}, "frozen": {}}
PATCH_HEADS: Mapping[str, Mapping[str, Any]] = {"linear": {"dim": 128}, "mlp": {"hidden": None, "dim": 128}}
HEADS = {**PATCH_HEADS, "mlp_bn": {"hidden": None, "dim": 128, "layers": 2, "last_bn": True}}
PREDICTOR: Mapping[str, Any] = {"hidden": None, "layers": 2}
DEFAULTS: Mapping[str, Any] = {
    "width": 64,
    "stem": "imagenet",
    "norm": {"kind": "batch", "groups": 1},
    "head": {"kind": "linear", "dim": 128},
    "dtype": "float32",
    "remat": False,
    "patch": None,
    "depth": None,
    "heads": None,
    "positions": None,
    "patch_embed": None,
    "predictor": None,
    "twin": None,
    "jigsaw": None,
    "split": None,
}
HEAD_FIELDS = ("head", "predictor", "twin", "jigsaw", "patch_embed")
VIT_FIELDS = ("patch", "depth", "heads", "positions", "patch_embed")


def resolve(model: Mapping[str, Any]) -> dict[str, Any]:
    """The description with defaults filled in, as plain data, every word checked. Raises UserError."""
    model = {name: dict(field) if hasattr(field, "items") else field for name, field in model.items()}
    for name in model:
        if name not in ("backbone", *DEFAULTS):
            raise unknown("field of config.model", name, ("backbone", *DEFAULTS))
    if "backbone" not in model:
        raise UserError("config.model names no backbone", fix=f"one of: {', '.join(BACKBONES)}")
    stem = "small" if model["backbone"] in ("tiny", "vit_tiny") else DEFAULTS["stem"]
    model = {"backbone": model["backbone"], **DEFAULTS, "stem": stem, **model}
    check_word(model["backbone"], BACKBONES, "backbone")
    check_word(model["stem"], STEMS, "stem")
    check_word(model["dtype"], DTYPES, "dtype")
    check_whole_number(model["width"], "width")
    check_bool(model["remat"], "remat")
    model["norm"] = fill_kind(model["norm"], NORMS, "norm")
    model["head"] = fill_kind(model["head"], HEADS, "head")
    if model["predictor"] is not None:
        model["predictor"] = fill_defaults(
            check_mapping(model["predictor"], "predictor", PREDICTOR), PREDICTOR, "predictor"
        )
    if model["jigsaw"] is not None:
        jigsaw = check_mapping(model["jigsaw"], "jigsaw", PATCH_HEADS["linear"])
        model["jigsaw"] = fill_kind({"kind": "linear", **jigsaw}, PATCH_HEADS, "jigsaw")
    division.parse_optional(model["split"], "config.model.split")
    if model["twin"] is not None:
        model["twin"] = fill_kind(check_mapping(model["twin"], "twin", {"kind": "mlp", "dim": 128}), HEADS, "twin")
        if other := next((name for name in ("jigsaw", "split") if model[name] is not None), None):
            raise UserError(f"config.model has a head for twins beside {other}", fix=f"set twin=None or {other}=None")
    if model["backbone"] == "tiny":
        if model["width"] % 4:
            raise UserError(f"config.model.width of tiny is {model['width']}", fix="give a multiple of 4")
        if model["stem"] != "small" or model["remat"]:
            field = "stem" if model["stem"] != "small" else "remat"
            raise UserError(f"tiny has no {field} {model[field]!r}", fix="set stem='small' and remat=False")
    return resolve_vit(model)


def resolve_vit(model: dict[str, Any]) -> dict[str, Any]:
    """The description with the words of a transformer filled in, or, of another backbone, without any."""
    backbone = model["backbone"]
    if backbone not in VITS:
        for word in VIT_FIELDS:
            if model[word] is not None:
                raise UserError(f"{backbone} has no {word}", fix=f"set model.{word}=None, or take: {', '.join(VITS)}")
        return model
    own = {"patch": PATCHES[model["stem"]], "depth": 12, "heads": VITS[backbone], "patch_embed": "frozen"}
    model |= {word: value for word, value in own.items() if model[word] is None}
    for word in ("patch", "depth", "heads"):
        check_whole_number(model[word], word)
    model["positions"] = fill_kind(model["positions"] or {"kind": "sincos"}, POSITIONS, "positions")
    check_word(model["patch_embed"], EMBED_MODES, "patch_embed")
    if model["width"] * model["heads"] % 4:
        said = f"{model['heads']} heads of config.model.width {model['width']}"
        raise UserError(said, fix="give a product that is a multiple of 4")
    return model


def fill_kind(field: Any, kinds: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """{'kind': .., its fields with defaults}. A field of another kind is let pass where it is None or a default."""
    if not isinstance(field, Mapping) or "kind" not in field:
        raise UserError(f"config.model.{name} is {field!r}", fix=f"give dict(kind=...), one of: {', '.join(kinds)}")
    kind = check_word(field["kind"], kinds, f"{name}.kind")
    others = {n: v for fields in kinds.values() for n, v in fields.items() if n not in kinds[kind]}
    for word in others:
        if word in field and field[word] != others[word]:
            raise UserError(
                f"config.model.{name}: kind {kind!r} has no {word}", fix=f"set {name}.{word}={others[word]}"
            )
    own = {n: v for n, v in field.items() if n != "kind" and n not in others}
    return {"kind": kind, **fill_defaults(own, kinds[kind], name, ("kind", *kinds[kind], *others))}


def fill_defaults(
    field: Mapping[str, Any], defaults: Mapping[str, Any], name: str, words: Collection[str] = ()
) -> dict[str, Any]:
    """The field over its defaults, each value of its default's sort; `words` are those an unknown one is told."""
    for word in field:
        if word not in defaults:
            raise unknown(f"field of config.model.{name}", word, words or defaults)
    made = {n: field.get(n, default) for n, default in defaults.items()}
    for word, given in made.items():
        if isinstance(defaults[word], bool):
            check_bool(given, f"{name}.{word}")
        elif not (given is None and defaults[word] is None):
            check_whole_number(given, f"{name}.{word}")
    return made


def check_mapping(field: Any, name: str, example: Mapping[str, Any]) -> Mapping[str, Any]:
    """The field, or UserError where it is no mapping."""
    if not isinstance(field, Mapping):
        fields = ", ".join(f"{n}={v}" for n, v in example.items())
        raise UserError(f"config.model.{name} is {field!r}", fix=f"give None or dict({fields})")
    return field


def check_word(word: Any, words: Collection[str], name: str) -> str:
    """The word, or UserError where it isn't one of `words`."""
    if word not in tuple(words):
        raise unknown(f"config.model.{name}", word, words)
    return str(word)


def check_bool(given: Any, name: str) -> None:
    """UserError unless `given` is True or False."""
    if not isinstance(given, bool):
        raise UserError(f"config.model.{name} is {given!r}", fix="give True or False")


def check_whole_number(number: Any, name: str) -> None:
    """UserError unless `number` is a whole number above 0."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"config.model.{name} is {number!r}", fix="give a whole number above 0")
