"""Images in, two augmented views out, and perhaps a view of the example's twin, the jigsaw of a third crop or some
smaller crops: every example by its own draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.views.augmentation import augment, draw_batch, map_batch
from mi_contrast.views.draws import Draw
from mi_contrast.views.jigsaw import draw_jigsaw_batch, jigsaw_view
from mi_contrast.views.plain import normalise
from mi_contrast.views.resampling import to_pixels

SOURCES = {"query": 0, "key": -1}  # a view's name, and which of the example's sources it is made from
TWIN = "twin"  # of the last source, where the policy has such a section; query and key are then of the first
JIGSAW = "jigsaw"  # of the first source, where the policy has such a section
LOCAL = "local"  # the section of further crops of the first source
# Of the views' draws; local crops count on from theirs. No policy has a twin and a jigsaw.
NUMBERS = {"query": 0, "key": 1, TWIN: 2, JIGSAW: 2, LOCAL: 3}


def view_sources(policy: Mapping[str, Any]) -> dict[str, int]:
    """Each view's name and the source that it is made from."""
    jigsaw = (JIGSAW,) if JIGSAW in policy else ()
    return {**full_size_sources(policy), **dict.fromkeys((*jigsaw, *local_names(policy)), 0)}


def full_size_sources(policy: Mapping[str, Any]) -> dict[str, int]:
    """The views of the policy's own size, and the source that each is made from."""
    return {**dict.fromkeys(SOURCES, 0), TWIN: -1} if TWIN in policy else SOURCES


def local_names(policy: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the policy's local crops: local_0, local_1, .."""
    return tuple(f"{LOCAL}_{i}" for i in range(policy[LOCAL]["count"])) if LOCAL in policy else ()


def view_shapes(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of one example of each view."""
    shapes: dict[str, tuple[int, ...]] = {
        name: (policy["size"], policy["size"], 3) for name in full_size_sources(policy)
    }
    if JIGSAW in policy:
        grid, patch = policy[JIGSAW]["grid"], policy[JIGSAW]["patch"]
        shapes[JIGSAW] = (grid * grid, patch, patch, 3)
    return shapes | {name: (policy[LOCAL]["size"],) * 2 + (3,) for name in local_names(policy)}


def channel_constants(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the channels of one view."""
    return tuple(policy["mean"]), tuple(policy["std"])


def make_views(
    policy: Mapping[str, Any], sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]
) -> dict[str, Float[Array, "B ..."]]:
    """Both views and the twin's, float32 [B, size, size, 3], on one device; `jigsaw`, [B, grid^2, patch, patch, 3]; and
    local crops of their own size.
    """
    images = {name: sources[:, source] for name, source in full_size_sources(policy).items()}
    views: dict[str, Array] = {}
    for names in group_by_ops(policy, images):  # one program makes views of equal ops: less to compile
        ops = policy[names[0]]
        drawn = [(images[name], draw_batch(ops, NUMBERS[name], keys, images[name])) for name in names]
        together = drawn[0] if len(names) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *drawn)
        made = map_batch(partial(crop_view, policy, ops), *together)
        views |= {name: made[at * len(keys) : (at + 1) * len(keys)] for at, name in enumerate(names)}
    if JIGSAW in policy:
        ops = policy[JIGSAW]
        cuts = draw_jigsaw_batch(ops, NUMBERS[JIGSAW], keys, sources[:, 0])
        views[JIGSAW] = map_batch(partial(jigsaw_view, policy, ops), sources[:, 0], cuts)
    if LOCAL in policy:
        ops, crops = policy[LOCAL], local_names(policy)
        each = [draw_batch(ops, NUMBERS[LOCAL] + i, keys, sources[:, 0]) for i in range(len(crops))]
        stacked = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *each)
        made = map_batch(partial(local_crops, {**policy, "size": ops["size"]}, ops), sources[:, 0], stacked)
        views |= {name: made[:, i] for i, name in enumerate(crops)}
    return views


def group_by_ops(policy: Mapping[str, Any], names: Iterable[str]) -> list[list[str]]:
    """The views of these names, those of equal ops together."""
    groups: list[list[str]] = []
    for name in names:
        same = next((group for group in groups if policy[group[0]] == policy[name]), None)
        if same is None:
            groups.append([name])
        else:
            same.append(name)
    return groups


def local_crops(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draws: Draw, *, banded: bool
) -> Float[Array, "count size size 3"]:
    """Crops of one source, one a draw, one after the other."""
    return lax.map(lambda draw: crop_view(policy, ops, source, draw, banded=banded), draws)


def crop_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """One view of one source, normalised by the policy's mean and std."""
    image = augment(ops, policy["size"], source, draw, banded=banded)
    return normalise(to_pixels(image), tuple(policy["mean"]), tuple(policy["std"]))
