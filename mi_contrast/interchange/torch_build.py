"""Writes the Python file that builds a network in PyTorch, by torchvision or, for a transformer, by timm.

An export has this file next to its weights, and exports are checked with it here. torchvision's constructors have one
width and one stem; for others the file replaces layers of torchvision's ResNet.
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
HEAD = '"""Builds the network whose weights are next to this file; its output is the pooled features."""\n\n'

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
    """Another package isn't installed, or can't be imported; the message says which and why."""


def import_tool(name: str) -> ModuleType:
    """Imports a module of another package. Raises MissingToolError if it can't be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise MissingToolError(f"{missing.partition('.')[0]} is not installed") from None
    except RuntimeError as error:
        raise MissingToolError(f"{name} does not import ({str(error).splitlines()[0]})") from None


def is_standard(model: Mapping[str, Any]) -> bool:
    """Whether torchvision has a constructor for this network, by the same name."""
    return model["backbone"] in towers.RESNETS and model["width"] == 64 and model["stem"] == "imagenet"


def make_timm_arguments(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Returns the arguments with which timm's VisionTransformer is this network.

    With learned positions timm's network takes images of any size. With fixed ones it takes only `size` pixels a side,
    because timm would interpolate fixed positions for another size, while ours are computed for it.
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


def list_tools(model: Mapping[str, Any]) -> list[str]:
    """Returns the names of the modules that build and run the network, the one that defines it first."""
    if model["backbone"] == "tiny":
        return ["torch"]
    return ["timm" if model["backbone"] in VITS else "torchvision", "torch"]


def make_builder(model: Mapping[str, Any], size: int = 224) -> str:
    """Returns the text of a Python file whose `build()` makes the network in PyTorch, without a classifier.

    Args:
      model: resolved description of one network, without a split.
      size: side of the images in pixels; only transformers need it.
    """
    if model["backbone"] in VITS:
        return HEAD + VIT.format(sizes=make_timm_arguments(model, size))
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


def build_network(model: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int = 224) -> Any:
    """Returns the network that `make_builder` describes, in evaluation mode, with `tensors` as its state dict.

    The names must match exactly. Raises MissingToolError if torch, torchvision or, for a transformer, timm is missing.
    """
    torch = import_tool("torch")
    import_tool(list_tools(model)[0])
    names: dict[str, Any] = {}
    exec(compile(make_builder(model, size), BUILDER, "exec"), names)
    net = names["build"]().eval()
    net.load_state_dict({n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}, strict=True)
    return net
