"""From encoded bytes to uint8 RGB, by Pillow alone, so that pixels don't depend on what else is installed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mi_contrast.core.errors import UserError

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises on a file that is


def unreadable(example: str, error: Exception) -> UserError:
    """The error of an image that Pillow can't read."""
    said = " ".join(str(error).split())[:80]
    return UserError(f"{example}: not a readable image ({said})", fix="repair or remove it")


def decode(encoded: bytes, example: str, size: int | None = None, *, whole: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """An encoded image (PNG, JPEG, WebP, ...) as uint8 [H, W, 3]; grey is repeated, transparency dropped.

    Args:
      example: its name, for the error.
      size: if given, the short side is resized to it and the centre cropped, `square`.
      whole: don't crop it.
    Raises:
      UserError where it is not a whole image of 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode, rgb = image.mode, image.convert("RGB")
    except BROKEN as error:
        raise unreadable(example, error) from None
    if mode not in EIGHT_BITS:
        raise UserError(f"{example}: an image of mode {mode}", fix="only 8 bits a channel are read")
    if size is not None:
        rgb = resized(rgb, size) if whole else square(rgb, size)
    return np.asarray(rgb)


def decode_file(file: Path, size: int | None = None, *, whole: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """The image in a file, as `decode` makes it. UserError where it is gone or broken."""
    try:
        return decode(file.read_bytes(), str(file), size, whole=whole)
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror})") from None


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
