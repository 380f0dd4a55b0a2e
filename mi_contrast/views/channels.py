"""One crop, its channels divided between two views: CMC's. Both are the same pixels, by the same draws."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.core.colour import SPACES
from mi_contrast.views.augmenting import augment, draws_of, over_batch
from mi_contrast.views.draws import Draw
from mi_contrast.views.plain import normalise, plain
from mi_contrast.views.resampling import to_pixels

SOURCES = {"first": 0, "second": 0}  # one channel and the other two, both of the first source
# Mean and std by which the released code normalises each space. Of CMC: lab and ycbcr; of its re-implementation beside
# InfoMin: ydbdr; rgb as ImageNet's. The stds of the three others are half the ranges, not deviations.
CONSTANTS = {
    "lab": ((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
    "ydbdr": ((0.457, -0.082, -0.052), (0.5, 1.331, 1.333)),
    "ycbcr": ((116.151, 121.08, 132.342), (109.5, 111.855, 111.964)),
    "rgb": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def sources_of(policy: Mapping[str, Any]) -> dict[str, int]:
    """Each view's name and the source that it is made from."""
    return dict(SOURCES)


def shapes_of(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of one example of each view."""
    return {"first": (policy["size"], policy["size"], 1), "second": (policy["size"], policy["size"], 2)}


def constants_of(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the channels of one view."""
    own = slice(0, 1) if name == "first" else slice(1, 3)
    return tuple(policy["mean"])[own], tuple(policy["std"])[own]


def make_views(
    policy: Mapping[str, Any], sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]
) -> dict[str, Float[Array, "B size size channels"]]:
    """Both views of the first source, on one device."""
    ops, images = policy["both"], sources[:, 0]
    whole = over_batch(partial(crop, policy, ops), images, draws_of(ops, 0, keys, images))
    return split(whole)


def crop(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """The crop of one source in the policy's colour space, normalised."""
    image = augment(ops, policy["size"], source, draw, banded=banded)
    made = SPACES[policy["split"]][0](image, -2)
    return normalise(to_pixels(made), tuple(policy["mean"]), tuple(policy["std"]))


def split(images: Float[Array, "... 3"]) -> dict[str, Float[Array, "... channels"]]:
    """The first channel, and the other two."""
    return {"first": images[..., :1], "second": images[..., 1:]}


def plain_channels(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
    size: int,
    space: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Float[Array, "B size size channels"]]:
    """The evaluation transform: the centre square, resized, in the colour space, normalised and divided.

    Args:
      images: uint8, or float in [0, 1], [B, H, W, 3].
      size: pixels a side.
      space: a name of `core.colour.SPACES`, the policy's `split`.
      mean, std: of the space's three channels, as the policy has them.

    Returns:
      float32 'first' [B, size, size, 1] and 'second' [B, size, size, 2].
    """
    pixels = plain(images, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return split(normalise(SPACES[space][0](jnp.clip(pixels, 0.0, 1.0)), mean, std))
