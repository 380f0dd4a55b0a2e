"""A collection of encoded pictures from a folder, a zip, a list or a table, and the ImageSet of one of its splits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.errors import UserError
from mi_contrast.data import fingerprint, tiles
from mi_contrast.data.broken import drop_broken
from mi_contrast.data.crops import WholeImage
from mi_contrast.data.decoding import BrokenImageError, decode, stack_images
from mi_contrast.data.imageset import ImageSet, Ints


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures, which are known by their names.

    Attributes:
      name: as in the config, such as 'folder:photos'.
      root: the folder or file that holds them, for messages.
      splits: the names of each split, in the order of their indices.
      read: returns the bytes of a picture. Raises BrokenImageError.
      stamps: bytes and time of change of each picture, which show that it was replaced.
      labels: the class of each picture; None if there are no labels.
      paths: the file of each picture; None if they are not files of their own.
      facts: further plain data that change when the pictures or their labels do.
      others: number of files that are no pictures, by suffix.
      are_files: whether the names are those of files.
    """

    name: str
    root: str
    splits: Mapping[str, tuple[str, ...]]
    read: Callable[[str], bytes] = field(repr=False)
    stamps: Mapping[str, tuple[int, int]] = field(repr=False)
    labels: Mapping[str, str] | None = field(default=None, repr=False)
    paths: Mapping[str, Path] | None = field(default=None, repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    are_files: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all splits."""
        return tuple(name for names in self.splits.values() for name in names)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names over all splits, sorted; () without labels."""
        return () if self.labels is None else tuple(sorted({self.labels[name] for name in self.names}))


class FileStamps(dict[str, tuple[int, int]]):
    """Bytes and time of change of files below a folder. Each file is asked when its stamp is first taken."""

    def __init__(self, root: Path):
        super().__init__()
        self._root = root

    def __missing__(self, name: str) -> tuple[int, int]:
        stat = (self._root / name).stat()
        return self.setdefault(name, (stat.st_size, stat.st_mtime_ns))


def make_image_set(
    pictures: Pictures,
    split: str,
    *,
    size: int | None,
    options: Mapping[str, Any] | None,
    broken: float,
    reasons: Mapping[str, str],
    groups: Mapping[str, str] | None,
) -> ImageSet:
    """Returns one split of the pictures as an ImageSet with the label 'label', if they have labels.

    Its examples have the names of the files, unless they are tiles or the rows of an array.

    Args:
      split: as TFDS writes it: 'train', 'train[:90%]', 'train+val'. Ranges count broken pictures, too.
      size: if given, pictures are resized and cropped to squares of this side.
      options: tile, stride and groups give square tiles instead of whole pictures (see `tiles`). The short side of a
        picture is then resized to `size`, and nothing is cropped.
      broken: the share of the pictures that may be broken.
      reasons: why each broken picture can't be read, by name.
      groups: the group of each picture; None if every picture is a group of its own.
    Raises:
      UserError: the split is unknown or empty, or more pictures are broken than allowed.
    """
    tiling = tiles.read_options(options)
    chosen = select_names(pictures, split)
    readable = drop_broken(chosen, reasons, broken, pictures.name, say_once)
    sizes = {name: pictures.stamps[name][0] for name in chosen}
    facts = fingerprint.fingerprint_files(sizes, pictures.classes, pictures.root)
    facts |= {"broken": sorted(set(chosen) - set(readable)), **pictures.facts}
    labels, classes = {}, {}
    if pictures.labels is not None:
        numbers = {name: number for number, name in enumerate(pictures.classes)}
        labels = {"label": np.array([numbers[pictures.labels[name]] for name in readable], np.int32)}
        classes = {"label": pictures.classes}
    group = number_groups(readable, groups)
    if tiling is not None:
        if pictures.paths is None:
            raise UserError(f"{pictures.name} can't be cut in tiles", fix="unpack it and give data.name='folder:PATH'")
        files = [pictures.paths[name] for name in readable]
        made = tiles.cut_tiles(tiling, files, size, pictures.name, split, labels, classes, facts)
        if group is None or made.groups is None:
            return made
        return replace(made, groups=group[made.groups])

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        examples = [f"{pictures.root}/{readable[i]}" for i in indices]
        images = [decode(pictures.read(readable[i]), name, size) for i, name in zip(indices, examples, strict=True)]
        return stack_images(images, examples, shape)

    shape = (size, size, 3) if size is not None else read_shape(pictures, readable, broken)

    def open_whole(index: int) -> WholeImage:
        return WholeImage(pictures.read(readable[index]), f"{pictures.root}/{readable[index]}")

    made = ImageSet(pictures.name, split, len(readable), shape, read, labels, classes, group, fingerprint=facts)
    return replace(made, square=size, open=open_whole, names=tuple(readable) if pictures.are_files else None)


@cache
def say_once(line: str) -> None:
    """Prints a line on stderr, the first time that this process says it."""
    print(line, file=sys.stderr)


def select_names(pictures: Pictures, split: str) -> list[str]:
    """Returns the names in a split or in ranges of splits. Raises UserError if it is unknown or empty."""
    from mi_contrast.data.records import resolve_ranges  # imports TFDS

    parts = resolve_ranges({key: len(names) for key, names in pictures.splits.items()}, pictures.name, split)
    return [name for base, part in parts for name in pictures.splits[base][part]]


def number_groups(names: Sequence[str], groups: Mapping[str, str] | None) -> Ints | None:
    """Returns the number of each picture's group, int32 [N], or None if every picture is a group of its own."""
    if groups is None:
        return None
    _, numbers = np.unique(np.array([groups[name] for name in names], np.str_), return_inverse=True)
    return None if len(set(numbers.tolist())) == len(names) else numbers.reshape(-1).astype(np.int32)


def read_shape(pictures: Pictures, names: Collection[str], broken: float) -> tuple[int, int, int]:
    """Returns the (H, W, 3) of the first picture that can be read. With `broken` = 0 the first must be readable."""
    names = list(names)
    for name in names[: int(broken * len(names))]:
        try:
            return decode(pictures.read(name), name).shape
        except BrokenImageError:
            continue
    name = names[int(broken * len(names))]
    return decode(pictures.read(name), f"{pictures.root}/{name}").shape
