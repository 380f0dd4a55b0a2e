"""Data sets from folders of images: one folder a class, as in torchvision's ImageFolder, or images without labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.data import fingerprint, tiles
from mi_contrast.data.broken import drop_broken, find_broken
from mi_contrast.data.crops import WholeImage
from mi_contrast.data.decoding import BrokenImageError, decode_file, enable_heic, read_bytes, stack_images
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.kept import keep_reasons
from mi_contrast.data.listing import LAYOUT, NO_CLASS, list_images, list_images_as_0_1_0


def load(
    root: Path,
    split: str,
    *,
    size: int | None = None,
    options: Mapping[str, Any] | None = None,
    broken: float = 0.0,
    known_broken: Collection[str] | None = None,
) -> ImageSet:
    """Loads a folder of images as an ImageSet with the label 'label'. Classes are the folders' names over all splits.

    Images in root/<class>/ are the split 'train'. Images in root/<split>/<class>/ or deeper are of that split. Images
    in root itself are the split 'train' and have no label. `listing` has the exact rules.

    Within a split, files are in the order of the sha256 of their paths. This mixes the classes and depends on the names
    alone. Every file is decoded once here. Broken files get no index, but count in ranges such as 'train[:90%]'.

    Args:
      root: the folder.
      split: as TFDS writes it: 'train', 'train[:90%]', 'train+val'.
      size: if given, images are resized and cropped to squares of this side (`decoding.crop_square`).
      options: tile, stride and groups give square tiles instead of whole images (see `tiles`). The short side of an
        image is then resized to `size`, and nothing is cropped. Ranges of a split count images, not tiles.
      broken: the share of the files that may be broken.
      known_broken: names of the files that an earlier scan found broken. If given, nothing is scanned.

    Raises:
      UserError: the folder is missing, has no images, has images at two depths, or lacks the split; the split is empty;
        more files are broken than allowed (the message names them); or an option is unknown or out of range.
    """
    tiling = tiles.read_options(options)
    if not root.is_dir():
        raise FileError(f"{root} is not a folder", fix=f"give data.name='folder:PATH' with {LAYOUT}")
    splits = list_images(root)
    name = f"folder:{root}"
    files = select_files(splits, name, split)
    enable_heic(root, [str(file.relative_to(root)) for _, file in files])
    names = tuple(sorted({label for listing in splits.values() for label, _ in listing}))
    stats = {file.relative_to(root).as_posix(): file.stat() for _, file in files}
    sizes = {path: stat.st_size for path, stat in stats.items()}
    if known_broken is None:
        written = {f"{path} {stat.st_mtime_ns}": stat.st_size for path, stat in stats.items()}
        checksum = fingerprint.fingerprint_files(written, (), split)["sum"]
        scan = partial(find_broken, root, list(sizes))
        reasons = keep_reasons(str(root.resolve()), {"sum": checksum}, scan, len(sizes))
    else:
        reasons = dict.fromkeys(known_broken, "")
    readable = set(drop_broken(list(sizes), reasons, broken, name))
    facts = fingerprint.fingerprint_files(sizes, names, str(root)) | {"broken": sorted(set(sizes) - readable)}
    files = [file for file, path in zip(files, sizes, strict=True) if path in readable]
    has_labels = names != (NO_CLASS,)
    numbers = np.array([names.index(label) for label, _ in files], np.int32)
    labels, classes = ({"label": numbers}, {"label": names}) if has_labels else ({}, {})
    if tiling is not None:
        return tiles.cut_tiles(tiling, [file for _, file in files], size, name, split, labels, classes, facts)

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        examples = [str(files[i][1]) for i in indices]
        return stack_images([decode_file(Path(example), size) for example in examples], examples, shape)

    shape = (size, size, 3) if size is not None else read_shape([file for _, file in files], broken)

    def open_whole(index: int) -> WholeImage:
        file = files[index][1]
        return WholeImage(read_bytes(file), str(file))

    made = ImageSet(name, split, len(files), shape, read, labels, classes, fingerprint=facts)
    return replace(made, square=size, open=open_whole)


def read_shape(files: list[Path], broken: float) -> tuple[int, int, int]:
    """Returns the (H, W, 3) of the first file that can be read. With `broken` = 0, the first file must be readable."""
    for file in files[: int(broken * len(files))]:
        try:
            return decode_file(file).shape
        except BrokenImageError:
            continue
    return decode_file(files[int(broken * len(files))]).shape


def select_files(splits: Mapping[str, list[tuple[str, Path]]], name: str, split: str) -> list[tuple[str, Path]]:
    """Returns the (class, file) of every image in a split or in ranges of splits. Raises UserError if it is empty."""
    from mi_contrast.data.records import resolve_ranges  # imports TFDS

    parts = resolve_ranges({key: len(files) for key, files in splits.items()}, name, split)
    return [file for base, part in parts for file in splits[base][part]]


def has_same_listing(root: Path, split: str) -> bool:
    """Whether version 0.1.0 would list the same files of a split in the same order."""
    try:
        before = select_files(list_images_as_0_1_0(root), f"folder:{root}", split)
    except UserError:
        return False
    return before == select_files(list_images(root), f"folder:{root}", split)
