"""StableHLO, by jax.export: the whole of `encode` with its weights in one file that any later JAX calls, on any device.

The batch is free; height and width are the representation's own size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from mi_contrast.core.errors import UserError
from mi_contrast.interchange.parity import checked
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, apply_backbone, preprocess

FILE, PLATFORMS = "backbone.stablehlo", ("cpu", "cuda", "rocm", "tpu")


def write(representation: Representation, folder: Path) -> dict[str, Any]:
    """backbone.stablehlo, as `jax.export` serialises it; of a split both networks.

    Its argument is float32 [batch, size, size, 3], RGB in [0, 1], not normalised; its result is float32 [batch, F].
    Raises UserError where the package flatbuffers, which jax.export writes with, isn't installed.
    """
    spec = representation.spec
    weights = jax.tree.map(np.asarray, representation.variables)

    def features(images: Array) -> Array:
        split, generator = representation.split, weights.get(towers.GENERATOR)
        x = preprocess(images, split, spec["mean"], spec["std"], generator)
        return apply_backbone(representation.backbone, split, weights, x)

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, spec["size"], spec["size"], 3), jnp.float32)
    try:
        data = export.export(jax.jit(features), platforms=PLATFORMS)(images).serialize()
    except ImportError as error:
        raise UserError(f"can't write StableHLO: {error}", fix="pip install flatbuffers") from None
    (folder / FILE).write_bytes(data)
    return {
        "names": "none",
        "platforms": list(PLATFORMS),
        "input": f"float32 [batch, {spec['size']}, {spec['size']}, 3], RGB in [0, 1]; mean and std are applied inside",
        "output": f"float32 [batch, {representation.dim}]",
        "usage": f"jax.export.deserialize(bytearray(open('{FILE}', 'rb').read())).call(images)",
    }


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """Features by the file alone, of pixels float32 [B, size, size, 3] in [0, 1]."""
    return np.asarray(export.deserialize(bytearray(path.read_bytes())).call(images))


def check(representation: Representation, folder: Path) -> dict[str, Any]:
    """Features by the file read again."""
    size = int(representation.spec["size"])
    return checked(representation, lambda images: run(folder / FILE, images), ["jax"], ((3, size),))
