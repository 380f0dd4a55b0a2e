"""Images in, two augmented views out, and perhaps the jigsaw of a third crop: every example by its own draws."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.views.augmenting import augment, draws_of, over_batch
from mi_contrast.views.draws import Draw
from mi_contrast.views.jigsaw import draws_of_jigsaw, jigsaw
from mi_contrast.views.plain import normalise
from mi_contrast.views.resampling import to_pixels

SOURCES = {"query": 0, "key": -1}  # a view's name, and which of the example's sources it is made from
JIGSAW = "jigsaw"  # of the first source, where the policy has such a section


def sources_of(policy: Mapping[str, Any]) -> dict[str, int]:
    """Each view's name and the source that it is made from."""
    return {**SOURCES, JIGSAW: 0} if JIGSAW in policy else dict(SOURCES)


def shapes_of(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of one example of each view."""
    shapes: dict[str, tuple[int, ...]] = {name: (policy["size"], policy["size"], 3) for name in SOURCES}
    if JIGSAW in policy:
        grid, patch = policy[JIGSAW]["grid"], policy[JIGSAW]["patch"]
        shapes[JIGSAW] = (grid * grid, patch, patch, 3)
    return shapes


def constants_of(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the channels of one view."""
    return tuple(policy["mean"]), tuple(policy["std"])


def make_views(
    policy: Mapping[str, Any], sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]
) -> dict[str, Float[Array, "B ..."]]:
    """Both views, float32 [B, size, size, 3], on one device; and `jigsaw`, [B, grid^2, patch, patch, 3]."""
    images = {name: sources[:, source] for name, source in SOURCES.items()}
    draws = {name: draws_of(policy[name], i, keys, images[name]) for i, name in enumerate(SOURCES)}
    if policy["query"] == policy["key"]:  # one program makes both: half as much to compile
        stacked = jax.tree.map(
            lambda *both: jnp.concatenate(both), (images["query"], draws["query"]), (images["key"], draws["key"])
        )
        made = over_batch(partial(crop, policy, policy["query"]), *stacked)
        views = {"query": made[: len(keys)], "key": made[len(keys) :]}
    else:
        views = {name: over_batch(partial(crop, policy, policy[name]), images[name], draws[name]) for name in SOURCES}
    if JIGSAW in policy:
        ops = policy[JIGSAW]
        cuts = draws_of_jigsaw(ops, len(SOURCES), keys, sources[:, 0])
        views[JIGSAW] = over_batch(partial(jigsaw, policy, ops), sources[:, 0], cuts)
    return views


def crop(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """One view of one source, normalised by the policy's mean and std."""
    image = augment(ops, policy["size"], source, draw, banded=banded)
    return normalise(to_pixels(image), tuple(policy["mean"]), tuple(policy["std"]))
