"""Folders of images: one folder a class, as ImageFolder of torchvision has them, or images without labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.errors import UserError
from mi_contrast.data import tiles
from mi_contrast.data.decoding import decode_file, stack
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.records import ranges

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
NO_CLASS = ""  # of an image that lies in no class folder
LAYOUT = "PATH/<class>/<image> or PATH/<split>/<class>/<image>, or PATH/<image> without labels"


def load(root: Path, split: str, *, size: int | None = None, options: Mapping[str, Any] | None = None) -> ImageSet:
    """Images in class folders as an ImageSet: label 'label', classes by name over all splits.

    Where images lie in root/<class>/ they are the split 'train'; else root/<split>/<class>/ holds them, at any depth.
    Images in root itself, no folder beside them, are the split 'train' and have no label. Splits are written as TFDS
    has it: 'train[:90%]', 'train+val'. Within a split, files come in the order of the sha256 of their path below it: an
    order that mixes the classes and depends on names alone.

    Args:
      size: if given, images are made square, `decoding.square`.
      options: tile, stride, groups: overlapping square tiles instead of whole images, see `tiles`; the short side is
        then resized to `size`, the image otherwise whole. A split's ranges count images, not tiles.
    Raises:
      UserError where the folder is missing, holds no images or has no such split, the split is empty, or an option is
      unknown or out of range.
    """
    tiling = tiles.read_options(options)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", fix=f"give data.name='folder:PATH' with {LAYOUT}")
    splits = {name: below(folder) for name, folder in layout(root).items()}
    splits = {name: files for name, files in splits.items() if files}
    if not splits:
        raise UserError(f"{root} holds no images in folders of classes", fix=f"lay them out as {LAYOUT}")
    name = f"folder:{root}"
    files: list[tuple[str, Path]] = []
    for of, part in ranges({key: len(found) for key, found in splits.items()}, name, split):
        files += splits[of][part]
    names = tuple(sorted({label for of_split in splits.values() for label, _ in of_split}))
    labelled = names != (NO_CLASS,)
    number = np.array([names.index(label) for label, _ in files], np.int32)
    labels, classes = ({"label": number}, {"label": names}) if labelled else ({}, {})
    if tiling is not None:
        return tiles.cut(tiling, [file for _, file in files], size, name, split, labels, classes)

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        examples = [str(files[i][1]) for i in indices]
        return stack([decode_file(Path(example), size) for example in examples], examples, shape)

    height, width, _ = decode_file(files[0][1], size).shape
    shape = (height, width, 3)
    return ImageSet(name, split, len(files), shape, read, labels, classes)


def layout(root: Path) -> dict[str, Path]:
    """The folder of each split: root itself as 'train' where its folders hold images or there are none, else each of
    its folders.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir())
    if not folders or any(is_image(p) for folder in folders for p in folder.iterdir()):
        return {"train": root}
    return {folder.name: folder for folder in folders}


def below(folder: Path) -> list[tuple[str, Path]]:
    """(class, file) of every image in a folder of classes, or of images alone, in the order of the sha256 of its path
    in that folder.
    """
    labels = sorted(p for p in folder.iterdir() if p.is_dir())
    found = [] if labels else [(NO_CLASS, file) for file in folder.iterdir() if is_image(file)]
    for label in labels:
        for where, _, names in os.walk(label, followlinks=True):
            found += [(label.name, Path(where) / name) for name in names if is_image(Path(where) / name)]
    return sorted(found, key=lambda f: hashlib.sha256(f[1].relative_to(folder).as_posix().encode()).digest())


def is_image(file: Path) -> bool:
    """Whether a file's name is an image's."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
