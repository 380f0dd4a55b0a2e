"""Cuts every image into square tiles, each an example of its own, to train on a few large images.

The options of a folder (`data.options`):

  tile     pixels a side
  stride   pixels from one tile to the next, across and down; `tile` by default, so that tiles do not overlap
  groups   'image' (default): the held-out part consists of whole images. 'tile': it consists of single tiles. These can
           overlap with training tiles, so measurements on them do not generalise to other images. It is meant for sets
           of very few images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.data.decoding import decode_file, open_image, read_orientation, scale_sides
from mi_contrast.data.imageset import ImageSet, Ints, map_in_threads

OPTIONS = ("tile", "stride", "groups")
GROUPS = ("image", "tile")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
IMAGE = "image"  # the factor that tiles of one image share


@dataclass(frozen=True)
class Tiling:
    """How images are cut. The module's docstring explains the fields."""

    tile: int
    stride: int
    groups: str = "image"


def read_options(options: Mapping[str, Any] | None) -> Tiling | None:
    """Reads a tiling from plain data. None without options. Raises UserError if one is unknown or out of range."""
    options = dict(options or {})
    for field in options:
        if field not in OPTIONS:
            raise unknown("option of a folder", field, OPTIONS)
    if not options:
        return None
    if "tile" not in options:
        raise UserError(
            f"data.options has {', '.join(options)} but no tile", fix="give the tiles' side in pixels, tile=224"
        )
    tiling = Tiling(options["tile"], options.get("stride", options["tile"]), options.get("groups", "image"))
    for field in ("tile", "stride"):
        value = getattr(tiling, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"data.options.{field} is {value!r}", fix="give a whole number of pixels, 1 or more")
    if tiling.groups not in GROUPS:
        raise unknown("data.options.groups", tiling.groups, GROUPS)
    return tiling


def cut_tiles(
    tiling: Tiling,
    files: Sequence[Path],
    size: int | None,
    name: str,
    split: str,
    labels: Mapping[str, Ints],
    classes: Mapping[str, tuple[str, ...]],
    fingerprint: Mapping[str, Any] | None = None,
) -> ImageSet:
    """Returns an ImageSet of the tiles of image files: image by image, and row by row within an image.

    An image of H x W pixels has ((H - tile) // stride + 1) x ((W - tile) // stride + 1) tiles. Only the sizes of the
    images are read here. An image is decoded when one of its tiles is read first, and stays in memory.

    Args:
      tiling: how images are cut.
      files: the image files.
      size: if given, each image's short side is resized to it. Nothing is cropped.
      name, split: of the ImageSet.
      labels: arrays int32 [files] by name. A tile has the labels of its image.
      classes: the class names of each label.
      fingerprint: of the ImageSet. Its factor 'image' is the index in `files`.

    Raises:
      UserError: an image is smaller than a tile (the message names the smallest), or can't be read.
    """
    tile, stride = tiling.tile, tiling.stride
    sides = np.array(list(map_in_threads(lambda file: read_sides(file, size), files, "sizes of images")))
    smallest = int(np.argmin(sides.min(axis=1)))
    if (short := int(sides[smallest].min())) < tile:
        wide, high = sides[smallest]
        fix = f"give data.options.tile={short} or less, a larger data.size, or data.options={{}} for whole images"
        raise UserError(f"{files[smallest]}: {wide} x {high} pixels, smaller than a tile of {tile}", fix=fix)
    across, down = ((sides - tile) // stride + 1).T
    image = np.repeat(np.arange(len(files), dtype=np.int32), across * down)
    start = np.cumsum(across * down) - across * down

    @cache
    def read_image(number: int) -> UInt8[np.ndarray, "H W 3"]:
        return decode_file(files[number], size, whole=True)

    def read(indices: Ints) -> UInt8[np.ndarray, "n tile tile 3"]:
        pixels = np.empty((len(indices), tile, tile, 3), np.uint8)
        for place, index in enumerate(indices):
            number = int(image[index])
            row, column = divmod(int(index - start[number]), int(across[number]))
            top, left = row * stride, column * stride
            pixels[place] = read_image(number)[top : top + tile, left : left + tile]
        return pixels

    return ImageSet(
        name,
        split,
        len(image),
        (tile, tile, 3),
        read,
        {label: values[image] for label, values in labels.items()},
        classes,
        groups=image if tiling.groups == "image" else None,
        factors={IMAGE: image},
        fingerprint=fingerprint or {},
    )


def read_sides(file: Path, size: int | None) -> tuple[int, int]:
    """Returns the (width, height) of an image after its short side is resized to `size`, without decoding it."""
    with open_image(file, str(file)) as image:
        width, height = image.size
        return scale_sides((height, width) if read_orientation(image) in SIDEWAYS else (width, height), size)
