"""Decodes images to uint8 RGB. Only Pillow is used, so that pixels don't depend on what else is installed."""

from __future__ import annotations

import importlib
import io
import re
import struct
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.data.listing import HEIC

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
MAX_PIXELS = 89_478_485  # in an image: 256 MiB as RGB, the size at which Pillow begins to warn
PIXEL_LIMIT = f"more than the {MAX_PIXELS:,} pixels that are read"
TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)
PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error)  # what Pillow raises on a broken file
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # larger images raise an error here instead


class BrokenImageError(FileError):
    """An image can't be read. `data.broken` allows a share of these. `why` is the reason without the file's name."""

    def __init__(self, example: str, why: str, text: str, fix: str = "repair or remove it"):
        self.why = why
        super().__init__(f"{example}{text}", fix=fix)


def unreadable_error(example: str, error: Exception) -> BrokenImageError:
    """Makes the error for an image that Pillow can't read. Removes memory addresses from Pillow's text."""
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    why = text[:80] or type(error).__name__
    return BrokenImageError(example, why, f": not a readable image ({why})")


@contextmanager
def open_image(source: Path | IO[bytes], example: str) -> Iterator[Image.Image]:
    """Yields an image whose pixels are not decoded yet.

    Raises BrokenImageError if the image has more than `MAX_PIXELS`, and instead of Pillow's errors here and in the
    block.
    """
    with convert_errors(example), open_lazily(source, example) as image:
        yield image


def open_lazily(source: Path | IO[bytes], example: str) -> Image.Image:
    """Returns an image whose pixels are not decoded yet. Raises BrokenImageError as `open_image` does."""
    with convert_errors(example):
        image = Image.open(source)
        if image.width * image.height > MAX_PIXELS:
            why = f"{image.width} x {image.height} pixels, {PIXEL_LIMIT}"
            image.close()
            raise BrokenImageError(example, why, f": {why}", "make it smaller or remove it")
        return image


@contextmanager
def convert_errors(example: str) -> Iterator[None]:
    """Raises BrokenImageError instead of Pillow's errors in the block."""
    try:
        yield
    except UserError:
        raise
    except TOO_LARGE:
        raise BrokenImageError(example, PIXEL_LIMIT, f": {PIXEL_LIMIT}", "make it smaller or remove it") from None
    except PILLOW_ERRORS as error:
        raise unreadable_error(example, error) from None


def read_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8. It is 1 (upright as stored) if there is none or EXIF can't be read.

    The pixels of a PNG are decoded, because its EXIF data may come after them. Pillow's errors about pixels are raised.
    """
    if image.format == "PNG":
        image.load()
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (*PILLOW_ERRORS, TypeError, KeyError):
        return 1
    return value if value in TURNS else 1


def is_deep(image: Image.Image) -> bool:
    """Whether an image is stored with 16 bits a channel. Its pixels must not be decoded yet."""
    modes = [
        str(part)
        for tile in getattr(image, "tile", ())
        for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    ]
    return (
        image.mode.startswith("I;16")
        or (image.mode == "I" and image.format in ("PNG", "PPM"))
        or any(";16" in mode for mode in modes if image.mode not in ("L", "1") and mode.startswith(("RGB", "LA")))
    )


@cache
def _print_deep(example: str) -> None:
    print(f"{example} has 16 bits a channel: the upper 8 are taken, here and in all others like it", file=sys.stderr)


def to_rgb(image: Image.Image, example: str, *, deep: bool = True) -> Image.Image:
    """Converts an opened image to RGB and rotates it upright by its EXIF orientation.

    Of 16 bits a channel the upper 8 are kept, and a line is printed about the first such image. Raises UserError for
    other depths, and for 16 bits if `deep` is False. Pillow's errors are raised.
    """
    if is_deep(image):
        if not deep:
            raise UserError(f"{example}: an image of 16 bits a channel", fix="give one of 8 bits a channel")
        if not _print_deep.cache_info().currsize:
            _print_deep(example)
        image.load()
        if image.mode.startswith("I"):
            turn, upper = read_orientation(image), np.asarray(image).astype(np.int64) >> 8
            image = Image.fromarray(np.clip(upper, 0, 255).astype(np.uint8))
            rgb = image.convert("RGB")
            return rgb.transpose(TURNS[turn]) if turn in TURNS else rgb
    elif image.mode not in EIGHT_BITS:
        why = f"an image of mode {image.mode}"
        raise BrokenImageError(example, why, f": {why}", "only 8 and 16 bits a channel are read")
    image.load()  # first, so that errors about pixels are not taken for errors about EXIF
    turn = read_orientation(image)
    rgb = image.convert("RGB")
    return rgb.transpose(TURNS[turn]) if turn in TURNS else rgb


def decode(
    encoded: bytes, example: str, size: int | None = None, *, whole: bool = False, deep: bool = True
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image (PNG, JPEG, WebP, ...) to uint8 [H, W, 3], rotated upright by its EXIF orientation.

    Grey is repeated over the channels, and transparency is dropped. Of 16 bits a channel the upper 8 are kept.

    Args:
      encoded: the bytes of the file.
      example: the image's name, for the error.
      size: if given, the short side is resized to it and the centre cropped (`crop_square`).
      whole: resize without cropping.
      deep: False rejects 16 bits a channel, for images whose exact values matter, such as masks.

    Raises:
      BrokenImageError: the image is incomplete, has more than `MAX_PIXELS`, or has neither 8 nor 16 bits a channel.
    """
    with open_image(io.BytesIO(encoded), example) as image:
        rgb = to_rgb(image, example, deep=deep)
    if size is not None:
        rgb = resize_short_side(rgb, size) if whole else crop_square(rgb, size)
    return np.asarray(rgb)


def decode_file(
    file: Path, size: int | None = None, *, whole: bool = False, deep: bool = True
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes the image in a file as `decode` does. Raises BrokenImageError if the file is missing or broken."""
    return decode(read_bytes(file), str(file), size, whole=whole, deep=deep)


def check_file(file: Path) -> None:
    """Raises BrokenImageError if `decode_file` would. Faster, because JPEGs are decoded at an eighth of their size."""
    with open_image(io.BytesIO(read_bytes(file)), str(file)) as image:
        if image.mode not in EIGHT_BITS and not is_deep(image):
            to_rgb(image, str(file))
        image.draft("RGB", (1, 1))
        image.load()


def read_bytes(file: Path) -> bytes:
    """Returns the content of a file. Raises BrokenImageError if it can't be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise BrokenImageError(str(file), str(error.strerror), f" can't be read ({error.strerror})", "") from None


def crop_square(image: Image.Image, size: int) -> Image.Image:
    """Resizes the short side to `size` by Pillow's bilinear filter and crops the centre, as torchvision does."""
    resized = resize_short_side(image, size)
    if resized.size == (size, size):
        return resized
    left, top = (round((side - size) / 2) for side in resized.size)
    return resized.crop((left, top, left + size, top + size))


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """Resizes the short side to `size` by Pillow's bilinear filter. The long side keeps the aspect, rounded down."""
    sides = scale_sides(image.size, size)
    return image if image.size == sides else image.resize(sides, Image.Resampling.BILINEAR)


def scale_sides(sides: tuple[int, int], size: int | None) -> tuple[int, int]:
    """Returns an image's sides after the short one is resized to `size`. They are unchanged if `size` is None."""
    if size is None:
        return sides
    return size * sides[0] // min(sides), size * sides[1] // min(sides)


def stack_images(
    images: list[UInt8[np.ndarray, "H W 3"]], examples: list[str], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "n H W 3"]:
    """Stacks images into one array. Raises UserError that names the first image that is not of `shape`."""
    for image, example in zip(images, examples, strict=True):
        if image.shape != shape:
            here, first = ("{1} x {0} pixels".format(*s) for s in (image.shape, shape))
            raise UserError(f"{example}: {here}, where the first image has {first}", fix="give data.size, such as 96")
    return np.stack(images) if images else np.zeros((0, *shape), np.uint8)


def enable_heic(root: Path | str, names: Iterable[str]) -> None:
    """Registers Pillow's reader of HEIC if there are such files. Raises UserError if pillow-heif is not installed.

    Args:
      root: what holds the files, for the message.
      names: of the files, relative to it.
    """
    heic = [name for name in names if name.lower().endswith(HEIC)]
    if not heic:
        return
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise UserError(
            f"{root} holds {len(heic)} HEIC images, such as {heic[0]}",
            fix="pip install pillow-heif, or move them elsewhere",
        ) from None
