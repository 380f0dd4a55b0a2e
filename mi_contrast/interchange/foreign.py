"""Weights that another trainer saved: a PyTorch checkpoint or bare safetensors, as a representation.

Such a file tells tensors and nothing else. The network is told by their names and shapes; how its images were prepared
can't be told, so ImageNet's mean and std and 224 pixels are assumed, and said, unless the caller knows better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError
from mi_contrast.interchange import families, torch_files
from mi_contrast.interchange.loaded import Loaded
from mi_contrast.interchange.names import COUNTER, are_fixed, from_foreign
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, make_spec
from mi_contrast.models.vit import POSITIONS

SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".bin")
IMAGENET: Mapping[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "size": 224}
SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BOOL": "b1",
}  # fmt: skip


def read_foreign(path: Path, preprocessing: Mapping[str, Any] | None = None) -> Loaded:
    """Reads a ResNet or a ViT from a state dict of another trainer. See `families` for whose.

    Args:
      path: .safetensors, or a PyTorch file (.pth, .pt, .ckpt, .pth.tar), read without running anything in it.
      preprocessing: any of mean and std (three each, of pixels in [0, 1]) and size (pixels a side); ImageNet's and 224,
        of a ViT the size that its positions are for, for the rest.

    Returns:
      Loaded; weights of half, bfloat16 or double precision become float32.
    Raises UserError where the file holds anything but tensors and plain data, no known network, or a
    tensor that is missing, unexpected or of another shape.
    """
    given = dict(preprocessing or {})
    check_section("preprocessing", given, (), tuple(IMAGENET))
    held, digest = read_tensors(path)
    if any(name.startswith(("first.", "second.")) for name in held):
        raise UserError(f"{path} holds the two networks of a split", fix="give its export whole, with manifest.json")
    found = families.find(held, str(path))
    tensors = {own: _single(held[name]) for name, own in found.names.items()}
    if len(tensors) < len(found.names):
        raise UserError(f"{path} has two tensors of one meaning", fix="save the state dict of one network")
    shapes, assumed = {n: t.shape for n, t in tensors.items()}, dict(IMAGENET)
    if families.OF_VIT in shapes:
        model = families.transformer_of(shapes, found.heads, str(path))
        grid, sizes = model["positions"]["grid"], "{backbone}, {depth} blocks of {heads} heads of {width} channels"
        assumed["size"], positions = grid * model["patch"], f"positions learned for {grid} x {grid} patches"
        if are_fixed(tensors[POSITIONS]):
            model["positions"], positions = {"kind": "sincos"}, "fixed positions"
        taken = f"taken for {sizes.format(**model)} (assumed), patches of {model['patch']} pixels, {positions}"
    else:
        model = families.model_of(shapes, found.pooled, str(path))
        taken = f"taken for {model['backbone']}, width {model['width']}, stem {model['stem']}"
    variables, count = from_foreign(tensors, towers.template(model), str(path))
    pixels = {**assumed, **given}
    spec = make_spec(model, **pixels)
    representation = Representation(jax.tree.map(jnp.asarray, variables), spec)
    total = sum(not name.endswith(COUNTER) for name in held)
    remarks = (*([f"of several, {found.what}"] if found.what else []), taken, _assumed(pixels, given))
    return Loaded(representation, path, count, None, {}, digest, None, total - count, found.left_out, remarks)


def _assumed(pixels: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    words = {"mean": "mean {}", "std": "std {}", "size": "{} pixels"}
    rest = [words[name].format(pixels[name]) for name in IMAGENET if name not in given]
    return f"preprocessing assumed: {', '.join(rest)}" if rest else "preprocessing as given"


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The tensors in a file of weights, {name: array}, bfloat16 as float32 of the same value; and the file's sha256."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"can't read {path} ({error.strerror})") from None
    if path.suffix == ".safetensors":
        return read_safetensors(path.read_bytes(), path), digest
    tree = torch_files.read(path)
    return torch_files.arrays(families.state_dict_of(tree, str(path)), path), digest


def read_safetensors(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file's bytes; bfloat16, which numpy lacks, as float32 of the same value."""
    try:
        return {name: _of_safetensors(item) for name, item in safetensors.deserialize(data)}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a safetensors file ({error})") from None


def _of_safetensors(item: Mapping[str, Any]) -> np.ndarray:
    if item["dtype"] == "BF16":
        wide = np.frombuffer(item["data"], "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(item["shape"])
    return np.frombuffer(item["data"], SAFETENSORS[item["dtype"]]).reshape(item["shape"])
