"""Two augmented views of each example and, if the policy has them, a view of its twin, a jigsaw or smaller crops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.views.augmentation import Boxes, Sources, augment, draw_batch, map_batch, select_source, set_box
from mi_contrast.views.draws import Cut, Draw
from mi_contrast.views.jigsaw import draw_jigsaw_batch, jigsaw_view
from mi_contrast.views.plain import normalise
from mi_contrast.views.resampling import to_pixels

SOURCES = {"query": 0, "key": -1}  # the source image of each view: 0 the first, -1 the last
TWIN_VIEW = "twin"  # an optional view of the last source; query and key are then views of the first
JIGSAW = "jigsaw"  # an optional jigsaw of the first source
LOCAL = "local"  # optional smaller crops of the first source
# The number that each view folds into an example's rng. Local crop i has number 3 + i. No policy has both a twin and a
# jigsaw.
RNG_NUMBERS = {"query": 0, "key": 1, TWIN_VIEW: 2, JIGSAW: 2, LOCAL: 3}


def view_sources(policy: Mapping[str, Any]) -> dict[str, int]:
    """Returns the index of the source image that each view is made from."""
    jigsaw = (JIGSAW,) if JIGSAW in policy else ()
    return {**full_size_sources(policy), **dict.fromkeys((*jigsaw, *local_names(policy)), 0)}


def full_size_sources(policy: Mapping[str, Any]) -> dict[str, int]:
    """Returns the index of the source image of each view that has the policy's own size."""
    return {**dict.fromkeys(SOURCES, 0), TWIN_VIEW: -1} if TWIN_VIEW in policy else SOURCES


def local_names(policy: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the policy's local crops: local_0, local_1, .."""
    return tuple(f"{LOCAL}_{i}" for i in range(policy[LOCAL]["count"])) if LOCAL in policy else ()


def view_shapes(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of one example of each view."""
    shapes: dict[str, tuple[int, ...]] = {
        name: (policy["size"], policy["size"], 3) for name in full_size_sources(policy)
    }
    if JIGSAW in policy:
        grid, patch = policy[JIGSAW]["grid"], policy[JIGSAW]["patch"]
        shapes[JIGSAW] = (grid * grid, patch, patch, 3)
    return shapes | {name: (policy[LOCAL]["size"],) * 2 + (3,) for name in local_names(policy)}


def channel_constants(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and std of the channels of one view."""
    return tuple(policy["mean"]), tuple(policy["std"])


def find_cuts(policy: Mapping[str, Any]) -> dict[str, Cut]:
    """Returns every crop that the policy takes, by the name of its view."""
    cuts = {
        n: Cut(RNG_NUMBERS[n], policy[n], policy["size"], source) for n, source in full_size_sources(policy).items()
    }
    if JIGSAW in policy:
        ops = policy[JIGSAW]
        cuts[JIGSAW] = Cut(RNG_NUMBERS[JIGSAW], ops, ops["grid"] * ops["cell"], 0)
    for i, name in enumerate(local_names(policy)):
        cuts[name] = Cut(RNG_NUMBERS[LOCAL] + i, policy[LOCAL], policy[LOCAL]["size"], 0)
    return cuts


def make_views(
    policy: Mapping[str, Any], sources: Sources, rngs: Key[Array, " B"], boxes: Boxes | None = None
) -> dict[str, Float[Array, "B ..."]]:
    """Makes all views of a batch on one device.

    Args:
      sources: uint8 [B, I, H, W, 3], or the crop of each view by its name, already cut.
      boxes: the box of each view by its name; drawn here by default.
    Returns:
      float32: query, key and twin [B, size, size, 3]; jigsaw [B, grid^2, patch, patch, 3]; local_0, .. of their size.
    """
    batch = len(rngs)
    images = {name: select_source(sources, name, source) for name, source in full_size_sources(policy).items()}

    def draw(name: str, ops: Mapping[str, Any], source: UInt8[Array, "B H W 3"], number: int) -> Draw:
        return set_box(draw_batch(ops, number, rngs, source), sources, boxes, name)

    views: dict[str, Array] = {}
    for names in group_by_ops(policy, images):  # views of equal ops share one program, which saves compile time
        ops = policy[names[0]]
        inputs = [(images[name], draw(name, ops, images[name], RNG_NUMBERS[name])) for name in names]
        joined = inputs[0] if len(names) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *inputs)
        crops = map_batch(partial(crop_view, policy, ops), *joined)
        views |= {name: crops[i * batch : (i + 1) * batch] for i, name in enumerate(names)}
    if JIGSAW in policy:
        ops, source = policy[JIGSAW], select_source(sources, JIGSAW, 0)
        jigsaws = draw_jigsaw_batch(ops, RNG_NUMBERS[JIGSAW], rngs, source)
        jigsaws = jigsaws._replace(crop=set_box(jigsaws.crop, sources, boxes, JIGSAW))
        views[JIGSAW] = map_batch(partial(jigsaw_view, policy, ops), source, jigsaws)
    if LOCAL in policy:
        ops, crop_names = policy[LOCAL], local_names(policy)
        cut_already = isinstance(sources, Mapping)
        local = [select_source(sources, name, 0) for name in crop_names]
        per_crop = [draw(name, ops, local[i], RNG_NUMBERS[LOCAL] + i) for i, name in enumerate(crop_names)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *per_crop)
        make = partial(local_crops, {**policy, "size": ops["size"]}, ops)
        crops = map_batch(make, jnp.stack(local, axis=1) if cut_already else local[0], stacked)
        views |= {name: crops[:, i] for i, name in enumerate(crop_names)}
    return views


def group_by_ops(policy: Mapping[str, Any], names: Iterable[str]) -> list[list[str]]:
    """Groups views whose ops are equal."""
    groups: list[list[str]] = []
    for name in names:
        same = next((group for group in groups if policy[group[0]] == policy[name]), None)
        if same is None:
            groups.append([name])
        else:
            same.append(name)
    return groups


def local_crops(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "*n H W 3"], draws: Draw, *, banded: bool
) -> Float[Array, "count size size 3"]:
    """Makes one crop for each draw, one after the other: of one image, or of the images that were cut for them."""
    if source.ndim == 4:
        return lax.map(lambda pair: crop_view(policy, ops, *pair, banded=banded), (source, draws))
    return lax.map(lambda draw: crop_view(policy, ops, source, draw, banded=banded), draws)


def crop_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """Makes one view of one image, normalised by the policy's mean and std."""
    image = augment(ops, policy["size"], source, draw, banded=banded)
    return normalise(to_pixels(image), tuple(policy["mean"]), tuple(policy["std"]))
