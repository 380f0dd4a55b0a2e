"""Augmentation policies of the papers, as plain data.

A policy of kind 'two_crops' has size (pixels a side), mean and std (of each channel, of images in [0, 1]) and, for each
of the views `query` and `key`, the ops of that view. An op that is left out is not applied:

  crop      dict(area=(low, high), aspect=(low, high))    share of the image's area; width / height
  flip      p                                             left to right
  jitter    dict(brightness, contrast, saturation, hue, p)   strengths; the four are applied in random order
  grey      p
  blur      dict(sigma=(low, high), p)                    Gaussian; sigma in pixels of the view
  solarize  dict(threshold, p)
  randaugment  dict(layers, magnitude, std, p, ops, fill)   see the module of that name; fill in levels, 0 to 255
  order     the names of the ops in the order in which they are applied, crop first

Optional sections of this kind:

  twin      the ops of a view of the example's second image; query and key are then views of the first.
  jigsaw    ops, and grid (cells a side), cell and patch (pixels a side). The view is a crop of grid * cell pixels a
            side. A patch is cut at random out of each cell, and the patches are in random order.
  local     ops, count and size. They make `count` further crops of the first image, of `size` pixels a side, named
            local_0, local_1, .. (multi-crop).

A policy of kind 'patches' has size, mean, std and `distance`. The views 'query' and 'key' are two patches of
size x size pixels of one image, without resampling. The key is `distance` pixels to the right of the query and below
it. Their position is random. Sections `query` and `key` may give them ops as above, but no crop.

A policy of kind 'channels' has size, `split`, mean and std (of the channels of the split's colour space) and `both`.
The views 'first' and 'second' are made by dividing one crop as `split` says (see `core.division`). `both` has the ops
of the crop.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mi_contrast.core import division
from mi_contrast.views.build import Views, build
from mi_contrast.views.channels import CONSTANTS, plain_channels
from mi_contrast.views.checks import check
from mi_contrast.views.plain import make_plain_view as plain
from mi_contrast.views.plain import normalise, unnormalise
from mi_contrast.views.randaugment import ALL
from mi_contrast.views.two_crops import LOCAL, SOURCES

__all__ = [
    "Views",
    "build",
    "byol",
    "check",
    "cmc",
    "infomin",
    "moco_v1",
    "moco_v2",
    "moco_v3",
    "multi_crop",
    "normalise",
    "patches",
    "pirl",
    "plain",
    "plain_channels",
    "simclr",
    "strengths",
    "unnormalise",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def crop_op(low: float) -> dict[str, Any]:
    """Returns a random resized crop of at least the share `low` of the area, with aspect 3/4 to 4/3."""
    return {"area": (low, 1.0), "aspect": (3 / 4, 4 / 3)}


def two_crops(size: int, ops: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """Returns the policy whose two views have the same ops, applied in the order of `ops`.

    The views share no dict, so that changing one does not change the other.
    """
    sections = {name: {**copy.deepcopy(dict(ops)), "order": tuple(ops)} for name in SOURCES}
    return {"kind": "two_crops", "size": size, "mean": mean, "std": std, **sections}


def moco_v1(size: int) -> dict[str, Any]:
    """Returns the policy of MoCo v1 and instance discrimination: crop, greyscale, strong jitter (always), flip.

    Source: He et al. 2020 (MoCo), released code, which uses ImageNet's mean and std.
    """
    ops = {
        "crop": crop_op(0.2),
        "grey": 0.2,
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4, "p": 1.0},
        "flip": 0.5,
    }
    return two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD)


def moco_v2(size: int) -> dict[str, Any]:
    """Returns the policy of MoCo v2: crop, jitter, greyscale, blur, flip.

    Source: Chen et al. 2020 (MoCo v2) and Wu et al. 2021 (Ring), released code. sigma is in pixels at every size, as
    there. Its blur is PIL's approximation of a Gaussian, ours is a Gaussian.
    """
    ops = {
        "crop": crop_op(0.2),
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
        "grey": 0.2,
        "blur": {"sigma": (0.1, 2.0), "p": 0.5},
        "flip": 0.5,
    }
    return two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD)


def simclr(size: int, strength: float = 1.0, blur: float = 0.5) -> dict[str, Any]:
    """Returns the policy of SimCLR: crop, flip, jitter, greyscale, blur. Views stay in [0, 1].

    Args:
      size: pixels a side.
      strength: of the jitter. The released recipe for CIFAR-10 has .5.
      blur: probability. The released recipe for CIFAR-10 has 0.

    Source: Chen et al. 2020 (SimCLR), released code. It resizes bicubically, while ours is bilinear with antialiasing,
    and its blur kernel is a tenth of the image's side wide.
    """
    ops: dict[str, Any] = {
        "crop": crop_op(0.08),
        "flip": 0.5,
        "jitter": jitter_op(strength),
        "grey": 0.2,
    }
    if blur > 0.0:
        ops["blur"] = {"sigma": (0.1, 2.0), "p": blur}
    return two_crops(size, ops, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def moco_v3(size: int, low: float = 0.2) -> dict[str, Any]:
    """Returns the policy of MoCo v3: that of MoCo v2 with less saturation, and with different ops for the two views.

    The query is always blurred. The key is blurred with probability .1 and solarized with probability .2.

    Args:
      size: pixels a side.
      low: the crop's least share of the area: .2 for ResNet-50, .08 for transformers.

    Source: Chen, Xie and He 2021 (MoCo v3), released code.
    """
    ops = {
        "crop": crop_op(low),
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "p": 0.8},
        "grey": 0.2,
        "blur": {"sigma": (0.1, 2.0), "p": 1.0},
        "flip": 0.5,
    }
    policy = two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD)
    policy["key"]["blur"]["p"] = 0.1
    policy["key"]["solarize"] = {"threshold": 0.5, "p": 0.2}
    policy["key"]["order"] = ("crop", "jitter", "grey", "blur", "solarize", "flip")
    return policy


def byol(size: int) -> dict[str, Any]:
    """Returns the policy of BYOL: the ops of MoCo v3 on crops of at least .08 of the area.

    Source: Grill et al. 2020 (BYOL), appendix on image augmentations.
    """
    return moco_v3(size, low=0.08)


def infomin(size: int, jigsaw: bool = True) -> dict[str, Any]:
    """Returns the policy of InfoMin: crop, flip, SimCLR's jitter, blur, RandAugment, greyscale, and a jigsaw.

    Source: Tian et al. 2020 (InfoMin), released code. Its blur has 23 taps for every sigma and reflects at the edge.
    Ours ends at three standard deviations and repeats the edge pixels.
    """
    ops = {
        "crop": crop_op(0.2),
        "flip": 0.5,
        "jitter": jitter_op(1.0),
        "blur": {"sigma": (0.1, 2.0), "p": 0.5},
        "randaugment": {
            "layers": 2,
            "magnitude": 10.0,
            "std": 0.5,
            "p": 0.5,
            "ops": ALL,
            "fill": (124.0, 116.0, 104.0),
        },
        "grey": 0.2,
    }
    policy = two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD)
    return {**policy, "jigsaw": jigsaw_section(size)} if jigsaw else policy


def pirl(size: int) -> dict[str, Any]:
    """Returns the policy of PIRL in InfoMin's reimplementation.

    It has the ops of MoCo v1 in another order, on crops of at least .08 of the area, and a jigsaw.

    Source: Misra and van der Maaten 2020 (PIRL); released code of Tian et al. 2020 (InfoMin).
    """
    ops = {
        "crop": crop_op(0.08),
        "flip": 0.5,
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4, "p": 1.0},
        "grey": 0.2,
    }
    return {**two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD), "jigsaw": jigsaw_section(size)}


def jigsaw_section(size: int | None) -> dict[str, Any]:
    """Returns the section `jigsaw` of the released code: a flipped crop of at least .6 of the area, in 3 x 3 cells.

    A cell has 85 / 224 of the view's side and a patch 64 / 224, rounded: 12 and 9 pixels for views of 32 pixels.
    """
    return {
        "crop": {"area": (0.6, 1.0), "aspect": (3 / 4, 4 / 3)},
        "flip": 0.5,
        "order": ("crop", "flip"),
        "grid": 3,
        **jigsaw_sides(size),
    }


def jigsaw_sides(size: int | None) -> dict[str, int | None]:
    """Returns the sides in pixels of a jigsaw's cells and patches for views of this size; None while it is open."""
    if size is None:
        return {"cell": None, "patch": None}
    return {"cell": max(1, round(size * 85 / 224)), "patch": max(1, round(size * 64 / 224))}


def strengths(
    size: int, low: float = 0.2, jitter: float = 1.0, grey: float = 0.2, blur: float = 0.5, flip: float = 0.5
) -> dict[str, Any]:
    """Returns a policy whose strengths are plain numbers, for studies that vary one. Ops of strength 0 are left out.

    Args:
      size: pixels a side.
      low: the crop's least share of the area, up to 1.
      jitter: a strength x, at most 2.5: (.8x, .8x, .8x, .2x) of brightness, contrast, saturation and hue, with
        probability .8.
      grey, blur, flip: probabilities.

    Source: Tian et al. 2020 (InfoMin), which finds low .2 and x 1 best. The other ops are those of MoCo v2.
    """
    ops: dict[str, Any] = {"crop": crop_op(low), "jitter": jitter_op(jitter), "grey": grey}
    ops |= {"blur": {"sigma": (0.1, 2.0), "p": blur}, "flip": flip}
    absent = {name for name, p in (("jitter", jitter), ("grey", grey), ("blur", blur), ("flip", flip)) if p == 0.0}
    return two_crops(size, {name: op for name, op in ops.items() if name not in absent}, IMAGENET_MEAN, IMAGENET_STD)


def jitter_op(x: float) -> dict[str, float]:
    """Returns SimCLR's jitter of strength x."""
    return {"brightness": 0.8 * x, "contrast": 0.8 * x, "saturation": 0.8 * x, "hue": 0.2 * x, "p": 0.8}


def patches(
    size: int,
    distance: int,
    ops: Mapping[str, Any] | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> dict[str, Any]:
    """Returns InfoMin's policy of two patches at a diagonal distance in pixels. `ops` are applied to both, in order.

    Source: Tian et al. 2020 (InfoMin): size 64, distance 64 to 384.
    """
    policy: dict[str, Any] = {"kind": "patches", "size": size, "distance": distance, "mean": mean, "std": std}
    if ops:
        policy |= {name: {**copy.deepcopy(dict(ops)), "order": tuple(ops)} for name in SOURCES}
    return policy


def multi_crop(
    policy: Mapping[str, Any], count: int = 4, size: int | None = None, area: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Adds local crops to a policy of two crops. They have the query's ops, on smaller parts of the image.

    Args:
      policy: of kind 'two_crops'.
      count: number of local crops.
      size: pixels a side of a local crop; by default 3/7 of the policy's size (96 of 224).
      area: range of the crops' share of the area; by default from a quarter of the query's least area to that area.

    Source: Caron et al. 2020 (SwAV), with local crops of .05 to .14 of the area and two large crops of at least .14.
    """
    ops = copy.deepcopy(dict(policy["query"]))
    low = ops.get("crop", crop_op(1.0))["area"][0]
    ops["crop"] = {**ops.get("crop", crop_op(1.0)), "area": (low / 4, low) if area is None else tuple(area)}
    ops["order"] = ("crop", *(name for name in ops["order"] if name != "crop"))
    size = max(1, round(policy["size"] * 3 / 7)) if size is None else size
    return {**policy, LOCAL: {"count": count, "size": size, **ops}}


def cmc(
    size: int,
    split: Any = "lab",
    low: float = 0.2,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """Returns the policy of CMC: one crop with a random flip, whose lightness is one view and whose colours the other.

    Args:
      size: pixels a side.
      split: how the crop is divided (see `core.division`).
      low: the crop's least share of the area. The released code has .08 for ResNets on ImageNet.
      mean, std: of the channels of the split's colour space; by default the released constants.

    Source: Tian et al. 2020 (Contrastive Multiview Coding), released code. InfoMin's code splits 'ydbdr' and adds a
    jitter, which can be added to `both`.
    """
    known_mean, known_std = CONSTANTS[division.parse(split, "split of channels").space]
    return {
        "kind": "channels",
        "size": size,
        "split": split,
        "mean": known_mean if mean is None else tuple(mean),
        "std": known_std if std is None else tuple(std),
        "both": {"crop": crop_op(low), "flip": 0.5, "order": ("crop", "flip")},
    }
