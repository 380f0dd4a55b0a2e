"""Writes ONNX by torch.onnx, from the same network in torchvision (a transformer: in timm). Pixels in, features out.

Batch and image size are free; a transformer has one image size. The normalisation is inside the file, so that nobody
can forget it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.errors import UserError
from mi_contrast.interchange.names import collect_tensors
from mi_contrast.interchange.parity import choose_batches, compare_features
from mi_contrast.interchange.torch_build import MissingToolError, build_network, import_tool
from mi_contrast.models.representation import Representation

FILE, INPUT, OUTPUT, OPSET = "backbone.onnx", "images", "features", 18
INSTALL = "pip install 'mi-contrast[torch,onnx]'"


def write(representation: Representation, folder: Path) -> dict[str, Any]:
    """Writes backbone.onnx, with the weights inside, and returns more fields for the manifest.

    Its input `images` is float32 [batch, 3, height, width], RGB in [0, 1], not normalised. A transformer takes only
    the representation's own size. Its output `features` is float32 [batch, F].
    Raises UserError if torch, torchvision (for a transformer timm) or onnxscript isn't installed.
    """
    size, patch = representation.spec["size"], representation.spec["model"]["patch"]
    try:
        torch, _ = import_tool("torch"), import_tool("onnxscript")
        net = build_network(representation.spec["model"], collect_tensors(representation), size)
    except MissingToolError as error:
        raise UserError(f"can't write ONNX: {error}", fix=INSTALL) from None
    dynamic = torch.export.Dim.DYNAMIC
    # Height and width differ in the traced example, so that the export doesn't take them for one number.
    free, sides = ({0: dynamic, 2: dynamic, 3: dynamic}, (97, 98)) if patch is None else ({0: dynamic}, (size, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns of its own parts being deprecated
        torch.onnx.export(
            _prepend_normalisation(torch, net, representation),
            (torch.rand(2, 3, *sides),),
            str(folder / FILE),
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(free,),
        )
    shape = "height, width" if patch is None else f"{size}, {size}"
    return {
        "names": "none",
        "opset": OPSET,
        "input": f"{INPUT}: float32 [batch, 3, {shape}], RGB in [0, 1]; mean and std are applied inside",
        "output": f"{OUTPUT}: float32 [batch, {representation.dim}]",
    }


def _prepend_normalisation(torch: Any, net: Any, representation: Representation) -> Any:
    class Normalised(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            for name in ("mean", "std"):
                self.register_buffer(name, torch.tensor(representation.spec[name]).view(1, 3, 1, 1))

        def forward(self, images: Any) -> Any:
            return self.net((images - self.mean) / self.std)

    return Normalised().eval()


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """Returns the features of images float32 [B, H, W, 3] in [0, 1], computed by onnxruntime.

    Raises MissingToolError if onnxruntime is missing.
    """
    runtime = import_tool("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (features,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(np.transpose(images, (0, 3, 1, 2)))})
    return np.asarray(features)


def check(representation: Representation, folder: Path) -> dict[str, Any]:
    """Compares the features of the file, computed by onnxruntime, with ours."""
    return compare_features(
        representation, lambda images: run(folder / FILE, images), ["onnxruntime"], choose_batches(representation)
    )
