"""Writes a backbone in the formats of other tools. Each format is a folder with a file of weights and a manifest.

    torchvision  backbone.safetensors with torchvision's names, and build.py if torchvision has no such constructor
    torch        backbone.pth, the same state dict (of a transformer, timm's) as torch.save writes it
    timm         model.safetensors and config.json, as timm's create_model('local-dir:...') reads them
    detectron2   backbone.pkl, as Detectron2's DetectionCheckpointer reads it
    onnx         backbone.onnx with normalisation inside, for any batch and image size (of a transformer, one size)
    stablehlo    backbone.stablehlo by jax.export with normalisation inside, for any batch at one image size
    native       backbone.safetensors and its manifest, as training writes them

Only stablehlo and native can hold a split, two networks that share the channels. Every file is loaded again by its
tool, if that is installed, and the features are compared with ours. The manifest says by how much they differ and
which versions computed them, or why no comparison was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.layout import read_json, write_json
from mi_contrast.interchange import detectron2, onnx, stablehlo, torch_formats
from mi_contrast.interchange.export import FORMAT, MANIFEST, WEIGHTS, make_manifest, replace_folder, write_safetensors
from mi_contrast.interchange.foreign import read_safetensors
from mi_contrast.interchange.loaded_backbone import LoadedBackbone
from mi_contrast.interchange.names import collect_tensors, from_foreign
from mi_contrast.interchange.parity import choose_batches, compare_features
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation

Plain = dict[str, Any]
READABLE = (".safetensors", ".pth")  # files that this package reads again


class Format(NamedTuple):
    """One format.

    file: name of its file of weights.
    write: writes the files into a folder, and returns more fields for the manifest.
    check: compares the features of the files in a folder with ours, and returns `parity` for the manifest.
    find_obstacle: returns why the format can't express a network, given its description, or None.
    holds_split: whether it can express two networks that share the channels.
    """

    file: str
    write: Callable[[Representation, Path], Plain]
    check: Callable[[Representation, Path], Plain]
    find_obstacle: Callable[[Mapping[str, Any]], str | None] = lambda model: None
    holds_split: bool = False


def convert(loaded: LoadedBackbone, name: str, path: str | Path) -> Plain:
    """Writes a representation in a format, atomically; an older export at `path` is replaced.

    Args:
      loaded: from `open_source`.
      name: one of FORMATS.
      path: the folder.

    Returns:
      the manifest. Its `parity` has max_difference, the largest absolute difference of the features, max_feature, the
      largest feature, the tool with its version, and the shapes of the images; or not_run, the reason.

    Raises:
      UserError if the format is unknown or can't express the representation, a package that writes it is missing, or
      `path` exists and is not an export; RuntimeError if the features differ.
    """
    form, representation, path = select_format(loaded, name), loaded.representation, Path(path)
    readable = form.file.endswith(READABLE)
    with replace_folder(path) as folder:
        more = form.write(representation, folder)
        data = (folder / form.file).read_bytes()
        tensors = collect_tensors(representation) if readable else {}
        manifest = make_manifest(representation, tensors, data, loaded.config, loaded.commit, loaded.step)
        manifest |= {"file": form.file, "made_for": name, "format": FORMAT if readable else f"{FORMAT} for {name}"}
        manifest |= {"source": loaded.source.name, "source_sha256": loaded.sha256, "remarks": list(loaded.remarks)}
        write_json(folder / MANIFEST, to_plain_data(manifest | more | {"parity": form.check(representation, folder)}))
    return dict(read_json(path / MANIFEST))


def select_format(loaded: LoadedBackbone, name: str) -> Format:
    """Returns the format of this name. Raises UserError if it is unknown or can't express the representation."""
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    form, spec = FORMATS[name], loaded.representation.spec
    obstacle = form.find_obstacle(spec["model"])
    if spec["split"] is not None and not form.holds_split:
        channels = f"each of some channels of {loaded.representation.split}"
        obstacle = f"it is two networks, {channels}, and the format holds one network of RGB images"
    if obstacle:
        raise UserError(
            f"{loaded.source} can't be written for {name}: {obstacle}", fix="--format=native holds everything"
        )
    return form


def _write_native(representation: Representation, folder: Path) -> Plain:
    write_safetensors(collect_tensors(representation), folder / WEIGHTS)
    return {}


def _check_native(representation: Representation, folder: Path) -> Plain:
    file = folder / WEIGHTS
    tensors = read_safetensors(file.read_bytes(), file)
    variables, _ = from_foreign(tensors, towers.template(representation.spec["model"]), str(file))
    restored = Representation(variables, representation.spec)
    return compare_features(
        representation, lambda images: np.asarray(restored.encode(images)), ["mi_contrast"], choose_batches(restored)
    )


FORMATS: Mapping[str, Format] = {
    "torchvision": Format(
        WEIGHTS,
        torch_formats.write_torchvision,
        torch_formats.check_torchvision,
        torch_formats.find_torchvision_obstacle,
    ),
    "torch": Format(torch_formats.PTH, torch_formats.write_torch, torch_formats.check_torch),
    "timm": Format(
        torch_formats.TIMM, torch_formats.write_timm, torch_formats.check_timm, torch_formats.find_timm_obstacle
    ),
    "detectron2": Format(detectron2.FILE, detectron2.write, detectron2.check, detectron2.find_obstacle),
    "onnx": Format(onnx.FILE, onnx.write, onnx.check),
    "stablehlo": Format(stablehlo.FILE, stablehlo.write, stablehlo.check, holds_split=True),
    "native": Format(WEIGHTS, _write_native, _check_native, holds_split=True),
}
