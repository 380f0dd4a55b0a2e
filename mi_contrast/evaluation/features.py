"""Extracts the features of an image set with a frozen backbone; every task on features starts from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.core.mesh import gather_rows, share_rows
from mi_contrast.core.progress import ProgressBar
from mi_contrast.data.order import permutation
from mi_contrast.data.own import KINDS
from mi_contrast.data.sets import ImageSet
from mi_contrast.models.representation import LAYERS


class FeatureEncoder(Protocol):
    """Maps images to one feature vector each, in evaluation mode. `Representation` is one."""

    def encode(self, images: np.ndarray | Array, *, layer: str = "pooled") -> Float[Array, "B F"]:
        """Returns the features, float32 [B, F], of images [B, H, W, 3], uint8 or floating in [0, 1]."""
        ...


@dataclass(frozen=True)
class Features:
    """The features and labels of one split.

    values: float32 [N, F].
    labels: int32 [N] in [0, len(classes)).
    classes: names of the classes.
    groups: int32 [N], examples of one group (such as frames of one object) share a number; None if all are independent.
    """

    values: Float[np.ndarray, "N F"]
    labels: Int[np.ndarray, " N"]
    classes: tuple[str, ...]
    groups: Int[np.ndarray, " N"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, mask: Bool[np.ndarray, " N"]) -> Features:
        """Returns the examples where `mask` is true."""
        groups = None if self.groups is None else self.groups[mask]
        return Features(self.values[mask], self.labels[mask], self.classes, groups)


@dataclass(frozen=True)
class FeatureSettings:
    """The section `features` of a config: how features are extracted.

    layer: 'pooled' or 'map' (see `Representation.encode`).
    views: None encodes the images as they are. The name of a policy encodes `copies` augmented views of each fitting
      image instead, for the linear classifier to be fitted on. Test images are never augmented.
    copies: number of augmented views of each fitting image.
    keep: whether to cache the features on disk for the next task.
    """

    layer: str = "pooled"
    views: str | None = None
    copies: int = 1
    keep: bool = True

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> FeatureSettings:
        """Reads the section of a config. Raises UserError on an unknown field or an invalid value."""
        check_section("config.features", section, (), [field.name for field in dataclasses.fields(cls)])
        settings = cls(**section)
        if settings.layer not in LAYERS:
            raise unknown("config.features.layer", settings.layer, LAYERS)
        if settings.copies < 1 or (settings.views is None and settings.copies > 1):
            raise UserError(
                f"config.features.copies is {settings.copies}", fix="give 1, or more together with features.views"
            )
        return settings


def show_progress(title: str, unit: str) -> Callable[[range], Iterable[int]]:
    """Returns a function that iterates over a range and shows progress and remaining time under `title`."""

    def iterate(items: range) -> Iterator[int]:
        progress = ProgressBar(title, len(items), unit=unit, compiles=True)
        try:
            for item in items:
                yield item
                progress.advance()
        finally:
            progress.close()

    return iterate


def iterate_blocks(
    title: str, count: int, batch_size: int, encodings_per_image: int = 1
) -> Iterator[tuple[Int[np.ndarray, " batch_size"], int]]:
    """Yields (row indices, number of valid rows) of consecutive blocks of one size, and shows progress.

    The last block is padded by repeating the last row, so that one compiled shape serves all blocks.

    Args:
      title: shown with the progress.
      count: number of images.
      batch_size: number of rows of a block.
      encodings_per_image: how often the caller encodes each image, for the rate that is shown.
    """
    batch_size = min(batch_size, count)
    each = batch_size * encodings_per_image
    progress = ProgressBar(title, -(-count // batch_size), unit="block", each=each, compiles=True)
    try:
        for start in range(0, count, batch_size):
            yield np.minimum(np.arange(start, start + batch_size), count - 1), min(batch_size, count - start)
            progress.advance()
    finally:
        progress.close()


def encode_all(
    encoder: FeatureEncoder, images: ImageSet, *, batch_size: int, layer: str = "pooled"
) -> Float[np.ndarray, "N F"]:
    """Returns the features of every image of the set, in the set's order, float32 [N, F].

    The rows that pad the last batch are dropped. This is exact, because in evaluation mode no image affects another.
    The next batch is read while the device encodes the current one. Several processes encode a share each.

    Raises UserError on an empty set, BadNumbersError where a feature is not finite.
    """
    count = len(images)
    if count == 0:
        raise UserError(f"{images.name} {images.split} is empty")
    blocks: list[np.ndarray] = []
    pending: Array | None = None
    own = share_rows(count)
    for rows, _ in iterate_blocks(f"features of {images.name} {images.split}", len(own), batch_size):
        batch = images.images(own[rows])
        if pending is not None:
            blocks.append(np.asarray(pending))
        pending = encoder.encode(batch, layer=layer)
    blocks.append(np.asarray(pending))
    values = gather_rows(np.concatenate(blocks)[: len(own)], count)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        first = np.flatnonzero(~finite)[0]
        raise BadNumbersError(f"features of {count - finite.sum()} of {count} images are not finite, first at {first}")
    return values


def find_main_label(images: ImageSet) -> str:
    """Returns the name of the set's first label. Raises UserError if the set has no labels."""
    if not images.labels:
        fix = "judge the backbone on a labelled set, or by diagnostics, which needs none"
        if images.name.partition(":")[0] in KINDS:
            fix = (
                "give --labels=labels.csv, a table with the columns file,label; or --labels=folders, where each class "
                "has a folder; or take diagnostics, which needs none"
            )
        raise UserError(f"{images.name} {images.split} has no labels", fix=fix)
    return next(iter(images.labels))


def read_label(images: ImageSet, name: str) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    """Returns the classes of all examples by the label `name`, int32 [N], and the names of the classes.

    Raises UserError if the set has no such label, or if an example's class is unknown.
    """
    if name not in images.labels:
        raise unknown(f"label of {images.name}", name, images.labels)
    labels, classes = np.asarray(images.labels[name], np.int32), tuple(images.classes[name])
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise UserError(
            f"label {name!r} of {images.name} {images.split} runs from {labels.min()} to {labels.max()}, "
            f"and it has {len(classes)} classes",
            fix="judge the backbone on a split whose examples are all labelled",
        )
    return labels, classes


def select_validation(features: Features, share: float, seed: int) -> Bool[np.ndarray, " N"]:
    """Returns a mask of the examples held out of a fitting split to choose a setting on, bool [N].

    The split is stratified by class and never divides a group: the groups of each class are shuffled, and one in every
    1/share of them is held out. Each class thus contributes its share to within one group. An example without a group
    is a group of its own.

    Raises UserError on a share outside (0, 1), or if either side would be empty.
    """
    if not 0 < share < 1:
        raise UserError(f"validation is {share}", fix="give a share of the fitting split above 0 and below 1")
    groups = np.arange(len(features)) if features.groups is None else features.groups
    _, first, group_of_example = np.unique(groups, return_index=True, return_inverse=True)
    order = permutation(len(first), seed)
    order = order[np.argsort(features.labels[first][order], kind="stable")]
    position = np.arange(len(order))
    held_out = np.zeros(len(order), bool)
    # A group is held out where the cumulative share passes a whole number; 1e-9 absorbs rounding.
    held_out[order] = np.floor((position + 1) * share + 1e-9) > np.floor(position * share + 1e-9)
    if held_out.all() or not held_out.any():
        raise UserError(
            f"{len(order)} examples are too few to hold some out for validation and to fit on the others",
            fix="give a larger split",
        )
    return held_out[group_of_example]
