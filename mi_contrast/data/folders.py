"""Folders of images: one folder a class, as ImageFolder of torchvision has them, or images without labels."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.data import fingerprint, tiles
from mi_contrast.data.broken import keep_good, scan
from mi_contrast.data.decoding import BrokenImageError, decode_file, stack
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.listing import HEIC, LAYOUT, NO_CLASS, list_as_before, list_images


def load(
    root: Path,
    split: str,
    *,
    size: int | None = None,
    options: Mapping[str, Any] | None = None,
    broken: float = 0.0,
    known: Collection[str] | None = None,
) -> ImageSet:
    """Images in class folders as an ImageSet: label 'label', classes by name over all splits.

    Where images lie in root/<class>/ they are the split 'train'; else root/<split>/<class>/ holds them, at any depth.
    Images in root itself, and in no folder beside them, are the split 'train' and have no label. `listing` has the
    rules. Splits are written as TFDS has it: 'train[:90%]', 'train+val'. Within a split, files come in the order of the
    sha256 of their path below it: an order that mixes the classes and depends on names alone. Every file is decoded
    once beforehand, and those that are broken get no index; a range counts them.

    Args:
      size: if given, images are made square, `decoding.square`.
      options: tile, stride, groups: overlapping square tiles instead of whole images, see `tiles`; the short side is
        then resized to `size`, the image otherwise whole. A split's ranges count images, not tiles.
      broken: the share of the files that may be broken.
      known: names of the files that get no index, as an earlier scan found them; nothing is scanned then.
    Raises:
      UserError where the folder is missing, holds no images, images at two depths or has no such split, the split is
      empty, more files are broken than may be (all are named), or an option is unknown or out of range.
    """
    tiling = tiles.read_options(options)
    if not root.is_dir():
        raise FileError(f"{root} is not a folder", fix=f"give data.name='folder:PATH' with {LAYOUT}")
    splits = list_images(root)
    name = f"folder:{root}"
    files = chosen(splits, name, split)
    check_heic(root, [file for _, file in files])
    names = tuple(sorted({label for of_split in splits.values() for label, _ in of_split}))
    sizes = {file.relative_to(root).as_posix(): file.stat().st_size for _, file in files}
    bad = scan(root, list(sizes)) if known is None else {}
    good = set(keep_good(list(sizes), bad if known is None else dict.fromkeys(known, ""), broken, name))
    print_of = fingerprint.of_files(sizes, names, str(root)) | {"broken": sorted(set(sizes) - good)}
    files = [found for found, of in zip(files, sizes, strict=True) if of in good]
    labelled = names != (NO_CLASS,)
    number = np.array([names.index(label) for label, _ in files], np.int32)
    labels, classes = ({"label": number}, {"label": names}) if labelled else ({}, {})
    if tiling is not None:
        return tiles.cut(tiling, [file for _, file in files], size, name, split, labels, classes, print_of)

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        examples = [str(files[i][1]) for i in indices]
        return stack([decode_file(Path(example), size) for example in examples], examples, shape)

    shape = (size, size, 3) if size is not None else first_shape([file for _, file in files], broken)
    return ImageSet(name, split, len(files), shape, read, labels, classes, fingerprint=print_of)


def first_shape(files: list[Path], broken: float) -> tuple[int, int, int]:
    """[H, W, 3] of the first file that can be read; of the very first where none may be broken."""
    for file in files[: int(broken * len(files))]:
        try:
            return decode_file(file).shape
        except BrokenImageError:
            continue
    return decode_file(files[int(broken * len(files))]).shape


def chosen(splits: Mapping[str, list[tuple[str, Path]]], name: str, split: str) -> list[tuple[str, Path]]:
    """The (class, file) of a split or of ranges of some. UserError where there are none."""
    from mi_contrast.data.records import ranges  # it needs TFDS

    parts = ranges({key: len(found) for key, found in splits.items()}, name, split)
    return [file for of, part in parts for file in splits[of][part]]


def lists_alike(root: Path, split: str) -> bool:
    """Whether a split has the same files in the same order by the rules of 0.1.0 and by those of now."""
    try:
        before = chosen(list_as_before(root), f"folder:{root}", split)
    except UserError:
        return False
    return before == chosen(list_images(root), f"folder:{root}", split)


def check_heic(root: Path, files: list[Path]) -> None:
    """Has Pillow read HEIC where there are such files. UserError where pillow-heif is not installed."""
    found = [file for file in files if file.suffix.lower() in HEIC]
    if not found:
        return
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise UserError(
            f"{root} holds {len(found)} HEIC images, such as {found[0].relative_to(root)}",
            fix="pip install pillow-heif, or move them elsewhere",
        ) from None
