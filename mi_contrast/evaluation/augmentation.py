"""Makes augmented views (pixels in [0, 1]) of a data set, for fitting classifiers and for diagnostics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.core.mesh import gather_rows, share_rows
from mi_contrast.core.rngs import stream_rng
from mi_contrast.data.sets import ImageSet
from mi_contrast.evaluation.features import FeatureEncoder, iterate_blocks
from mi_contrast.views import policies
from mi_contrast.views.augmentation import draw_batch, map_batch
from mi_contrast.views.two_crops import crop_view

BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # mean and std that leave pixels in [0, 1]
POLICIES: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "crops": lambda size: policies.two_crops(
        size, {"crop": {"area": (0.2, 1.0), "aspect": (3 / 4, 4 / 3)}, "flip": 0.5}, BLACK, WHITE
    ),
    "moco_v1": policies.moco_v1,
    "moco_v2": policies.moco_v2,
    "moco_v3": policies.moco_v3,
    "simclr": policies.simclr,
    "infomin": lambda size: policies.infomin(size, jigsaw=False),
}


def make_policy(name: str, size: int, training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the policy of this name; it makes two crops, query and key, as pixels in [0, 1].

    Args:
      name: a name in POLICIES ('crops' are random crops of at least a fifth of the area, flipped half of the time), or
        'train' for the augmentation that the backbone was trained with.
      size: side of a view in pixels.
      training: config of the backbone's training, read if name is 'train'. For views that are channels of one crop,
        the policy returns the crop with all its channels.
    Raises:
      UserError: the name is unknown; or it is 'train' and the backbone has no views config, or trained on patches.
    """
    if name == "train":
        if "kind" not in (training_views := training.get("views", {})):
            raise UserError("the backbone's config has no views", fix=f"choose a policy: {', '.join(POLICIES)}")
        if training_views["kind"] == "patches":
            raise UserError("the backbone's views are patches of images", fix=f"choose a policy: {', '.join(POLICIES)}")
        channels = training_views["kind"] == "channels"
        source = {view: training_views["both" if channels else view] for view in ("query", "key")}
    elif name in POLICIES:
        source = POLICIES[name](size)
    else:
        raise unknown("views", name, ("train", *POLICIES))
    ops = {view: dict(source[view]) for view in ("query", "key")}
    policy = {"kind": "two_crops", "size": size, "mean": BLACK, "std": WHITE, **ops}
    policies.check(policy)
    return policy


@partial(jax.jit, static_argnums=0)
def _make_view(policy_json: str, images: UInt8[Array, "B H W 3"], rngs: Key[Array, " B"], number: Array) -> Array:
    policy = json.loads(policy_json)  # text is hashable, as a static argument must be
    draws = draw_batch(policy["query"], 0, jax.vmap(lambda rng: jax.random.fold_in(rng, number))(rngs), images)
    return jnp.clip(map_batch(partial(crop_view, policy, policy["query"]), images, draws), 0.0, 1.0)


def make_view(
    policy: Mapping[str, Any], images: UInt8[Array, "B H W 3"], rngs: Key[Array, " B"], number: int | Array
) -> Float[Array, "B size size 3"]:
    """Returns one view of each image by the policy's ops for a query, pixels in [0, 1], float32.

    An example's view depends only on its image, its rng and `number`, which distinguishes several views of one image.
    Jittable.
    """
    return _make_view(json.dumps(policy), images, rngs, jnp.asarray(number))


def make_view_rngs(rows: np.ndarray, seed: int) -> Key[Array, " B"]:
    """Returns one rng for each row index of a split, [B]. It depends only on the seed and the index."""
    rng = stream_rng(jax.random.key(seed), "views")
    return jax.vmap(lambda row: jax.random.fold_in(rng, row))(jnp.asarray(rows))


def encode_views(
    encoder: FeatureEncoder,
    images: ImageSet,
    *,
    policy: Mapping[str, Any],
    copies: int,
    batch_size: int,
    layer: str = "pooled",
    seed: int = 0,
) -> Float[np.ndarray, "N*copies F"]:
    """Returns the features of `copies` views of every image: first the first view of all images, then the second.

    Raises BadNumbersError where a feature is not finite.
    """
    blocks: list[list[np.ndarray]] = [[] for _ in range(copies)]
    title = f"features of {images.name} {images.split}, {copies} views"
    own = share_rows(len(images))
    for rows, valid in iterate_blocks(title, len(own), batch_size, copies):
        batch, rngs = jnp.asarray(images.images(own[rows])), make_view_rngs(own[rows], seed)
        for copy in range(copies):
            pixels = make_view(policy, batch, rngs, copy)
            blocks[copy].append(np.asarray(encoder.encode(pixels, layer=layer))[:valid])
    values = np.concatenate([gather_rows(np.concatenate(parts), len(images)) for parts in blocks])
    if not np.isfinite(values).all():
        raise BadNumbersError(f"features of views of {images.name} {images.split} are not finite")
    return values
