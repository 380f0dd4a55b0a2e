"""Keeps what was learned by reading every record of a large set, beside the set or in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import write_atomically
from mi_contrast.core.user_cache import user_cache

LARGE = 50_000  # records of a set whose labels are kept
LARGE_SCAN = 2_000  # images of a set whose broken ones are kept: every image is decoded to find them
FOLDER = ".mi_contrast"  # in the set's own folder; lists of images skip it, because it begins with a dot


def keep_arrays(
    root: str, what: str, facts: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns the arrays of `make`, which is called only if no file has kept its result for the same facts.

    The file is `.mi_contrast/<what>-<checksum of the facts>.npz` in the set's folder or, where that can't be written,
    `data/` in the user's cache folder. It is written whole or not at all, so several processes may do so at a time. A
    damaged file is made anew.

    Args:
      root: the set's folder. It may be an address such as gs://.., beside which nothing is written.
      what: a short name for the arrays.
      facts: plain data that change when the set on disk changes: its fingerprint.
      make: reads the set. Arrays are of numbers or strings, not of objects.
    """
    key = hashlib.sha256(json.dumps([what, facts], sort_keys=True).encode()).hexdigest()[:16]
    elsewhere = user_cache() / "data" / hashlib.sha256(root.encode()).hexdigest()[:16]
    folders = [elsewhere] if "://" in root else [Path(root) / FOLDER, elsewhere]
    files = [folder / f"{what}-{key}.npz" for folder in folders]
    for file in files:
        if (kept := _read(file)) is not None:
            return kept
    made = dict(make())
    for file in files:
        if _write(file, made):
            return made
    print(f"{files[-1]} can't be written: {what} of {root} will be read again", file=sys.stderr)
    return made


def keep_reasons(
    root: str, facts: Mapping[str, Any], find: Callable[[], Mapping[str, str]], count: int
) -> dict[str, str]:
    """Returns the reason of each broken image by name, as `find` does, and keeps them if there are many images.

    Args:
      root, facts: as for `keep_arrays`.
      count: number of images.
    """
    if count < LARGE_SCAN:
        return dict(find())

    def make() -> dict[str, np.ndarray]:
        reasons = find()
        return {"names": np.array(list(reasons), np.str_), "reasons": np.array(list(reasons.values()), np.str_)}

    kept = keep_arrays(root, "broken", facts, make)
    return dict(zip(kept["names"].tolist(), kept["reasons"].tolist(), strict=True))


def _read(file: Path) -> dict[str, np.ndarray] | None:
    """Returns the arrays in a file, or None if it does not exist or is damaged."""
    try:
        if not file.is_file():
            return None
        check_npz_sizes(file)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        print(f"{file} is damaged and is made anew", file=sys.stderr)
        return None


def _write(file: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    """Writes the arrays and returns True, or returns False if the folder can't be written."""
    try:
        with write_atomically(file) as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
    except (UserError, OSError):
        return False
    return True
