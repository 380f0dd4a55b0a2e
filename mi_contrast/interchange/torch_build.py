"""The network in PyTorch: a few lines of torchvision, or of timm for a transformer, that build it, written beside
weights and run here to check them.

torchvision's constructors have one width and one stem; a net of another is theirs with the layers replaced.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from mi_contrast.models import towers
from mi_contrast.models.description import VITS
from mi_contrast.models.resnet import Bottleneck

BUILDER = "build.py"
HEAD = '"""Builds the network whose weights lie beside this file; its output is the pooled features."""\n\n'

STANDARD = """\
import torch
import torchvision


def build():
    net = torchvision.models.{backbone}()
    net.fc = torch.nn.Identity()
    return net
"""

OTHER = """\
import torch
from torchvision.models.resnet import {block}, ResNet


def build():
    net = ResNet({block}, {blocks})
    net.inplanes = {width}
    net.conv1 = torch.nn.Conv2d(3, {width}, kernel_size={kernel}, stride={stride}, padding={padding}, bias=False)
    net.bn1 = torch.nn.BatchNorm2d({width}){pool}
    for i, blocks in enumerate({blocks}):
        layer = net._make_layer({block}, {width} * 2**i, blocks, stride=1 if i == 0 else 2)
        setattr(net, f"layer{{i + 1}}", layer)
    net.fc = torch.nn.Identity()
    return net
"""

TINY = """\
import torch


def build():
    net, channels = torch.nn.Sequential(), (3, {width} // 4, {width} // 2, {width})
    for i in (1, 2, 3):
        net.add_module(f"conv{{i}}", torch.nn.Conv2d(channels[i - 1], channels[i], 3, 2, 1, bias=False))
        net.add_module(f"bn{{i}}", torch.nn.BatchNorm2d(channels[i]))
        net.add_module(f"relu{{i}}", torch.nn.ReLU())
    net.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", torch.nn.Flatten())
    return net
"""

VIT = """\
from timm.models.vision_transformer import VisionTransformer


def build():
    return VisionTransformer(num_classes=0, **{sizes})
"""


class MissingToolError(Exception):
    """Another tool isn't here, or doesn't run; the message says which and why."""


def tool(name: str) -> ModuleType:
    """The module of another tool. MissingToolError where it can't be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise MissingToolError(f"{missing.partition('.')[0]} is not installed") from None
    except RuntimeError as error:
        raise MissingToolError(f"{name} does not import ({str(error).splitlines()[0]})") from None


def is_standard(model: Mapping[str, Any]) -> bool:
    """Whether torchvision has a constructor of this network, by the same name."""
    return model["backbone"] in towers.RESNETS and model["width"] == 64 and model["stem"] == "imagenet"


def of_timm(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What timm's VisionTransformer is given to be this network. It takes images of `size` pixels alone where positions
    are the fixed ones, which it would resize and we compute anew, and of any size where they are learned.
    """
    grid = model["positions"].get("grid")
    return {
        "img_size": (grid or size // model["patch"]) * model["patch"],
        "patch_size": model["patch"],
        "embed_dim": model["width"] * model["heads"],
        "depth": model["depth"],
        "num_heads": model["heads"],
        "dynamic_img_size": grid is not None,
    }


def tools_of(model: Mapping[str, Any]) -> list[str]:
    """The modules that build the network and run it, the one that matters first."""
    if model["backbone"] == "tiny":
        return ["torch"]
    return ["timm" if model["backbone"] in VITS else "torchvision", "torch"]


def builder(model: Mapping[str, Any], size: int = 224) -> str:
    """The text of a Python file whose `build()` makes the network in PyTorch, its classifier left out.

    Args:
      model: a resolved description, without a split.
      size: pixels a side, of a transformer.
    """
    if model["backbone"] in VITS:
        return HEAD + VIT.format(sizes=of_timm(model, size))
    if is_standard(model):
        return HEAD + STANDARD.format(backbone=model["backbone"])
    if model["backbone"] == "tiny":
        return HEAD + TINY.format(width=model["width"])
    block, blocks = towers.RESNETS[model["backbone"]]
    small = model["stem"] == "small"
    return HEAD + OTHER.format(
        block="Bottleneck" if block is Bottleneck else "BasicBlock",
        blocks=list(blocks),
        width=model["width"],
        kernel=3 if small else 7,
        stride=1 if small else 2,
        padding=1 if small else 3,
        pool="\n    net.maxpool = torch.nn.Identity()" if small else "",
    )


def built(model: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int = 224) -> Any:
    """The network that `builder` writes, in evaluation mode, its state dict `tensors`, every name matched.

    Raises MissingToolError where torch, torchvision or, of a transformer, timm isn't here.
    """
    torch = tool("torch")
    tool(tools_of(model)[0])
    names: dict[str, Any] = {}
    exec(compile(builder(model, size), BUILDER, "exec"), names)
    net = names["build"]().eval()
    net.load_state_dict({n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}, strict=True)
    return net
