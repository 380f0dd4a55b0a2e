"""Clips: folders of frames, video files, or the embedded moving digits, one after another, with what is known of them.

PATH/<clip>/<frame>.jpg, PATH/<clip>.mp4 (other video files too), or PATH itself a folder of frames or a video file.
Masks of objects lie in a folder of their own, of the same names: MASKS/<clip>/<frame>.png, 0 where no object is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from mi_contrast.core.errors import FileError, UserError, nearest
from mi_contrast.data.decoding import decode_file, resized, stack
from mi_contrast.data.listing import is_hidden, is_image

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
DIGITS = "moving_digits"
LAYOUT = "give PATH/<clip>/<frame>.jpg, PATH/<clip>.mp4, one video file, or moving_digits"


@dataclass(frozen=True)
class Clip:
    """frames: uint8 [T, H, W, 3]; objects: bool [T, H, W], where an object is, None where that is not known; labels:
    class numbers that all of the clip shares.
    """

    name: str
    frames: UInt8[np.ndarray, "T H W 3"]
    objects: Bool[np.ndarray, "T H W"] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Clips:
    """Clips in order, read one at a time. classes: the names of each label's classes."""

    names: tuple[str, ...]
    read: Callable[[], Iterator[Clip]] = field(repr=False)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Clip]:
        return self.read()


def opencv() -> ModuleType:
    """OpenCV's module. UserError naming the extra where it is not installed."""
    try:
        import cv2
    except ImportError:
        raise UserError("tracks and video files need OpenCV", fix="pip install 'mi-contrast[video]'") from None
    return cv2


def open_clips(
    where: str, *, masks: str | None = None, frames: int = 40, size: int | None = None, limit: int | None = None
) -> Clips:
    """The clips of a path, or of moving_digits.

    Args:
      where: 'moving_digits', or a path as the module's text has it; clips come in the order of their names.
      masks: the folder of objects' masks, if there is one.
      frames: the most of each clip, its first; of moving_digits, all of it (64 at most).
      size: if given, the short side in pixels; of moving_digits 32 or 64, 64 by default.
      limit: the most clips.
    Raises:
      UserError: nothing there, a clip of fewer than 2 frames, frames of several sizes, masks that don't fit.
    """
    if where == DIGITS:
        if masks is not None:
            raise UserError("--masks with --clips=moving_digits", fix="its digits are known, leave out --masks")
        return _digits(frames, size or 64, limit)
    root, of_masks = Path(where).expanduser(), None if masks is None else Path(masks).expanduser()
    found = list_clips(root)[:limit]
    if of_masks is not None:
        for name, _ in found:
            if not (of_masks / name).is_dir():
                there = [p.name for p in of_masks.iterdir()] if of_masks.is_dir() else []
                raise FileError(f"no masks of clip {name} in {of_masks}", nearest=nearest(name, there), fix="")

    def read() -> Iterator[Clip]:
        for name, source in found:
            shown = _frames(source, frames, size)
            if len(shown) < 2:
                raise UserError(f"clip {source} has {len(shown)} frames", fix="give clips of 20 and more")
            yield Clip(name, shown, None if of_masks is None else _masks(of_masks / name, shown.shape[:3]))

    return Clips(tuple(name for name, _ in found), read)


def list_clips(root: Path) -> list[tuple[str, Path]]:
    """Names and places of the clips below a path. UserError where there are none."""
    if not root.exists():
        beside = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
        raise FileError(f"{root} does not exist", nearest=nearest(root.name, [*beside, DIGITS]), fix=LAYOUT)
    if root.is_file() or any(is_image(p) for p in root.iterdir()):
        if root.is_file() and root.suffix.lower() not in VIDEOS:
            raise FileError(f"{root} is no video file", fix=LAYOUT)
        return [(root.stem, root)]
    found = [(p.stem, p) for p in root.iterdir() if p.suffix.lower() in VIDEOS and not is_hidden(p.name)]
    found += [
        (p.name, p)
        for p in root.iterdir()
        if p.is_dir() and not is_hidden(p.name) and any(is_image(f) for f in p.iterdir())
    ]
    if not found:
        raise FileError(f"{root} holds no clips", fix=LAYOUT)
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{root} holds two clips named {twice}", fix="rename one")
    return sorted(found, key=lambda clip: in_order(clip[1]))


def in_order(file: Path) -> list[tuple[int, str]]:
    """A key that sorts names as people do: frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name) if part]


def _frames(source: Path, most: int, size: int | None) -> UInt8[np.ndarray, "T H W 3"]:
    if source.is_dir():
        files = sorted((p for p in source.iterdir() if is_image(p)), key=in_order)[:most]
        shown = [decode_file(file, size, whole=True) for file in files]
        return stack(shown, [str(file) for file in files], shown[0].shape)
    cv2 = opencv()
    video = cv2.VideoCapture(str(source))
    read: list[np.ndarray] = []
    while len(read) < most:
        there, frame = video.read()
        if not there:
            break
        rgb = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        read.append(np.asarray(rgb if size is None else resized(rgb, size)))
    video.release()
    if not read:
        raise FileError(f"{source} is not a readable video", fix="repair or remove it")
    return np.stack(read)


def _masks(folder: Path, shape: tuple[int, ...]) -> Bool[np.ndarray, "T H W"]:
    files = sorted((p for p in folder.iterdir() if is_image(p)), key=in_order)[: shape[0]]
    if len(files) < shape[0]:
        raise UserError(f"{folder} has {len(files)} masks for {shape[0]} frames", fix="give one a frame")
    read = (
        Image.fromarray(decode_file(file, deep=False)).resize((shape[2], shape[1]), Image.Resampling.NEAREST)
        for file in files
    )
    return np.stack([np.asarray(mask).any(axis=-1) for mask in read])


def _digits(length: int, size: int, limit: int | None) -> Clips:
    """Takes of the train split. The object is the digit's ink: it alone is brighter than the dimmed photographs."""
    from mi_contrast.data import moving_digits  # it needs TFDS

    options = moving_digits.make_options({"size": size, "length": length})
    count = moving_digits.CLIPS * len(moving_digits.instances("train"))
    names = tuple(f"{place:05d}" for place in range(count))[:limit]
    brightest = 255 * moving_digits.DIMMED[0] // moving_digits.DIMMED[1]

    def read() -> Iterator[Clip]:
        for name, take in zip(names, moving_digits.clips("train", options), strict=False):
            ink = take.frames.min(axis=-1) > brightest
            yield Clip(name, take.frames, ink, {"digit": take.digit, "background": take.background})

    classes = {"digit": tuple("0123456789"), "background": moving_digits.BACKGROUNDS}
    return Clips(names, read, classes)
