"""ImageSet, the interface of every data set: images by a stable index, with labels, factors and groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int, UInt8
from tqdm.auto import tqdm

from mi_contrast.data.sharing import share_work

CHUNK = 256  # images that a thread decodes at a time
THREADS = min(16, os.cpu_count() or 1)

Ints = Int[np.ndarray, " N"]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set. An example's index is its position in the split, 0 .. N - 1, and never changes.

    A sub-split such as 'train[:90%]' counts from 0 again, in the order of the whole split.

    Attributes:
      name, split: as in the config.
      count: number of examples, N.
      image_shape: (H, W, 3).
      read: a function from indices, int [n], to images, uint8 [n, H, W, 3]. Call `images` instead, which checks them.
      labels: arrays int32 [N] by name, the main label first. They may be read from disk at the first access.
      classes: the class names of each label.
      groups: int32 [N]. A held-out part consists of whole groups. None if every example is a group of its own.
      factors: arrays int32 [N] by name: what the two images of a pair can share. Frames of equal `clip` are from one
        recording.
      partners: arrays int32 [N] by word of `data.partner`: the index of each example's partner, or its own index if it
        has none.
      fingerprint: plain data that changes when the set on disk changes (see `data.fingerprint`).
      square: the side of the squares to which images are cropped, or None if they are whole.
      open: returns the image at an index, whole and not decoded yet. None for sets whose images are made or are tiles.
      stand_in: calls a function of an index with this index and, while the image is broken, with those of the images
        that may stand in for it (see `broken.substitute_broken`). By default none may.
      names: the file of each example, as it lies below the set's folder; None where examples are no files of their own.
    """

    name: str
    split: str
    count: int
    image_shape: tuple[int, int, int]
    read: Callable[[Ints], UInt8[np.ndarray, "n H W 3"]] = field(repr=False)
    labels: Mapping[str, Ints] = field(default_factory=dict, repr=False)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    groups: Ints | None = field(default=None, repr=False)
    factors: Mapping[str, Ints] = field(default_factory=dict, repr=False)
    partners: Mapping[str, Ints] = field(default_factory=dict, repr=False)
    fingerprint: Mapping[str, Any] = field(default_factory=dict, repr=False)
    square: int | None = None
    open: Callable[[int], Any] | None = field(default=None, repr=False)
    stand_in: Callable[[int, Callable[[int], Any]], Any] = field(default=lambda index, read: read(index), repr=False)
    names: tuple[str, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.count

    def images(self, indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        """Returns the decoded images at `indices`, in that order.

        More than 256 images are decoded in threads, with a progress bar if this takes more than 5 s.

        Raises:
          IndexError: an index is outside 0 .. N - 1.
          UserError: an image can't be decoded or is not of `image_shape`. The message names the example.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= self.count):
            raise IndexError(f"indices outside 0 .. {self.count - 1} of {self.name} {self.split}")
        if len(indices) <= CHUNK:
            return self.read(indices)
        decoded = np.empty((len(indices), *self.image_shape), np.uint8)
        order = np.argsort(indices, kind="stable")  # reads neighbours on disk together
        parts = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        for part, read in zip(
            parts, map_in_threads(lambda part: self.read(indices[part]), parts, "decoding"), strict=True
        ):
            decoded[part] = read
        return decoded


def map_in_threads(work: Callable[[_In], _Out], items: Sequence[_In], what: str) -> Iterator[_Out]:
    """Yields work(item) of every item in order, computed in threads. Shows a progress bar after 5 s."""
    with ThreadPoolExecutor(THREADS) as threads:
        yield from tqdm(threads.map(work, items), desc=what, total=len(items), delay=5.0, mininterval=5.0, leave=False)


def cache_in_memory(images: ImageSet) -> ImageSet:
    """Returns the same set with all images decoded and kept in memory, for a set that is read many times.

    Several processes decode a part each, and exchange them.
    """
    (decoded,) = share_work(lambda part: [images.images(part)], np.arange(len(images)))
    return replace(images, read=decoded.__getitem__)


def remember_in_memory(images: ImageSet) -> ImageSet:
    """Returns the same set with every image kept in memory once it was read, for a set of which only a part is read."""
    kept = np.empty((len(images), *images.image_shape), np.uint8)  # memory is taken when a row is written
    is_kept = np.zeros(len(images), bool)

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        missing = np.unique(indices[~is_kept[indices]])
        if len(missing):
            kept[missing] = images.read(missing)
            is_kept[missing] = True
        return kept[indices]

    return replace(images, read=read)


class Lazy(Mapping[str, Ints]):
    """A mapping of arrays. Its names are known at once; all arrays are read at the first access to one of them."""

    def __init__(self, names: tuple[str, ...], read: Callable[[], Mapping[str, Ints]]):
        self._names, self._read = names, read

    @cached_property
    def _arrays(self) -> Mapping[str, Ints]:
        return self._read()

    def __getitem__(self, name: str) -> Ints:
        if name not in self._names:
            raise KeyError(name)
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
