"""What the peers need: torchvision beside any build of torch, a process of their own, the networks of ours in torch.

torch is imported inside the functions, since it belongs to an extra.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LIBRARIES: list[Any] = []  # a declaration lives as long as its library
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def missing(names: Iterable[str] = ("torch", "torchvision"), extra: str = "torch") -> str:
    """Returns why a peer cannot run here, naming the extra to install; empty where it can."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install 'mi-contrast[{extra}]'"
    return ""


def import_torchvision() -> Any:
    """Imports torchvision, also beside a CPU build of torch, where its compiled operators are absent: their schemas
    suffice.
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
def started(serve: Callable[..., None], *given: Any, patience: float, daemon: bool = True) -> Iterator[Any]:
    """Starts `serve(pipe, *given)` in a process of its own, yields the other end of the pipe, and ends the process.

    Args:
      patience: seconds that it has to return in after its pipe has ended; then it is killed.
      daemon: it has no processes of its own.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(there, *given), daemon=daemon)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()  # it reads the end and returns
        process.join(timeout=patience)
        if process.is_alive():
            process.kill()


def make_resnet(backbone: str, width: int = 64, stem: str = "small") -> Any:
    """Returns a torch ResNet without its classifier, images [B, 3, H, W] to features [B, F]: the network that
    `mi_contrast.models.resnet` builds for the same words. torchvision's accepts no other width for basic blocks.
    """
    from torch import nn
    from torch.nn import functional

    def unit(wide: int, out: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(wide, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))

    class Block(nn.Module):
        def __init__(self, path: Iterable[nn.Module], wide: int, out: int, stride: int):
            super().__init__()
            self.path = nn.ModuleList(path)
            self.short = unit(wide, out, 1, stride) if stride > 1 or wide != out else nn.Identity()

        def forward(self, x: Any) -> Any:
            y = x
            for at, layer in enumerate(self.path):
                y = layer(y if at == 0 else functional.relu(y))
            return functional.relu(y + self.short(x))

    deep, blocks, wide = backbone == "resnet50", [], width
    for stage, count in enumerate(BLOCKS[backbone]):
        inner = width << stage
        for at in range(count):
            stride = 2 if stage and not at else 1
            if deep:
                out, path = 4 * inner, [unit(wide, inner, 1), unit(inner, inner, 3, stride), unit(inner, 4 * inner, 1)]
            else:
                out, path = inner, [unit(wide, inner, 3, stride), unit(inner, inner, 3)]
            blocks.append(Block(path, wide, out, stride))
            wide = out
    first = unit(3, width, 3) if stem == "small" else unit(3, width, 7, 2)
    begin = [first, nn.ReLU()] + ([] if stem == "small" else [nn.MaxPool2d(3, 2, 1)])
    return nn.Sequential(*begin, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
