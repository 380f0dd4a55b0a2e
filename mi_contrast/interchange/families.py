"""Finds the backbone in another trainer's state dict, by the words before 'conv1.weight':

    module.encoder_q.conv1.weight                 MoCo v1, v2          (momentum encoder: encoder_k)
    module.base_encoder.conv1.weight              MoCo v3              (momentum encoder: momentum_encoder)
    module.encoder.conv1.weight                   PyContrast, CMC      (with heads)
    encoder.module.conv1.weight                   SupContrast
    backbone.conv1.weight                         lightly, solo-learn  (backbone_momentum, momentum_backbone)
    student_backbone.conv1.weight                 lightly's DINO       (teacher_backbone)
    backbone. convnet. encoder. model. net. ...   SimCLR, Lightning    (any of them under 'module.')
    encoder.0.weight, encoder.4.0.conv1.weight    nn.Sequential(*list(resnet.children())): numbers for names
    conv1.weight                                  torchvision

A transformer is found by the words before 'blocks.0.attn.qkv.weight'. MoCo v3 and DINO use timm's names, too.

Nothing is guessed. A word that is in no table here is an error, and so is a tensor that belongs neither to the backbone
nor to one of the other parts that trainers save.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mi_contrast.core.errors import FileError, UserError, nearest
from mi_contrast.interchange.names import COUNTER
from mi_contrast.models.description import VITS
from mi_contrast.models.vit import EMBEDDING, POSITIONS, TOKEN

# Words before the names of the trained network, and how a message calls it. Wrappers may come before any of them.
WRAPPERS = ("module", "_orig_mod", "model", "net", "network")
ENCODERS: Mapping[str, str] = {
    "encoder_q": "the query encoder",
    "base_encoder": "the base encoder",
    "online_encoder": "the online encoder",
    "online_network": "the online encoder",
    "encoder": "the encoder",
    "backbone": "the backbone",
    "student_backbone": "the student",
    "convnet": "the convnet",
    "resnet": "the resnet",
    "trunk": "the trunk",
    "features": "the features",
    "f": "the encoder",
}
MOMENTUM: Mapping[str, str] = {
    "encoder_k": "the key encoder",
    "momentum_encoder": "the momentum encoder",
    "backbone_momentum": "the momentum encoder",
    "momentum_backbone": "the momentum encoder",
    "teacher_backbone": "the teacher",
    "target_encoder": "the target encoder",
    "target_network": "the target encoder",
    "encoder_ema": "the averaged encoder",
    "model_ema": "the averaged encoder",
}
# Parts of a state dict other than a backbone: heads, and the memory of a contrastive loss.
OTHER_PARTS = (
    *("fc", "head", "heads", "linear", "classifier", "online_head", "linear_head", "prototypes"),
    *("projector", "projection", "projection_head", "projection_mlp", "proj", "proj_head", "mlp", "g"),
    *("online_classifier", "momentum_classifier", "momentum_projector", "projection_head_momentum"),
    *("online_linear_classifier", "student_head", "teacher_head"),
    *("student_projection_head", "teacher_projection_head"),
    *(
        "predictor",
        "momentum_predictor",
        "prediction_head",
        "prediction_head_momentum",
        "head_jig",
        "mlp_jig",
        "jigsaw_head",
    ),
    *("queue", "queue_ptr", "queue_label", "memory", "memory_bank", "bank", "index"),
    *("contrast", "criterion", "loss", "loss_fn"),
)
SYNONYMS = {"shortcut": "downsample"}
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "backbone", "encoder", "model_state")
NETWORKS: Mapping[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("wide", (3, 4, 6, 3)): "resnet50",
}
RESNET_TENSOR, VIT_TENSOR = "layer1.0.conv1.weight", "blocks.0.attn.qkv.weight"  # which every such network has
TRANSFORMERS = {64 * heads: name for name, heads in VITS.items()}  # by number of channels
MOCO_V3_ENCODERS = ("base_encoder", "momentum_encoder")
MOCO_V3_HEADS = {384: 12}  # number of channels: number of heads, where timm has another number
NUMBERED = re.compile(r"^(.*\.|)([34])\.0\.conv1\.weight$")


@dataclass(frozen=True)
class Match:
    """The backbone in a state dict.

    names: {name in the file: torchvision's name}.
    description: which network of the file it is, in words; '' if no word says so.
    unused_parts: the other parts of the file, each with its number of tensors.
    max_pool: False if the file shows that the network has no max pool; None if it doesn't show it.
    heads: number of attention heads by number of channels, where the trainer has other numbers than timm.
    """

    names: Mapping[str, str]
    description: str
    unused_parts: tuple[str, ...]
    max_pool: bool | None = None
    heads: Mapping[int, int] = field(default_factory=dict)


def find_state_dict(tree: Any, origin: str) -> dict[str, Any]:
    """Returns the state dict {name: tensor} in the content of a checkpoint; any value with a shape is a tensor.

    Raises UserError if there is none.
    """
    for _ in range(len(CONTAINERS)):
        if not isinstance(tree, dict):
            break
        tensors = {name: value for name, value in tree.items() if isinstance(name, str) and hasattr(value, "shape")}
        if any("." in name for name in tensors):
            if others := [name for name in tree if name not in tensors]:
                raise UserError(f"{origin} has {others[0]!r} among its tensors, which is none", fix="save a state dict")
            return tensors
        inner = next((name for name in CONTAINERS if isinstance(tree.get(name), dict)), None)
        if inner is None:
            break
        tree = tree[inner]
    content = ", ".join(map(str, list(tree)[:8])) if isinstance(tree, dict) else type(tree).__name__
    raise FileError(f"{origin} holds no state dict, but {content or 'nothing'}",
                    fix=f"save one, alone or as {', '.join(map(repr, CONTAINERS[:3]))}")  # fmt: skip


def find_backbone(names: Iterable[str], origin: str) -> Match:
    """Finds the backbone among the names of a state dict. Of several networks it is the trained one, not an average.

    Args:
      names: of all tensors of the state dict.
      origin: the file, for messages.

    Raises:
      UserError if there is no network of a known family, if there are two, or if a tensor belongs to no known part.

    >>> match = find_backbone(["module.encoder_q.layer1.0.conv1.weight", "module.queue"], "x.pth")
    >>> match.description, match.unused_parts
    ("the query encoder, 'module.encoder_q.'", ('module.queue',))
    """
    names = list(names)
    ends = RESNET_TENSOR, VIT_TENSOR
    roots = dict.fromkeys(name.removesuffix(end) for name in names for end in ends if name.endswith(end))
    numbered: dict[str, int] = {}  # for each root with numbers instead of names, the number of 'layer1'
    for match in filter(None, map(NUMBERED.match, names)):
        if f"{match[1]}0.weight" in names:
            numbered[match[1]] = min(int(match[2]), numbered.get(match[1], 4))
    roots |= dict.fromkeys(numbered)
    if not roots and {"conv1.weight", "conv3.weight"} <= set(names):
        roots[""] = None  # the tiny network, which has no layers
    root = _choose_root(list(roots), names, origin)
    other_roots = tuple(other for other in roots if other != root and other.startswith(root))
    backbone_names, parts = {}, []
    for name in names:
        if name.startswith(root) and not name.startswith(other_roots):
            own = _to_torchvision_name(name.removeprefix(root), numbered.get(root))
            if own.split(".")[0] not in OTHER_PARTS:
                backbone_names[name] = own
                continue
            part = root + name.removeprefix(root).split(".")[0]
        else:
            part = _find_part(name, origin)
        if not name.endswith(COUNTER):
            parts.append(part)
    unused = tuple(part if part in names else f"{part}.* ({parts.count(part)})" for part in dict.fromkeys(parts))
    encoder = next((word for word in reversed(_split_words(root)) if word not in WRAPPERS), None)
    description = f"{ {**ENCODERS, **MOMENTUM}[encoder] }, {root!r}" if encoder else ""
    heads = MOCO_V3_HEADS if encoder in MOCO_V3_ENCODERS else {}
    # In nn.Sequential, layer1 has the number 4 after conv1, bn1, relu and maxpool; 3 means that there is no maxpool.
    return Match(backbone_names, description, unused, False if numbered.get(root) == 3 else None, heads)


def _split_words(root: str) -> list[str]:
    return [word for word in root.split(".") if word]


def _choose_root(roots: list[str], names: Collection[str], origin: str) -> str:
    """Returns the root of the trained network. Raises UserError if there is none, or several, or an unknown word."""
    if not roots:
        reason = f"no name of its {len(names)} tensors ends in {RESNET_TENSOR!r} or {VIT_TENSOR!r}"
        raise UserError(f"{origin} holds no ResNet and no ViT: {reason}",
                        fix="give a ResNet's state dict with torchvision's names, or a ViT's with timm's")  # fmt: skip
    known = (*WRAPPERS, *ENCODERS, *MOMENTUM)
    for root in roots:
        for word in _split_words(root):
            if word not in known:
                raise UserError(f"{origin} has a network under {root!r}, and {word!r} is no name of a known family",
                                nearest=nearest(word, known), fix="rename it to 'backbone.'")  # fmt: skip
    trained = [root for root in roots if not set(_split_words(root)) & set(MOMENTUM)]
    candidates = trained or roots
    if len(candidates) > 1:
        raise UserError(f"{origin} has several networks: {', '.join(map(repr, candidates))}", fix="keep one of them")
    return candidates[0]


def _to_torchvision_name(name: str, layer1: int | None) -> str:
    """Returns the torchvision name of a name below the root.

    layer1: the number that stands for 'layer1', if the file has numbers for names.
    """
    words = [SYNONYMS.get(word, word) for word in name.split(".")]
    if layer1 is not None:
        numbers = {"0": "conv1", "1": "bn1", **{str(layer1 + i): f"layer{i + 1}" for i in range(4)}}
        words[0] = {**numbers, str(layer1 + 5): "fc"}.get(words[0], words[0])
    return ".".join(words)


def _find_part(name: str, origin: str) -> str:
    """Returns the part, other than the backbone, that `name` belongs to. Raises UserError if no table has it."""
    words = name.split(".")
    for i, word in enumerate(words):
        if word in MOMENTUM or word in OTHER_PARTS:
            return ".".join(words[: i + 1])
        if word not in WRAPPERS and word not in ENCODERS:
            break
    raise UserError(f"{origin} has {name!r}, which belongs neither to the backbone nor to another known part",
                    nearest=nearest(word, OTHER_PARTS), fix="leave it out of the file, or rename it")  # fmt: skip


def describe_resnet(shapes: Mapping[str, tuple[int, ...]], max_pool: bool | None, origin: str) -> dict[str, Any]:
    """Returns the description of the ResNet with tensors of these shapes: backbone, width and stem.

    A state dict shows neither a max pool nor strides. A first convolution of 7x7 means the ImageNet stem, which has a
    max pool, and one of 3x3 the small stem, which has none.

    Args:
      shapes: {torchvision's name: shape}.
      max_pool: False if the file shows that there is none.
      origin: the file, for messages.
    Raises:
      UserError if it is none of this package's networks.
    """
    if "conv1.0.weight" in shapes:
        raise UserError(
            f"{origin} is a ResNet with a deep stem of three convolutions ('conv1.0.weight'), such as timm's resnet18d",
            fix="give a ResNet whose stem is one convolution, 'conv1.weight'",
        )
    first = shapes.get("conv1.weight", ())
    if len(first) != 4 or first[1] != 3:
        raise UserError(
            f"{origin}: 'conv1.weight' has shape {list(first)}", fix="give a network of RGB images, [C,3,k,k]"
        )
    if RESNET_TENSOR not in shapes:
        return {"backbone": "tiny", "width": shapes["conv3.weight"][0], "stem": "small"}
    blocks = tuple(len({n.split(".")[1] for n in shapes if n.startswith(f"layer{i}.")}) for i in range(1, 5))
    kind = "wide" if "layer1.0.conv3.weight" in shapes else "basic"
    backbone = NETWORKS.get((kind, blocks))
    if backbone is None:
        raise UserError(f"{origin} is a ResNet of {blocks} {'bottleneck' if kind == 'wide' else 'basic'} blocks",
                        fix=f"the networks known are: {', '.join(NETWORKS.values())}")  # fmt: skip
    stem = {(7, 7): "imagenet", (3, 3): "small"}.get(first[2:])
    if stem is None or (stem == "imagenet" and max_pool is False):
        kernel = f"{first[2]}x{first[3]}" + (" without a max pool" if max_pool is False else "")
        raise UserError(
            f"{origin} begins with a {kernel} convolution", fix="the stems known: 7x7 with max pool, 3x3 without"
        )
    return {"backbone": backbone, "width": first[0], "stem": stem}


def describe_transformer(
    shapes: Mapping[str, tuple[int, ...]], heads: Mapping[int, int], origin: str
) -> dict[str, Any]:
    """Returns the description of the transformer with tensors of these shapes and learned positions.

    No tensor shows the number of heads. It is that in `heads` for this number of channels, or else one head for each 64
    channels, as published.

    Args:
      shapes: {timm's name: shape}.
      heads: see `Match`.
      origin: the file, for messages.
    Raises:
      UserError if it is none of this package's networks.
    """
    ranks = {TOKEN: 3, POSITIONS: 3, f"{EMBEDDING}.proj.weight": 4}
    for name, rank in ranks.items():
        if len(shapes.get(name, ())) != rank:
            fault = f"is of shape {list(shapes[name])}" if name in shapes else "is absent"
            raise UserError(f"{origin} is a transformer whose {name!r} {fault}",
                            fix="those known have a class token, positions and one patch matrix")  # fmt: skip
    token, positions, patches = (shapes[name] for name in ranks)
    if patches[1] != 3 or patches[2] != patches[3]:
        raise UserError(f"{origin}: its patches are of shape {list(patches)}", fix="give a network of RGB images")
    dim, grid = token[2], math.isqrt(positions[1] - 1)
    if dim not in TRANSFORMERS:
        known = ", ".join(f"{name} {channels}" for channels, name in TRANSFORMERS.items())
        raise UserError(f"{origin} is a transformer of {dim} channels", fix=f"the transformers known are: {known}")
    if grid * grid != positions[1] - 1:
        raise UserError(f"{origin} has {positions[1]} positions, which are not a class token's and a square's")
    count = heads.get(dim, VITS[TRANSFORMERS[dim]])
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    learned = {"kind": "learned", "grid": grid}
    sizes = {"width": dim // count, "heads": count, "depth": depth, "patch": patches[2], "positions": learned}
    return {"backbone": TRANSFORMERS[dim], **sizes}
