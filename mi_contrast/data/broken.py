"""Images that can't be read: found in one scan, listed together, left out where few enough, and replaced if later."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.data.decoding import BrokenImageError, check_file
from mi_contrast.data.imageset import ImageSet, Ints, in_threads

SHOWN = 20  # broken files that a line names


def check_share(broken: float) -> float:
    """The share of a set that may be broken. UserError unless it is a number of 0 or more and below 1."""
    if isinstance(broken, bool) or not isinstance(broken, (int, float)) or not 0 <= broken < 1:
        raise UserError(f"data.broken is {broken!r}", fix="give the share of files that may be broken, such as 0.01")
    return float(broken)


def scan(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The files that can't be decoded, and why: every one is read whole, in threads, with progress past 5 s.

    JPEGs are decoded at an eighth of their size, which reads all that they hold.
    """

    def why(name: str) -> str:
        file = root / name
        about = file.stat()
        return _why(str(file), about.st_size, about.st_mtime_ns)

    found = in_threads(why, names, f"looking for broken images in {root}")
    return {name: said for name, said in zip(names, found, strict=True) if said}


@lru_cache(maxsize=2**20)
def _why(file: str, size: int, changed: int) -> str:
    """Why a file can't be decoded, '' where it can; asked once a process for a file that stays as it is."""
    try:
        check_file(Path(file))
    except BrokenImageError as error:
        return error.why
    return ""


def keep_good(names: Sequence[str], bad: Mapping[str, str], broken: float, where: str) -> list[str]:
    """The names without the bad ones. UserError that lists these where their share is over `broken`, or all are."""
    found = [name for name in names if name in bad]
    if found and (len(found) > broken * len(names) or len(found) == len(names)):
        shown = "; ".join(f"{name}: {bad[name]}" if bad[name] else name for name in found[:SHOWN])
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        least = np.ceil(1e4 * len(found) / len(names)) / 1e4
        raise FileError(
            f"{len(found)} of {len(names)} images of {where} can't be read: {shown}{more}",
            fix=f"repair or remove them, or leave them out with data.broken={least:g} or more",
        )
    if found:
        print(f"{len(found)} of {len(names)} images of {where} can't be read and are left out", file=sys.stderr)
    return [name for name in names if name not in bad]


def replacing(images: ImageSet, broken: float) -> ImageSet:
    """The set with the next index that can be read in place of one that broke after the scan.

    For index i these are i + 1, i + 2, .. modulo N, as many as the share `broken` of N: a function of the index and of
    what lies on disk, so that it is the same on every process and after every restart. The example keeps its own
    label. Nothing is replaced where `broken` is 0.
    """
    most = int(np.ceil(broken * len(images)))
    if most == 0:
        return images
    told: set[int] = set()

    def one(index: int) -> UInt8[np.ndarray, "1 H W 3"]:
        first: BrokenImageError | None = None
        for after in range(most + 1):
            at = (index + after) % len(images)
            try:
                return images.read(np.array([at], np.int64))
            except BrokenImageError as error:
                if at not in told:
                    print(f"{error.what}; the next image stands in for it", file=sys.stderr)
                told.add(at)
                first = first or error
        assert first is not None
        raise first

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        try:
            return images.read(indices)
        except BrokenImageError:
            return np.concatenate([one(int(index)) for index in indices])

    return replace(images, read=read)
