"""Reads data in COCO's format: a folder or a zip with images and JSON files of boxes, masks and keypoints.

Boxes in the JSON are [x, y, width, height] in pixels from the upper left corner. Masks are polygons or run lengths. A
crowd is a region of objects that were not annotated one by one; it is no training target, and the scorer ignores it.
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
    """A folder, or a zip that is read without unpacking.

    top: If the root contains exactly one folder, its name with a slash; otherwise ''. Paths are relative to it.
    """

    root: Path
    top: str
    archive: zipfile.ZipFile | None = field(default=None, repr=False)

    @classmethod
    def open(cls, root: str | Path) -> Files:
        """Opens a folder or a zip. Raises UserError if `root` is neither."""
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
        """Returns the content of a file. Raises UserError, with the nearest existing name, if it can't be read."""
        path = self._inside(name) if self.archive is None else None
        try:
            if self.archive is not None:
                return self.archive.read(self.top + name)
            assert path is not None
            return path.read_bytes()
        except KeyError:
            near = nearest(name, [n.removeprefix(self.top) for n in self.archive.namelist()] if self.archive else [])
            raise FileError(f"{self.root} has no {self.top}{name}", nearest=near) from None
        except FileNotFoundError:
            folder = (self.root / self.top / name).parent
            siblings = [str(Path(name).parent / p.name) for p in folder.iterdir()] if folder.is_dir() else []
            raise FileError(f"{self.root / self.top} has no {name}", nearest=nearest(name, siblings)) from None
        except (OSError, zipfile.BadZipFile) as error:
            raise FileError(f"can't read {self.top}{name} of {self.root} ({error})", fix="copy it again") from None

    def _inside(self, name: str) -> Path:
        """Returns the path of a file. Raises UserError if it lies outside the folder; symbolic links are followed."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            fix = "file_name is a path inside the split's folder of images"
            raise FileError(f"{name!r} lies outside {self.root / self.top}", fix=fix)
        return self.root / self.top / name

    def names(self, folder: str) -> set[str]:
        """Returns the names of the files in a folder, relative to it."""
        if self.archive is not None:
            start = f"{self.top}{folder}/"
            return {name.removeprefix(start) for name in self.archive.namelist() if name.startswith(start)}
        path = self.root / self.top / folder
        return {p.name for p in path.iterdir()} if path.is_dir() else set()


@dataclass(frozen=True)
class Targets:
    """The objects to detect in one image, without crowds and boxes of zero area.

    boxes: [x1, y1, x2, y2] in pixels, inside the image.
    labels: index of the category, from 1; 0 is the background.
    masks: of the objects, if the detector predicts masks.
    keypoints: [x, y, visibility], visibility 0 (absent), 1 (hidden) or 2, if the detector predicts keypoints.
    """

    boxes: Float[np.ndarray, "N 4"]
    labels: Int[np.ndarray, " N"]
    masks: UInt8[np.ndarray, "N H W"] | None = None
    keypoints: Float[np.ndarray, "N K 3"] | None = None


@dataclass(frozen=True)
class CocoSet:
    """One split of a data set.

    files, folder: the data set, and its folder of the split's images.
    json_name: name of the JSON file; sha256: its checksum.
    images, annotations, categories: records of the JSON; images and categories are sorted by id.
    """

    files: Files
    folder: str
    json_name: str
    images: tuple[Mapping[str, Any], ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Mapping[str, Any], ...]
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the categories, in the order of their ids."""
        return tuple(str(category["name"]) for category in self.categories)

    @property
    def points(self) -> tuple[str, ...]:
        """The names of the keypoints; () if there are none."""
        return tuple(self.categories[0].get("keypoints", ()))

    @cached_property
    def label_by_category(self) -> dict[int, int]:
        """The label of each category id, from 1; 0 is the background."""
        return {category["id"]: 1 + i for i, category in enumerate(self.categories)}

    @cached_property
    def annotations_by_image(self) -> dict[int, list[Annotation]]:
        """The annotations of each image id."""
        annotations: dict[int, list[Annotation]] = {image["id"]: [] for image in self.images}
        for annotation in self.annotations:
            annotations[annotation["image_id"]].append(annotation)
        return annotations

    def image(self, i: int) -> UInt8[np.ndarray, "H W 3"]:
        """Returns the i-th image, RGB. Raises UserError if its size is not the one in the JSON."""
        record = self.images[i]
        name = f"{self.folder}/{record['file_name']}"
        pixels = decode(self.files.read(name), name)
        if pixels.shape[:2] != (record["height"], record["width"]):
            raise UserError(
                f"{name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, {self.json_name} says "
                f"{record['width']} x {record['height']}",
                fix="boxes must fit the images after their rotation by EXIF",
            )
        return pixels

    def targets(self, i: int, *, masks: bool = False, keypoints: bool = False) -> Targets:
        """Returns the objects to detect in the i-th image."""
        record = self.images[i]
        width, height = record["width"], record["height"]
        objects, boxes = self._select_objects(i)
        labels = np.array([self.label_by_category[a["category_id"]] for a in objects], np.int64)
        all_masks = np.zeros((len(objects), height, width), np.uint8) if masks else None
        if all_masks is not None:
            for mask, annotation in zip(all_masks, objects, strict=True):
                mask[:] = decode_mask(annotation["segmentation"], height, width)
        points = None
        if keypoints:
            triples = [a["keypoints"] for a in objects]
            points = np.array(triples, np.float32).reshape(len(objects), len(self.points), 3)
        return Targets(boxes, labels, all_masks, points)

    def _select_objects(self, i: int) -> tuple[list[Annotation], Float[np.ndarray, "N 4"]]:
        """Returns the annotations of the i-th image that are no crowds and have an area, and their boxes."""
        record = self.images[i]
        objects = [a for a in self.annotations_by_image[record["id"]] if not a.get("iscrowd", 0)]
        boxes = to_corners([a["bbox"] for a in objects], record["width"], record["height"])
        has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return [a for a, keep in zip(objects, has_area, strict=True) if keep], boxes[has_area]

    def select_trainable(self, *, keypoints: bool = False) -> Int[np.ndarray, " M"]:
        """Returns the indices of images with an object to detect; with `keypoints`, one that has a visible keypoint.

        This is Detectron2's choice of training images.
        """

        def has_object(i: int) -> bool:
            objects, _ = self._select_objects(i)
            return any(max(a["keypoints"][2::3], default=0) > 0 for a in objects) if keypoints else bool(objects)

        return np.flatnonzero([has_object(i) for i in range(len(self))]).astype(np.int32)

    def truth(self) -> dict[str, Any]:
        """Returns the JSON's content as pycocotools expects it; a missing area is that of the box."""
        annotations = [
            {"area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0, **a, "id": 1 + n}
            for n, a in enumerate(self.annotations)
        ]
        return {
            "images": [dict(r) for r in self.images],
            "annotations": annotations,
            "categories": list(map(dict, self.categories)),
        }


def to_corners(boxes: Sequence[Sequence[float]], width: int, height: int) -> Float[np.ndarray, "N 4"]:
    """Converts boxes from [x, y, width, height] to [x1, y1, x2, y2], clipped to the image.

    >>> to_corners([[2, 3, 10, 4]], width=8, height=8).tolist()
    [[2.0, 3.0, 8.0, 7.0]]
    """
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return np.clip(corners, 0, np.array([width, height, width, height], np.float32))


def decode_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """Converts polygons, run lengths or compressed run lengths to a mask."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        runs = mask.merge(mask.frPyObjects(segmentation, height, width))
    else:
        uncompressed = isinstance(segmentation["counts"], list)
        runs = mask.frPyObjects(segmentation, height, width) if uncompressed else segmentation
    return np.asarray(mask.decode(runs), bool)


def read_set(files: Files, json_name: str, folder: str, *, masks: bool = False, keypoints: bool = False) -> CocoSet:
    """Reads one split and checks all of it except the pixels.

    Args:
      json_name: name of the JSON file.
      folder: folder of the images.
      masks, keypoints: whether every annotation must have a mask, or keypoints, besides its box. With keypoints, only
        categories that define some are read.
    Raises:
      UserError if the JSON is not in COCO's format, an image is missing, or an annotation has no image or category.
    """
    data = files.read(json_name)
    try:
        tree = json.loads(data)
        images, annotations, categories = (tree[name] for name in ("images", "annotations", "categories"))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{json_name} of {files.root} is not COCO's format ({type(error).__name__}: {error})",
            fix="it has 'images', 'annotations' and 'categories'",
        ) from None
    categories = sorted((c for c in categories if not keypoints or c.get("keypoints")), key=lambda c: c["id"])
    if not categories or not images:
        what = "images" if categories else "categories with keypoints" if keypoints else "categories"
        raise UserError(f"{json_name} of {files.root} has no {what}", fix="give another file")
    if len({tuple(c.get("keypoints", ())) for c in categories}) > 1:
        raise UserError(f"{json_name}: categories have different keypoints", fix="give a file for each of them")
    file_names = files.names(folder)
    for record in images:
        missing_field = next((n for n in ("id", "file_name", "width", "height") if n not in record), None)
        if missing_field:
            raise UserError(f"{json_name}: an image has no {missing_field!r}", fix="repair the file")
        if record["file_name"] not in file_names and "/" not in record["file_name"]:
            raise FileError(f"{files.root} has no {folder}/{record['file_name']}, which {json_name} names",
                            nearest=nearest(record["file_name"], file_names) if len(file_names) < 1000 else None,
                            fix="give the images' folder with --config.data.fit_images and .test_images")  # fmt: skip
    category_ids, all_category_ids = {c["id"] for c in categories}, {c["id"] for c in tree["categories"]}
    image_ids = {record["id"] for record in images}
    needed = ("segmentation",) * masks + ("keypoints",) * keypoints
    usable = []
    for annotation in annotations:
        check_annotation(annotation, image_ids, all_category_ids, json_name)
        if annotation["category_id"] not in category_ids:
            continue
        if missing_field := next((n for n in needed if not annotation.get(n)), None):
            raise UserError(f"{json_name}: annotation {annotation.get('id')} has no {missing_field!r}",
                            fix="train another detector on it, such as task.model 'faster'")  # fmt: skip
        usable.append(annotation)
    images = sorted(images, key=lambda record: record["id"])
    return CocoSet(
        files, folder, json_name, tuple(images), tuple(usable), tuple(categories), hashlib.sha256(data).hexdigest()
    )


def check_annotation(annotation: Annotation, images: set[int], categories: set[int], json_name: str) -> None:
    """Raises UserError if an annotation has no box of four numbers, or belongs to no image or category."""
    name = f"{json_name}: annotation {annotation.get('id')}"
    if len(annotation.get("bbox", ())) != 4 or not np.isfinite(annotation["bbox"]).all():
        raise UserError(f"{name} has no box of four numbers", fix="repair the file")
    if annotation.get("image_id") not in images:
        what = f"image {annotation.get('image_id')}"
        raise UserError(f"{name} refers to {what}, which the file does not contain", fix="repair the file")
    if annotation.get("category_id") not in categories:
        what = f"category {annotation.get('category_id')}"
        raise UserError(f"{name} refers to {what}, which the file does not contain", fix="repair the file")
