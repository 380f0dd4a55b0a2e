"""Two patches of one image at a diagonal distance, cut out without resampling.

The mutual information between the patches falls with their distance.

Source: Tian et al. 2020 (InfoMin), views by spatial distance: patches of 64 pixels, 64 to 384 pixels apart. Their
images are large enough that the patches can lie anywhere. In a small image, a large distance forces them to the edges.
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
from mi_contrast.views.draws import Cut, Draw, stream_rng
from mi_contrast.views.plain import normalise
from mi_contrast.views.resampling import to_lines, to_pixels

SOURCES = {"query": 0, "key": 0}  # both views are made from the first source
NO_OPS: Mapping[str, Any] = {"order": ()}


class PatchDraw(NamedTuple):
    """The random choices for one patch: its corner (top, left), and those of its ops."""

    corner: Int[Array, " 2"]
    ops: Draw


def view_sources(policy: Mapping[str, Any]) -> dict[str, int]:
    """Returns the index of the source image that each view is made from."""
    return dict(SOURCES)


def view_shapes(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of one example of each view."""
    return {name: (policy["size"], policy["size"], 3) for name in SOURCES}


def channel_constants(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and std of the channels of one view."""
    return tuple(policy["mean"]), tuple(policy["std"])


def find_cuts(policy: Mapping[str, Any]) -> dict[str, Cut]:
    """Returns no crops: patches are not resized, and lie in images of one size."""
    return {}


def make_views(
    policy: Mapping[str, Any], sources: UInt8[Array, "B I H W 3"], rngs: Key[Array, " B"], boxes: None = None
) -> dict[str, Float[Array, "B size size 3"]]:
    """Makes both patches of the first source, on one device. Raises UserError if the images are too small."""
    images = sources[:, 0]
    corners = draw_corners(policy["size"], policy["distance"], rngs, *images.shape[1:3])
    views = {}
    for number, name in enumerate(SOURCES):
        ops = policy.get(name, NO_OPS)
        draws = PatchDraw(corners + number * policy["distance"], draw_batch(ops, number, rngs, images))
        views[name] = map_batch(partial(patch_view, policy, ops), images, draws)
    return views


def draw_corners(size: int, distance: int, rngs: Key[Array, " B"], height: int, width: int) -> Int[Array, "B 2"]:
    """Draws the corner (top, left) of each example's first patch, uniform over all where both patches fit."""
    limits = count_places(size, distance, height, width)

    def draw_one(rng: Key[Array, ""]) -> Int[Array, " 2"]:
        return jax.random.randint(stream_rng(jax.random.fold_in(rng, 0), "place"), (2,), 0, jnp.array(limits))

    return jax.vmap(draw_one)(rngs)


def count_places(size: int, distance: int, height: int, width: int) -> list[int]:
    """Returns how many values the first patch's top and left can have. Raises UserError if there is none."""
    counts = [side - size - distance + 1 for side in (height, width)]
    if min(counts) < 1:
        most = min(height, width) - size
        fix = f"give views.distance of {most} or less" if most >= 0 else "give smaller patches or larger images"
        what = f"images of {height} x {width} hold no two patches of {size} pixels at distance {distance}"
        raise UserError(what, fix=fix)
    return counts


def patch_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: PatchDraw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """Cuts one patch out of one image, applies its ops, and normalises by the policy's mean and std."""
    top, left = draw.corner
    image = to_lines(lax.dynamic_slice(source, (top, left, jnp.int32(0)), (policy["size"], policy["size"], 3)))
    if "flip" in ops:
        image = jnp.where(draw.ops.flip, image[..., ::-1], image)
    return normalise(to_pixels(apply_ops(ops, draw.ops, image)), tuple(policy["mean"]), tuple(policy["std"]))
