"""COCO's format: a folder or a zip with images and JSON files of boxes, masks and keypoints.

Boxes there are [x, y, width, height] in pixels, (0, 0) the upper left corner; masks are polygons or run lengths; a
crowd is a region with objects that nobody counted, for the scorer to leave out of account.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mi_contrast.core.errors import FileError, UserError, nearest
from mi_contrast.data.decoding import decode

Annotation = Mapping[str, Any]


@dataclass(frozen=True)
class Files:
    """A folder, or a zip that is read in place; `top` is the one folder that it holds, or ''."""

    root: Path
    top: str
    archive: zipfile.ZipFile | None = field(default=None, repr=False)

    @classmethod
    def open(cls, root: str | Path) -> Files:
        """UserError where there is neither a folder nor a zip."""
        root = Path(root).expanduser()
        if root.is_dir():
            inside = [p.name + ("/" if p.is_dir() else "") for p in root.iterdir() if not p.name.startswith(".")]
            return cls(root, inside[0] if len(inside) == 1 and inside[0].endswith("/") else "")
        if not root.is_file():
            raise FileError(f"{root} does not exist", fix="give --config.data.dir=FOLDER_OR_ZIP in COCO's format")
        try:
            archive = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError) as error:
            raise FileError(f"{root} is neither a folder nor a zip ({error})", fix="give one of the two") from None
        tops = {name.partition("/")[0] + "/" for name in archive.namelist()}
        return cls(root, tops.pop() if len(tops) == 1 else "", archive)

    def read(self, name: str) -> bytes:
        """UserError where the file can't be read; it names the nearest one there."""
        try:
            if self.archive is not None:
                return self.archive.read(self.top + name)
            return self._inside(name).read_bytes()
        except UserError:
            raise
        except KeyError:
            near = nearest(name, [n.removeprefix(self.top) for n in self.archive.namelist()] if self.archive else [])
            raise FileError(f"{self.root} has no {self.top}{name}", nearest=near) from None
        except FileNotFoundError:
            folder = (self.root / self.top / name).parent
            beside = [str(Path(name).parent / p.name) for p in folder.iterdir()] if folder.is_dir() else []
            raise FileError(f"{self.root / self.top} has no {name}", nearest=nearest(name, beside)) from None
        except (OSError, zipfile.BadZipFile) as error:
            raise FileError(f"can't read {self.top}{name} of {self.root} ({error})", fix="copy it again") from None

    def _inside(self, name: str) -> Path:
        """The path of a file. UserError where it lies outside the folder; links that the user made may leave it."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            fix = "file_name is a path inside the split's folder of images"
            raise FileError(f"{name!r} lies outside {self.root / self.top}", fix=fix)
        return self.root / self.top / name

    def names(self, folder: str) -> set[str]:
        """Of the files in a folder, relative to it."""
        if self.archive is not None:
            start = f"{self.top}{folder}/"
            return {name.removeprefix(start) for name in self.archive.namelist() if name.startswith(start)}
        where = self.root / self.top / folder
        return {p.name for p in where.iterdir()} if where.is_dir() else set()


@dataclass(frozen=True)
class Targets:
    """What is to be found in one image, crowds and boxes without an area left out.

    boxes: [x1, y1, x2, y2] in pixels, inside the image; labels: 1 + the category's place; masks, keypoints: where the
    detector takes them; a keypoint is [x, y, v], v 0 (not there), 1 (hidden) or 2.
    """

    boxes: Float[np.ndarray, "N 4"]
    labels: Int[np.ndarray, " N"]
    masks: UInt8[np.ndarray, "N H W"] | None = None
    keypoints: Float[np.ndarray, "N K 3"] | None = None


@dataclass(frozen=True)
class CocoSet:
    """One split. images and annotations as in the JSON, images and categories by id; sha256: of the JSON."""

    files: Files
    folder: str
    source: str
    images: tuple[Mapping[str, Any], ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Mapping[str, Any], ...]
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, in the order of their ids."""
        return tuple(str(category["name"]) for category in self.categories)

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the keypoints, () where there are none."""
        return tuple(self.categories[0].get("keypoints", ()))

    @cached_property
    def place(self) -> dict[int, int]:
        """Category's id to its label, from 1; 0 is the background."""
        return {category["id"]: 1 + i for i, category in enumerate(self.categories)}

    @cached_property
    def of_image(self) -> dict[int, list[Annotation]]:
        """Image's id to its annotations."""
        found: dict[int, list[Annotation]] = {image["id"]: [] for image in self.images}
        for annotation in self.annotations:
            found[annotation["image_id"]].append(annotation)
        return found

    def image(self, i: int) -> UInt8[np.ndarray, "H W 3"]:
        """The image, RGB. UserError where it is not of the size that the JSON says."""
        record = self.images[i]
        name = f"{self.folder}/{record['file_name']}"
        pixels = decode(self.files.read(name), name)
        if pixels.shape[:2] != (record["height"], record["width"]):
            raise UserError(
                f"{name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, {self.source} says "
                f"{record['width']} x {record['height']}",
                fix="boxes must be those of the images as they are, turned as their EXIF says",
            )
        return pixels

    def targets(self, i: int, *, masks: bool = False, keypoints: bool = False) -> Targets:
        """What is in the i-th image."""
        record = self.images[i]
        width, height = record["width"], record["height"]
        own, boxes = self._counted(i)
        labels = np.array([self.place[a["category_id"]] for a in own], np.int64)
        found_masks = np.zeros((len(own), height, width), np.uint8) if masks else None
        if found_masks is not None:
            for mask, annotation in zip(found_masks, own, strict=True):
                mask[:] = mask_of(annotation["segmentation"], height, width)
        points = None
        if keypoints:
            given = [a["keypoints"] for a in own]
            points = np.array(given, np.float32).reshape(len(own), len(self.points), 3)
        return Targets(boxes, labels, found_masks, points)

    def _counted(self, i: int) -> tuple[list[Annotation], Float[np.ndarray, "N 4"]]:
        record = self.images[i]
        own = [a for a in self.of_image[record["id"]] if not a.get("iscrowd", 0)]
        boxes = corners([a["bbox"] for a in own], record["width"], record["height"])
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return [a for a, keep in zip(own, kept, strict=True) if keep], boxes[kept]

    def to_fit(self, *, keypoints: bool = False) -> Int[np.ndarray, " M"]:
        """The images that have something to find, as Detectron2 takes them: a box, and a seen keypoint where asked."""

        def has(i: int) -> bool:
            own, _ = self._counted(i)
            return any(max(a["keypoints"][2::3], default=0) > 0 for a in own) if keypoints else bool(own)

        return np.flatnonzero([has(i) for i in range(len(self))]).astype(np.int32)

    def truth(self) -> dict[str, Any]:
        """The JSON again, as pycocotools takes it; an area that isn't given is the box's."""
        annotations = [
            {"area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0, **a, "id": 1 + n}
            for n, a in enumerate(self.annotations)
        ]
        return {
            "images": [dict(r) for r in self.images],
            "annotations": annotations,
            "categories": list(map(dict, self.categories)),
        }


def corners(boxes: Sequence[Sequence[float]], width: int, height: int) -> Float[np.ndarray, "N 4"]:
    """[x, y, width, height] as [x1, y1, x2, y2], cut at the image's edges.

    >>> corners([[2, 3, 10, 4]], width=8, height=8).tolist()
    [[2.0, 3.0, 8.0, 7.0]]
    """
    found = np.array(boxes, np.float32).reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    return np.clip(found, 0, np.array([width, height, width, height], np.float32))


def mask_of(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """Polygons, run lengths or compressed run lengths as a mask."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        runs = mask.merge(mask.frPyObjects(segmentation, height, width))
    else:
        plain = isinstance(segmentation["counts"], list)
        runs = mask.frPyObjects(segmentation, height, width) if plain else segmentation
    return np.asarray(mask.decode(runs), bool)


def read_set(files: Files, source: str, folder: str, *, masks: bool = False, keypoints: bool = False) -> CocoSet:
    """Reads one split and looks all of it over but for the pixels.

    Args:
      source: the JSON; folder: of the images.
      masks, keypoints: what every annotation must have beside its box; with keypoints, only categories that have some.
    Raises UserError where the JSON is not COCO's, an image is missing, or an annotation belongs to nothing.
    """
    try:
        data = files.read(source)
        tree = json.loads(data)
        images, annotations, categories = (tree[name] for name in ("images", "annotations", "categories"))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{source} of {files.root} is not COCO's format ({type(error).__name__}: {error})",
            fix="it has 'images', 'annotations' and 'categories'",
        ) from None
    categories = sorted((c for c in categories if not keypoints or c.get("keypoints")), key=lambda c: c["id"])
    if not categories or not images:
        what = "images" if categories else "categories with keypoints" if keypoints else "categories"
        raise UserError(f"{source} of {files.root} has no {what}", fix="give another file")
    if len({tuple(c.get("keypoints", ())) for c in categories}) > 1:
        raise UserError(f"{source}: categories have different keypoints", fix="give a file for each of them")
    there = files.names(folder)
    for record in images:
        lacking = next((n for n in ("id", "file_name", "width", "height") if n not in record), None)
        if lacking:
            raise UserError(f"{source}: an image has no {lacking!r}", fix="repair the file")
        if record["file_name"] not in there and "/" not in record["file_name"]:
            raise FileError(f"{files.root} has no {folder}/{record['file_name']}, which {source} names",
                            nearest=nearest(record["file_name"], there) if len(there) < 1000 else None,
                            fix="give the images' folder with --config.data.fit_images and .test_images")  # fmt: skip
    known, all_ids = {c["id"] for c in categories}, {c["id"] for c in tree["categories"]}
    pictures = {record["id"] for record in images}
    needed = ("segmentation",) * masks + ("keypoints",) * keypoints
    kept = []
    for annotation in annotations:
        check_annotation(annotation, pictures, all_ids, source)
        if annotation["category_id"] not in known:
            continue
        if lacking := next((n for n in needed if not annotation.get(n)), None):
            raise UserError(f"{source}: annotation {annotation.get('id')} has no {lacking!r}",
                            fix="train another detector on it, such as task.model 'faster'")  # fmt: skip
        kept.append(annotation)
    order = sorted(images, key=lambda record: record["id"])
    return CocoSet(
        files, folder, source, tuple(order), tuple(kept), tuple(categories), hashlib.sha256(data).hexdigest()
    )


def check_annotation(annotation: Annotation, images: set[int], categories: set[int], source: str) -> None:
    """UserError where an annotation has no box of four numbers, or belongs to no image or category."""
    name = f"{source}: annotation {annotation.get('id')}"
    if len(annotation.get("bbox", ())) != 4 or not np.isfinite(annotation["bbox"]).all():
        raise UserError(f"{name} has no box of four numbers", fix="repair the file")
    if annotation.get("image_id") not in images:
        raise UserError(f"{name} is of image {annotation.get('image_id')}, which is not there", fix="repair the file")
    if annotation.get("category_id") not in categories:
        raise UserError(f"{name} is of category {annotation.get('category_id')}, which is not there", fix="repair it")
