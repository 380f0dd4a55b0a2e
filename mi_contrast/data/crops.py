"""Cuts random crops out of whole images while these are decoded, so that a large photograph is never decoded in full.

The box of a crop is drawn by a pure function of the example's rng and the image's size (`Crops.draw`), which training
hands over. Only Pillow is used: a JPEG is decoded by its `draft` at 1, 1/2, 1/4 or 1/8 of its size, the smallest at
which no crop has fewer pixels than it is resized to, and only the box is resized. simplejpeg decodes the same pixels,
and its small gain is lost when they are copied into Pillow for the antialiased resize. Other formats have no such
decoder; they are decoded in full.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from mi_contrast.core.mesh import host_device
from mi_contrast.core.rngs import example_rngs
from mi_contrast.data.decoding import TURNS, BrokenImageError, convert_errors, open_lazily, read_orientation, to_rgb
from mi_contrast.data.imageset import ImageSet, Ints, map_in_threads
from mi_contrast.data.sharing import share_work

REDUCTIONS = (8, 4, 2)  # what a JPEG's sides can be divided by while it is decoded
CHUNK = 8  # images that are open at a time, and whose boxes are drawn together
CROPS = ("whole", "square")  # what a random crop is taken from: the whole image, or the centre square of data.size
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height

DrawBoxes = Callable[[Key[Array, ""], Int[Array, ""], Int[Array, ""]], Mapping[str, Float[Array, " 4"]]]


@dataclass(frozen=True, eq=False)
class Crops:
    """The crops that are taken of every example.

    Attributes:
      draw: a pure function of the example's rng, and the height and width of a source image. It returns the box of each
        crop by name: top, left, height and width in pixels, float32 [4].
      sizes: pixels a side of each crop after it is resized, by name.
      sources: the index of the source image of each crop, by name: 0 the first, -1 the last.
    """

    draw: DrawBoxes
    sizes: Mapping[str, int]
    sources: Mapping[str, int]


class Region(NamedTuple):
    """A box in pixels of an upright image, and the side in pixels that it is resized to."""

    box: tuple[float, float, float, float]  # top, left, height, width
    size: int


class WholeImage:
    """An image from which regions are cut, once. The pixels of a JPEG are decoded then, others at once.

    Attributes:
      height, width: in pixels, after the image is rotated upright by its EXIF orientation.
    """

    def __init__(self, encoded: bytes, example: str):
        self._example, self._turn = example, 1
        self._image = open_lazily(io.BytesIO(encoded), example)
        with convert_errors(example):
            if isinstance(self._image, JpegImageFile):
                self._turn = read_orientation(self._image)
            else:
                self._image = to_rgb(self._image, example)  # upright
        sides = self._image.size
        self.width, self.height = sides[::-1] if self._turn in SIDEWAYS else sides

    def cut(self, regions: Sequence[Region]) -> list[UInt8[np.ndarray, "size size 3"]]:
        """Decodes the image and returns each region, resized by Pillow's bilinear filter, which is antialiased.

        Raises BrokenImageError if the image can't be decoded.
        """
        image, reduction = self._image, 1
        with convert_errors(self._example):
            if isinstance(image, JpegImageFile):
                reduction = choose_reduction(regions)
                image.draft("RGB", (image.width // reduction, image.height // reduction))
            image.load()
            pixels = image if image.mode == "RGB" else image.convert("RGB")
            return [self._resize(pixels, reduction, region) for region in regions]

    def _resize(self, pixels: Image.Image, reduction: int, region: Region) -> UInt8[np.ndarray, "size size 3"]:
        turn = self._turn
        top, left, tall, wide = (x / reduction for x in to_stored(region.box, turn, self.height, self.width))
        # Pillow's filter would read beyond the box, so what lies outside is cut off first.
        x, y = int(left), int(top)
        right, bottom = min(left + wide, pixels.width), min(top + tall, pixels.height)
        inside = pixels.crop((x, y, ceil(right), ceil(bottom)))
        corners = (left - x, top - y, right - x, bottom - y)
        resized = inside.resize((region.size, region.size), Image.Resampling.BILINEAR, box=corners)
        return np.asarray(resized.transpose(TURNS[turn]) if turn in TURNS else resized)


def choose_reduction(regions: Sequence[Region]) -> int:
    """Returns by how much an image's sides can be divided so that no region has fewer pixels than it is resized to."""
    allowed = min((min(region.box[2:]) / region.size for region in regions), default=1)
    return next((reduction for reduction in REDUCTIONS if reduction <= allowed), 1)


def to_stored(
    box: tuple[float, float, float, float], turn: int, height: int, width: int
) -> tuple[float, float, float, float]:
    """Returns a box of an upright image as a box of the image as it is stored.

    Args:
      box: top, left, height, width.
      turn: the EXIF orientation.
      height, width: of the upright image.
    """
    top, left, tall, wide = box
    if turn in (2, 3, 6, 7):  # left and right are exchanged
        left = width - left - wide
    if turn in (3, 4, 7, 8):
        top = height - top - tall
    return (left, top, wide, tall) if turn in SIDEWAYS else (top, left, tall, wide)


@dataclass(frozen=True, eq=False)
class CropReader:
    """Reads the crops of examples of a set, or their boxes alone. Usable from several threads.

    The boxes are drawn on a CPU of the host by one program, on whatever device the run trains.

    Attributes:
      images: with `open`.
      crops: what to cut.
      seed: the run's seed.
    """

    images: ImageSet
    crops: Crops
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "_draw", jax.jit(partial(draw_boxes, self.crops.draw, self.seed)))

    def boxes(self, step: int, positions: Ints, sides: Int[np.ndarray, "n 2"]) -> dict[str, Float[np.ndarray, "n 4"]]:
        """Returns the boxes of the examples at these positions of a step, in images of these (height, width)."""
        with jax.default_device(host_device()):
            drawn = self._draw(np.int32(step), np.asarray(positions, np.int32), np.asarray(sides, np.int32))  # type: ignore[attr-defined]
        return {name: np.asarray(boxes) for name, boxes in drawn.items()}

    def read(
        self, step: int, positions: Ints, index: Int[np.ndarray, "b I"]
    ) -> dict[str, UInt8[np.ndarray, "b size size 3"]]:
        """Returns the crops of the examples at these positions of a step, by name.

        Raises BrokenImageError if an image can't be read and no other stands in for it (see `ImageSet.stand_in`).
        """
        count, views = index.shape
        crops = {name: np.empty((count, size, size, 3), np.uint8) for name, size in self.crops.sizes.items()}
        for source in range(views):
            names = [name for name, wanted in self.crops.sources.items() if wanted % views == source]
            for start in range(0, count if names else 0, CHUNK):
                chunk = slice(start, start + CHUNK)
                for row, cut in enumerate(self._cut(step, positions[chunk], index[chunk, source], names), start):
                    for name, pixels in cut.items():
                        crops[name][row] = pixels
        return crops

    def _cut(self, step: int, positions: Ints, indices: Ints, names: Sequence[str]) -> list[dict[str, Any]]:
        """Cuts the crops `names` of a few examples. Where an image is broken, another may stand in for it."""
        opened = [self._open(int(index)) for index in indices]
        sides = np.ones((CHUNK, 2), np.int32)
        sides[: len(opened)] = [(1, 1) if image is None else (image.height, image.width) for image in opened]
        boxes = self.boxes(step, np.resize(positions, CHUNK), sides)
        cuts = []
        for row, (index, image) in enumerate(zip(indices, opened, strict=True)):
            try:
                if image is None:
                    raise BrokenImageError(str(index), "", "")
                cuts.append(self._cut_regions(image, boxes, row, names))
            except BrokenImageError:
                cut_alone = partial(self._cut_alone, step, int(positions[row]), names)
                cuts.append(self.images.stand_in(int(index), cut_alone))
        return cuts

    def _open(self, index: int) -> WholeImage | None:
        assert self.images.open is not None
        try:
            return self.images.open(index)
        except BrokenImageError:
            return None

    def _cut_alone(self, step: int, position: int, names: Sequence[str], index: int) -> dict[str, Any]:
        assert self.images.open is not None
        image = self.images.open(index)
        sides = np.tile([image.height, image.width], (CHUNK, 1))
        return self._cut_regions(image, self.boxes(step, np.full(CHUNK, position), sides), 0, names)

    def _cut_regions(
        self, image: WholeImage, boxes: Mapping[str, np.ndarray], row: int, names: Sequence[str]
    ) -> dict[str, Any]:
        regions = [Region(boxes[name][row].tolist(), self.crops.sizes[name]) for name in names]
        return dict(zip(names, image.cut(regions), strict=True))


def draw_boxes(
    draw: DrawBoxes, seed: int, step: Array, positions: Int[Array, " n"], sides: Int[Array, "n 2"]
) -> Mapping[str, Float[Array, "n 4"]]:
    """Draws the boxes of the examples at these positions of a step. Jittable."""
    return jax.vmap(draw)(example_rngs(seed, step, positions), sides[:, 0], sides[:, 1])


def read_squeezed(
    images: ImageSet, indices: Ints, size: int
) -> tuple[UInt8[np.ndarray, "n size size 3"], Int[np.ndarray, "n 2"]]:
    """Returns whole images resized to size x size without regard to their aspect, and their (height, width) in pixels.

    They are decoded in threads, with a progress bar if this takes more than 5 s. Several processes decode a part each.
    """

    def squeeze(index: int) -> tuple[UInt8[np.ndarray, "size size 3"], tuple[int, int]]:
        assert images.open is not None
        image = images.open(index)
        sides = image.height, image.width
        return image.cut([Region((0, 0, *sides), size)])[0], sides

    def read(part: Ints) -> list[np.ndarray]:
        pixels, sides = np.empty((len(part), size, size, 3), np.uint8), np.empty((len(part), 2), np.int32)
        rows = map_in_threads(lambda index: images.stand_in(index, squeeze), part.tolist(), "decoding")
        for row, (image, shape) in enumerate(rows):
            pixels[row], sides[row] = image, shape
        return [pixels, sides]

    pixels, sides = share_work(read, np.asarray(indices))
    return pixels, sides
