"""Towers: a backbone and a head, built from plain data, encoded by pure functions on explicit variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.models.heads import LinearHead, MLPHead
from mi_contrast.models.normalisation import Statistics
from mi_contrast.models.resnet import STEMS, BasicBlock, Bottleneck, ResNet
from mi_contrast.models.tiny import Tiny

Variables = dict[str, Any]
Backbone = ResNet | Tiny

RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
BACKBONES = (*RESNETS, "tiny")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
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


class Encoded(NamedTuple):
    """What a tower makes of a batch: features f32 [B, F] (the backbone's, pooled), embedding f32 [B, D] of unit norm,
    and the batch statistics after this batch.
    """

    features: Float[Array, "B F"]
    embedding: Float[Array, "B D"]
    batch_stats: Variables


@dataclass(frozen=True)
class Tower:
    """A backbone and its head. Holds no arrays: variables are given to every call, as {'params', 'batch_stats'},
    each {'backbone', 'head'}.
    """

    backbone: Backbone
    head: LinearHead | MLPHead

    def init(self, key: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
        """Fresh variables, initialised as torchvision's.

        Args:
          key: a typed key; one key, one network.
          image_shape: (H, W, 3) of the images to come; shapes of variables don't depend on H and W.
        """
        return _init(self, key, tuple(image_shape))

    def encode(
        self, variables: Variables, images: Float[Array, "B H W 3"], *, train: bool, key: Key[Array, ""] | None = None
    ) -> Encoded:
        """Features and embeddings of a batch.

        Args:
          variables: as `init` returns them.
          images: f32 [B, H, W, 3], normalised.
          train: with the batch's statistics (moving the running ones), or with the running statistics.
          key: for layers that draw; none of today's does.
        """
        params, statistics = variables["params"], variables["batch_stats"]
        draws = {} if key is None else {"dropout": key}
        features, backbone = _apply(self.backbone, params, statistics, "backbone", images, train, draws)
        raw, head = _apply(self.head, params, statistics, "head", features, train, draws)
        return Encoded(features, unit(raw), {"backbone": backbone, "head": head})


def _apply(
    module: nn.Module, params: Variables, statistics: Variables, part: str, x: Array, train: bool, draws: dict[str, Any]
) -> tuple[Array, Variables]:
    variables = {"params": params[part], "batch_stats": statistics[part]}
    out, changed = module.apply(variables, x, train, rngs=draws, mutable=["batch_stats"])
    return out, changed.get("batch_stats", {})


@partial(jax.jit, static_argnums=(0, 2))
def _init(tower: Tower, key: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
    of_backbone, of_head = jax.random.split(key)
    image = jnp.zeros((1, *image_shape), jnp.float32)
    backbone = tower.backbone.init(of_backbone, image, False)
    head = tower.head.init(of_head, jnp.zeros((1, tower.backbone.dim), jnp.float32), False)
    return {name: {"backbone": backbone[name], "head": head.get(name, {})} for name in ("params", "batch_stats")}


def unit(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Vectors divided by their lengths, in float32; 0 stays 0, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


@partial(jax.jit, static_argnums=0)
def with_statistics_of(tower: Tower, variables: Variables, images: Float[Array, "B H W 3"]) -> Variables:
    """The variables with the backbone's and head's running statistics set to this batch's, from one forward pass.

    An untrained network scored with its initial statistics (0 and 1) is scored far below what it is worth; so is a
    frozen one. Every layer sees its whole batch, whatever the groups.
    """
    backbone = tower.backbone.clone(statistics=Statistics(momentum=1.0))
    encoded = replace(tower, backbone=backbone).encode(variables, images, train=True)
    return {"params": variables["params"], "batch_stats": encoded.batch_stats}


def template(model: Mapping[str, Any]) -> Variables:
    """Shapes and dtypes of a backbone's variables {'params', 'batch_stats'}, without computing any."""
    backbone = build_backbone(resolve(model))
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    made = jax.eval_shape(lambda key, x: backbone.init(key, x, False), jax.random.key(0), image)
    return {"params": made["params"], "batch_stats": made["batch_stats"]}


def build(model: Mapping[str, Any]) -> Tower:
    """The tower that `model` describes.

    Args:
      model: backbone ('resnet18', 'resnet34', 'resnet50', 'tiny'), width (64), stem ('imagenet', 'small'; tiny has no
        choice), norm (kind 'batch' with groups, or 'frozen'), head (kind 'linear', or 'mlp' with hidden; dim), dtype of
        the computation ('float32', 'bfloat16'), remat (by residual blocks).
    Raises UserError on an unknown or wrong word, naming the nearest.
    """
    model = resolve(model)
    head = model["head"]
    if head["kind"] == "linear":
        return Tower(build_backbone(model), LinearHead(head["dim"]))
    return Tower(build_backbone(model), MLPHead(head["dim"], head["hidden"]))


def build_backbone(model: Mapping[str, Any]) -> Backbone:
    """The backbone alone, from a resolved description."""
    statistics = Statistics(groups=model["norm"].get("groups", 1), frozen=model["norm"]["kind"] == "frozen")
    dtype = DTYPES[model["dtype"]]
    if model["backbone"] == "tiny":
        return Tiny(model["width"], statistics, dtype)
    block, blocks = RESNETS[model["backbone"]]
    return ResNet(block, blocks, model["width"], model["stem"], statistics, dtype, model["remat"])


def resolve(model: Mapping[str, Any]) -> dict[str, Any]:
    """The description with defaults filled in, as plain data, every word checked. Raises UserError."""
    model = {name: dict(field) if hasattr(field, "items") else field for name, field in model.items()}
    for name in model:
        if name not in ("backbone", *DEFAULTS):
            raise unknown("field of config.model", name, ("backbone", *DEFAULTS))
    if "backbone" not in model:
        raise UserError("config.model names no backbone", fix=f"one of: {', '.join(BACKBONES)}")
    model = {"backbone": model["backbone"], **DEFAULTS, **model}
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


def one_of(word: Any, words: Any, name: str) -> str:
    """The word, or UserError where it isn't one of `words`."""
    if word not in tuple(words):
        raise unknown(f"config.model.{name}", word, words)
    return str(word)


def whole(number: Any, name: str) -> None:
    """UserError unless `number` is a whole number above 0."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"config.model.{name} is {number!r}", fix="give a whole number above 0")
