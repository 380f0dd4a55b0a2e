"""Tiles: overlapping squares of every image, each an example of its own, so that few large images give many places.

data.options of a folder: tile (pixels a side); stride (pixels from one tile to the next, across and down; `tile` by
default, so that none overlap); groups: 'image' (default), a hold-out takes all tiles of an image, or 'tile', it takes
tiles as they come. Held-out tiles then overlap tiles that are trained on, and what is measured on them says how two
parts of images already seen belong together, not how it would be on others: for a few images, of which a twentieth is
one.
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
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations whose width is stored as height
IMAGE = "image"  # the factor that tiles of one image share


@dataclass(frozen=True)
class Tiling:
    """How images are cut; the module's text says what is what."""

    tile: int
    stride: int
    groups: str = "image"


def read_options(given: Mapping[str, Any] | None) -> Tiling | None:
    """A tiling from plain data, None where there are no options. UserError on one that is unknown or out of range."""
    given = dict(given or {})
    for field in given:
        if field not in OPTIONS:
            raise unknown("option of a folder", field, OPTIONS)
    if not given:
        return None
    if "tile" not in given:
        raise UserError(
            f"data.options has {', '.join(given)} but no tile", fix="give the tiles' side in pixels, tile=224"
        )
    made = Tiling(given["tile"], given.get("stride", given["tile"]), given.get("groups", "image"))
    for field in ("tile", "stride"):
        value = getattr(made, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"data.options.{field} is {value!r}", fix="give a whole number of pixels, 1 or more")
    if made.groups not in GROUPS:
        raise unknown("data.options.groups", made.groups, GROUPS)
    return made


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
    """The tiles of image files as an ImageSet: image by image, within an image row by row, those that fit whole.

    An image of H x W pixels has ((H - tile) // stride + 1) x ((W - tile) // stride + 1). Sizes are read here, pixels
    when a tile of the image is first asked for; decoded images are kept in memory, tiles are cut out of them each time.

    Args:
      size: if given, each image's short side is resized to it, its aspect kept; nothing is cropped.
      labels, classes: of the images, each tile's own then. The factor 'image' is the image's place in `files`.
    Raises:
      UserError where an image is smaller than a tile, naming the smallest, or can't be read.
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
    def whole(number: int) -> UInt8[np.ndarray, "H W 3"]:
        return decode_file(files[number], size, whole=True)

    def read(indices: Ints) -> UInt8[np.ndarray, "n tile tile 3"]:
        cut_out = np.empty((len(indices), tile, tile, 3), np.uint8)
        for at, index in enumerate(indices):
            number = int(image[index])
            row, column = divmod(int(index - start[number]), int(across[number]))
            top, left = row * stride, column * stride
            cut_out[at] = whole(number)[top : top + tile, left : left + tile]
        return cut_out

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
    """(width, height) of the image in a file, its short side resized to `size` if given; its pixels stay unread."""
    with open_image(file, str(file)) as image:
        width, height = image.size
        return scale_sides((height, width) if read_orientation(image) in SIDEWAYS else (width, height), size)
