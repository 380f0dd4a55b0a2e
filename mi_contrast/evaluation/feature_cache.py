"""Caches features on disk, so that several tasks on one set encode it once. A damaged file is never trusted."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

import mi_contrast
from mi_contrast.core import processes
from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import FileError
from mi_contrast.core.layout import write_atomically
from mi_contrast.data.sets import ImageSet

PROBES = 16  # images of a split that its identity includes

Values = Float[np.ndarray, "N F"]


def compute_digest(tree: Any) -> str:
    """Returns the sha256 of a tree of arrays: of every path, dtype, shape and bit."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def describe_split(images: ImageSet) -> dict[str, Any]:
    """Returns plain data that identify a split: its name, sizes, labels, fingerprint and 16 evenly spaced images.

    Two splits that differ only in other images than those 16 get the same description.
    """
    content = hashlib.sha256()
    for label in images.labels:
        content.update(f"{label} {images.classes.get(label)}".encode())
        content.update(np.ascontiguousarray(images.labels[label], np.int32).tobytes())
    probes = np.unique(np.linspace(0, len(images) - 1, min(PROBES, len(images))).astype(np.int64))
    content.update(np.ascontiguousarray(images.images(probes)).tobytes())
    return {
        "set": images.name,
        "split": images.split,
        "count": len(images),
        "shape": tuple(images.image_shape),
        "sha": content.hexdigest(),
        "data": {name: value for name, value in images.fingerprint.items() if name != "sizes"},
    }


def load_or_extract(folder: Path | None, identity: Mapping[str, Any], extract: Callable[[], Values]) -> Values:
    """Returns the features cached under this identity, or extracts them and caches them.

    A file that is damaged or has another identity is replaced, with one line on stderr.

    Args:
      folder: the cache, made if it doesn't exist. None caches nothing.
      identity: plain data, all that the features depend on, 'set' and 'split' among them. The kind of device and the
        versions of jax and of this package are added here.
      extract: returns float32 [N, F].
    """
    if folder is None:
        return extract()
    versions = {"device": jax.default_backend(), "jax": jax.__version__, "mi_contrast": mi_contrast.__version__}
    text = json.dumps(to_plain_data({**identity, **versions}), sort_keys=True)
    name = re.sub(r"[^\w.+]+", "_", f"{identity['set']}-{identity['split']}").strip("_")[-60:]
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.npz"
    values, reason = _read(path, text) if path.exists() else (None, "")
    if processes.agree(values is not None):
        if values is None:
            raise FileError(f"{path} can't be read by process {processes.index()} ({reason or 'it is not there'})")
        return values
    if reason:
        print(f"{path} is damaged ({reason}); its features are extracted again", file=sys.stderr)
    values = np.ascontiguousarray(extract(), np.float32)
    _write(path, values, text)
    return values


def _read(path: Path, text: str) -> tuple[Values | None, str]:
    """Returns (features, '') from a file of this identity, or (None, why the file can't be used)."""
    try:
        check_npz_sizes(path)
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            values, key, digest = file["values"], str(file["key"]), str(file["sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        return None, " ".join(str(error).split())[:80] or type(error).__name__
    if key != text:
        return None, "it belongs to other features"
    if hashlib.sha256(values.tobytes()).hexdigest() != digest:
        return None, "its checksum differs"
    return values, ""


def _write(path: Path, values: Values, text: str) -> None:
    with write_atomically(path) as file:
        np.savez(file, values=values, key=np.array(text), sha256=np.array(hashlib.sha256(values.tobytes()).hexdigest()))
