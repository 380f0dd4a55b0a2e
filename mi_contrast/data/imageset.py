"""What every data set looks like to the rest of the package: images by stable index, labels, factors, groups."""

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

CHUNK = 256  # images that a thread decodes at a time
THREADS = min(16, os.cpu_count() or 1)

Ints = Int[np.ndarray, " N"]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set. An example's index is its position in this split: 0 .. len - 1, always the same.

    A sub-split such as 'train[:90%]' is a split of its own and counts from 0, in the order of the whole.

    name, split: as asked for.
    count: the number of examples, N.
    image_shape: (H, W, 3).
    read: int [n] to uint8 [n, H, W, 3]; `images` is its public form.
    labels: name to int32 [N]; the first is the main label. Read from disk when first asked for.
    classes: the names of each label's classes.
    groups: int32 [N], or None where every example is its own; a hold-out takes whole groups.
    factors: name to int32 [N], what pairs can share. Frames with the same `clip` are from one take.
    partners: word to int32 [N], the index of each example's partner under that word of `data.partner`; its own where it
      has none.
    fingerprint: plain data that tells the set on disk from another, `data.fingerprint`.
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

    def __len__(self) -> int:
        return self.count

    def images(self, indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        """The images at `indices`, decoded, in that order.

        Many are decoded in threads, with progress where it takes over 5 s.

        Raises:
          IndexError: an index outside 0 .. len - 1.
          UserError: an image that can't be decoded, or is not of `image_shape`; the line names the example.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= self.count):
            raise IndexError(f"indices outside 0 .. {self.count - 1} of {self.name} {self.split}")
        if len(indices) <= CHUNK:
            return self.read(indices)
        decoded = np.empty((len(indices), *self.image_shape), np.uint8)
        order = np.argsort(indices, kind="stable")  # neighbours on disk together
        parts = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        for part, read in zip(
            parts, map_in_threads(lambda part: self.read(indices[part]), parts, "decoding"), strict=True
        ):
            decoded[part] = read
        return decoded


def map_in_threads(work: Callable[[_In], _Out], items: Sequence[_In], what: str) -> Iterator[_Out]:
    """work(item) of every item in order, in threads; a progress bar where it takes over 5 s."""
    with ThreadPoolExecutor(THREADS) as threads:
        yield from tqdm(threads.map(work, items), desc=what, total=len(items), delay=5.0, mininterval=5.0, leave=False)


def cache_in_memory(images: ImageSet) -> ImageSet:
    """The same set, decoded once and kept in memory: for a set that is read again and again."""
    decoded = images.images(np.arange(len(images)))
    return replace(images, read=decoded.__getitem__)


class Lazy(Mapping[str, Ints]):
    """A mapping whose names are known and whose arrays are read, all at once, when the first is asked for."""

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
