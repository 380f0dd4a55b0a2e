"""Views of a set's images as pixels in [0, 1]: for a classifier that asks for them, and for diagnostics."""

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
from mi_contrast.core.rngs import stream_rng
from mi_contrast.data.sets import ImageSet
from mi_contrast.evaluation.features import Encoder, in_blocks
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


def policy_named(name: str, size: int, training: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of that name that makes two crops, query and key, as pixels in [0, 1].

    Args:
      name: of POLICIES ('crops': crops of a fifth of the area or more, flipped or not), or 'train', the backbone's own.
      training: its config, for 'train'. Of a policy of channels the crop is taken that both channels are made from.
    Raises UserError on an unknown name, or 'train' of a backbone that doesn't tell its views.
    """
    if name == "train":
        if "kind" not in (own := training.get("views", {})):
            raise UserError("the backbone doesn't tell its views", fix=f"name some: {', '.join(POLICIES)}")
        if own["kind"] == "patches":
            raise UserError("the backbone's views are patches of images", fix=f"name some: {', '.join(POLICIES)}")
        made = {name: own["both" if own["kind"] == "channels" else name] for name in ("query", "key")}
    elif name in POLICIES:
        made = POLICIES[name](size)
    else:
        raise unknown("views", name, ("train", *POLICIES))
    ops = {name: dict(made[name]) for name in ("query", "key")}
    found = {"kind": "two_crops", "size": size, "mean": BLACK, "std": WHITE, **ops}
    policies.check(found)
    return found


@partial(jax.jit, static_argnums=0)
def _view(frozen: str, images: UInt8[Array, "B H W 3"], keys: Key[Array, " B"], number: Array) -> Array:
    policy = json.loads(frozen)
    draws = draw_batch(policy["query"], 0, jax.vmap(lambda key: jax.random.fold_in(key, number))(keys), images)
    return jnp.clip(map_batch(partial(crop_view, policy, policy["query"]), images, draws), 0.0, 1.0)


def view(
    policy: Mapping[str, Any], images: UInt8[Array, "B H W 3"], keys: Key[Array, " B"], number: int | Array
) -> Float[Array, "B size size 3"]:
    """The view of that number of each image by the policy's ops for a query, pixels in [0, 1], float32.

    An example's view depends on its image, its key and the number alone. Jittable.
    """
    return _view(json.dumps(policy), images, keys, jnp.asarray(number))


def keys_of(rows: np.ndarray, seed: int) -> Key[Array, " B"]:
    """The keys of the examples in these rows of a split."""
    key = stream_rng(jax.random.key(seed), "views")
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.asarray(rows))


def encode_views(
    encoder: Encoder,
    images: ImageSet,
    *,
    policy: Mapping[str, Any],
    copies: int,
    batch_size: int,
    layer: str = "pooled",
    seed: int = 0,
) -> Float[np.ndarray, "N*copies F"]:
    """Features of `copies` views of every image: all images' first views, then their second ones, and so on."""
    found: list[list[np.ndarray]] = [[] for _ in range(copies)]
    what = f"features of {images.name} {images.split}, {copies} views"
    for rows, real in in_blocks(what, len(images), batch_size, copies):
        read, keys = jnp.asarray(images.images(rows)), keys_of(rows, seed)
        for copy in range(copies):
            pixels = view(policy, read, keys, copy)
            found[copy].append(np.asarray(encoder.encode(pixels, layer=layer))[:real])
    values = np.concatenate([part for of_copy in found for part in of_copy])
    if not np.isfinite(values).all():
        raise BadNumbersError(f"features of views of {images.name} {images.split} are not finite")
    return values
