"""Whether another tool computes the same features: the check that every export gets, and that its manifest carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mi_contrast.interchange.torch_build import MissingToolError, tool
from mi_contrast.models.representation import Representation

TOLERANCE = 1e-3  # of the largest feature; float32 in another order of sums differs by some 1e-6 of it


def probe(size: int, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Pixels to compare features on: float32 [batch, size, size, 3] in [0, 1], smooth and noisy both."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    smooth = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 0.5), axis=-1)
    return np.clip(smooth + rng.normal(0, 0.2, (batch, size, size, 3)), 0, 1).astype(np.float32)


def batches(representation: Representation) -> tuple[tuple[int, int], ...]:
    """What to compare features on, where size is free: its own size, and another. Of a transformer its own alone."""
    size = int(representation.spec["size"])
    return ((2, size),) if representation.spec["model"]["patch"] else ((2, size), (1, size + 32))


def in_float32(representation: Representation) -> Representation:
    """The same weights, computed in float32 whatever the training was computed in."""
    spec = dict(representation.spec)
    return Representation(representation.variables, spec | {"model": {**spec["model"], "dtype": "float32"}})


def normalised(representation: Representation, images: np.ndarray) -> np.ndarray:
    """What PyTorch's twin is given: (x - mean) / std, float32 [B, 3, H, W]."""
    mean, std = (np.asarray(representation.spec[name], np.float32) for name in ("mean", "std"))
    return np.ascontiguousarray(np.transpose((images - mean) / std, (0, 3, 1, 2)))


def checked(
    representation: Representation,
    theirs: Callable[[np.ndarray], np.ndarray],
    tools: Sequence[str],
    on: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """Compares features.

    Args:
      representation: ours, read in float32.
      theirs: pixels float32 [B, H, W, 3] in [0, 1] to features [B, F], by the other tool.
      tools: the modules that compute them, whose versions are recorded, the one that matters first.
      on: (how many images, pixels a side) of each comparison.

    Returns:
      plain data: tool, max_difference and max_feature (over all), images (their shapes); or not_run, why.
    Raises RuntimeError where they differ: the export is wrong, and isn't kept.
    """
    try:
        ours, difference, scale = in_float32(representation), 0.0, 0.0
        for batch, size in on:
            images = probe(size, batch)
            found = np.asarray(theirs(images))
            with jax.default_matmul_precision("highest"):
                expected = np.asarray(ours.encode(images))
            if found.shape != expected.shape:
                raise RuntimeError(f"{tools[0]} gives features of shape {found.shape}, not {expected.shape}")
            difference = max(difference, float(np.abs(found - expected).max()))
            scale = max(scale, float(np.abs(expected).max()))
    except MissingToolError as error:
        return {"not_run": f"features not compared: {error}"}
    if not difference <= TOLERANCE * max(scale, 1e-6):
        raise RuntimeError(f"{tools[0]} gives features that differ by {difference:.3g}, of {scale:.3g} at most")
    return {
        "tool": ", ".join(f"{name} {tool(name).__version__}" for name in tools),
        "max_difference": difference,
        "max_feature": scale,
        "images": [[batch, size, size, 3] for batch, size in on],
    }


def said(parity: Mapping[str, Any]) -> str:
    """The check in words, for one line."""
    if "not_run" in parity:
        return str(parity["not_run"])
    within = f"features within {parity['max_difference']:.1e} of ours, the largest {parity['max_feature']:.3g}"
    return f"{within} ({parity['tool']})"
