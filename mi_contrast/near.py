"""Images that are near each other to a backbone: those of a training set whose features are most similar."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.core.rngs import STREAMS
from mi_contrast.data import sets
from mi_contrast.data.decoding import decode_file
from mi_contrast.data.order import permutation
from mi_contrast.data.pairing import split_by_config
from mi_contrast.models.representation import Representation
from mi_contrast.readout.knn import unit
from mi_contrast.reporting.held_out import as_data_url

MOST = 2000  # training images among which neighbours are looked for
SIDE = 96  # pixels of a picture in a notebook


@dataclass(frozen=True, eq=False)
class NearImages:
    """The nearest training images of an image, the most similar first.

    Attributes:
      query: uint8 [H, W, 3], the image.
      images: uint8 [k, H, W, 3].
      index: int [k], their indices in the training split.
      similarity: float32 [k], cosines of the features.
      labels: the names of their classes; () where the data have none.
      names: their files, as they lie below the data's folder; () where the data are no files.
      query_name: the file of the query, or 'query' where that is not known.
    """

    query: np.ndarray
    images: UInt8[np.ndarray, "k H W 3"]
    index: Int[np.ndarray, " k"]
    similarity: Float[np.ndarray, " k"]
    labels: tuple[str, ...]
    names: tuple[str, ...] = ()
    query_name: str = "query"

    def __repr__(self) -> str:
        rows = zip(self._titles, self.labels or ("",) * len(self.index), self.similarity, strict=True)
        near = "; ".join(f"{title} {label}".strip() + f" {cosine:.3f}" for title, label, cosine in rows)
        return f"NearImages({self.query_name}: {near})"

    def _repr_html_(self) -> str:
        names = self.names or self.labels or self._titles
        rows = zip(names, self.similarity, self.images, strict=True)
        cells = [(self.query_name, self.query), *((f"{name}, {cosine:.2f}", image) for name, cosine, image in rows)]
        style = "display:inline-block;margin:4px;text-align:center;font-size:12px"
        return "".join(
            f'<figure style="{style}"><img width="{SIDE}" alt="" src="{_as_png(image)}">'
            f"<figcaption>{html.escape(name)}</figcaption></figure>"
            for name, image in cells
        )

    @property
    def _titles(self) -> tuple[str, ...]:
        return self.names or tuple(f"example {index}" for index in self.index)


@dataclass(frozen=True, eq=False)
class Bank:
    """Training images with their features of unit norm, among which neighbours are looked for."""

    images: sets.ImageSet
    index: Int[np.ndarray, " N"]
    features: Float[np.ndarray, "N F"]
    label: str | None
    representation: Representation

    @classmethod
    def read(cls, config: Mapping[str, Any], representation: Representation) -> Bank:
        """Returns up to `MOST` training images of a run's config. Raises UserError if they are not there."""
        data = config["data"]
        images = sets.load_section(data, size=representation.spec["size"])
        train_ids, _ = split_by_config(images, config)
        index = train_ids[permutation(len(train_ids), STREAMS["held_out"], 1)[:MOST]]
        features = np.asarray(unit(representation.encode(images.images(index))))
        label = data["label"] or next(iter(images.labels), None)
        return cls(images, index, features, label, representation)

    def find(self, image: Any, k: int) -> NearImages:
        """Returns the k nearest images of an image; see `Run.neighbours`."""
        if not 1 <= k <= len(self.index):
            raise UserError(f"k is {k}, and there are {len(self.index)} images", fix=f"give 1 to {len(self.index)}")
        if isinstance(image, (int, np.integer)):
            if not 0 <= image < len(self.images):
                raise UserError(f"there is no training image {image}", fix=f"give 0 to {len(self.images) - 1}")
            query, own = self.images.images(np.array([image])), int(image)
            query_name = self.images.names[own] if self.images.names else f"example {own}"
        else:
            query, own = read_images(image, self.representation.spec["size"]), -1
            query_name = str(image) if isinstance(image, (str, Path)) else "query"
            if len(query) != 1:
                raise UserError(f"{len(query)} images", fix="give one image")
        cosines = self.features @ np.asarray(unit(self.representation.encode(query)))[0]
        cosines = np.where(self.index == own, -np.inf, cosines)  # an image is not its own neighbour
        near = np.argsort(-cosines, kind="stable")[:k]
        labels: tuple[str, ...] = ()
        if self.label is not None:
            numbers = self.images.labels[self.label][self.index[near]]
            labels = tuple(self.images.classes[self.label][i] if i >= 0 else "unknown" for i in numbers)
        index = self.index[near]
        names = tuple(self.images.names[i] for i in index) if self.images.names else ()
        return NearImages(
            query[0], self.images.images(index), index, cosines[near].astype(np.float32), labels, names, query_name
        )


def read_images(images: Any, size: int) -> np.ndarray:
    """Returns images [B, H, W, 3] as they are given, or as they are read from files at `size` pixels square.

    Args:
      images: an array [B, H, W, 3] or [H, W, 3], a file, or a list of files.
    Raises:
      UserError: a file is missing or broken.
    """
    if not isinstance(images, (str, Path)) and not (isinstance(images, Sequence) and _are_paths(images)):
        array = np.asarray(images)
        return array[None] if array.ndim == 3 else array
    files = [Path(images)] if isinstance(images, (str, Path)) else [Path(file) for file in images]
    return np.stack([decode_file(file, size) for file in files])


def _are_paths(items: Sequence[Any]) -> bool:
    return len(items) > 0 and all(isinstance(item, (str, Path)) for item in items)


def _as_png(image: np.ndarray) -> str:
    import io

    pixels = image if image.dtype == np.uint8 else np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return as_data_url(file.getvalue(), "png")
