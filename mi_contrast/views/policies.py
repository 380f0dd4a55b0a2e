"""Policies of augmentation as plain data, and what is made of them.

A policy of kind 'two_crops': size (pixels a side), mean and std (per channel, of images in [0, 1]), and for each view,
`query` and `key`, its ops. An op that is left out does not happen:

  crop      dict(area=(low, high), aspect=(low, high))    share of the source's area, width / height
  flip      p                                             left to right
  jitter    dict(brightness, contrast, saturation, hue, p)   strengths; the four in random order
  grey      p
  blur      dict(sigma=(low, high), p)                    Gaussian, pixels of the view
  solarize  dict(threshold, p)
  randaugment  dict(layers, magnitude, std, p, ops, fill)   see the module of that name; fill in levels, 0 to 255
  order     the ops' names in the order they are applied, crop first

It may have a section `jigsaw`: such ops, and grid (cells a side), cell and patch (pixels a side). That view is a crop
of grid x cell pixels a side, a patch cut at random out of each of its cells, the patches in random order.

It may have a section `local`: such ops, count, and size. They are as many further crops of the first source, named
local_0, local_1, .., of that size: small parts of an image that are held against its two large ones (multi-crop).

A policy of kind 'patches': size, mean and std, and `distance`: 'query' and 'key' are two patches of size x size pixels
of the first source, the key `distance` pixels right of the query and below it, anywhere that both fit; nothing is
resampled. Each may have ops of its own, in a section `query` or `key` as above but without a crop.

A policy of kind 'channels': size, `split`, what divides an image into the views 'first' and 'second' (a colour space,
bands, a generator: see `core.division`), mean and std of its space's channels, and `both`, the ops of the one crop that
both are made from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mi_contrast.core import division
from mi_contrast.views.build import Views, build
from mi_contrast.views.channels import CONSTANTS, plain_channels
from mi_contrast.views.checks import check
from mi_contrast.views.plain import normalise, plain, unnormalise
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
    """A random resized crop of at least `low` of the area, aspect 3/4 to 4/3."""
    return {"area": (low, 1.0), "aspect": (3 / 4, 4 / 3)}


def two_crops(size: int, ops: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """The policy that makes both views by the same ops, in the order in which `ops` gives them. The two share no dict:
    a change to one view leaves the other alone.
    """
    both = {name: {**copy.deepcopy(dict(ops)), "order": tuple(ops)} for name in SOURCES}
    return {"kind": "two_crops", "size": size, "mean": mean, "std": std, **both}


def moco_v1(size: int) -> dict[str, Any]:
    """MoCo v1's (and instance discrimination's): crop, greyscale, then a strong jitter always, flip.

    Source: He et al. 2020 (MoCo), the released code; ImageNet's mean and std at every size, as there.
    """
    ops = {
        "crop": crop_op(0.2),
        "grey": 0.2,
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4, "p": 1.0},
        "flip": 0.5,
    }
    return two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD)


def moco_v2(size: int) -> dict[str, Any]:
    """MoCo v2's: crop, jitter, greyscale, blur, flip.

    Source: Chen et al. 2020 (MoCo v2) and Wu et al. 2021 (Ring), the released code; sigma in pixels at every size, as
    there. Its blur is PIL's approximation of a Gaussian, ours a Gaussian.
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
    """SimCLR's: crop, flip, jitter of the given strength, greyscale, blur; images stay in [0, 1].

    For CIFAR-10 the released recipe has strength .5 and blur 0.

    Source: Chen et al. 2020 (SimCLR), the released code. It resizes bicubically, where ours is bilinear with
    antialiasing, and ends its blur at a tenth of the image's side.
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
    """MoCo v3's: MoCo v2's with a smaller saturation, blur always on one view and seldom on the other, which is also
    solarized at times. `low` is the crop's least area: .2 for a ResNet-50, .08 for the transformers.

    Source: Chen, Xie and He 2021 (MoCo v3), the released code.
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
    """BYOL's: MoCo v3's ops on crops of .08 of the area or more.

    Source: Grill et al. 2020 (BYOL), the appendix on image augmentations.
    """
    return moco_v3(size, low=0.08)


def infomin(size: int, jigsaw: bool = True) -> dict[str, Any]:
    """InfoMin's: crop, flip, SimCLR's jitter, blur, RandAugment, greyscale; and a jigsaw of another crop.

    Source: Tian et al. 2020 (InfoMin), the released code. Its blur has 23 taps at every sigma and reflects at the edge;
    ours ends at three standard deviations and the outermost pixel goes on.
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
    """PIRL's, as re-implemented beside InfoMin: MoCo v1's ops in another order, on crops of .08 of the area or more,
    and a jigsaw.

    Source: Misra and van der Maaten 2020 (PIRL); the released code of Tian et al. 2020.
    """
    ops = {
        "crop": crop_op(0.08),
        "flip": 0.5,
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4, "p": 1.0},
        "grey": 0.2,
    }
    return {**two_crops(size, ops, IMAGENET_MEAN, IMAGENET_STD), "jigsaw": jigsaw_section(size)}


def jigsaw_section(size: int) -> dict[str, Any]:
    """The jigsaw's section: a crop of .6 of the area or more, flipped, cut into 3 x 3 cells of 85 / 224 of the view's
    side, with patches of 64 / 224 of it, as released; both rounded (at 32 pixels a cell has 12, a patch 9).
    """
    return {
        "crop": {"area": (0.6, 1.0), "aspect": (3 / 4, 4 / 3)},
        "flip": 0.5,
        "order": ("crop", "flip"),
        "grid": 3,
        "cell": max(1, round(size * 85 / 224)),
        "patch": max(1, round(size * 64 / 224)),
    }


def strengths(
    size: int, low: float = 0.2, jitter: float = 1.0, grey: float = 0.2, blur: float = 0.5, flip: float = 0.5
) -> dict[str, Any]:
    """Two crops whose strengths are plain numbers, for curves over one of them. `low`: the crop's least area, up to
    the whole; `jitter` x: (.8x, .8x, .8x, .2x) of brightness, contrast, saturation and hue, with probability .8, x 2.5
    at most; grey, blur, flip: probabilities. What is 0 is left out.

    Source: Tian et al. 2020 (InfoMin), which finds low .2 and x 1 best; the ops beside crop and jitter are MoCo v2's.
    """
    ops: dict[str, Any] = {"crop": crop_op(low), "jitter": jitter_op(jitter), "grey": grey}
    ops |= {"blur": {"sigma": (0.1, 2.0), "p": blur}, "flip": flip}
    none = {name for name, p in (("jitter", jitter), ("grey", grey), ("blur", blur), ("flip", flip)) if p == 0.0}
    return two_crops(size, {name: op for name, op in ops.items() if name not in none}, IMAGENET_MEAN, IMAGENET_STD)


def jitter_op(x: float) -> dict[str, float]:
    """SimCLR's jitter at strength x."""
    return {"brightness": 0.8 * x, "contrast": 0.8 * x, "saturation": 0.8 * x, "hue": 0.2 * x, "p": 0.8}


def patches(
    size: int,
    distance: int,
    ops: Mapping[str, Any] | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> dict[str, Any]:
    """InfoMin's patches at a diagonal distance, in pixels; both by the same ops, in their order, where there are any.

    Source: Tian et al. 2020 (InfoMin): size 64, distance 64 to 384.
    """
    made: dict[str, Any] = {"kind": "patches", "size": size, "distance": distance, "mean": mean, "std": std}
    if ops:
        made |= {name: {**copy.deepcopy(dict(ops)), "order": tuple(ops)} for name in SOURCES}
    return made


def multi_crop(
    policy: Mapping[str, Any], count: int = 4, size: int | None = None, area: tuple[float, float] | None = None
) -> dict[str, Any]:
    """The policy of two crops with `count` local ones beside, by the query's ops on smaller parts of the image.

    size: pixels a side, 3/7 of the policy's where left out (96 of 224). area: the crops' shares of the source; where
    left out, from a quarter of the query's least area up to that least area.

    Source: Caron et al. 2020 (SwAV), whose crops of .05 to .14 stand beside two of .14 or more.
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
    """CMC's: one crop, flipped or not, its lightness one view and its colours the other. `low` is the crop's least
    area (the released code takes .08 for ResNets on ImageNet); mean and std are of the space's channels, the released
    constants where left out.

    Source: Tian et al. 2020 (Contrastive Multiview Coding), the released code. The one beside InfoMin splits 'ydbdr'
    and adds a jitter, which `both` may have.
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
