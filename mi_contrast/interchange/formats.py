"""The formats that a backbone leaves in, one folder each: its file, a manifest, and what else its tool wants.

    torchvision  backbone.safetensors, torchvision's names, and build.py where it has no constructor of the network
    torch        backbone.pth, the same state dict, or timm's of a transformer, as torch.save writes it
    timm         model.safetensors and config.json, as timm's create_model('local-dir:...') reads them
    detectron2   backbone.pkl, as Detectron2's DetectionCheckpointer reads it
    onnx         backbone.onnx, normalisation inside, any batch and size (of a transformer one size)
    stablehlo    backbone.stablehlo, jax.export's, normalisation inside, any batch at one size; a split too
    native       backbone.safetensors and its manifest, as a training leaves them; a split too

Each is loaded again by the tool it is for, where that is installed, and its features compared with ours; the manifest
says by how much they differ and what computed them, or why nothing did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mi_contrast.core.config import plain
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.layout import read_json, write_json
from mi_contrast.interchange import detectron2, onnx, stablehlo, torch_formats
from mi_contrast.interchange.export import FORMAT, MANIFEST, WEIGHTS, manifest_of, whole, write_safetensors
from mi_contrast.interchange.foreign import read_safetensors
from mi_contrast.interchange.loaded import Loaded
from mi_contrast.interchange.names import from_foreign, tensors_of
from mi_contrast.interchange.parity import batches, checked
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation

Plain = dict[str, Any]
READ_HERE = (".safetensors", ".pth")


class Format(NamedTuple):
    """How a format is written.

    file: its file of weights; write: puts it, and what goes beside it, into a folder, and returns what the manifest
    should say more; check: compares features, given the folder; why_not: of a spec's model, why the format can't
    express it, or None; of_two: whether it can express a split.
    """

    file: str
    write: Callable[[Representation, Path], Plain]
    check: Callable[[Representation, Path], Plain]
    why_not: Callable[[Mapping[str, Any]], str | None] = lambda model: None
    of_two: bool = False


def convert(loaded: Loaded, word: str, path: str | Path) -> Plain:
    """Writes a representation in a format, whole or not at all; an older export at `path` is replaced.

    Args:
      loaded: from `open_source`.
      word: one of FORMATS.
      path: the folder.

    Returns:
      its manifest. `parity` there has max_difference of the features (absolute, max_feature beside it), the tool with
      its version, and the images; or not_run, the reason.
    Raises UserError where the format is unknown or can't express the representation, a package that writes it is
    missing, or `path` is something else than an export; RuntimeError where the features differ.
    """
    form, representation, path = can_hold(loaded, word), loaded.representation, Path(path)
    readable = form.file.endswith(READ_HERE)
    with whole(path) as folder:
        more = form.write(representation, folder)
        data = (folder / form.file).read_bytes()
        tensors = tensors_of(representation) if readable else {}
        manifest = manifest_of(representation, tensors, data, loaded.config, loaded.commit, loaded.step)
        manifest |= {"file": form.file, "made_for": word, "format": FORMAT if readable else f"{FORMAT} for {word}"}
        manifest |= {"source": loaded.source.name, "source_sha256": loaded.sha256, "remarks": list(loaded.remarks)}
        write_json(folder / MANIFEST, plain(manifest | more | {"parity": form.check(representation, folder)}))
    return dict(read_json(path / MANIFEST))


def can_hold(loaded: Loaded, word: str) -> Format:
    """The format of that name. UserError where there is none, or it can't express the representation."""
    if word not in FORMATS:
        raise unknown("format", word, FORMATS)
    form, spec = FORMATS[word], loaded.representation.spec
    reason = form.why_not(spec["model"])
    if spec["split"] is not None and not form.of_two:
        seen = f"each of some channels of {loaded.representation.split}"
        reason = f"it is two networks, {seen}, and the format holds one of RGB"
    if reason:
        raise UserError(
            f"{loaded.source} can't be written for {word}: {reason}", fix="--format=native holds everything"
        )
    return form


def _write_native(representation: Representation, folder: Path) -> Plain:
    write_safetensors(tensors_of(representation), folder / WEIGHTS)
    return {}


def _check_native(representation: Representation, folder: Path) -> Plain:
    file = folder / WEIGHTS
    tensors = read_safetensors(file.read_bytes(), file)
    variables, _ = from_foreign(tensors, towers.template(representation.spec["model"]), str(file))
    again = Representation(variables, representation.spec)
    return checked(representation, lambda images: np.asarray(again.encode(images)), ["mi_contrast"], batches(again))


FORMATS: Mapping[str, Format] = {
    "torchvision": Format(
        WEIGHTS, torch_formats.write_torchvision, torch_formats.check_torchvision, torch_formats.torchvision_why_not
    ),
    "torch": Format(torch_formats.PTH, torch_formats.write_torch, torch_formats.check_torch),
    "timm": Format(torch_formats.TIMM, torch_formats.write_timm, torch_formats.check_timm, torch_formats.timm_why_not),
    "detectron2": Format(detectron2.FILE, detectron2.write, detectron2.check, detectron2.why_not),
    "onnx": Format(onnx.FILE, onnx.write, onnx.check),
    "stablehlo": Format(stablehlo.FILE, stablehlo.write, stablehlo.check, of_two=True),
    "native": Format(WEIGHTS, _write_native, _check_native, of_two=True),
}
