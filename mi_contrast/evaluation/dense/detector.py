"""Builds one of torchvision's R-CNNs on a backbone, of any width and stem, with an FPN and with its own weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.dense.settings import GROUPS, Detection
from mi_contrast.interchange.names import to_foreign
from mi_contrast.interchange.torch_build import build_network
from mi_contrast.models.description import RESNETS
from mi_contrast.models.representation import Representation

STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")  # from the last, as `trainable_layers` counts
ASPECTS = (0.5, 1.0, 2.0)
KINDS = {"faster": detection.FasterRCNN, "mask": detection.MaskRCNN, "keypoint": detection.KeypointRCNN}
POOLED, MASK_SIDE, MASK_LAYERS, KEYPOINT_SIDE, KEYPOINT_LAYERS = 7, 14, 4, 14, 8


def check_backbone(representation: Representation) -> None:
    """Raises UserError if no detector can be built on this backbone."""
    spec = representation.spec
    if spec["split"] is not None:
        raise UserError(
            f"this representation is two networks, each of which sees only some channels of {representation.split}; a "
            "detector has one backbone, which sees images",
            fix="judge it by the tasks on features: linear, knn, transfer",
        )
    if (backbone := spec["model"]["backbone"]) not in RESNETS:
        raise UserError(f"the {backbone!r} network has no four stages for an FPN", fix="judge a ResNet")


def make_detector(
    representation: Representation, settings: Detection, classes: int, points: int = 0
) -> detection.FasterRCNN:
    """Returns the detector, with the representation's weights in its backbone and random weights elsewhere.

    The random weights come from torch's global generator. Images are normalised by the representation's mean and std.
    The parameters and statistics of frozen stages are constants.

    Args:
      classes: number of categories, without the background.
      points: number of keypoints per object, for a Keypoint R-CNN.
    """
    check_backbone(representation)
    spec, channels = representation.spec, settings.channels
    norm = {None: None, "batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, GROUPS)}[settings.head_norm]
    levels = choose_levels(spec["model"], settings)
    body = make_backbone(representation, settings, levels, norm)
    strides = compute_strides(spec["model"], levels)
    sides = tuple(((settings.anchor * stride),) for stride in strides)
    roi = partial(MultiScaleRoIAlign, featmap_names=[str(i) for i in range(len(levels))], sampling_ratio=2)
    heads: dict[str, Any] = {}
    if norm is not None:
        heads["box_head"] = FastRCNNConvFCHead(
            (channels, POOLED, POOLED), [channels] * 4, [settings.hidden], norm_layer=norm
        )
    else:
        heads["box_head"] = TwoMLPHead(channels * POOLED**2, settings.hidden)
    heads["box_predictor"] = detection.faster_rcnn.FastRCNNPredictor(settings.hidden, 1 + classes)
    if settings.model == "mask":
        heads["mask_roi_pool"] = roi(output_size=MASK_SIDE)
        heads["mask_head"] = MaskRCNNHeads(channels, [channels] * MASK_LAYERS, 1, norm_layer=norm)
        heads["mask_predictor"] = detection.mask_rcnn.MaskRCNNPredictor(channels, channels, 1 + classes)
    if settings.model == "keypoint":
        heads["keypoint_roi_pool"] = roi(output_size=KEYPOINT_SIDE)
        heads["keypoint_head"] = KeypointRCNNHeads(channels, (2 * channels,) * KEYPOINT_LAYERS)
        heads["keypoint_predictor"] = KeypointRCNNPredictor(2 * channels, points)
    return KINDS[settings.model](
        body,
        min_size=settings.sizes,
        max_size=settings.max_size,
        image_mean=list(spec["mean"]),
        image_std=list(spec["std"]),
        rpn_anchor_generator=AnchorGenerator(sides, (ASPECTS,) * len(sides)),
        rpn_post_nms_top_n_train=settings.proposals,
        rpn_post_nms_top_n_test=settings.proposals,
        box_roi_pool=roi(output_size=POOLED),
        box_batch_size_per_image=settings.samples,
        **heads,
    )


def choose_levels(model: Mapping[str, Any], settings: Detection) -> tuple[int, ...]:
    """Returns the stages that feed the FPN."""
    return settings.levels or ((2, 3, 4) if model["stem"] == "small" else (1, 2, 3, 4))


def compute_strides(model: Mapping[str, Any], levels: tuple[int, ...]) -> list[int]:
    """Returns the stride, in pixels of the image, of each level of the FPN and of the pooled level on top.

    >>> compute_strides({"stem": "imagenet"}, (1, 2, 3, 4))
    [4, 8, 16, 32, 64]
    """
    first = 1 if model["stem"] == "small" else 4
    strides = [first * 2 ** (level - 1) for level in levels]
    return [*strides, 2 * strides[-1]]


def make_backbone(
    representation: Representation,
    settings: Detection,
    levels: tuple[int, ...],
    norm: Callable[[int], nn.Module] | None,
) -> BackboneWithFPN:
    """Returns the network with its weights, its untrained stages frozen, and an FPN on the stages `levels`."""
    net = build_network(representation.spec["model"], to_foreign(representation.variables))
    trained = STAGES[: settings.trainable_layers] + (("bn1",) if settings.trainable_layers == len(STAGES) else ())
    for name, child in net.named_children():
        if name not in trained:
            child.requires_grad_(False)
        if name not in trained or settings.norm == "frozen":
            setattr(net, name, freeze_norms(child))
    widths = [_count_channels(getattr(net, f"layer{level}")) for level in levels]
    outputs = {f"layer{level}": str(i) for i, level in enumerate(levels)}
    return BackboneWithFPN(net, outputs, widths, settings.channels, norm_layer=norm)


def freeze_norms(module: nn.Module) -> nn.Module:
    """Returns the module with its batch norms as constants: neither their weights nor their statistics change."""
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in module.named_children():
        setattr(module, name, freeze_norms(child))
    return module


def _count_channels(stage: nn.Module) -> int:
    """Returns the number of output channels of a stage, which are those of its last convolution."""
    return [m for m in stage[-1].modules() if isinstance(m, nn.Conv2d)][-1].out_channels  # type: ignore[index]


def count_loaded(detector: detection.FasterRCNN, representation: Representation) -> tuple[int, int]:
    """Returns how many of the backbone's tensors the detector has unchanged, and their number; counters excepted."""
    actual = {n: t for n, t in detector.backbone.body.state_dict().items() if not n.endswith("num_batches_tracked")}
    expected = {n: t for n, t in to_foreign(representation.variables).items() if not n.endswith("num_batches_tracked")}
    same = [n for n, t in expected.items() if n in actual and torch.equal(actual[n].cpu(), torch.from_numpy(t.copy()))]
    return len(same), len(expected)


def trained_parameters(detector: nn.Module) -> Iterator[tuple[bool, nn.Parameter]]:
    """Yields (whether it belongs to a norm, the parameter) for every parameter that is trained."""
    norms = (nn.BatchNorm2d, nn.GroupNorm)
    for module in detector.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                yield isinstance(module, norms), parameter
