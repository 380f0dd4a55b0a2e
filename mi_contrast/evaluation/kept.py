"""Features kept on disk, so that several tasks on one set take them once. A damaged file is never trusted."""

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
from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.config import plain
from mi_contrast.core.layout import write_atomically
from mi_contrast.data.sets import ImageSet

PROBES = 16  # images of a set that are looked at to tell it from another of the same name

Values = Float[np.ndarray, "N F"]


def digest_of(tree: Any) -> str:
    """The sha256 of a tree of arrays: every path, dtype, shape and bit."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def identity_of(images: ImageSet) -> dict[str, Any]:
    """What tells a split from another: name, split, sizes, all its labels, 16 of its images, evenly spaced, and its
    fingerprint.

    A set that was changed in other images than those, with labels, names and sizes as they were, is not told apart.
    """
    content = hashlib.sha256()
    for label in images.labels:
        content.update(f"{label} {images.classes.get(label)}".encode())
        content.update(np.ascontiguousarray(images.labels[label], np.int32).tobytes())
    some = np.unique(np.linspace(0, len(images) - 1, min(PROBES, len(images))).astype(np.int64))
    content.update(np.ascontiguousarray(images.images(some)).tobytes())
    shape = tuple(images.image_shape)
    told = {"set": images.name, "split": images.split, "count": len(images), "shape": shape, "sha": content.hexdigest()}
    return told | {"data": {name: value for name, value in images.fingerprint.items() if name != "sizes"}}


def kept(folder: Path | None, key: Mapping[str, Any], take: Callable[[], Values]) -> Values:
    """The values that `take` gives, from the folder where they were kept under that key before.

    Args:
      folder: made where it isn't; None keeps nothing.
      key: plain data, all that the values depend on, 'set' and 'split' among it; the device's kind and the versions
        are added here.
      take: gives float32 [N, F].

    A file that is damaged, or answers to another key, is written anew, with one line said about it.
    """
    if folder is None:
        return take()
    versions = {"device": jax.default_backend(), "jax": jax.__version__, "mi_contrast": mi_contrast.__version__}
    text = json.dumps(plain({**key, **versions}), sort_keys=True)
    name = re.sub(r"[^\w.+]+", "_", f"{key['set']}-{key['split']}").strip("_")[-60:]
    path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.npz"
    if path.exists():
        values, why = _read(path, text)
        if values is not None:
            return values
        print(f"{path} is damaged ({why}); its features are taken anew", file=sys.stderr)
    values = np.ascontiguousarray(take(), np.float32)
    _write(path, values, text)
    return values


def _read(path: Path, text: str) -> tuple[Values | None, str]:
    try:
        check_npz_sizes(path)
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            values, key, digest = file["values"], str(file["key"]), str(file["sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        return None, " ".join(str(error).split())[:80] or type(error).__name__
    if key != text:
        return None, "it answers to another key"
    if hashlib.sha256(values.tobytes()).hexdigest() != digest:
        return None, "its sum differs"
    return values, ""


def _write(path: Path, values: Values, text: str) -> None:
    with write_atomically(path) as file:
        np.savez(file, values=values, key=np.array(text), sha256=np.array(hashlib.sha256(values.tobytes()).hexdigest()))
