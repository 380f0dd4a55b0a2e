"""Images that can't be read: finds them before training, leaves out a few, and replaces those that break later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import write_text
from mi_contrast.data.decoding import BrokenImageError, check_file
from mi_contrast.data.imageset import ImageSet, Ints, map_in_threads

MAX_NAMED = 20  # broken files that a message names; if there are more, LIST names all of them
LIST = Path("broken_images.txt")  # in the working folder


def check_broken_share(broken: float) -> float:
    """Returns the share of a set that may be broken. Raises UserError unless it is a number in [0, 1)."""
    if isinstance(broken, bool) or not isinstance(broken, (int, float)) or not 0 <= broken < 1:
        raise UserError(f"data.broken is {broken!r}", fix="give the share of files that may be broken, such as 0.01")
    return float(broken)


def find_broken(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Decodes every file, in threads. Returns the reason for each file that can't be decoded, by name.

    JPEGs are decoded at an eighth of their size, which still reads all of their bytes.
    """

    def find_reason(name: str) -> str:
        file = root / name
        stat = file.stat()
        return _find_fault(str(file), stat.st_size, stat.st_mtime_ns)

    reasons = map_in_threads(find_reason, names, f"looking for broken images in {root}")
    return {name: reason for name, reason in zip(names, reasons, strict=True) if reason}


@lru_cache(maxsize=2**20)
def _find_fault(file: str, size: int, modified: int) -> str:
    """Returns why a file can't be decoded, or ''. `size` and `modified` are keys of the cache alone."""
    try:
        check_file(Path(file))
    except BrokenImageError as error:
        return error.why
    return ""


def drop_broken(
    names: Sequence[str],
    reasons: Mapping[str, str],
    broken: float,
    where: str,
    say: Callable[[str], None] | None = None,
) -> list[str]:
    """Returns the names that have no reason in `reasons`.

    Args:
      say: what is done with the line that tells how many are left out; by default it is printed on stderr.

    Raises:
      FileError: more than the share `broken` of the names have a reason, or all have. The message lists them. If there
        are more than 20, it names a file in the working folder that lists all, a line each.
    """
    dropped = [name for name in names if name in reasons]
    if dropped and (len(dropped) > broken * len(names) or len(dropped) == len(names)):
        lines = [f"{name}: {reasons[name]}" if reasons[name] else name for name in dropped]
        shown, more = lines, ""
        if len(lines) > MAX_NAMED and _write_list(where, lines):
            shown, more = lines[:MAX_NAMED], f"; all are listed in {LIST.absolute()}"
        least = np.ceil(1e4 * len(dropped) / len(names)) / 1e4
        raise FileError(
            f"{len(dropped)} of {len(names)} images of {where} can't be read: {'; '.join(shown)}{more}",
            fix=f"repair or remove them, or leave them out with data.broken={least:g} or more",
        )
    if dropped:
        (say or _print)(f"{len(dropped)} of {len(names)} images of {where} can't be read and are left out")
    return [name for name in names if name not in reasons]


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def _write_list(where: str, lines: Sequence[str]) -> bool:
    """Writes the list of broken files. Returns whether the working folder could be written."""
    try:
        write_text(LIST, "".join(f"{line}\n" for line in [f"# images of {where} that can't be read", *lines]))
    except UserError:
        return False
    return True


def substitute_broken(images: ImageSet, broken: float) -> ImageSet:
    """Returns the set with images that broke after the scan replaced by the next image that can be read.

    In place of image i, the candidates are i + 1, i + 2, .. modulo N, as many as the share `broken` of N. The choice
    depends on the index and the disk alone, so it is the same on every process and after every restart. The example
    keeps its own label. Nothing is replaced if `broken` is 0.
    """
    max_offset = int(np.ceil(broken * len(images)))
    if max_offset == 0:
        return images
    reported: set[int] = set()

    def stand_in(index: int, read: Callable[[int], Any]) -> Any:
        first_error: BrokenImageError | None = None
        for offset in range(max_offset + 1):
            candidate = (index + offset) % len(images)
            try:
                return read(candidate)
            except BrokenImageError as error:
                if candidate not in reported:
                    print(f"{error.what}; the next image stands in for it", file=sys.stderr)
                reported.add(candidate)
                first_error = first_error or error
        assert first_error is not None
        raise first_error

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        try:
            return images.read(indices)
        except BrokenImageError:
            parts = [stand_in(int(index), lambda i: images.read(np.array([i], np.int64))) for index in indices]
            return np.concatenate(parts)

    return replace(images, read=read, stand_in=stand_in)
