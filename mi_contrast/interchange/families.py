"""Where other trainers keep the backbone inside a state dict, told by the words before 'conv1.weight'.

    module.encoder_q.conv1.weight                 MoCo v1, v2          and encoder_k, the momentum one
    module.base_encoder.conv1.weight              MoCo v3              and momentum_encoder
    module.encoder.conv1.weight                   PyContrast, CMC      (heads beside it)
    encoder.module.conv1.weight                   SupContrast
    backbone.conv1.weight                         lightly, solo-learn  and backbone_momentum, momentum_backbone
    backbone. convnet. encoder. model. net. ...   SimCLR, Lightning    (any of them under 'module.')
    encoder.0.weight, encoder.4.0.conv1.weight    nn.Sequential(*list(resnet.children())): numbers for names
    conv1.weight                                  torchvision

and of a transformer before 'blocks.0.attn.qkv.weight', with timm's names (those of MoCo v3 and DINO too).

Nothing is guessed: a word that no table here knows refuses, and so does a tensor that is neither the backbone's nor one
of the parts that trainers keep beside it.
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

# Words that hold the network trained, and what they say of it; wrappers of any network say nothing.
WRAPPERS = ("module", "_orig_mod", "model", "net", "network")
ENCODERS: Mapping[str, str] = {
    "encoder_q": "the query encoder",
    "base_encoder": "the base encoder",
    "online_encoder": "the online encoder",
    "online_network": "the online encoder",
    "encoder": "the encoder",
    "backbone": "the backbone",
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
    "target_encoder": "the target encoder",
    "target_network": "the target encoder",
    "encoder_ema": "the averaged encoder",
    "model_ema": "the averaged encoder",
}
# Parts beside a backbone: heads, and what a contrastive loss remembers.
BESIDE = (
    *("fc", "head", "heads", "linear", "classifier", "online_head", "linear_head", "prototypes"),
    *("projector", "projection", "projection_head", "projection_mlp", "proj", "proj_head", "mlp", "g"),
    *("online_classifier", "momentum_classifier", "momentum_projector", "projection_head_momentum"),
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
FIRST, OF_VIT = "layer1.0.conv1.weight", "blocks.0.attn.qkv.weight"
TRANSFORMERS = {64 * heads: name for name, heads in VITS.items()}  # by channels
MOCO_V3 = ("base_encoder", "momentum_encoder"), {384: 12}  # heads, where they are not timm's
NUMBERED = re.compile(r"^(.*\.|)([34])\.0\.conv1\.weight$")


@dataclass(frozen=True)
class Found:
    """A backbone in a state dict.

    names: {the file's name: torchvision's}; what: which of the file's networks it is, in words, '' where no word says;
    left_out: the other tensors of the file, in groups, counters of batches aside; pooled: False where the file shows
    that its network has no max pool; heads: of a transformer by its channels, where that trainer has others than timm.
    """

    names: Mapping[str, str]
    what: str
    left_out: tuple[str, ...]
    pooled: bool | None = None
    heads: Mapping[int, int] = field(default_factory=dict)


def state_dict_of(tree: Any, where: str) -> dict[str, Any]:
    """The state dict inside what a checkpoint holds: {name: tensor}, of things with a shape or `array`.

    Raises UserError where there is none.
    """
    for _ in range(len(CONTAINERS)):
        if not isinstance(tree, dict):
            break
        tensors = {name: value for name, value in tree.items() if isinstance(name, str) and hasattr(value, "shape")}
        if any("." in name for name in tensors):
            if strange := [name for name in tree if name not in tensors]:
                raise UserError(f"{where} has {strange[0]!r} among its tensors, which is none", fix="save a state dict")
            return tensors
        inner = next((name for name in CONTAINERS if isinstance(tree.get(name), dict)), None)
        if inner is None:
            break
        tree = tree[inner]
    held = ", ".join(map(str, list(tree)[:8])) if isinstance(tree, dict) else type(tree).__name__
    raise FileError(f"{where} holds no state dict, but {held or 'nothing'}",
                    fix=f"save one, alone or as {', '.join(map(repr, CONTAINERS[:3]))}")  # fmt: skip


def find(names: Iterable[str], where: str) -> Found:
    """The backbone among these tensors' names.

    Args:
      names: of all tensors of a state dict.
      where: what holds them, for the message.

    Returns:
      Found. Of several networks the trained one, not its moving average.
    Raises UserError where there is no network of a known family, there are two, or a tensor belongs to nothing known.

    >>> found = find(["module.encoder_q.layer1.0.conv1.weight", "module.queue"], "x.pth")
    >>> found.what, found.left_out
    ("the query encoder, 'module.encoder_q.'", ('module.queue',))
    """
    names = list(names)
    roots = dict.fromkeys(name.removesuffix(end) for name in names for end in (FIRST, OF_VIT) if name.endswith(end))
    numbered: dict[str, int] = {}  # where 'layer1' begins
    for match in filter(None, map(NUMBERED.match, names)):
        if f"{match[1]}0.weight" in names:
            numbered[match[1]] = min(int(match[2]), numbered.get(match[1], 4))
    roots |= dict.fromkeys(numbered)
    if not roots and {"conv1.weight", "conv3.weight"} <= set(names):
        roots[""] = None  # the tiny network, which has no layers
    root = _chosen(list(roots), names, where)
    others = tuple(other for other in roots if other != root and other.startswith(root))
    theirs, parts = {}, []
    for name in names:
        if name.startswith(root) and not name.startswith(others):
            own = _canonical(name.removeprefix(root), numbered.get(root))
            if own.split(".")[0] not in BESIDE:
                theirs[name] = own
                continue
            part = root + name.removeprefix(root).split(".")[0]
        else:
            part = _part(name, where)
        if not name.endswith(COUNTER):
            parts.append(part)
    left_out = tuple(part if part in names else f"{part}.* ({parts.count(part)})" for part in dict.fromkeys(parts))
    telling = [word for word in _words(root) if word not in WRAPPERS]
    what = f"{ {**ENCODERS, **MOMENTUM}[telling[-1]] }, {root!r}" if telling else ""
    heads = MOCO_V3[1] if telling and telling[-1] in MOCO_V3[0] else {}
    return Found(theirs, what, left_out, False if numbered.get(root) == 3 else None, heads)


def _words(root: str) -> list[str]:
    return [word for word in root.split(".") if word]


def _chosen(roots: list[str], names: Collection[str], where: str) -> str:
    if not roots:
        seen = f"no name of its {len(names)} tensors ends in {FIRST!r} or {OF_VIT!r}"
        raise UserError(f"{where} holds no ResNet and no ViT: {seen}",
                        fix="give a ResNet's state dict with torchvision's names, or a ViT's with timm's")  # fmt: skip
    known = (*WRAPPERS, *ENCODERS, *MOMENTUM)
    for root in roots:
        for word in _words(root):
            if word not in known:
                raise UserError(f"{where} has a network under {root!r}, and {word!r} is no name of a known family",
                                nearest=nearest(word, known), fix="rename it to 'backbone.'")  # fmt: skip
    trained = [root for root in roots if not set(_words(root)) & set(MOMENTUM)]
    one_of = trained or roots
    if len(one_of) > 1:
        raise UserError(f"{where} has several networks: {', '.join(map(repr, one_of))}", fix="keep one of them")
    return one_of[0]


def _canonical(name: str, layers: int | None) -> str:
    """The torchvision name of a name under the root; layers: the number that stands for 'layer1', where numbers do."""
    words = [SYNONYMS.get(word, word) for word in name.split(".")]
    if layers is not None:
        numbers = {"0": "conv1", "1": "bn1", **{str(layers + i): f"layer{i + 1}" for i in range(4)}}
        words[0] = {**numbers, str(layers + 5): "fc"}.get(words[0], words[0])
    return ".".join(words)


def _part(name: str, where: str) -> str:
    """The part beside the backbone that `name` belongs to. UserError where no table knows it."""
    words = name.split(".")
    for i, word in enumerate(words):
        if word in MOMENTUM or word in BESIDE:
            return ".".join(words[: i + 1])
        if word not in WRAPPERS and word not in ENCODERS:
            break
    raise UserError(f"{where} has {name!r}, which is neither the backbone's nor of a known part beside one",
                    nearest=nearest(word, BESIDE), fix="leave it out of the file, or rename it")  # fmt: skip


def model_of(shapes: Mapping[str, tuple[int, ...]], pooled: bool | None, where: str) -> dict[str, Any]:
    """The description of the network that has tensors of these shapes: backbone, width and stem.

    A 7x7 first convolution is taken for the ImageNet stem with its max pool, a 3x3 one for the small stem without; a
    state dict can tell neither the pool nor the strides.

    Args:
      shapes: {torchvision's name: shape}.
      pooled: False where the file shows that there is no max pool.
    Raises UserError where it is none of this package's networks.
    """
    if "conv1.0.weight" in shapes:
        raise UserError(
            f"{where} is a ResNet with a deep stem of three convolutions ('conv1.0.weight'), such as timm's resnet18d",
            fix="give a ResNet whose stem is one convolution, 'conv1.weight'",
        )
    first = shapes.get("conv1.weight", ())
    if len(first) != 4 or first[1] != 3:
        raise UserError(
            f"{where}: 'conv1.weight' has shape {list(first)}", fix="give a network of RGB images, [C,3,k,k]"
        )
    if FIRST not in shapes:
        return {"backbone": "tiny", "width": shapes["conv3.weight"][0], "stem": "small"}
    blocks = tuple(len({n.split(".")[1] for n in shapes if n.startswith(f"layer{i}.")}) for i in range(1, 5))
    kind = "wide" if "layer1.0.conv3.weight" in shapes else "basic"
    backbone = NETWORKS.get((kind, blocks))
    if backbone is None:
        raise UserError(f"{where} is a ResNet of {blocks} {'bottleneck' if kind == 'wide' else 'basic'} blocks",
                        fix=f"the networks known are: {', '.join(NETWORKS.values())}")  # fmt: skip
    stem = {(7, 7): "imagenet", (3, 3): "small"}.get(first[2:])
    if stem is None or (stem == "imagenet" and pooled is False):
        seen = f"{first[2]}x{first[3]}" + (" without a max pool" if pooled is False else "")
        raise UserError(
            f"{where} begins with a {seen} convolution", fix="the stems known: 7x7 with max pool, 3x3 without"
        )
    return {"backbone": backbone, "width": first[0], "stem": stem}


def transformer_of(shapes: Mapping[str, tuple[int, ...]], heads: Mapping[int, int], where: str) -> dict[str, Any]:
    """The description of the transformer that has tensors of these shapes, its positions learned; heads are told by no
    tensor, and are those of `heads` by channels, or one for each 64 channels, as published.

    Args:
      shapes: {timm's name: shape}.
      heads: see `Found`.
    Raises UserError where it is none of this package's networks.
    """
    wanted = {TOKEN: 3, POSITIONS: 3, f"{EMBEDDING}.proj.weight": 4}
    for name, rank in wanted.items():
        if len(shapes.get(name, ())) != rank:
            found = f"is of shape {list(shapes[name])}" if name in shapes else "is absent"
            raise UserError(f"{where} is a transformer whose {name!r} {found}",
                            fix="those known have a class token, positions and one patch matrix")  # fmt: skip
    token, positions, patches = (shapes[name] for name in wanted)
    if patches[1] != 3 or patches[2] != patches[3]:
        raise UserError(f"{where}: its patches are of shape {list(patches)}", fix="give a network of RGB images")
    dim, grid = token[2], math.isqrt(positions[1] - 1)
    if dim not in TRANSFORMERS:
        known = ", ".join(f"{name} {channels}" for channels, name in TRANSFORMERS.items())
        raise UserError(f"{where} is a transformer of {dim} channels", fix=f"the transformers known are: {known}")
    if grid * grid != positions[1] - 1:
        raise UserError(f"{where} has {positions[1]} positions, which are not a class token's and a square's")
    count = heads.get(dim, VITS[TRANSFORMERS[dim]])
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    learned = {"kind": "learned", "grid": grid}
    sizes = {"width": dim // count, "heads": count, "depth": depth, "patch": patches[2], "positions": learned}
    return {"backbone": TRANSFORMERS[dim], **sizes}
