"""Writes files for PyTorch: torchvision's state dict as safetensors or .pth (a transformer: timm's), and timm's folder.

A state dict has no preprocessing; the manifest describes it, and so does the config in timm's folder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import write_json
from mi_contrast.interchange import torch_files
from mi_contrast.interchange.export import WEIGHTS, write_safetensors
from mi_contrast.interchange.foreign import read_safetensors
from mi_contrast.interchange.names import collect_tensors
from mi_contrast.interchange.parity import choose_batches, compare_features, normalise, to_float32
from mi_contrast.interchange.torch_build import (
    BUILDER,
    MissingToolError,
    build_network,
    import_tool,
    is_standard,
    list_tools,
    make_builder,
    make_timm_arguments,
)
from mi_contrast.models.description import VITS
from mi_contrast.models.representation import Representation

PTH, TIMM, TIMM_CONFIG = "backbone.pth", "model.safetensors", "config.json"
ARCHITECTURE = "vit_small_patch16_224"  # any ViT of timm; model_args replace all of its sizes
Plain = dict[str, Any]


def write_torchvision(representation: Representation, folder: Path) -> Plain:
    """Writes backbone.safetensors, and build.py if torchvision has no constructor for the network."""
    write_safetensors(collect_tensors(representation), folder / WEIGHTS)
    return _usage(representation, folder, f"safetensors.torch.load_file('{WEIGHTS}')")


def check_torchvision(representation: Representation, folder: Path) -> Plain:
    """Compares features after the file is read again and loaded into torchvision's network with strict=True."""
    file = folder / WEIGHTS
    return _by_torchvision(representation, lambda: read_safetensors(file.read_bytes(), file))


def find_torchvision_obstacle(model: Mapping[str, Any]) -> str | None:
    """Returns why torchvision can't hold this network, or None if it can."""
    return f"{model['backbone']} has timm's names (--format=timm, or torch)" if model["backbone"] in VITS else None


def write_torch(representation: Representation, folder: Path) -> Plain:
    """Writes backbone.pth by torch.save. Raises UserError if torch isn't installed."""
    try:
        torch = import_tool("torch")
    except MissingToolError as error:
        fix = "pip install 'mi-contrast[torch]', or --format=torchvision: safetensors need no torch"
        raise UserError(f"can't write a .pth file: {error}", fix=fix) from None
    tensors = collect_tensors(representation)
    torch.save({n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}, folder / PTH)
    return _usage(representation, folder, f"torch.load('{PTH}', weights_only=True)")


def check_torch(representation: Representation, folder: Path) -> Plain:
    """Compares features after the file is read, by torch and by this package's own reader, which must agree."""

    def read() -> dict[str, np.ndarray]:
        state = import_tool("torch").load(folder / PTH, weights_only=True)
        ours = torch_files.read_arrays(torch_files.read(folder / PTH), folder / PTH)
        if list(ours) != list(state) or not all(np.array_equal(ours[n], t.numpy()) for n, t in state.items()):
            raise RuntimeError(f"{PTH} reads otherwise by torch than here")
        return ours

    return _by_torchvision(representation, read)


def find_timm_obstacle(model: Mapping[str, Any]) -> str | None:
    """Returns why timm can't build this network by name, or None if it can."""
    if is_standard(model) or model["backbone"] in VITS:
        return None
    return f"timm has no {model['backbone']} of width {model['width']} with the {model['stem']!r} stem"


def write_timm(representation: Representation, folder: Path) -> Plain:
    """Writes model.safetensors and config.json, with mean, std and size in the fields that timm reads."""
    write_safetensors(collect_tensors(representation), folder / TIMM)
    spec = representation.spec
    images = {"input_size": [3, spec["size"], spec["size"]], "mean": list(spec["mean"]), "std": list(spec["std"])}
    model, more = spec["model"], {"interpolation": "bilinear", "crop_pct": 1.0, "num_classes": 0}
    config = {"architecture": model["backbone"], "num_classes": 0, "num_features": representation.dim}
    if model["backbone"] in VITS:
        more |= {"first_conv": "patch_embed.proj", "classifier": "head"}
        config |= {"architecture": ARCHITECTURE, "model_args": make_timm_arguments(model, spec["size"])}
    else:
        more |= {"first_conv": "conv1", "classifier": "fc"}
    write_json(folder / TIMM_CONFIG, {**config, "pretrained_cfg": images | more})
    return {"usage": "timm.create_model('local-dir:THIS_FOLDER', pretrained=True, num_classes=0)"}


def check_timm(representation: Representation, folder: Path) -> Plain:
    """Compares features after timm has loaded the folder."""

    def make() -> Any:
        import_tool("torch")
        return import_tool("timm").create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()

    return _by_torch(representation, make, ["timm", "torch"])


def _usage(representation: Representation, folder: Path, state: str) -> Plain:
    """Returns the manifest's line on how to load the file; writes build.py if torchvision has no constructor."""
    model, size = representation.spec["model"], representation.spec["size"]
    if is_standard(model):
        build = f"net = torchvision.models.{model['backbone']}(); net.fc = torch.nn.Identity()"
        return {"usage": f"{build}; net.load_state_dict({state})"}
    (folder / BUILDER).write_text(make_builder(model, size), encoding="utf-8")
    return {"usage": f"net = build.build(); net.load_state_dict({state})", "builder": BUILDER}


def _by_torchvision(representation: Representation, read: Callable[[], Mapping[str, np.ndarray]]) -> Plain:
    model, size = representation.spec["model"], representation.spec["size"]
    return _by_torch(representation, lambda: build_network(model, read(), size), list_tools(model))


def _by_torch(representation: Representation, make: Callable[[], Any], tools: list[str]) -> Plain:
    ours = to_float32(representation)
    make_once = functools.cache(make)

    def encode(images: np.ndarray) -> np.ndarray:
        net, torch = make_once(), import_tool("torch")
        with torch.no_grad():
            return np.asarray(net(torch.from_numpy(normalise(ours, images))).numpy())

    return compare_features(representation, encode, tools, choose_batches(representation))
