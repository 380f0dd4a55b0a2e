"""From encoded bytes to uint8 RGB, by Pillow alone, so that pixels don't depend on what else is installed."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mi_contrast.core.errors import UserError

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def decode(encoded: bytes, example: str, size: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """An encoded image (PNG, JPEG, WebP, ...) as uint8 [H, W, 3]; grey is repeated, transparency dropped.

    Args:
      example: its name, for the error.
      size: if given, the short side is resized to it and the centre cropped, `square`.
    Raises:
      UserError where it is not a whole image of 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode, rgb = image.mode, image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{example}: not a readable image ({' '.join(str(error).split())[:80]})", fix="repair or remove it"
        ) from None
    if mode not in EIGHT_BITS:
        raise UserError(f"{example}: an image of mode {mode}", fix="only 8 bits a channel are read")
    return np.asarray(rgb if size is None else square(rgb, size))


def square(image: Image.Image, size: int) -> Image.Image:
    """The short side resized to `size` by Pillow's bilinear filter, then the centre cropped, as torchvision does."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    wide, high = size * width // short, size * height // short
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return image.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def stack(
    images: list[UInt8[np.ndarray, "H W 3"]], examples: list[str], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "n H W 3"]:
    """The images as one array. UserError naming the first that is not of `shape`."""
    for image, example in zip(images, examples, strict=True):
        if image.shape != shape:
            here, first = ("{1} x {0} pixels".format(*s) for s in (image.shape, shape))
            raise UserError(f"{example}: {here}, where the first image has {first}", fix="give data.size, such as 96")
    return np.stack(images) if images else np.zeros((0, *shape), np.uint8)
