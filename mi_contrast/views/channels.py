"""Two views of one crop, divided by colour channels (as in CMC), by frequency bands or by a view generator."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.core import division
from mi_contrast.core.colour import SPACES
from mi_contrast.views.augmentation import Boxes, Sources, augment, draw_batch, map_batch, select_source, set_box
from mi_contrast.views.draws import Cut, Draw
from mi_contrast.views.plain import make_plain_view, normalise
from mi_contrast.views.resampling import to_pixels

SOURCES = dict.fromkeys(division.VIEWS, 0)  # both views are made from the first source
WHOLE = "whole"  # the crop before it is divided
# Mean and std by which a colour space is normalised. lab and ycbcr are from CMC's released code, ydbdr from the one of
# InfoMin; their stds are half the ranges, not deviations. rgb has ImageNet's. Nothing was released for the others: they
# have the middle and half of the range of each channel (see `core.colour.SPACES`).
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
    """Returns the index of the source image that each view is made from."""
    return dict(SOURCES)


def view_shapes(policy: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of one example of each view."""
    count = division.parse(policy["split"]).count
    return {view: (policy["size"], policy["size"], count(view)) for view in SOURCES}


def channel_constants(policy: Mapping[str, Any], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and std of the channels of one view; 0 and 1 if they are not channels of a colour space."""
    split = division.parse(policy["split"])
    if split.is_colour_space:
        channels = split.slices[name]
        return tuple(policy["mean"])[channels], tuple(policy["std"])[channels]
    count = split.count(name)
    return (0.0,) * count, (1.0,) * count


def find_cuts(policy: Mapping[str, Any]) -> dict[str, Cut]:
    """Returns the one crop that the policy takes, by its name."""
    return {WHOLE: Cut(0, policy["both"], policy["size"], 0)}


def make_views(
    policy: Mapping[str, Any], sources: Sources, rngs: Key[Array, " B"], boxes: Boxes | None = None
) -> dict[str, Float[Array, "B size size 3"]]:
    """Makes the crop of the first source, not divided yet, on one device. `two_crops` explains `boxes`."""
    ops, images = policy["both"], select_source(sources, WHOLE, 0)
    draws = set_box(draw_batch(ops, 0, rngs, images), sources, boxes, WHOLE)
    return {WHOLE: map_batch(partial(crop_view, policy, ops), images, draws)}


def crop_view(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """Crops one image, converts it to the policy's colour space and normalises it."""
    image = augment(ops, policy["size"], source, draw, banded=banded)
    converted = SPACES[division.parse(policy["split"]).space][0](image, -2)
    return normalise(to_pixels(converted), tuple(policy["mean"]), tuple(policy["std"]))


def divide(
    split: Any, images: Float[Array, "*batch H W 3"], generator: Any = None
) -> dict[str, Float[Array, "*batch H W channels"]]:
    """Divides normalised images into the two views."""
    parsed = division.parse(split)
    return parsed.views(parsed.apply(images, generator))


def plain_channels(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"],
    size: int,
    split: Any,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    generator: Any = None,
) -> dict[str, Float[Array, "B size size channels"]]:
    """Applies the evaluation transform: crops the centre square, resizes, converts, normalises and divides.

    Args:
      images: uint8, or float in [0, 1], [B, H, W, 3].
      size: pixels a side.
      split: the policy's split.
      mean, std: the policy's mean and std of the colour space's three channels.
      generator: parameters of the view generator, if the split has one.

    Returns:
      float32 'first' and 'second', [B, size, size, channels].
    """
    pixels = jnp.clip(make_plain_view(images, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 0.0, 1.0)
    whole = normalise(SPACES[division.parse(split).space][0](pixels), mean, std)
    return divide(split, whole, generator)
