"""Reads weights that another trainer saved, a PyTorch checkpoint or bare safetensors, as a representation.

Such a file contains tensors and nothing else. Their names and shapes identify the network. The preprocessing of its
images is unknown; unless the caller gives it, ImageNet's mean and std and 224 pixels are assumed, and reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.interchange import families, torch_files
from mi_contrast.interchange.loaded_backbone import LoadedBackbone
from mi_contrast.interchange.names import COUNTER, are_fixed_positions, from_foreign
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, make_spec
from mi_contrast.models.vit import POSITIONS

SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".bin")
IMAGENET: Mapping[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "size": 224}
SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BOOL": "b1",
}  # fmt: skip

Preprocessing = Mapping[str, Sequence[float] | int]  # any of mean, std and size


def read_foreign(path: Path, preprocessing: Preprocessing | None = None) -> LoadedBackbone:
    """Reads a ResNet or a ViT from the state dict of another trainer; `families` lists the known trainers.

    Args:
      path: .safetensors, or a PyTorch file (.pth, .pt, .ckpt, .pth.tar), whose code is not run.
      preprocessing: any of mean and std (three numbers each, for pixels in [0, 1]) and size (side in pixels). The
        others are ImageNet's and 224; a ViT's size is the one that its positions are for.

    Returns:
      LoadedBackbone. Weights of half, bfloat16 or double precision become float32.

    Raises:
      UserError if the file has anything but tensors and plain data, no known network, or a tensor that is missing,
      unexpected or of another shape.
    """
    given_pixels = dict(preprocessing or {})
    check_section("preprocessing", given_pixels, (), tuple(IMAGENET))
    all_tensors, digest = read_tensors(path)
    if any(name.startswith(("first.", "second.")) for name in all_tensors):
        raise UserError(f"{path} holds the two networks of a split", fix="give its export whole, with manifest.json")
    match = families.find_backbone(all_tensors, str(path))
    tensors = {own: _to_float32(all_tensors[name]) for name, own in match.names.items()}
    if len(tensors) < len(match.names):
        raise UserError(f"{path} has two tensors of one meaning", fix="save the state dict of one network")
    shapes, assumed = {n: t.shape for n, t in tensors.items()}, dict(IMAGENET)
    if families.VIT_TENSOR in shapes:
        model = families.describe_transformer(shapes, match.heads, str(path))
        grid, sizes = model["positions"]["grid"], "{backbone}, {depth} blocks of {heads} heads of {width} channels"
        assumed["size"], positions = grid * model["patch"], f"positions learned for {grid} x {grid} patches"
        if are_fixed_positions(tensors[POSITIONS]):
            model["positions"], positions = {"kind": "sincos"}, "fixed positions"
        recognised = f"taken for {sizes.format(**model)} (assumed), patches of {model['patch']} pixels, {positions}"
    else:
        model = families.describe_resnet(shapes, match.max_pool, str(path))
        recognised = f"taken for {model['backbone']}, width {model['width']}, stem {model['stem']}"
    variables, count = from_foreign(tensors, towers.template(model), str(path))
    pixels = {**assumed, **given_pixels}
    spec = make_spec(model, **pixels)
    representation = Representation(jax.tree.map(jnp.asarray, variables), spec)
    total = sum(not name.endswith(COUNTER) for name in all_tensors)
    remarks = [recognised, _describe_assumptions(pixels, given_pixels)]
    if match.description:
        remarks.insert(0, f"of several, {match.description}")
    return LoadedBackbone(
        representation,
        path,
        tensors=count,
        step=None,
        config={},
        sha256=digest,
        other_tensors=total - count,
        unused_parts=match.unused_parts,
        remarks=tuple(remarks),
    )


def _describe_assumptions(pixels: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    words = {"mean": "mean {}", "std": "std {}", "size": "{} pixels"}
    assumed = [words[name].format(pixels[name]) for name in IMAGENET if name not in known]
    return f"preprocessing assumed: {', '.join(assumed)}" if assumed else "preprocessing as given"


def _to_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Returns {name: array} of the tensors in a file of weights, bfloat16 as float32, and the file's sha256."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"can't read {path} ({error.strerror})") from None
    if path.suffix == ".safetensors":
        return read_safetensors(path.read_bytes(), path), digest
    tree = torch_files.read(path)
    return torch_files.read_arrays(families.find_state_dict(tree, str(path)), path), digest


def read_safetensors(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors in the bytes of a safetensors file; bfloat16, which numpy lacks, becomes float32."""
    try:
        return {name: _decode_item(item) for name, item in safetensors.deserialize(data)}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is not a safetensors file ({error})") from None


def _decode_item(item: Mapping[str, Any]) -> np.ndarray:
    if item["dtype"] == "BF16":
        wide = np.frombuffer(item["data"], "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(item["shape"])
    return np.frombuffer(item["data"], SAFETENSORS[item["dtype"]]).reshape(item["shape"])
