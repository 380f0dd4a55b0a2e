"""Files for PyTorch: torchvision's state dict as safetensors and as .pth (of a transformer timm's), and timm's folder.

A state dict has weights and no preprocessing, which is in the manifest; timm's config carries it in timm's own words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import write_json
from mi_contrast.interchange import torch_files
from mi_contrast.interchange.export import WEIGHTS, write_safetensors
from mi_contrast.interchange.foreign import read_safetensors
from mi_contrast.interchange.names import tensors_of
from mi_contrast.interchange.parity import batches, checked, in_float32, normalised
from mi_contrast.interchange.torch_build import (
    BUILDER,
    MissingToolError,
    builder,
    built,
    is_standard,
    of_timm,
    tool,
    tools_of,
)
from mi_contrast.models.description import VITS
from mi_contrast.models.representation import Representation

PTH, TIMM, TIMM_CONFIG = "backbone.pth", "model.safetensors", "config.json"
ARCHITECTURE = "vit_small_patch16_224"  # its sizes are given beside it, all of them
Plain = dict[str, Any]


def write_torchvision(representation: Representation, folder: Path) -> Plain:
    """backbone.safetensors, and build.py where torchvision has no constructor of the network."""
    write_safetensors(tensors_of(representation), folder / WEIGHTS)
    return _usage(representation, folder, f"safetensors.torch.load_file('{WEIGHTS}')")


def check_torchvision(representation: Representation, folder: Path) -> Plain:
    """Features by torchvision, of the file read again and loaded with strict=True."""
    file = folder / WEIGHTS
    return _by_torchvision(representation, lambda: read_safetensors(file.read_bytes(), file))


def torchvision_why_not(model: Mapping[str, Any]) -> str | None:
    """Why torchvision can't have this network; None where it can."""
    return f"{model['backbone']} has timm's names (--format=timm, or torch)" if model["backbone"] in VITS else None


def write_torch(representation: Representation, folder: Path) -> Plain:
    """backbone.pth by torch.save. UserError where torch isn't installed."""
    try:
        torch = tool("torch")
    except MissingToolError as error:
        fix = "pip install 'mi-contrast[torch]', or --format=torchvision: safetensors need no torch"
        raise UserError(f"can't write a .pth file: {error}", fix=fix) from None
    tensors = tensors_of(representation)
    torch.save({n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}, folder / PTH)
    return _usage(representation, folder, f"torch.load('{PTH}', weights_only=True)")


def check_torch(representation: Representation, folder: Path) -> Plain:
    """Features by torchvision of the file as torch reads it, which is as this package's own reader does."""

    def read() -> dict[str, np.ndarray]:
        state = tool("torch").load(folder / PTH, weights_only=True)
        ours = torch_files.arrays(torch_files.read(folder / PTH), folder / PTH)
        if list(ours) != list(state) or not all(np.array_equal(ours[n], t.numpy()) for n, t in state.items()):
            raise RuntimeError(f"{PTH} reads otherwise by torch than here")
        return ours

    return _by_torchvision(representation, read)


def timm_why_not(model: Mapping[str, Any]) -> str | None:
    """Why timm can't build this network by name; None where it can."""
    if is_standard(model) or model["backbone"] in VITS:
        return None
    return f"timm has no {model['backbone']} of width {model['width']} with the {model['stem']!r} stem"


def write_timm(representation: Representation, folder: Path) -> Plain:
    """model.safetensors and config.json, whose names, mean, std and size are timm's own."""
    write_safetensors(tensors_of(representation), folder / TIMM)
    spec = representation.spec
    images = {"input_size": [3, spec["size"], spec["size"]], "mean": list(spec["mean"]), "std": list(spec["std"])}
    model, more = spec["model"], {"interpolation": "bilinear", "crop_pct": 1.0, "num_classes": 0}
    config = {"architecture": model["backbone"], "num_classes": 0, "num_features": representation.dim}
    if model["backbone"] in VITS:
        more |= {"first_conv": "patch_embed.proj", "classifier": "head"}
        config |= {"architecture": ARCHITECTURE, "model_args": of_timm(model, spec["size"])}
    else:
        more |= {"first_conv": "conv1", "classifier": "fc"}
    write_json(folder / TIMM_CONFIG, {**config, "pretrained_cfg": images | more})
    return {"usage": "timm.create_model('local-dir:THIS_FOLDER', pretrained=True, num_classes=0)"}


def check_timm(representation: Representation, folder: Path) -> Plain:
    """Features by timm, of the folder as timm reads it."""

    def make() -> Any:
        tool("torch")
        return tool("timm").create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()

    return _by_torch(representation, make, ["timm", "torch"])


def _usage(representation: Representation, folder: Path, state: str) -> Plain:
    """How to load it, for the manifest; the builder is written where torchvision has no constructor."""
    model, size = representation.spec["model"], representation.spec["size"]
    if is_standard(model):
        made = f"net = torchvision.models.{model['backbone']}(); net.fc = torch.nn.Identity()"
        return {"usage": f"{made}; net.load_state_dict({state})"}
    (folder / BUILDER).write_text(builder(model, size), encoding="utf-8")
    return {"usage": f"net = build.build(); net.load_state_dict({state})", "builder": BUILDER}


def _by_torchvision(representation: Representation, read: Callable[[], Mapping[str, np.ndarray]]) -> Plain:
    model, size = representation.spec["model"], representation.spec["size"]
    return _by_torch(representation, lambda: built(model, read(), size), tools_of(model))


def _by_torch(representation: Representation, make: Callable[[], Any], tools: list[str]) -> Plain:
    ours, nets = in_float32(representation), list[Any]()

    def features(images: np.ndarray) -> np.ndarray:
        nets[:] = nets or [make()]
        torch = tool("torch")
        with torch.no_grad():
            return np.asarray(nets[0](torch.from_numpy(normalised(ours, images))).numpy())

    return checked(representation, features, tools, batches(representation))
