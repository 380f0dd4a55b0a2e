"""Writes a backbone for Detectron2: a pickle of arrays, which `DetectionCheckpointer` matches to a backbone by suffix.

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


def to_detectron2_name(name: str) -> str:
    """Returns Detectron2's name for a torchvision name.

    >>> to_detectron2_name("layer1.0.downsample.1.running_var"), to_detectron2_name("bn1.bias")
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


def make_pickle(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the bytes of the file, a pickle by protocol 2.

    It contains {'model': {name: float32 array}, '__author__': 'mi_contrast', 'matching_heuristics': True}. Counters of
    batches are omitted, because Detectron2's frozen norms have none. The bytes name numpy's modules as numpy 1 does, so
    that both numpy 1 and numpy 2 read them.
    """
    model = {to_detectron2_name(n): np.ascontiguousarray(t) for n, t in tensors.items() if not n.endswith(COUNTER)}
    data = pickle.dumps({"model": model, "__author__": AUTHOR, "matching_heuristics": True}, protocol=2)
    new, old = (f"cnumpy.{core}.multiarray\n_reconstruct\n".encode() for core in ("_core", "core"))
    return data.replace(new, old, 1)


def read_pickle(data: bytes) -> dict[str, np.ndarray]:
    """Returns {Detectron2's name: array} from the bytes of a file; no code in them is run."""
    content = unpickle.load(io.BytesIO(data), unpickle.NUMPY)
    return {name: array.array() for name, array in content["model"].items()}


def verify_pickle(data: bytes, tensors: Mapping[str, np.ndarray]) -> int:
    """Checks that the file has exactly these tensors, and returns their number. Raises RuntimeError if it hasn't."""
    actual = read_pickle(data)
    expected = {to_detectron2_name(n): t for n, t in tensors.items() if not n.endswith(COUNTER)}
    for name in sorted(set(actual) | set(expected)):
        if name not in actual or name not in expected or not np.array_equal(actual[name], expected[name]):
            raise RuntimeError(f"{name} of the file is not the backbone's")
    return len(actual)


def write(representation: Representation, folder: Path) -> dict[str, Any]:
    """Writes backbone.pkl, and returns more fields for the manifest, such as the config that Detectron2 needs."""
    tensors = to_foreign(representation.variables)
    data = make_pickle(tensors)
    (folder / FILE).write_bytes(data)
    count = verify_pickle(data, tensors)
    return {
        "names": "detectron2",
        "config_of_detectron2": make_detectron2_config(representation.spec),
        "read_back": f"{count} of {count} tensors identical under Detectron2's names, by this package's own reader",
    }


def check(representation: Representation, folder: Path) -> dict[str, Any]:
    """Compares nothing, since Detectron2 is on no package index; `write` has verified the file's content."""
    return {"not_run": "not run in Detectron2: names by its table, tensors read back"}


def make_detectron2_config(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of Detectron2's config that this backbone needs.

    Detectron2's defaults are BGR images and another place for the stride; this backbone needs RGB. Its pixels run from
    0 to 255, so mean and std are 255 times ours.
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


def find_obstacle(model: Mapping[str, Any]) -> str | None:
    """Returns why Detectron2's ResNet can't be this network, or None if it can."""
    if model["backbone"] not in DEPTHS:
        return f"Detectron2 has no {model['backbone']}"
    if model["stem"] != "imagenet":
        return f"Detectron2's stem is a 7x7 convolution and a max pool, this one is {model['stem']!r}"
    if model["width"] != 64 and model["backbone"] != "resnet50":
        return f"Detectron2's {model['backbone']} has width 64, this one {model['width']}"
    return None
