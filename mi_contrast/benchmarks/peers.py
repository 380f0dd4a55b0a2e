"""Support for benchmarks against torch: imports torchvision, starts processes, and builds our networks in torch.

torch is imported inside the functions, because it belongs to an extra.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LIBRARIES: list[Any] = []  # keeps the declarations of operators alive
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def find_missing(names: Iterable[str] = ("torch", "torchvision"), extra: str = "torch") -> str:
    """Returns which package is missing and the extra to install, or '' if none is."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install 'mi-contrast[{extra}]'"
    return ""


def import_torchvision() -> Any:
    """Imports torchvision, even if its compiled operators do not match the installed torch.

    Its import then needs the schemas of these operators, which are declared here.
    """
    try:
        import torchvision
    except RuntimeError:
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        LIBRARIES.append(library)
        import torchvision
    return torchvision


@contextmanager
def start_process(serve: Callable[..., None], *arguments: Any, patience: float, daemon: bool = True) -> Iterator[Any]:
    """Runs `serve(pipe, *arguments)` in a new process, yields the other end of the pipe, and at last ends the process.

    Args:
      patience: seconds to wait after the pipe is closed before the process is killed.
      daemon: whether the process may start none of its own.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, *arguments), daemon=daemon)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # the process reads the end of the pipe and returns
        process.join(timeout=patience)
        if process.is_alive():
            process.kill()


def make_resnet(backbone: str, width: int = 64, stem: str = "small") -> Any:
    """Returns the ResNet of `mi_contrast.models.resnet` in torch, from images [B, 3, H, W] to features [B, F].

    We build it ourselves, because torchvision accepts only width 64 for basic blocks.
    """
    from torch import nn
    from torch.nn import functional

    def conv_norm(channels: int, out: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))

    class Block(nn.Module):
        def __init__(self, path: Iterable[nn.Module], channels: int, out: int, stride: int):
            super().__init__()
            self.path = nn.ModuleList(path)
            self.shortcut = conv_norm(channels, out, 1, stride) if stride > 1 or channels != out else nn.Identity()

        def forward(self, x: Any) -> Any:
            y = x
            for i, layer in enumerate(self.path):
                y = layer(y if i == 0 else functional.relu(y))
            return functional.relu(y + self.shortcut(x))

    bottleneck, blocks, channels = backbone == "resnet50", [], width
    for stage, count in enumerate(BLOCKS[backbone]):
        inner = width << stage
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            if bottleneck:
                out = 4 * inner
                path = [conv_norm(channels, inner, 1), conv_norm(inner, inner, 3, stride), conv_norm(inner, out, 1)]
            else:
                out, path = inner, [conv_norm(channels, inner, 3, stride), conv_norm(inner, inner, 3)]
            blocks.append(Block(path, channels, out, stride))
            channels = out
    first = conv_norm(3, width, 3) if stem == "small" else conv_norm(3, width, 7, 2)
    stem_layers = [first, nn.ReLU()] + ([] if stem == "small" else [nn.MaxPool2d(3, 2, 1)])
    return nn.Sequential(*stem_layers, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
