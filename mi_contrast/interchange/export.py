"""Exports: a backbone alone, in a folder of two files that other tools read: safetensors and a manifest."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import mi_contrast
from mi_contrast.core.config import plain
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import write_json
from mi_contrast.interchange.names import tensors_of
from mi_contrast.models.description import VITS
from mi_contrast.models.representation import Representation

WEIGHTS, MANIFEST = "backbone.safetensors", "manifest.json"
FORMAT, VERSION = "mi_contrast backbone", 1
OF_SPLIT = ", after 'first.' and 'second.'"
PACKAGES = ("jax", "flax", "numpy", "safetensors")


def write_export(
    path: Path,
    representation: Representation,
    *,
    config: Mapping[str, Any],
    commit: str | None,
    step: int | None = None,
) -> None:
    """Writes an export directory, whole or not at all; an older export at `path` is replaced.

    Args:
      path: the directory; `backbone.safetensors` has torchvision's names and layouts, of a transformer timm's (and
        loads into the same net there with strict=True, its classifier removed), `manifest.json` all that is needed to
        use it. Of a split the file holds both networks, as 'first.<name>' and 'second.<name>', and the manifest says
        which channels of which colour space each of them sees.
      representation: what to export.
      config: of the training, resolved.
      commit: of the code that trained it, where known.
      step: training steps the weights have seen, where known.
    Raises UserError where `path` is something else than an export, or can't be written.
    """
    with whole(path) as folder:
        tensors = tensors_of(representation)
        data = write_safetensors(tensors, folder / WEIGHTS)
        write_json(folder / MANIFEST, manifest_of(representation, tensors, data, config, commit, step))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new folder to write an export into, which takes the place of `path` at the end, whole or not at all.

    Raises UserError where `path` is something else than an export, or can't be written.
    """
    path = Path(path)
    if path.exists() and not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise FileError(f"{path} exists and is not an export", fix="name another place")
    temporary, old = (path.with_name(f".{path.name}.{word}.{os.getpid()}") for word in ("new", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        _replace(path, temporary, old)
    except UserError:
        raise
    except OSError as error:
        raise FileError(f"can't write the export {path} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, new: Path, old: Path) -> None:
    """Puts `new` at `path`; what was there waits at `old` meanwhile, and comes back where that fails."""
    if not path.exists():
        os.rename(new, path)
        return
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old)


def manifest_of(
    representation: Representation,
    tensors: Mapping[str, np.ndarray],
    data: bytes,
    config: Mapping[str, Any],
    commit: str | None,
    step: int | None,
) -> dict[str, Any]:
    """What `manifest.json` says: the file and its sum, the tensors, the network, how to prepare images, the origin."""
    spec, split, divided = representation.spec, representation.split, None
    pixel = "pixel in [0, 1]" if split is None else f"{split.space} of pixel in [0, 1]"
    if split is not None:
        channels = {view: list(range(6)[seen]) for view, seen in split.slices.items()}
        divided = {"division": plain(spec["split"]), "channels": channels, "features": "first, then second"}
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "file": WEIGHTS,
        "sha256": hashlib.sha256(data).hexdigest(),
        "names": names_of(spec["model"]) + ("" if split is None else OF_SPLIT),
        "tensors": {n: {"shape": list(t.shape), "dtype": str(t.dtype)} for n, t in tensors.items()},
        "model": plain(spec["model"]),
        "split": divided,
        "features": representation.dim,
        "preprocessing": {
            "size": spec["size"],
            "mean": list(spec["mean"]),
            "std": list(spec["std"]),
            "channel_order": "RGB",
            "range": [0.0, 1.0],
            "formula": f"({pixel} - mean) / std",
        },
        "step": step,
        "commit": commit,
        "versions": {
            "mi_contrast": mi_contrast.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "config": plain(config),
    }


def names_of(model: Mapping[str, Any]) -> str:
    """Whose names the tensors of a resolved description have."""
    return "timm" if model["backbone"] in VITS else "torchvision"


def write_safetensors(tensors: Mapping[str, np.ndarray], path: Path) -> bytes:
    """Writes tensors as safetensors for PyTorch, on disk when this returns; the file's bytes."""
    data = safetensors.numpy.save(dict(tensors), metadata={"format": "pt"})
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return data
