"""Detectron2's names and file: a pickle of arrays, which its `DetectionCheckpointer` matches to a backbone by suffix.

    torchvision                     Detectron2
    conv1, bn1                      stem.conv1, stem.conv1.norm
    layer1.0.conv2, layer1.0.bn2    res2.0.conv2, res2.0.conv2.norm
    layer1.0.downsample.0, .1       res2.0.shortcut, res2.0.shortcut.norm

Sources: detectron2's tools/convert-torchvision-to-d2.py, and MoCo's detection/convert-pretrain-to-detectron2.py.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.interchange import unpickle
from mi_contrast.interchange.names import COUNTER, to_foreign
from mi_contrast.models.representation import Representation

DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50}
FILE, AUTHOR = "backbone.pkl", "mi_contrast"


def detectron2_name(name: str) -> str:
    """Detectron2's name of a torchvision name.

    >>> detectron2_name("layer1.0.downsample.1.running_var"), detectron2_name("bn1.bias")
    ('res2.0.shortcut.norm.running_var', 'stem.conv1.norm.bias')
    """
    words = []
    for word in name.split("."):
        if word.startswith("layer"):
            words.append(f"res{int(word.removeprefix('layer')) + 1}")
        elif word.startswith("bn"):
            words += [f"conv{word.removeprefix('bn')}", "norm"]
        elif word == "downsample":
            words.append("shortcut")
        elif words[-1:] == ["shortcut"] and word in ("0", "1"):
            words += ["norm"] if word == "1" else []
        else:
            words.append(word)
    return ".".join(words if words[0].startswith("res") else ["stem", *words])


def pickled(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The file's bytes: {'model': {name: float32 array}, '__author__', 'matching_heuristics': True}, protocol 2.

    Counters of batches are left out, which Detectron2's frozen norms haven't. numpy 1 reads it as well as numpy 2.
    """
    model = {detectron2_name(n): np.ascontiguousarray(t) for n, t in tensors.items() if not n.endswith(COUNTER)}
    data = pickle.dumps({"model": model, "__author__": AUTHOR, "matching_heuristics": True}, protocol=2)
    new, old = (f"cnumpy.{core}.multiarray\n_reconstruct\n".encode() for core in ("_core", "core"))
    return data.replace(new, old, 1)


def read_back(data: bytes) -> dict[str, np.ndarray]:
    """{Detectron2's name: array} of a file's bytes, read without running anything in them."""
    held = unpickle.load(io.BytesIO(data), unpickle.NUMPY)
    return {name: array.array() for name, array in held["model"].items()}


def same(data: bytes, tensors: Mapping[str, np.ndarray]) -> int:
    """How many tensors the file holds, each found to be the same array under its name. RuntimeError where not."""
    held = read_back(data)
    wanted = {detectron2_name(n): t for n, t in tensors.items() if not n.endswith(COUNTER)}
    for name in sorted(set(held) | set(wanted)):
        if name not in held or name not in wanted or not np.array_equal(held[name], wanted[name]):
            raise RuntimeError(f"{name} of the file is not the backbone's")
    return len(held)


def write(representation: Representation, folder: Path) -> dict[str, Any]:
    """backbone.pkl; the manifest tells the config that goes with it."""
    tensors = to_foreign(representation.variables)
    data = pickled(tensors)
    (folder / FILE).write_bytes(data)
    count = same(data, tensors)
    return {
        "names": "detectron2",
        "config_of_detectron2": config_of(representation.spec),
        "read_back": f"{count} of {count} tensors identical under Detectron2's names, by this package's own reader",
    }


def check(representation: Representation, folder: Path) -> dict[str, Any]:
    """Detectron2 is on no package index, so nothing is run in it; `write` has read the file back."""
    return {"not_run": "not run in Detectron2: names by its table, tensors read back"}


def config_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Detectron2's config that this backbone needs; its own defaults are BGR and another stride.

    Pixels there run from 0 to 255, so mean and std are 255 times ours; the order of channels is ours, RGB.
    """
    model = spec["model"]
    depth, width = DEPTHS[model["backbone"]], model["width"]
    return {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [round(255 * m, 4) for m in spec["mean"]],
        "MODEL.PIXEL_STD": [round(255 * s, 4) for s in spec["std"]],
        "MODEL.WEIGHTS": FILE,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": width,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 4 * width if depth == 50 else width,
        "MODEL.RESNETS.WIDTH_PER_GROUP": width,
    }


def why_not(model: Mapping[str, Any]) -> str | None:
    """Why Detectron2's ResNet can't be this network; None where it can."""
    if model["backbone"] not in DEPTHS:
        return f"Detectron2 has no {model['backbone']}"
    if model["stem"] != "imagenet":
        return f"Detectron2's stem is a 7x7 convolution and a max pool, this one is {model['stem']!r}"
    if model["width"] != 64 and model["backbone"] != "resnet50":
        return f"Detectron2's {model['backbone']} has width 64, this one {model['width']}"
    return None
