"""Features of an image set, frozen: what every task on features reads, taken once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.core.progress import Progress
from mi_contrast.data.order import permutation
from mi_contrast.data.sets import ImageSet
from mi_contrast.models.representation import LAYERS


class Encoder(Protocol):
    """Images in, one feature vector an image out, in eval mode: a `Representation`."""

    def encode(self, images: np.ndarray | Array, *, layer: str = "pooled") -> Float[Array, "B F"]:
        """Features, float32 [B, F], of images [B, H, W, 3], uint8 or floating in [0, 1]."""
        ...


@dataclass(frozen=True)
class Features:
    """One split as a task reads it.

    values: float32 [N, F]; labels: int32 [N] in [0, len(classes)); classes: the class names; groups: int32 [N] of
    examples that go together, or None where each is its own.
    """

    values: Float[np.ndarray, "N F"]
    labels: Int[np.ndarray, " N"]
    classes: tuple[str, ...]
    groups: Int[np.ndarray, " N"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, chosen: Bool[np.ndarray, " N"]) -> Features:
        """Those examples alone."""
        groups = None if self.groups is None else self.groups[chosen]
        return Features(self.values[chosen], self.labels[chosen], self.classes, groups)


@dataclass(frozen=True)
class Taking:
    """How features are taken: the config's section `features`.

    layer: 'pooled' or 'map' (see `Representation.encode`). views: None, images as they are; or the views of the fitting
    split that a linear classifier is fitted on, `copies` of each image (see `views.pictured`); a test image is never
    augmented. keep: whether they are kept on disk for the next task.
    """

    layer: str = "pooled"
    views: str | None = None
    copies: int = 1
    keep: bool = True

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Taking:
        """The section as written in a config. UserError on a field or a value that can't be."""
        check_section("config.features", given, (), [field.name for field in dataclasses.fields(cls)])
        found = cls(**given)
        if found.layer not in LAYERS:
            raise unknown("config.features.layer", found.layer, LAYERS)
        if found.copies < 1 or (found.views is None and found.copies > 1):
            raise UserError(f"config.features.copies is {found.copies}", fix="give 1, or more where views are named")
        return found


def watched(what: str, unit: str) -> Callable[[range], Iterable[int]]:
    """Wraps a loop so that it shows how far it is and how long it will take."""

    def over(items: range) -> Iterator[int]:
        progress = Progress(what, len(items), unit=unit)
        try:
            for item in items:
                yield item
                progress.advance()
        finally:
            progress.close()

    return over


def in_blocks(
    what: str, count: int, batch_size: int, each: int = 1
) -> Iterator[tuple[Int[np.ndarray, " batch_size"], int]]:
    """(rows, how many of them are real) of `count` images in blocks of one size, the last filled up with the last row;
    shows how far it is, `each` images encoded for a row.
    """
    batch_size = min(batch_size, count)
    progress = Progress(what, -(-count // batch_size), unit="block", each=batch_size * each)
    try:
        for start in range(0, count, batch_size):
            yield np.minimum(np.arange(start, start + batch_size), count - 1), min(batch_size, count - start)
            progress.advance()
    finally:
        progress.close()


def encode_all(
    encoder: Encoder, images: ImageSet, *, batch_size: int, layer: str = "pooled"
) -> Float[np.ndarray, "N F"]:
    """Features of every image of the set, in its order, float32 [N, F].

    One shape is compiled: the last batch is filled up with its own last image and the surplus rows are dropped, which
    is exact, for in eval mode no image sees another. Reading a batch overlaps with encoding the one before.
    Raises UserError on an empty set, BadNumbersError where a feature is not finite.
    """
    count = len(images)
    if count == 0:
        raise UserError(f"{images.name} {images.split} is empty")
    done: list[np.ndarray] = []
    pending: Array | None = None
    for rows, _ in in_blocks(f"features of {images.name} {images.split}", count, batch_size):
        read = images.images(rows)
        if pending is not None:
            done.append(np.asarray(pending))
        pending = encoder.encode(read, layer=layer)
    done.append(np.asarray(pending))
    values = np.concatenate(done)[:count]
    good = np.isfinite(values).all(axis=1)
    if not good.all():
        first = np.flatnonzero(~good)[0]
        raise BadNumbersError(f"features of {count - good.sum()} of {count} images are not finite, first at {first}")
    return values


def main_label(images: ImageSet) -> str:
    """The name of the set's first label. UserError where it has none."""
    if not images.labels:
        raise UserError(f"{images.name} {images.split} has no labels", fix="judge the backbone on a labelled set")
    return next(iter(images.labels))


def labels_of(images: ImageSet, label: str) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    """(int32 [N], the classes' names) of the label of that name.

    Raises UserError where there is no such label or an example's class is not known.
    """
    if label not in images.labels:
        raise unknown(f"label of {images.name}", label, images.labels)
    labels, classes = np.asarray(images.labels[label], np.int32), tuple(images.classes[label])
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise UserError(
            f"label {label!r} of {images.name} {images.split} runs from {labels.min()} to {labels.max()}, "
            f"and it has {len(classes)} classes",
            fix="judge the backbone on a split whose examples are all labelled",
        )
    return labels, classes


def validation_part(features: Features, share: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Which examples of a fitting split are kept apart to choose a setting on: bool [N].

    Every 1/share-th group (an example is one where there are none) in an order that is random but for the classes,
    which come one after the other: so each class gives its share, to within one group.
    Raises UserError on a share outside (0, 1), or where either side would be empty.
    """
    if not 0 < share < 1:
        raise UserError(f"validation is {share}", fix="give a share of the fitting split above 0 and below 1")
    groups = np.arange(len(features)) if features.groups is None else features.groups
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = permutation(len(first), seed)
    order = order[np.argsort(features.labels[first][order], kind="stable")]
    place = np.arange(len(order))
    taken = np.zeros(len(order), bool)
    taken[order] = np.floor((place + 1) * share + 1e-9) > np.floor(place * share + 1e-9)
    if taken.all() or not taken.any():
        raise UserError(f"{len(order)} examples leave none to validate on, or none to fit", fix="give a larger split")
    return taken[group]
