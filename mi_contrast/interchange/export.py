"""Writes an export: a folder with the weights of a backbone, as safetensors, and a manifest that describes them."""

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
from mi_contrast.core import processes
from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import write_json
from mi_contrast.interchange.names import collect_tensors
from mi_contrast.models.description import VITS
from mi_contrast.models.representation import Representation

WEIGHTS, MANIFEST = "backbone.safetensors", "manifest.json"
FORMAT, VERSION = "mi_contrast backbone", 1
SPLIT_PREFIXES = ", after 'first.' and 'second.'"
PACKAGES = ("jax", "flax", "numpy", "safetensors")


def write_export(
    path: Path,
    representation: Representation,
    *,
    config: Mapping[str, Any],
    commit: str | None,
    step: int | None = None,
) -> None:
    """Writes an export directory, atomically; an older export at `path` is replaced.

    `backbone.safetensors` has torchvision's names and layouts (of a transformer, timm's), and loads into the same
    network there with strict=True once its classifier is removed. `manifest.json` has all that is needed to use it. If
    two networks share the channels, the file has both, as 'first.<name>' and 'second.<name>', and the manifest says
    which channels of which colour space each of them sees. Of several processes only the first writes.

    Args:
      path: the directory.
      representation: what to export.
      config: of the training, resolved.
      commit: of the code that trained it, if known.
      step: training step of the weights, if known.
    Raises:
      UserError if `path` exists and is not an export, or can't be written.
    """
    if not processes.is_first():
        return
    with replace_folder(path) as folder:
        tensors = collect_tensors(representation)
        data = write_safetensors(tensors, folder / WEIGHTS)
        write_json(folder / MANIFEST, make_manifest(representation, tensors, data, config, commit, step))


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder to write an export into. At the end it replaces `path`; after an error it is removed.

    Raises UserError if `path` exists and is not an export, or can't be written.
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
    except UserError:  # some are an OSError too, and say more than the line below
        raise
    except OSError as error:
        raise FileError(f"can't write the export {path} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, new: Path, old: Path) -> None:
    """Moves `new` to `path`. What was there is moved to `old` first, and moved back if that fails."""
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


def make_manifest(
    representation: Representation,
    tensors: Mapping[str, np.ndarray],
    data: bytes,
    config: Mapping[str, Any],
    commit: str | None,
    step: int | None,
) -> dict[str, Any]:
    """Returns the manifest: file and checksum, tensors, network, preprocessing of images, and origin."""
    spec, split, networks = representation.spec, representation.split, None
    pixel = "pixel in [0, 1]" if split is None else f"{split.space} of pixel in [0, 1]"
    if split is not None:
        channels = {view: list(range(6)[part]) for view, part in split.slices.items()}
        networks = {"division": to_plain_data(spec["split"]), "channels": channels, "features": "first, then second"}
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "file": WEIGHTS,
        "sha256": hashlib.sha256(data).hexdigest(),
        "names": name_convention(spec["model"]) + ("" if split is None else SPLIT_PREFIXES),
        "tensors": {n: {"shape": list(t.shape), "dtype": str(t.dtype)} for n, t in tensors.items()},
        "model": to_plain_data(spec["model"]),
        "split": networks,
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
        "config": to_plain_data(config),
    }


def name_convention(model: Mapping[str, Any]) -> str:
    """Returns the package whose tensor names the exported network has."""
    return "timm" if model["backbone"] in VITS else "torchvision"


def write_safetensors(tensors: Mapping[str, np.ndarray], path: Path) -> bytes:
    """Writes tensors as safetensors for PyTorch, flushed to disk, and returns the bytes of the file."""
    data = safetensors.numpy.save(dict(tensors), metadata={"format": "pt"})
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return data
