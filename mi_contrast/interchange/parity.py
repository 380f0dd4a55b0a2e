"""Checks that another tool computes the same features from an export; its manifest records the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mi_contrast.interchange.torch_build import MissingToolError, import_tool
from mi_contrast.models.representation import Representation

TOLERANCE = 1e-3  # share of the largest feature; summing float32 in another order makes a difference of about 1e-6


def make_probe(size: int, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Returns images to compare features on, float32 [batch, size, size, 3] in [0, 1]: a colour ramp with noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    smooth = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 0.5), axis=-1)
    return np.clip(smooth + rng.normal(0, 0.2, (batch, size, size, 3)), 0, 1).astype(np.float32)


def choose_batches(representation: Representation) -> tuple[tuple[int, int], ...]:
    """Returns the (number of images, side in pixels) of the batches to compare features on.

    A convolutional network is compared at its own size and at another one, a transformer only at its own.
    """
    size = int(representation.spec["size"])
    return ((2, size),) if representation.spec["model"]["patch"] else ((2, size), (1, size + 32))


def to_float32(representation: Representation) -> Representation:
    """Returns the representation with float32 as its computing type, whatever type it was trained in."""
    spec = dict(representation.spec)
    return Representation(representation.variables, spec | {"model": {**spec["model"], "dtype": "float32"}})


def normalise(representation: Representation, images: np.ndarray) -> np.ndarray:
    """Returns the input of the network in PyTorch: (images - mean) / std, float32 [B, 3, H, W]."""
    mean, std = (np.asarray(representation.spec[name], np.float32) for name in ("mean", "std"))
    return np.ascontiguousarray(np.transpose((images - mean) / std, (0, 3, 1, 2)))


def compare_features(
    representation: Representation,
    encode: Callable[[np.ndarray], np.ndarray],
    tools: Sequence[str],
    batches: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """Compares the features of another tool with ours, computed in float32.

    Args:
      representation: our side of the comparison.
      encode: the other tool: images float32 [B, H, W, 3] in [0, 1] to features [B, F].
      tools: names of the modules that `encode` uses, for their versions; the tool itself first.
      batches: number of images and side in pixels of each comparison.

    Returns:
      plain data: tool, max_difference and max_feature over all batches, images (their shapes); or not_run, the reason.

    Raises:
      RuntimeError if the features differ. The export is wrong then, and is not kept.
    """
    try:
        ours, difference, scale = to_float32(representation), 0.0, 0.0
        for batch, size in batches:
            images = make_probe(size, batch)
            features = np.asarray(encode(images))
            with jax.default_matmul_precision("highest"):
                expected = np.asarray(ours.encode(images))
            if features.shape != expected.shape:
                raise RuntimeError(f"{tools[0]} gives features of shape {features.shape}, not {expected.shape}")
            difference = max(difference, float(np.abs(features - expected).max()))
            scale = max(scale, float(np.abs(expected).max()))
    except MissingToolError as error:
        return {"not_run": f"features not compared: {error}"}
    if not difference <= TOLERANCE * max(scale, 1e-6):
        raise RuntimeError(f"{tools[0]} gives features that differ by {difference:.3g}, of {scale:.3g} at most")
    return {
        "tool": ", ".join(f"{name} {import_tool(name).__version__}" for name in tools),
        "max_difference": difference,
        "max_feature": scale,
        "images": [[batch, size, size, 3] for batch, size in batches],
    }


def describe_parity(parity: Mapping[str, Any]) -> str:
    """Returns the result of `compare_features` in a line."""
    if "not_run" in parity:
        return str(parity["not_run"])
    within = f"features within {parity['max_difference']:.1e} of ours, the largest {parity['max_feature']:.3g}"
    return f"{within} ({parity['tool']})"
