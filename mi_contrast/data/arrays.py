"""Reads the set arrays:FILE.npz: `images` uint8 [N, H, W, 3], and optionally `labels` [N] of numbers or words."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.data.collect import NONE, add_labels
from mi_contrast.data.pictures import Pictures

FIELDS = ("images", "labels")
LABELS = "labels"  # the word of data.labels that takes the file's own


def collect_arrays(file: Path, name: str, labels: str | None) -> Pictures:
    """Returns the rows of the array as pictures, named by their row: '0', '1', ..

    Args:
      labels: 'labels' (the file's array), 'none', or the path of a table with the columns file (the row) and label.
        None takes the file's array if there is one, else 'none'.
    Raises:
      UserError: the file can't be read, or has arrays of other names, shapes or types.
    """
    arrays = read_arrays(file)
    images, own_labels = arrays["images"], arrays.get("labels")
    names = tuple(map(str, range(len(images))))
    height, width = images.shape[1:3]
    header = f"P6 {width} {height} 255\n".encode()  # a picture of format PPM is this line and its pixels
    digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()[:16]
    pictures = Pictures(
        name,
        str(file),
        {"train": names},
        lambda each: header + images[int(each)].tobytes(),
        dict.fromkeys(names, (len(header) + 3 * height * width, 0)),
        facts={"pixels": digest},
        are_files=False,
    )
    if labels not in (None, LABELS):
        return add_labels(pictures, labels, lambda each: None)
    if own_labels is None and labels == LABELS:
        raise UserError(f"{file} has no array 'labels'", fix="give data.labels='none', or add the array")
    if own_labels is None or len(np.unique(own_labels)) < 2:
        return add_labels(pictures, NONE, lambda each: None)
    width = max(len(str(label)) for label in own_labels) if own_labels.dtype.kind in "iu" else 0
    words = {each: str(label).zfill(width) for each, label in zip(names, own_labels, strict=True)}
    facts = {**pictures.facts, "labels": hashlib.sha256(" ".join(words.values()).encode()).hexdigest()[:16]}
    return replace(pictures, labels=words, facts=facts)


def read_arrays(file: Path) -> dict[str, Any]:
    """Returns the arrays of the file. Raises UserError if it can't be read or they are of other shapes or types."""
    try:
        stat = file.stat()
    except OSError as error:
        raise FileError(f"{file} can't be read ({error.strerror})", fix="give data.name='arrays:FILE.npz'") from None
    return _read(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(file: Path, size: int, modified: int) -> dict[str, Any]:
    """Reads and checks the arrays. `size` and `modified` are keys of the cache alone."""
    fix = "save it by np.savez(FILE, images=images) or np.savez(FILE, images=images, labels=labels)"
    try:
        check_npz_sizes(file)
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files} if hasattr(stored, "files") else {}
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split())[:80]
        raise FileError(f"{file} is no npz file of arrays ({why})", fix=fix) from None
    if "images" not in arrays:
        raise FileError(f"{file} has no array 'images', but {', '.join(arrays) or 'none'}", fix=fix)
    if unknown_names := sorted(set(arrays) - set(FIELDS)):
        raise FileError(f"{file} has an array {unknown_names[0]!r}, which is not read", fix=fix)
    check_images(arrays["images"], str(file))
    labels = arrays.get("labels")
    if labels is not None and (labels.shape != (len(arrays["images"]),) or labels.dtype.kind not in "iuU"):
        what = f"labels {labels.dtype}{list(labels.shape)} for {len(arrays['images'])} images"
        raise FileError(f"{file} has {what}", fix="give one whole number or word for each image")
    if labels is not None and labels.dtype.kind == "i" and (labels < 0).any():
        raise FileError(f"{file} has a label below 0", fix="number the classes from 0, or leave the labels out")
    return arrays


def check_images(images: UInt8[np.ndarray, "N H W 3"], where: str) -> None:
    """Raises UserError unless images are uint8 [N, H, W, 3] with at least two rows."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        what = f"{where} has images {images.dtype}{list(images.shape)}"
        raise FileError(what, fix="give uint8 [N, H, W, 3], RGB from 0 to 255")
