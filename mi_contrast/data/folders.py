"""Folders of images: one folder a class, as ImageFolder of torchvision has them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from mi_contrast.core.errors import UserError
from mi_contrast.data.decoding import decode, stack
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.records import check_split

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
LAYOUT = "PATH/<class>/<image> or PATH/<split>/<class>/<image>"


def load(root: Path, split: str, *, size: int | None = None) -> ImageSet:
    """Images in class folders as an ImageSet: label 'label', classes by name over all splits.

    Where images lie in root/<class>/ they are the split 'train'; else root/<split>/<class>/ holds them, at any depth.
    Splits are written as TFDS has it: 'train[:90%]', 'train+val'. Within a split, files come in the order of the sha256
    of their path below it: an order that mixes the classes and depends on names alone.

    Args:
      size: if given, images are made square, `decoding.square`.
    Raises:
      UserError where the folder is missing, holds no images or has no such split, or the split is empty.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", fix=f"give data.name='folder:PATH' with {LAYOUT}")
    splits = {name: below(folder) for name, folder in layout(root).items()}
    splits = {name: files for name, files in splits.items() if files}
    if not splits:
        raise UserError(f"{root} holds no images in folders of classes", fix=f"lay them out as {LAYOUT}")
    name = f"folder:{root}"
    counts = {
        key: SimpleNamespace(num_examples=len(files), shard_lengths=[len(files)]) for key, files in splits.items()
    }
    check_split(counts, name, split)
    files: list[tuple[str, Path]] = []
    for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(counts):
        files += splits[part.splitname][part.from_ : part.to]
    classes = tuple(sorted({label for of_split in splits.values() for label, _ in of_split}))
    number = {label: i for i, label in enumerate(classes)}

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        examples = [str(files[i][1]) for i in indices]
        return stack([decode_file(Path(example), size) for example in examples], examples, shape)

    height, width, _ = decode_file(files[0][1], size).shape
    shape = (height, width, 3)
    labels = np.array([number[label] for label, _ in files], np.int32)
    return ImageSet(name, split, len(files), shape, read, {"label": labels}, {"label": classes})


def decode_file(file: Path, size: int | None) -> UInt8[np.ndarray, "H W 3"]:
    """The image in a file. UserError where it is gone or broken."""
    try:
        return decode(file.read_bytes(), str(file), size)
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror})") from None


def layout(root: Path) -> dict[str, Path]:
    """The folder of each split: root itself as 'train' where its folders hold images, else each of its folders."""
    folders = sorted(p for p in root.iterdir() if p.is_dir())
    if any(is_image(p) for folder in folders for p in folder.iterdir()):
        return {"train": root}
    return {folder.name: folder for folder in folders}


def below(folder: Path) -> list[tuple[str, Path]]:
    """(class, file) of every image in a folder of classes, in the order of the sha256 of its path in that folder."""
    found = []
    for label in sorted(p for p in folder.iterdir() if p.is_dir()):
        for where, _, names in os.walk(label, followlinks=True):
            found += [(label.name, Path(where) / name) for name in names if is_image(Path(where) / name)]
    return sorted(found, key=lambda f: hashlib.sha256(f[1].relative_to(folder).as_posix().encode()).digest())


def is_image(file: Path) -> bool:
    """Whether a file's name is an image's."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
