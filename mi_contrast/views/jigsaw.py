"""A crop cut into the cells of a grid, a patch out of each cell, in random order: PIRL's second view.

The patches are permuted here and not, as in the released code, among the features of the head: an encoder that takes
them one by one cannot tell the two apart.

Source: Misra and van der Maaten 2020 (PIRL); the sizes of InfoMin's released code, in which this crop is flipped and
gets no other op (PIRL's own jitters colours).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

from mi_contrast.views.augmentation import augment
from mi_contrast.views.draws import Draw, draw_view, stream_rng
from mi_contrast.views.plain import normalise
from mi_contrast.views.resampling import to_pixels


class JigsawDraw(NamedTuple):
    """One example's decisions. Both arrays are by place in the view, not by cell."""

    crop: Draw
    cells: Int[Array, " patches"]  # which cell, in raster order, each place shows: a permutation
    corners: Int[Array, "patches 2"]  # top and left of the patch inside its cell


def draw_jigsaw_batch(
    ops: Mapping[str, Any], number: int, keys: Key[Array, " B"], sources: UInt8[Array, "B H W 3"]
) -> JigsawDraw:
    """The decisions of a batch for the view that has this number. Corners are uniform over those that fit their cell,
    orders over all permutations.
    """
    height, width = sources.shape[1:3]
    count, spare = ops["grid"] ** 2, ops["cell"] - ops["patch"]

    def one(key: Key[Array, ""]) -> JigsawDraw:
        key = jax.random.fold_in(key, number)
        uniform = jax.random.uniform(stream_rng(key, "patches"), (count, 3))
        return JigsawDraw(
            crop=draw_view(ops, key, height, width),
            cells=jnp.argsort(uniform[:, 0]).astype(jnp.int32),
            corners=jnp.int32((spare + 1) * uniform[:, 1:]),
        )

    return jax.vmap(one)(keys)


def jigsaw_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: JigsawDraw, *, banded: bool
) -> Float[Array, "patches patch patch 3"]:
    """The patches of one source, normalised by the policy's mean and std."""
    grid, cell, patch = ops["grid"], ops["cell"], ops["patch"]
    canvas = augment(ops, grid * cell, source, draw.crop, banded=banded)

    def cut(place: tuple[Array, Array]) -> Array:
        at, (top, left) = place
        corner = (cell * (at // grid) + top, jnp.int32(0), cell * (at % grid) + left)
        return to_pixels(lax.dynamic_slice(canvas, corner, (patch, 3, patch)))

    patches = lax.map(cut, (draw.cells, draw.corners))
    return normalise(patches, tuple(policy["mean"]), tuple(policy["std"]))
