"""From encoded bytes to uint8 RGB, by Pillow alone, so that pixels don't depend on what else is installed."""

from __future__ import annotations

import io
import re
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mi_contrast.core.errors import FileError, UserError

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
MOST_PIXELS = 89_478_485  # of an image: 256 MiB as RGB, where Pillow begins to warn
TOO_LARGE = (Image.DecompressionBombWarning, Image.DecompressionBombError)
BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error)  # what Pillow raises on a file that is
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the limit here refuses instead


class BrokenImageError(FileError):
    """An image that can't be read: what `data.broken` is about. why: the reason without the file's name."""

    def __init__(self, example: str, why: str, said: str, fix: str = "repair or remove it"):
        self.why = why
        super().__init__(f"{example}{said}", fix=fix)


def unreadable(example: str, error: Exception) -> BrokenImageError:
    """The error of an image that Pillow can't read, without addresses in memory."""
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    why = text[:80] or type(error).__name__
    return BrokenImageError(example, why, f": not a readable image ({why})")


@contextmanager
def opened(source: Path | IO[bytes], example: str) -> Iterator[Image.Image]:
    """The image, its pixels yet to be decoded. BrokenImageError for what Pillow raises here and in the block, and for
    one of more than `MOST_PIXELS`.
    """
    limit = f"more than the {MOST_PIXELS:,} pixels that are read"
    try:
        with Image.open(source) as image:
            if image.width * image.height > MOST_PIXELS:
                why = f"{image.width} x {image.height} pixels, {limit}"
                raise BrokenImageError(example, why, f": {why}", "make it smaller or remove it")
            yield image
    except UserError:
        raise
    except TOO_LARGE:
        raise BrokenImageError(example, limit, f": {limit}", "make it smaller or remove it") from None
    except BROKEN as error:
        raise unreadable(example, error) from None


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1, upright as stored, where there is none or EXIF can't be read.

    A PNG may have it behind its pixels, which are decoded here; what Pillow raises on those is raised.
    """
    if image.format == "PNG":
        image.load()
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except (*BROKEN, TypeError, KeyError):
        return 1
    return found if found in TURNS else 1


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image is stored with 16 bits a channel; asked before its pixels are decoded."""
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
def _say_deep(example: str) -> None:
    print(f"{example} has 16 bits a channel: the upper 8 are taken, here and in all others like it", file=sys.stderr)


def to_rgb(image: Image.Image, example: str, *, deep: bool = True) -> Image.Image:
    """An opened image as RGB, upright as its EXIF says; of 16 bits a channel the upper 8 are taken, which is said once.

    Raises UserError on another depth; `deep`=False: on 16 bits too; and what Pillow raises.
    """
    if is_deep(image):
        if not deep:
            raise UserError(f"{example}: an image of 16 bits a channel", fix="give one of 8 bits a channel")
        if not _say_deep.cache_info().currsize:
            _say_deep(example)
        image.load()
        if image.mode.startswith("I"):
            turn, upper = orientation(image), np.asarray(image).astype(np.int64) >> 8
            image = Image.fromarray(np.clip(upper, 0, 255).astype(np.uint8))
            rgb = image.convert("RGB")
            return rgb.transpose(TURNS[turn]) if turn in TURNS else rgb
    elif image.mode not in EIGHT_BITS:
        why = f"an image of mode {image.mode}"
        raise BrokenImageError(example, why, f": {why}", "only 8 and 16 bits a channel are read")
    image.load()  # before EXIF is looked for, whose errors are not the pixels'
    turn = orientation(image)
    rgb = image.convert("RGB")
    return rgb.transpose(TURNS[turn]) if turn in TURNS else rgb


def decode(
    encoded: bytes, example: str, size: int | None = None, *, whole: bool = False, deep: bool = True
) -> UInt8[np.ndarray, "H W 3"]:
    """An encoded image (PNG, JPEG, WebP, ...) as uint8 [H, W, 3], upright as its EXIF says; grey is repeated,
    transparency dropped, of 16 bits a channel the upper 8 are taken.

    Args:
      example: its name, for the error.
      size: if given, the short side is resized to it and the centre cropped, `square`.
      whole: don't crop it.
      deep: False refuses 16 bits a channel, for images whose values count, such as masks.
    Raises:
      BrokenImageError, a UserError, where it is not a whole image of 8 or 16 bits a channel, or of more than
      `MOST_PIXELS`.
    """
    with opened(io.BytesIO(encoded), example) as image:
        rgb = to_rgb(image, example, deep=deep)
    if size is not None:
        rgb = resized(rgb, size) if whole else square(rgb, size)
    return np.asarray(rgb)


def decode_file(
    file: Path, size: int | None = None, *, whole: bool = False, deep: bool = True
) -> UInt8[np.ndarray, "H W 3"]:
    """The image in a file, as `decode` makes it. BrokenImageError where it is gone or broken."""
    return decode(_bytes_of(file), str(file), size, whole=whole, deep=deep)


def check_file(file: Path) -> None:
    """BrokenImageError where `decode_file` would raise it. A JPEG is decoded at an eighth of its size."""
    with opened(io.BytesIO(_bytes_of(file)), str(file)) as image:
        if image.mode not in EIGHT_BITS and not is_deep(image):
            to_rgb(image, str(file))
        image.draft("RGB", (1, 1))
        image.load()


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BrokenImageError(str(file), str(error.strerror), f" can't be read ({error.strerror})", "") from None


def square(image: Image.Image, size: int) -> Image.Image:
    """The short side resized to `size` by Pillow's bilinear filter, then the centre cropped, as torchvision does."""
    whole = resized(image, size)
    if whole.size == (size, size):
        return whole
    left, top = (round((side - size) / 2) for side in whole.size)
    return whole.crop((left, top, left + size, top + size))


def resized(image: Image.Image, size: int) -> Image.Image:
    """The short side resized to `size` by Pillow's bilinear filter, the long one in proportion, rounded down."""
    sides = of_short_side(image.size, size)
    return image if image.size == sides else image.resize(sides, Image.Resampling.BILINEAR)


def of_short_side(sides: tuple[int, int], size: int | None) -> tuple[int, int]:
    """An image's sides when the short one is resized to `size`; as they are without one."""
    if size is None:
        return sides
    return size * sides[0] // min(sides), size * sides[1] // min(sides)


def stack(
    images: list[UInt8[np.ndarray, "H W 3"]], examples: list[str], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "n H W 3"]:
    """The images as one array. UserError naming the first that is not of `shape`."""
    for image, example in zip(images, examples, strict=True):
        if image.shape != shape:
            here, first = ("{1} x {0} pixels".format(*s) for s in (image.shape, shape))
            raise UserError(f"{example}: {here}, where the first image has {first}", fix="give data.size, such as 96")
    return np.stack(images) if images else np.zeros((0, *shape), np.uint8)
