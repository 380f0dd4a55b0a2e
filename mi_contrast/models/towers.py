"""Towers: a backbone and its heads, built from plain data, encoded by pure functions on explicit variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from mi_contrast.core import division
from mi_contrast.core.division import Division
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.models.description import VITS, resolve
from mi_contrast.models.heads import JigsawHead, LinearHead, MLPHead, MLPNormHead
from mi_contrast.models.normalisation import Statistics
from mi_contrast.models.resnet import BasicBlock, Block, Bottleneck, ResNet
from mi_contrast.models.tiny import Tiny
from mi_contrast.models.vit import EMBEDDING, ViT

Variables = dict[str, Any]
Backbone = ResNet | Tiny | ViT
Head = LinearHead | MLPHead | MLPNormHead

RESNETS: Mapping[str, tuple[type[Block], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

COLLECTIONS = ("params", "batch_stats")
GENERATOR = "generator"  # the collection of a generator's parameters, beside them, where one divides
PATCHES = 9


class TowerOutput(NamedTuple):
    """What a tower makes of a batch: features f32 [B, F] (the backbone's, pooled), embedding f32 [B, D] of unit norm,
    the batch statistics after this batch, the prediction f32 [B, D] of unit norm (the embedding where the tower has no
    predictor), and what the second head makes of the same features, f32 [B, E] of unit norm (None without one).
    """

    features: Float[Array, "B F"]
    embedding: Float[Array, "B D"]
    batch_stats: Variables
    prediction: Float[Array, "B D"]
    twin: Float[Array, "B E"] | None = None


@dataclass(frozen=True)
class Tower:
    """A backbone and its head, and what a method may add. Holds no arrays: variables are given to every call, as
    {'params', 'batch_stats'}, each {'backbone', 'head'}, and 'predictor', 'jigsaw' and 'twin' where there are any.

    Attributes:
      predictor: from the head's output, not normalised, to the prediction.
      jigsaw: the head of images given as patches; the backbone is the same.
      split: what divides an image into two views with a network each, of the same description but for its channels:
        every part of the variables is then {'first', 'second'}.
      twin: a second head on the same features, into a space of its own, for pairs of another kind.
      frozen: parts of the backbone that keep their first values: no gradient reaches them (see `trainable_mask`).
    """

    backbone: Backbone
    head: Head
    predictor: MLPNormHead | None = None
    jigsaw: JigsawHead | None = None
    split: Division | None = None
    twin: Head | None = None
    frozen: tuple[str, ...] = ()

    @property
    def views(self) -> tuple[str | None, ...]:
        """What `encode` may be asked for: None, or 'first' and 'second' of a split."""
        return (None,) if self.split is None else tuple(self.split.slices)

    def init(self, key: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
        """Fresh variables of every part, initialised as torchvision's.

        Args:
          key: a typed key; one key, one network.
          image_shape: (H, W, 3) of the images to come; shapes of variables don't depend on H and W, nor on the last
            of the three where the tower is split.
        """
        return _init(self, key, tuple(image_shape))

    def encode(
        self,
        variables: Variables,
        images: Float[Array, "B H W C"] | Float[Array, "B 9 h w C"],
        *,
        train: bool,
        view: str | None = None,
        key: Key[Array, ""] | None = None,
    ) -> TowerOutput:
        """Features, embeddings and predictions of a batch.

        Calls in training are threaded by hand, each given the statistics that the one before returned: their order is
        the caller's, and counts. Statistics are those of every part, the parts that served moved.

        Args:
          variables: as `init` returns them.
          images: f32, normalised: [B, H, W, 3], or of a split the view's channels, 1 or 2 of them. The 9 patches of a
            jigsaw, [B, 9, h, w, C], pass through the backbone as one batch of 9 B, example after example, and then
            through the jigsaw head; features are their mean.
          train: with the batch's statistics (moving the running ones), or with the running statistics.
          view: 'first' or 'second' of a split.
          key: for layers that draw; none of today's does.
        Raises UserError where the tower has no such view, takes no patches, or the channels are not the view's.
        """
        self.check(images, view)
        own = {name: variables[name] if view is None else _select_view(variables[name], view) for name in COLLECTIONS}
        still = {part: jax.lax.stop_gradient(own["params"]["backbone"][part]) for part in self.frozen}
        moved = dict(own["batch_stats"])
        draws = {} if key is None else {"dropout": key}

        def through(module: nn.Module, part: str, x: Array) -> Array:
            params = own["params"][part] | (still if part == "backbone" else {})
            given = {"params": params, "batch_stats": own["batch_stats"][part]}
            out, changed = module.apply(given, x, train, rngs=draws, mutable=["batch_stats"])
            moved[part] = changed.get("batch_stats", {})
            return cast(Array, out)

        if self.jigsaw is not None and images.ndim == 5:
            each = through(self.backbone, "backbone", images.reshape(-1, *images.shape[2:]))
            each = each.reshape(*images.shape[:2], -1)
            features, raw = jnp.mean(each, axis=1), through(self.jigsaw, "jigsaw", each)
        else:
            features = through(self.backbone, "backbone", images)
            raw = through(self.head, "head", features)
        embedding = prediction = normalise(raw)
        if self.predictor is not None:
            prediction = normalise(through(self.predictor, "predictor", raw))
        twin = None if self.twin is None else normalise(through(self.twin, "twin", features))
        if view is not None:
            moved = {part: variables["batch_stats"][part] | {view: of_view} for part, of_view in moved.items()}
        return TowerOutput(features, embedding, moved, prediction, twin)

    def check(self, images: Array, view: str | None) -> None:
        """UserError unless `images` can be this view's."""
        if view not in self.views:
            raise unknown("view of this tower", view, [str(v) for v in self.views])
        shape, patched = list(images.shape), self.jigsaw is not None
        if images.ndim != 4 and not (patched and images.ndim == 5 and images.shape[1] == PATCHES):
            more = f", or {PATCHES} patches of each, [B, {PATCHES}, h, w, C]" if patched else ""
            raise UserError(f"images of shape {shape}", fix=f"this tower takes [B, H, W, C]{more}")
        if self.split is None or view is None:
            return
        if images.shape[-1] != (count := self.split.count(view)):
            raise UserError(f"images of shape {shape}", fix=f"view {view!r} has {count} channels")

    def with_statistics(self, statistics: Statistics) -> Tower:
        """The tower whose batch norms, all of them, take their statistics so."""

        def follow(module: Any) -> Any:
            return module.clone(statistics=statistics) if hasattr(module, "statistics") else module

        parts = follow(self.backbone), follow(self.head), follow(self.predictor)
        return Tower(*parts, self.jigsaw, self.split, follow(self.twin), self.frozen)

    @property
    def has_statistics(self) -> bool:
        """Whether any part normalises over the batch."""
        return any(hasattr(part, "statistics") for part in (self.backbone, self.head, self.predictor, self.twin))

    def trainable_mask(self, params: Variables) -> Variables:
        """Whether each of the parameters may move, in a tree of the same shape: not those of a frozen part."""

        def learned(path: tuple[Any, ...], _: Array) -> bool:
            part, *inside = (word.key for word in path)
            return part != "backbone" or inside[self.split is not None] not in self.frozen

        return cast(Variables, jax.tree_util.tree_map_with_path(learned, params))


def _select_view(parts: Variables, view: str) -> Variables:
    return {part: of_views[view] for part, of_views in parts.items()}


@partial(jax.jit, static_argnums=(0, 2))
def _init(tower: Tower, key: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
    if tower.split is None:
        return _init_parts(tower, key, image_shape)
    keys = dict(zip(division.VIEWS, jax.random.split(key), strict=True))
    made = {view: _init_parts(tower, keys[view], (*image_shape[:2], tower.split.count(view))) for view in keys}
    parts = made["first"]["params"]
    return {name: {part: {view: made[view][name][part] for view in keys} for part in parts} for name in COLLECTIONS}


def _init_parts(tower: Tower, key: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
    of_backbone, of_head = jax.random.split(key)
    of_predictor, of_jigsaw = jax.random.split(jax.random.fold_in(key, 2))
    features = jnp.zeros((1, tower.backbone.dim), jnp.float32)
    made = {
        "backbone": tower.backbone.init(of_backbone, jnp.zeros((1, *image_shape), jnp.float32), False),
        "head": tower.head.init(of_head, features, False),
    }
    if tower.predictor is not None:
        made["predictor"] = tower.predictor.init(of_predictor, jnp.zeros((1, tower.head.dim), jnp.float32), False)
    if tower.jigsaw is not None:
        made["jigsaw"] = tower.jigsaw.init(of_jigsaw, jnp.zeros((1, PATCHES, tower.backbone.dim), jnp.float32), False)
    if tower.twin is not None:
        made["twin"] = tower.twin.init(jax.random.fold_in(key, 3), features, False)
    return {name: {part: of_part.get(name, {}) for part, of_part in made.items()} for name in COLLECTIONS}


def normalise(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Vectors divided by their lengths, in float32; 0 stays 0, with a finite gradient."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


@partial(jax.jit, static_argnums=0)
def calibrate_statistics(tower: Tower, variables: Variables, images: Float[Array, "B H W 3"]) -> Variables:
    """The variables with every part's running statistics set to this batch's, from one forward pass.

    An untrained network scored with its initial statistics (0 and 1) is scored far below what it is worth; so is a
    frozen one. Every layer sees its whole batch, whatever the groups.

    Args:
      images: f32 [B, H, W, 3], normalised; of a split as `Division.apply` returns them.
    """
    whole, statistics = tower.with_statistics(Statistics(momentum=1.0)), variables["batch_stats"]
    for view in tower.views:
        seen = images if tower.split is None or view is None else images[..., tower.split.slices[view]]
        given = {"params": variables["params"], "batch_stats": statistics}
        statistics = whole.encode(given, seen, train=True, view=view).batch_stats
    return {"params": variables["params"], "batch_stats": statistics}


def template(model: Mapping[str, Any]) -> Variables:
    """Shapes and dtypes of a representation's variables {'params', 'batch_stats'}, without computing any; of a split
    each is {'first', 'second'}, and there is a 'generator' where one divides.
    """
    model = resolve(model)
    backbone, split = build_backbone(model), division.parse_optional(model["split"])

    def made(channels: int) -> Variables:
        image = jax.ShapeDtypeStruct((1, 224, 224, channels), jnp.float32)
        shapes = jax.eval_shape(lambda key, x: backbone.init(key, x, False), jax.random.key(0), image)
        return {name: shapes.get(name, {}) for name in COLLECTIONS}

    if split is None:
        return made(3)
    views = {view: made(split.count(view)) for view in split.slices}
    found: Variables = {name: {view: views[view][name] for view in views} for name in COLLECTIONS}
    if split.generator is not None:
        found[GENERATOR] = jax.eval_shape(split.generator.init, jax.random.key(0))
    return found


def build(model: Mapping[str, Any]) -> Tower:
    """The tower that `model` describes.

    Args:
      model: backbone ('resnet18', 'resnet34', 'resnet50', 'tiny', 'vit_tiny', 'vit_small', 'vit_base'); width (64; of a
        vit the channels a head); stem ('imagenet', 'small'; tiny has the small one only; of a vit patches of 16 or 4);
        of a vit patch, depth and heads (None: as its name says), positions (None or kind 'sincos': fixed, of any size;
        kind 'learned' with grid, the patches a side) and patch_embed (None or 'frozen', or 'trained');
        norm (kind 'batch' with groups, or 'frozen', which wants statistics first: see `calibrate_statistics`; for every
        batch norm of the tower); head (kind 'linear', 'mlp' or 'mlp_bn', dim, hidden of the last two (None is the
        features' width), layers and last_bn of mlp_bn); dtype of the backbone's computation ('float32', 'bfloat16');
        remat (by blocks); predictor (None, or hidden and layers); twin (None, or a second head, as head); jigsaw (None,
        or dim a patch, with kind 'linear' or 'mlp' and hidden); split (None, or a division, see `core.division`).
    Raises UserError on an unknown or wrong word, naming the nearest.
    """
    model = resolve(model)
    backbone, statistics, dim = build_backbone(model), read_statistics(model), model["head"]["dim"]
    predictor = jigsaw = None
    if (words := model["predictor"]) is not None:
        hidden = words["hidden"] or backbone.dim
        predictor = MLPNormHead(dim, hidden, words["layers"], last_norm=False, statistics=statistics)
    if model["jigsaw"] is not None:
        jigsaw = JigsawHead(dim, cast(LinearHead | MLPHead, build_head(model["jigsaw"], statistics)))
    twin = None if model["twin"] is None else build_head(model["twin"], statistics)
    split = division.parse_optional(model["split"])
    frozen = (EMBEDDING,) if model["patch_embed"] == "frozen" else ()
    return Tower(backbone, build_head(model["head"], statistics), predictor, jigsaw, split, twin, frozen)


def read_statistics(model: Mapping[str, Any]) -> Statistics:
    """How the batch norms of a resolved description take their statistics."""
    return Statistics(groups=model["norm"].get("groups", 1), frozen=model["norm"]["kind"] == "frozen")


def build_head(head: Mapping[str, Any], statistics: Statistics) -> Head:
    """The head of a resolved description."""
    if head["kind"] == "linear":
        return LinearHead(head["dim"])
    if head["kind"] == "mlp":
        return MLPHead(head["dim"], head["hidden"])
    return MLPNormHead(head["dim"], head["hidden"], head["layers"], head["last_bn"], statistics)


def build_backbone(model: Mapping[str, Any]) -> Backbone:
    """The backbone alone, from a resolved description; of a split, that of either network."""
    statistics, dtype = read_statistics(model), DTYPES[model["dtype"]]
    if model["backbone"] == "tiny":
        return Tiny(model["width"], statistics, dtype)
    if model["backbone"] in VITS:
        sizes = {word: model[word] for word in ("width", "heads", "depth", "patch", "remat")}
        return ViT(**sizes, grid=model["positions"].get("grid"), dtype=dtype)
    block, blocks = RESNETS[model["backbone"]]
    return ResNet(block, blocks, model["width"], model["stem"], statistics, dtype, model["remat"])
