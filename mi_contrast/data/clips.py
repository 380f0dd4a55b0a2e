"""Reads clips from folders of frames, from video files or from moving_digits, with object masks and labels if known.

Clips are PATH/<clip>/<frame>.jpg or PATH/<clip>.mp4 (or another video format). PATH can also be one folder of frames or
one video file. Object masks are in a folder of their own, under the same names: MASKS/<clip>/<frame>.png, 0 where there
is no object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from mi_contrast.core.errors import UserError, nearest
from mi_contrast.data import moving_digits
from mi_contrast.data.decoding import decode_file, resize_short_side, stack_images
from mi_contrast.data.listing import is_hidden, is_image

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
DIGITS = "moving_digits"
LAYOUT = "give PATH/<clip>/<frame>.jpg, PATH/<clip>.mp4, one video file, or moving_digits"


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
      name: of the file or folder, without its suffix.
      frames: uint8 [T, H, W, 3].
      objects: bool [T, H, W], True where an object is; None if unknown.
      labels: class numbers of the whole clip, by label.
    """

    name: str
    frames: UInt8[np.ndarray, "T H W 3"]
    objects: Bool[np.ndarray, "T H W"] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Clips:
    """An iterable of clips that reads one at a time. `classes` has the class names of each label."""

    names: tuple[str, ...]
    read: Callable[[], Iterator[Clip]] = field(repr=False)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Clip]:
        return self.read()


def import_opencv() -> Any:
    """Imports OpenCV. Raises UserError that names the extra to install if it is missing."""
    try:
        import cv2
    except ImportError:
        raise UserError("tracks and video files need OpenCV", fix="pip install 'mi-contrast[video]'") from None
    return cv2


def open_clips(
    where: str, *, masks: str | None = None, frames: int = 40, size: int | None = None, limit: int | None = None
) -> Clips:
    """Opens the clips of a path or of moving_digits, in the order of their names.

    Args:
      where: 'moving_digits', or a path laid out as the module's docstring says.
      masks: folder of object masks, if there is one.
      frames: the largest number of frames to read of each clip. For moving_digits, the length of its clips, at most 64.
      size: if given, frames are resized so that the short side has this many pixels. For moving_digits, 32 or 64
        (default).
      limit: the largest number of clips.

    Raises:
      UserError: the path has no clips, a clip has fewer than 2 frames or frames of several sizes, or masks don't fit.
    """
    if where == DIGITS:
        if masks is not None:
            raise UserError("--masks with --clips=moving_digits", fix="its digits are known, leave out --masks")
        return _open_moving_digits(frames, size or 64, limit)
    root, mask_root = Path(where).expanduser(), None if masks is None else Path(masks).expanduser()
    sources = list_clips(root)[:limit]
    if mask_root is not None:
        for name, _ in sources:
            if not (mask_root / name).is_dir():
                names = [p.name for p in mask_root.iterdir()] if mask_root.is_dir() else []
                raise UserError(f"no masks of clip {name} in {mask_root}", nearest=nearest(name, names), fix="")

    def read() -> Iterator[Clip]:
        for name, source in sources:
            pixels = _read_frames(source, frames, size)
            if len(pixels) < 2:
                raise UserError(f"clip {source} has {len(pixels)} frames", fix="give clips of 20 and more")
            yield Clip(name, pixels, None if mask_root is None else _read_masks(mask_root / name, pixels.shape[:3]))

    return Clips(tuple(name for name, _ in sources), read)


def list_clips(root: Path) -> list[tuple[str, Path]]:
    """Returns the names and the paths of the clips below a path. Raises UserError if there are none."""
    if not root.exists():
        siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        raise UserError(f"{root} does not exist", nearest=nearest(root.name, [*siblings, DIGITS]), fix=LAYOUT)
    if root.is_file() or any(is_image(p) for p in root.iterdir()):
        if root.is_file() and root.suffix.lower() not in VIDEOS:
            raise UserError(f"{root} is no video file", fix=LAYOUT)
        return [(root.stem, root)]
    clips = [(p.stem, p) for p in root.iterdir() if p.suffix.lower() in VIDEOS and not is_hidden(p.name)]
    clips += [
        (p.name, p)
        for p in root.iterdir()
        if p.is_dir() and not is_hidden(p.name) and any(is_image(f) for f in p.iterdir())
    ]
    if not clips:
        raise UserError(f"{root} holds no clips", fix=LAYOUT)
    names = [name for name, _ in clips]
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{root} holds two clips named {duplicate}", fix="rename one")
    return sorted(clips, key=lambda clip: natural_key(clip[1]))


def natural_key(file: Path) -> list[tuple[int, str]]:
    """Returns a sort key by which frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name) if part]


def _read_frames(source: Path, limit: int, size: int | None) -> UInt8[np.ndarray, "T H W 3"]:
    if source.is_dir():
        files = sorted((p for p in source.iterdir() if is_image(p)), key=natural_key)[:limit]
        images = [decode_file(file, size, whole=True) for file in files]
        return stack_images(images, [str(file) for file in files], images[0].shape)
    cv2 = import_opencv()
    video = cv2.VideoCapture(str(source))
    frames: list[np.ndarray] = []
    while len(frames) < limit:
        has_frame, frame = video.read()
        if not has_frame:
            break
        rgb = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        frames.append(np.asarray(rgb if size is None else resize_short_side(rgb, size)))
    video.release()
    if not frames:
        raise UserError(f"{source} is not a readable video", fix="repair or remove it")
    return np.stack(frames)


def _read_masks(folder: Path, shape: tuple[int, ...]) -> Bool[np.ndarray, "T H W"]:
    files = sorted((p for p in folder.iterdir() if is_image(p)), key=natural_key)[: shape[0]]
    if len(files) < shape[0]:
        raise UserError(f"{folder} has {len(files)} masks for {shape[0]} frames", fix="give one a frame")
    masks = (
        Image.fromarray(decode_file(file, deep=False)).resize((shape[2], shape[1]), Image.Resampling.NEAREST)
        for file in files
    )
    return np.stack([np.asarray(mask).any(axis=-1) for mask in masks])


def _open_moving_digits(length: int, size: int, limit: int | None) -> Clips:
    """Opens the clips of the train split. The object is the digit, which is brighter than the dimmed photographs."""
    options = moving_digits.make_options({"size": size, "length": length})
    count = moving_digits.CLIPS * len(moving_digits.split_instances("train"))
    names = tuple(f"{number:05d}" for number in range(count))[:limit]
    brightest = 255 * moving_digits.BRIGHTNESS[0] // moving_digits.BRIGHTNESS[1]

    def read() -> Iterator[Clip]:
        for name, clip in zip(names, moving_digits.make_clips("train", options), strict=False):
            is_ink = clip.frames.min(axis=-1) > brightest
            yield Clip(name, clip.frames, is_ink, {"digit": clip.digit, "background": clip.background})

    classes = {"digit": tuple("0123456789"), "background": moving_digits.BACKGROUNDS}
    return Clips(names, read, classes)
