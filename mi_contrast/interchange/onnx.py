"""ONNX, by torch.onnx through the torchvision twin (timm's of a transformer): pixels in, features out, of any batch and
any size (of a transformer one).

The normalisation is inside, so that no user of the file can leave it out.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.errors import UserError
from mi_contrast.interchange.names import tensors_of
from mi_contrast.interchange.parity import batches, checked
from mi_contrast.interchange.torch_build import MissingToolError, built, tool
from mi_contrast.models.representation import Representation

FILE, INPUT, OUTPUT, OPSET = "backbone.onnx", "images", "features", 18
INSTALL = "pip install 'mi-contrast[torch,onnx]'"


def write(representation: Representation, folder: Path) -> dict[str, Any]:
    """backbone.onnx, weights inside.

    Its input `images` is float32 [batch, 3, height, width], RGB in [0, 1], not normalised, of any size (of a
    transformer the representation's own); its output `features` is float32 [batch, F].
    Raises UserError where torch, torchvision or onnxscript isn't installed, or timm for a transformer.
    """
    size, sized = representation.spec["size"], representation.spec["model"]["patch"]
    try:
        torch, _ = tool("torch"), tool("onnxscript")
        net = built(representation.spec["model"], tensors_of(representation), size)
    except MissingToolError as error:
        raise UserError(f"can't write ONNX: {error}", fix=INSTALL) from None
    dynamic = torch.export.Dim.DYNAMIC
    free, sides = ({0: dynamic, 2: dynamic, 3: dynamic}, (97, 98)) if sized is None else ({0: dynamic}, (size, size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.onnx warns of its own parts being deprecated
        torch.onnx.export(
            _with_pixels(torch, net, representation),
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
    shape = "height, width" if sized is None else f"{size}, {size}"
    return {
        "names": "none",
        "opset": OPSET,
        "input": f"{INPUT}: float32 [batch, 3, {shape}], RGB in [0, 1]; mean and std are applied inside",
        "output": f"{OUTPUT}: float32 [batch, {representation.dim}]",
    }


def _with_pixels(torch: Any, net: Any, representation: Representation) -> Any:
    class FromPixels(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            for name in ("mean", "std"):
                self.register_buffer(name, torch.tensor(representation.spec[name]).view(1, 3, 1, 1))

        def forward(self, images: Any) -> Any:
            return self.net((images - self.mean) / self.std)

    return FromPixels().eval()


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """Features by onnxruntime of pixels float32 [B, H, W, 3] in [0, 1]. MissingToolError where it isn't here."""
    runtime = tool("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (features,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(np.transpose(images, (0, 3, 1, 2)))})
    return np.asarray(features)


def check(representation: Representation, folder: Path) -> dict[str, Any]:
    """Features by onnxruntime."""
    return checked(representation, lambda images: run(folder / FILE, images), ["onnxruntime"], batches(representation))
