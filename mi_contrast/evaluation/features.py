"""Frozen features of an image set: what every task reads, taken once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.core.progress import Progress
from mi_contrast.data.sets import ImageSet


class Encoder(Protocol):
    """Images in, one feature vector an image out, in eval mode: a `Representation`."""

    def encode(self, images: np.ndarray) -> Float[Array, "B F"]:
        """Features, float32 [B, F], of uint8 images [B, H, W, 3]."""
        ...


@dataclass(frozen=True)
class Features:
    """One split as a task reads it.

    values: float32 [N, F]; labels: int32 [N] in [0, len(classes)); classes: the class names.
    """

    values: Float[np.ndarray, "N F"]
    labels: Int[np.ndarray, " N"]
    classes: tuple[str, ...]


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


def encode_all(encoder: Encoder, images: ImageSet, *, batch_size: int) -> Float[np.ndarray, "N F"]:
    """Features of every image of the set, in its order, float32 [N, F].

    One shape is compiled: the last batch is filled up with its own last image and the surplus rows are dropped, which
    is exact, for in eval mode no image sees another. Reading a batch overlaps with encoding the one before.
    Raises UserError on an empty set, BadNumbersError where a feature is not finite.
    """
    count = len(images)
    if count == 0:
        raise UserError(f"{images.name} {images.split} is empty")
    batch_size = min(batch_size, count)
    done: list[np.ndarray] = []
    pending: Array | None = None
    progress = Progress(f"features of {images.name} {images.split}", count, unit="image")
    try:
        for start in range(0, count, batch_size):
            indices = np.minimum(np.arange(start, start + batch_size), count - 1)
            read = images.images(indices)
            if pending is not None:
                done.append(np.asarray(pending))
            pending = encoder.encode(read)
            progress.advance(min(batch_size, count - start))
    finally:
        progress.close()
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


def features_of(encoder: Encoder, images: ImageSet, label: str, *, batch_size: int) -> Features:
    """Features of the whole set, with the label of that name.

    Raises UserError, before encoding anything, where there is no such label or an example's class is not known.
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
    return Features(encode_all(encoder, images, batch_size=batch_size), labels, classes)
