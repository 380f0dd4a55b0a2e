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

from mi_contrast.models.description import resolve
from mi_contrast.models.heads import LinearHead, MLPHead
from mi_contrast.models.normalisation import Statistics
from mi_contrast.models.resnet import BasicBlock, Block, Bottleneck, ResNet
from mi_contrast.models.tiny import Tiny

Variables = dict[str, Any]
Backbone = ResNet | Tiny

RESNETS: Mapping[str, tuple[type[Block], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


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
      model: backbone ('resnet18', 'resnet34', 'resnet50', 'tiny'); width (64); stem ('imagenet', 'small'; tiny has the
        small one only); norm (kind 'batch' with groups, or 'frozen', which wants statistics first: see
        `with_statistics_of`); head (kind 'linear' or 'mlp', dim, and hidden of mlp: None is the features' width);
        dtype of the computation ('float32', 'bfloat16'); remat (by residual blocks).
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
