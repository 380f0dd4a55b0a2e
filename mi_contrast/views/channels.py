"""One crop, divided between two views: by channels as CMC's, by bands, or by a generator. Both are the same pixels, by
the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.core import division
from mi_contrast.core.colour import SPACES
from mi_contrast.views.augmentation import augment, draw_batch, map_batch
from mi_contrast.views.draws import Draw
from mi_contrast.views.plain import normalise, plain
from mi_contrast.views.resampling import to_pixels

SOURCES = dict.fromkeys(division.VIEWS, 0)  # both of the first source
WHOLE = "whole"  # the crop before it is divided
# Mean and std by which the released code normalises a space. Of CMC: lab and ycbcr; of its re-implementation beside
# InfoMin: ydbdr; rgb as ImageNet's. The stds of the three others are half the ranges, not deviations. Nothing was
# released for the rest: the middle and half of the range of each channel (see `core.colour.SPACES`).
CONSTANTS = {
    "lab": ((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
    "ydbdr": ((0.457, -0.082, -0.052), (0.5, 1.331, 1.333)),
    "ycbcr": ((116.151, 121.08, 132.342), (109.5, 111.855, 111.964)),
    "rgb": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "ypbpr": ((0.5, 0.0, 0.0), (0.5, 0.5, 0.5)),
    "yiq": ((0.5, 0.0, 0.0), (0.5, 0.596, 0.523)),
    "yuv": ((0.5, 0.0, 0.0), (0.5, 0.436, 0.615)),
    "hsv": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def view_sources(policy: Mapping[str, Any]) -> dict[str, int]:
    """Each view's name and the source that it is made from."""
    return dict(SOURCES)


def view_shapes(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of one example of each view."""
    count = division.parse(policy["split"]).count
    return {view: (policy["size"], policy["size"], count(view)) for view in SOURCES}


def channel_constants(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the channels of one view, where it has some of a colour space's; else 0 and 1."""
    found = division.parse(policy["split"])
    if found.is_colour_space:
        own = found.slices[name]
        return tuple(policy["mean"])[own], tuple(policy["std"])[own]
    count = found.count(name)
    return (0.0,) * count, (1.0,) * count


def make_views(
    policy: Mapping[str, Any], sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]
) -> dict[str, Float[Array, "B size size 3"]]:
    """The crop of the first source that both views are of, not divided yet, on one device."""
    ops, images = policy["both"], sources[:, 0]
    return {WHOLE: map_batch(partial(crop_view, policy, ops), images, draw_batch(ops, 0, keys, images))}


def crop_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """The crop of one source in the policy's colour space, normalised."""
    image = augment(ops, policy["size"], source, draw, banded=banded)
    made = SPACES[division.parse(policy["split"]).space][0](image, -2)
    return normalise(to_pixels(made), tuple(policy["mean"]), tuple(policy["std"]))


def divide(
    split: Any, images: Float[Array, "*batch H W 3"], generator: Any = None
) -> dict[str, Float[Array, "*batch H W channels"]]:
    """The two views of normalised images."""
    found = division.parse(split)
    return found.views(found.apply(images, generator))


def plain_channels(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
    size: int,
    split: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    generator: Any = None,
) -> dict[str, Float[Array, "B size size channels"]]:
    """The evaluation transform: the centre square, resized, in the colour space, normalised and divided.

    Args:
      images: uint8, or float in [0, 1], [B, H, W, 3].
      size: pixels a side.
      split: the policy's.
      mean, std: of the space's three channels, as the policy has them.
      generator: its parameters, where one divides.

    Returns:
      float32 'first' and 'second', [B, size, size, channels].
    """
    pixels = jnp.clip(plain(images, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 0.0, 1.0)
    whole = normalise(SPACES[division.parse(split).space][0](pixels), mean, std)
    return divide(split, whole, generator)
