"""python -m mi_contrast.data.statistics --name=NAME: prints the mean and standard deviation of a set's channels.

They are printed as the flags `--config.views.mean` and `--config.views.std`, for any set and any colour space.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from mi_contrast.core.colour import check_space, from_rgb
from mi_contrast.core.config import convert, parse
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.data import sets
from mi_contrast.data.imageset import CHUNK, ImageSet, map_in_threads

PIXELS = 2**22  # the most that a thread holds at a time
DIGITS = 5  # significant digits that are printed
FLAGS = {
    "name=": "the set: cifar10, moving_digits, folder:PATH",
    "dir=": "the folder of TFDS sets (default TFDS's own)",
    "split=": "default train",
    "space=": "a colour space, default rgb",
    "broken=": "the share of the images that may be unreadable and are left out, default 0",
    "size=": "pixels to which each image's short side is resized before its centre is cropped",
    "options=": "for moving_digits \"{'size': 32, 'length': 8}\", for a folder \"{'tile': 224, 'stride': 8}\"",
}
Channels = tuple[float, float, float]


def compute_statistics(images: ImageSet, space: str = "rgb") -> tuple[Channels, Channels]:
    """Returns the mean and standard deviation of each channel over all pixels of all images.

    Images are converted from RGB in [0, 1] to the colour space in float32, as views are. The sums are in float64. The
    variance is divided by the number of pixels. Images are read in threads, with a progress bar after 5 s.

    Raises UserError if the space is unknown, or if a channel is constant: views could not be divided by its deviation.
    """
    check_space(space)
    height, width, _ = images.image_shape
    block = max(1, min(CHUNK, PIXELS // (height * width)))
    blocks = [np.arange(start, min(start + block, len(images))) for start in range(0, len(images), block)]
    sum_block = partial(_sum_block, images.images, jax.jit(partial(_convert_block, space)), block)
    block_sums = map_in_threads(sum_block, blocks, f"statistics of {images.name} {images.split}")
    sums, squares = sum(block_sums, np.zeros((2, 3)))
    count = len(images) * height * width
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
    if not (std > 1e-6 * np.maximum(1.0, np.abs(mean))).all():
        raise UserError(f"a channel of {images.name} in {space} does not vary: deviations {std.tolist()}")
    return _to_channels(mean), _to_channels(std)


def _to_channels(values: Float[np.ndarray, " 3"]) -> Channels:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _convert_block(space: str, pixels: UInt8[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    return from_rgb(pixels.astype(jnp.float32) / 255.0, space)


def _sum_block(
    read: Callable[..., Any], convert_block: Callable[..., Any], block: int, indices: np.ndarray
) -> Float[np.ndarray, "2 3"]:
    """Returns each channel's sum and sum of squares over a block of images.

    A shorter block is padded to `block` images, so that one compiled program serves all blocks.
    """
    pixels = read(np.pad(indices, (0, block - len(indices)), mode="edge"))
    values = np.asarray(convert_block(pixels))[: len(indices)].reshape(-1, 3).astype(np.float64)
    return np.stack([values.sum(axis=0), np.einsum("nc,nc->c", values, values)])


def format_flags(mean: Channels, std: Channels) -> list[str]:
    """Formats the two flags that a command line takes."""
    rounded = [tuple(float(f"{value:.{DIGITS}g}") for value in values) for values in (mean, std)]
    return [f"--config.views.{name}='{values}'" for name, values in zip(("mean", "std"), rounded, strict=True)]


def main(arguments: list[str]) -> None:
    """Prints the two flags for the set that the command line names."""
    flags = parse(arguments, FLAGS, positional="name", usage=__doc__ or "").flags
    if "name" not in flags:
        raise UserError("no set is named", fix="give --name=cifar10, --name=folder:PATH, ..")
    space = check_space(flags.get("space", "rgb"))
    size = convert(None, flags["size"], "--size") if "size" in flags else None
    options = convert({}, flags["options"], "--options") if "options" in flags else None
    images = sets.load(
        flags["name"],
        flags.get("split", "train"),
        data_dir=flags.get("dir"),
        size=size,
        options=options,
        broken=convert(0.0, flags.get("broken", "0"), "--broken"),
    )
    print("\n".join(format_flags(*compute_statistics(images, space))))


if __name__ == "__main__":
    sys.exit(run_job(main))
