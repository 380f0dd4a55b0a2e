"""Towers: a backbone with its heads, built from config.model and applied by pure functions of explicit variables."""

from __future__ import annotations

import warnings
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
GENERATOR = "generator"  # a third collection: the parameters of the view generator, if the split has one
PATCHES = 9  # in a jigsaw


class TowerOutput(NamedTuple):
    """What a tower computes from a batch.

    features: float32 [B, F], the pooled features of the backbone.
    embedding: float32 [B, D] of unit norm, the output of the head.
    batch_stats: the batch statistics of all parts, updated by this batch in training.
    prediction: float32 [B, D] of unit norm, the output of the predictor; the embedding if there is no predictor.
    twin: float32 [B, E] of unit norm, the output of the twins' head; None if there is none.
    """

    features: Float[Array, "B F"]
    embedding: Float[Array, "B D"]
    batch_stats: Variables
    prediction: Float[Array, "B D"]
    twin: Float[Array, "B E"] | None = None


@dataclass(frozen=True)
class Tower:
    """A backbone and its heads. It holds no arrays: every call takes the variables, {'params', 'batch_stats'}.

    Each collection of the variables is {'backbone', 'head'}, and has 'predictor', 'jigsaw' and 'twin' if the tower has
    these parts.

    Attributes:
      backbone: from images to features.
      head: from features to embeddings.
      predictor: from the head's output, before normalisation, to predictions.
      jigsaw: a head for images that come as patches. The backbone is shared.
      split: the division of an image into two views, each with a backbone and heads of its own. Every part of the
        variables is then {'first', 'second'}. The two differ in their number of input channels.
      twin: a second head on the same features, with an embedding space of its own, for pairs with a twin.
      frozen: parts of the backbone that keep their initial values (see `trainable_mask`).
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
        """The values of `view` that `encode` accepts: None or, with a split, 'first' and 'second'."""
        return (None,) if self.split is None else tuple(self.split.slices)

    def init(self, rng: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
        """Returns initial variables of every part, initialised as torchvision's.

        Args:
          rng: a typed key of JAX. It determines the variables.
          image_shape: (H, W, 3) of the images. The shapes of the variables do not depend on H and W.
        """
        return _init(self, rng, tuple(image_shape))

    def encode(
        self,
        variables: Variables,
        images: Float[Array, "B H W C"] | Float[Array, "B 9 h w C"],
        *,
        train: bool,
        view: str | None = None,
        rng: Key[Array, ""] | None = None,
    ) -> TowerOutput:
        """Computes features, embeddings and predictions of a batch.

        In training, pass the `batch_stats` that one call returns to the next call. The result depends on the order of
        the calls. The returned `batch_stats` have all parts; those of unused parts are unchanged.

        Args:
          variables: as `init` returns them.
          images: normalised, float32 [B, H, W, 3] or, with a split, the channels of the view. The 9 patches of a
            jigsaw are [B, 9, h, w, C]. They pass through the backbone as one batch of 9 B images, then through the
            jigsaw head, and the features are their mean.
          train: True normalises by the batch's statistics and updates the running ones. False uses the running ones.
          view: with a split, 'first' or 'second'.
          rng: for layers that draw random numbers. At present there are none.

        Raises:
          UserError: the tower lacks the view, does not take patches, or the images do not have the view's channels.
        """
        self.check(images, view)
        own = {name: variables[name] if view is None else _select_view(variables[name], view) for name in COLLECTIONS}
        constants = {part: jax.lax.stop_gradient(own["params"]["backbone"][part]) for part in self.frozen}
        batch_stats = dict(own["batch_stats"])
        rngs = {} if rng is None else {"dropout": rng}

        def apply(module: nn.Module, part: str, x: Array) -> Array:
            params = own["params"][part] | (constants if part == "backbone" else {})
            collections = {"params": params, "batch_stats": own["batch_stats"][part]}
            output, updates = module.apply(collections, x, train, rngs=rngs, mutable=["batch_stats"])
            batch_stats[part] = updates.get("batch_stats", {})
            return cast(Array, output)

        if self.jigsaw is not None and images.ndim == 5:
            with warnings.catch_warnings():
                # A patch is smaller than an image by design, and the papers' stem takes it.
                warnings.filterwarnings("ignore", ".*meet the ImageNet stem", UserWarning)
                per_patch = apply(self.backbone, "backbone", images.reshape(-1, *images.shape[2:]))
            per_patch = per_patch.reshape(*images.shape[:2], -1)
            features, raw = jnp.mean(per_patch, axis=1), apply(self.jigsaw, "jigsaw", per_patch)
        else:
            features = apply(self.backbone, "backbone", images)
            raw = apply(self.head, "head", features)
        embedding = prediction = normalise(raw)
        if self.predictor is not None:
            prediction = normalise(apply(self.predictor, "predictor", raw))
        twin = None if self.twin is None else normalise(apply(self.twin, "twin", features))
        if view is not None:
            batch_stats = {part: variables["batch_stats"][part] | {view: new} for part, new in batch_stats.items()}
        return TowerOutput(features, embedding, batch_stats, prediction, twin)

    def check(self, images: Array, view: str | None) -> None:
        """Raises UserError if the tower cannot encode `images` as this view."""
        if view not in self.views:
            raise unknown("view of this tower", view, [str(v) for v in self.views])
        shape, takes_patches = list(images.shape), self.jigsaw is not None
        if images.ndim != 4 and not (takes_patches and images.ndim == 5 and images.shape[1] == PATCHES):
            more = f", or {PATCHES} patches of each, [B, {PATCHES}, h, w, C]" if takes_patches else ""
            raise UserError(f"images of shape {shape}", fix=f"this tower takes [B, H, W, C]{more}")
        if self.split is None or view is None:
            return
        if images.shape[-1] != (count := self.split.count(view)):
            raise UserError(f"images of shape {shape}", fix=f"view {view!r} has {count} channels")

    def with_statistics(self, statistics: Statistics) -> Tower:
        """Returns the tower with `statistics` for all of its batch norms."""

        def replace(module: Any) -> Any:
            return module.clone(statistics=statistics) if hasattr(module, "statistics") else module

        parts = replace(self.backbone), replace(self.head), replace(self.predictor)
        return Tower(*parts, self.jigsaw, self.split, replace(self.twin), self.frozen)

    @property
    def has_statistics(self) -> bool:
        """Whether any part has batch norm."""
        return any(hasattr(part, "statistics") for part in (self.backbone, self.head, self.predictor, self.twin))

    def trainable_mask(self, params: Variables) -> Variables:
        """Returns, in a tree of the shape of `params`, whether each is trained. Those of frozen parts are not."""

        def is_trained(path: tuple[Any, ...], _: Array) -> bool:
            part, *inner = (entry.key for entry in path)
            return part != "backbone" or inner[self.split is not None] not in self.frozen

        return cast(Variables, jax.tree_util.tree_map_with_path(is_trained, params))


def _select_view(parts: Variables, view: str) -> Variables:
    return {part: views[view] for part, views in parts.items()}


@partial(jax.jit, static_argnums=(0, 2))
def _init(tower: Tower, rng: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
    if tower.split is None:
        return _init_parts(tower, rng, image_shape)
    rngs = dict(zip(division.VIEWS, jax.random.split(rng), strict=True))
    views = {view: _init_parts(tower, rngs[view], (*image_shape[:2], tower.split.count(view))) for view in rngs}
    parts = views["first"]["params"]
    return {name: {part: {view: views[view][name][part] for view in rngs} for part in parts} for name in COLLECTIONS}


def _init_parts(tower: Tower, rng: Key[Array, ""], image_shape: tuple[int, int, int]) -> Variables:
    backbone_rng, head_rng = jax.random.split(rng)
    predictor_rng, jigsaw_rng = jax.random.split(jax.random.fold_in(rng, 2))
    features = jnp.zeros((1, tower.backbone.dim), jnp.float32)
    parts = {
        "backbone": tower.backbone.init(backbone_rng, jnp.zeros((1, *image_shape), jnp.float32), False),
        "head": tower.head.init(head_rng, features, False),
    }
    if tower.predictor is not None:
        parts["predictor"] = tower.predictor.init(predictor_rng, jnp.zeros((1, tower.head.dim), jnp.float32), False)
    if tower.jigsaw is not None:
        parts["jigsaw"] = tower.jigsaw.init(jigsaw_rng, jnp.zeros((1, PATCHES, tower.backbone.dim), jnp.float32), False)
    if tower.twin is not None:
        parts["twin"] = tower.twin.init(jax.random.fold_in(rng, 3), features, False)
    return {name: {part: variables.get(name, {}) for part, variables in parts.items()} for name in COLLECTIONS}


def normalise(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Divides vectors by their lengths, in float32. A zero vector stays 0, and its gradient is finite."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


@partial(jax.jit, static_argnums=0)
def calibrate_statistics(tower: Tower, variables: Variables, images: Float[Array, "B H W 3"]) -> Variables:
    """Replaces the running statistics of every part by those of this batch, from one forward pass.

    With its initial statistics (0 and 1), an untrained or frozen network scores far below what its weights can do. The
    statistics are those of the whole batch, whatever the groups of the batch norms.

    Args:
      tower: the network.
      variables: as `init` returns them.
      images: float32 [B, H, W, 3], normalised. With a split, as `Division.apply` returns them.
    """
    ungrouped, statistics = tower.with_statistics(Statistics(momentum=1.0)), variables["batch_stats"]
    for view in tower.views:
        own_images = images if tower.split is None or view is None else images[..., tower.split.slices[view]]
        collections = {"params": variables["params"], "batch_stats": statistics}
        statistics = ungrouped.encode(collections, own_images, train=True, view=view).batch_stats
    return {"params": variables["params"], "batch_stats": statistics}


def template(model: Mapping[str, Any]) -> Variables:
    """Returns the shapes and dtypes of a representation's variables, without computing them.

    They are {'params', 'batch_stats'}. With a split, each is {'first', 'second'}, and 'generator' is added if the split
    has a view generator.
    """
    model = resolve(model)
    backbone, split = build_backbone(model), division.parse_optional(model["split"])

    def eval_shapes(channels: int) -> Variables:
        image = jax.ShapeDtypeStruct((1, 224, 224, channels), jnp.float32)
        shapes = jax.eval_shape(lambda rng, x: backbone.init(rng, x, False), jax.random.key(0), image)
        return {name: shapes.get(name, {}) for name in COLLECTIONS}

    if split is None:
        return eval_shapes(3)
    views = {view: eval_shapes(split.count(view)) for view in split.slices}
    shapes: Variables = {name: {view: views[view][name] for view in views} for name in COLLECTIONS}
    if split.generator is not None:
        shapes[GENERATOR] = jax.eval_shape(split.generator.init, jax.random.key(0))
    return shapes


def build(model: Mapping[str, Any]) -> Tower:
    """Builds the tower that `model` (config.model) describes.

    Args:
      model: a mapping with the fields
        - backbone: 'resnet18', 'resnet34', 'resnet50', 'tiny', 'vit_tiny', 'vit_small' or 'vit_base'.
        - width: channels of the first stage, 64 by default. For a vit, channels a head.
        - stem: 'imagenet' or 'small'. For a vit, they mean patches of 16 and of 4 pixels. tiny has only 'small'.
        - norm: kind 'batch' with groups, or kind 'frozen', for every batch norm of the tower. Frozen statistics must
          be set first (see `calibrate_statistics`).
        - head: kind 'linear', 'mlp' or 'mlp_bn', and dim. The last two have hidden (None: the number of features),
          and mlp_bn has layers and last_bn.
        - predictor: None, or hidden and layers.
        - twin: None, or a second head, with the fields of head.
        - jigsaw: None, or dim (for each patch), kind 'linear' or 'mlp', and hidden.
        - split: None, or a division (see `core.division`).
        - dtype: of the backbone's computation, 'float32' or 'bfloat16'.
        - remat: whether the backward pass computes the blocks again.
        - for a vit: patch, depth and heads (None: those of the named size); positions (None or kind 'sincos': fixed,
          for any image size; kind 'learned' with grid, the patches a side); patch_embed (None or 'frozen', or
          'trained').

    Raises:
      UserError: a word is unknown or wrong. The message names the nearest.
    """
    model = resolve(model)
    backbone, statistics, dim = build_backbone(model), read_statistics(model), model["head"]["dim"]
    predictor = jigsaw = None
    if (fields := model["predictor"]) is not None:
        hidden = fields["hidden"] or backbone.dim
        predictor = MLPNormHead(dim, hidden, fields["layers"], last_norm=False, statistics=statistics)
    if model["jigsaw"] is not None:
        jigsaw = JigsawHead(dim, cast(LinearHead | MLPHead, build_head(model["jigsaw"], statistics)))
    twin = None if model["twin"] is None else build_head(model["twin"], statistics)
    split = division.parse_optional(model["split"])
    frozen = (EMBEDDING,) if model["patch_embed"] == "frozen" else ()
    return Tower(backbone, build_head(model["head"], statistics), predictor, jigsaw, split, twin, frozen)


def read_statistics(model: Mapping[str, Any]) -> Statistics:
    """Returns the statistics of the batch norms of a resolved description."""
    return Statistics(groups=model["norm"].get("groups", 1), frozen=model["norm"]["kind"] == "frozen")


def build_head(head: Mapping[str, Any], statistics: Statistics) -> Head:
    """Builds the head that a resolved description describes."""
    if head["kind"] == "linear":
        return LinearHead(head["dim"])
    if head["kind"] == "mlp":
        return MLPHead(head["dim"], head["hidden"])
    return MLPNormHead(head["dim"], head["hidden"], head["layers"], head["last_bn"], statistics)


def build_backbone(model: Mapping[str, Any]) -> Backbone:
    """Builds the backbone that a resolved description describes. With a split it serves both networks."""
    statistics, dtype = read_statistics(model), DTYPES[model["dtype"]]
    if model["backbone"] == "tiny":
        return Tiny(model["width"], statistics, dtype)
    if model["backbone"] in VITS:
        sizes = {word: model[word] for word in ("width", "heads", "depth", "patch", "remat")}
        return ViT(**sizes, grid=model["positions"].get("grid"), dtype=dtype)
    block, blocks = RESNETS[model["backbone"]]
    return ResNet(block, blocks, model["width"], model["stem"], statistics, dtype, model["remat"])
