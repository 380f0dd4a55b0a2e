"""Two patches of one image, the second so many pixels right of the first and below it: pixels as they are, nothing is
resampled. What two patches share falls with their distance.

Source: Tian et al. 2020 (InfoMin), its views by spatial distance: patches of 64 pixels, 64 to 384 apart, of images so
large that the patches need not lie at the edges (with a large distance in a small image they must).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

from mi_contrast.core.errors import UserError
from mi_contrast.views.augmentation import apply_ops, draw_batch, map_batch
from mi_contrast.views.draws import Draw, stream_rng
from mi_contrast.views.plain import normalise
from mi_contrast.views.resampling import to_lines, to_pixels

SOURCES = {"query": 0, "key": 0}  # both of the first source
NO_OPS: Mapping[str, Any] = {"order": ()}


class PatchDraw(NamedTuple):
    """One patch's decisions: top and left, and those of its ops."""

    corner: Int[Array, " 2"]
    ops: Draw


def view_sources(policy: Mapping[str, Any]) -> dict[str, int]:
    """Each view's name and the source that it is made from."""
    return dict(SOURCES)


def view_shapes(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of one example of each view."""
    return {name: (policy["size"], policy["size"], 3) for name in SOURCES}


def channel_constants(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the channels of one view."""
    return tuple(policy["mean"]), tuple(policy["std"])


def make_views(
    policy: Mapping[str, Any], sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]
) -> dict[str, Float[Array, "B size size 3"]]:
    """Both patches of the first source, on one device. UserError where the images are too small to hold them."""
    images = sources[:, 0]
    first = draw_corners(policy["size"], policy["distance"], keys, *images.shape[1:3])
    views = {}
    for number, name in enumerate(SOURCES):
        ops = policy.get(name, NO_OPS)
        draws = PatchDraw(first + number * policy["distance"], draw_batch(ops, number, keys, images))
        views[name] = map_batch(partial(patch_view, policy, ops), images, draws)
    return views


def draw_corners(size: int, distance: int, keys: Key[Array, " B"], height: int, width: int) -> Int[Array, "B 2"]:
    """Top and left of each example's first patch, uniform over all places where both patches fit."""
    free = count_places(size, distance, height, width)

    def one(key: Key[Array, ""]) -> Int[Array, " 2"]:
        return jax.random.randint(stream_rng(jax.random.fold_in(key, 0), "place"), (2,), 0, jnp.array(free))

    return jax.vmap(one)(keys)


def count_places(size: int, distance: int, height: int, width: int) -> list[int]:
    """Places of the first patch down and across an image. UserError where there is none."""
    free = [side - size - distance + 1 for side in (height, width)]
    if min(free) < 1:
        most = min(height, width) - size
        fix = f"give views.distance of {most} or less" if most >= 0 else "give smaller patches or larger images"
        said = f"images of {height} x {width} hold no two patches of {size} pixels at distance {distance}"
        raise UserError(said, fix=fix)
    return free


def patch_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: PatchDraw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """One patch of one source after its ops, normalised by the policy's mean and std."""
    top, left = draw.corner
    image = to_lines(lax.dynamic_slice(source, (top, left, jnp.int32(0)), (policy["size"], policy["size"], 3)))
    if "flip" in ops:
        image = jnp.where(draw.ops.flip, image[..., ::-1], image)
    return normalise(to_pixels(apply_ops(ops, draw.ops, image)), tuple(policy["mean"]), tuple(policy["std"]))
