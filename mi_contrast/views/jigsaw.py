"""PIRL's jigsaw view: patches from the cells of a grid over a crop, in random order.

The released code permutes the features of the patches inside the head. Here the patches are permuted. The two are
equivalent, because the encoder processes each patch by itself.

Source: Misra and van der Maaten 2020 (PIRL). Sizes and ops are those of InfoMin's released code, which only flips the
crop, while PIRL's also jitters its colours.
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
    """The random choices for one example. Both arrays are indexed by the patch's position in the view."""

    crop: Draw
    cells: Int[Array, " patches"]  # the cell, in raster order, that each position shows: a permutation
    corners: Int[Array, "patches 2"]  # top and left of the patch inside its cell


def draw_jigsaw_batch(
    ops: Mapping[str, Any], number: int, rngs: Key[Array, " B"], sources: UInt8[Array, "B H W 3"]
) -> JigsawDraw:
    """Draws the choices of a batch for the view with this number, from each example's rng.

    The order is uniform over all permutations, and a patch's corner over all that fit into its cell.
    """
    height, width = sources.shape[1:3]
    count, spare = ops["grid"] ** 2, ops["cell"] - ops["patch"]

    def draw_one(rng: Key[Array, ""]) -> JigsawDraw:
        rng = jax.random.fold_in(rng, number)
        uniform = jax.random.uniform(stream_rng(rng, "patches"), (count, 3))
        return JigsawDraw(
            crop=draw_view(ops, rng, height, width),
            cells=jnp.argsort(uniform[:, 0]).astype(jnp.int32),
            corners=jnp.int32((spare + 1) * uniform[:, 1:]),
        )

    return jax.vmap(draw_one)(rngs)


def jigsaw_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: JigsawDraw, *, banded: bool
) -> Float[Array, "patches patch patch 3"]:
    """Makes the patches of one image, normalised by the policy's mean and std."""
    grid, cell, patch = ops["grid"], ops["cell"], ops["patch"]
    canvas = augment(ops, grid * cell, source, draw.crop, banded=banded)

    def cut_patch(position: tuple[Array, Array]) -> Array:
        number, (top, left) = position
        corner = (cell * (number // grid) + top, jnp.int32(0), cell * (number % grid) + left)
        return to_pixels(lax.dynamic_slice(canvas, corner, (patch, 3, patch)))

    patches = lax.map(cut_patch, (draw.cells, draw.corners))
    return normalise(patches, tuple(policy["mean"]), tuple(policy["std"]))
