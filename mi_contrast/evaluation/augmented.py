"""Views of a set's images as pixels in [0, 1]: for a classifier that asks for them, and for diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.keys import stream
from mi_contrast.core.progress import Progress
from mi_contrast.data.sets import ImageSet
from mi_contrast.evaluation.features import Encoder
from mi_contrast.views import policies

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
        made = {view: own["both" if own["kind"] == "channels" else view] for view in ("query", "key")}
    elif name in POLICIES:
        made = POLICIES[name](size)
    else:
        raise unknown("views", name, ("train", *POLICIES))
    ops = {view: dict(made[view]) for view in ("query", "key")}
    return {"kind": "two_crops", "size": size, "mean": BLACK, "std": WHITE, **ops}


def pairs_of_views(
    images: ImageSet, policy: Mapping[str, Any], *, batch_size: int, seed: int
) -> Iterator[tuple[int, dict[str, Float[Array, "B H W 3"]]]]:
    """(how many are real, query and key of a batch), in the set's order; the last batch filled up with its last image.

    The views of an image depend on its place in the split and the seed alone.
    """
    views = policies.build(policy)
    make = jax.jit(views.__call__)
    count = len(images)
    batch_size = min(batch_size, count)
    key = stream(jax.random.key(seed), "views")
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.asarray(rows))
        made = make(jnp.asarray(images.images(rows))[:, None], keys)
        yield min(batch_size, count - start), {name: jnp.clip(view, 0.0, 1.0) for name, view in made.items()}


def encode_views(
    encoder: Encoder,
    images: ImageSet,
    policy: Mapping[str, Any],
    *,
    copies: int,
    batch_size: int,
    layer: str = "pooled",
    seed: int = 0,
) -> Float[np.ndarray, "N*copies F"]:
    """Features of `copies` views of every image: all images' first views, then their second ones, and so on."""
    found: list[list[np.ndarray]] = [[] for _ in range(copies)]
    progress = Progress(f"features of {images.name} {images.split}, {copies} views", len(images) * copies, unit="view")
    try:
        for pair in range(-(-copies // 2)):
            for real, made in pairs_of_views(images, policy, batch_size=batch_size, seed=seed + pair):
                for copy, view in zip(range(2 * pair, copies), made.values(), strict=False):
                    found[copy].append(np.asarray(encoder.encode(view, layer=layer))[:real])
                    progress.advance(real)
    finally:
        progress.close()
    return np.concatenate([part for of_copy in found for part in of_copy])
