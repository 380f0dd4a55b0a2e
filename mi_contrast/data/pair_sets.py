"""Pair sets: patches of the first frames of clips, each with a twin and with control partners.

The files of a pair set's folder:

  patches.npy   uint8 [N, P, P, 3], clip by clip, and row by row within a clip. The position here is the index.
  pairs.npz     columns [N]: clip, row, column (centre of the patch in pixels), state (`STATES`), twin, nats, null, p,
                distance (pixels to the twin), accepted, random, near, alike, and label_<name> for each label.
                twin, random, near and alike are indices. A patch without a partner has its own index.
  pairs.json    how the set was made: names of the clips, classes of the labels, options, results
  pictures/     first frames with their twins

The data set 'pairs:FOLDER' has the patches as its examples. A patch whose twin was not accepted is its own partner
under every word. Two words then differ in their partners alone, not in which examples have one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import read_json
from mi_contrast.data.decoding import crop_square
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.records import resolve_ranges

PATCHES, TABLE, FACTS = "patches.npy", "pairs.npz", "pairs.json"
STATES = ("tracked", "still", "lost")
TABLE_WORDS = ("twin", "random", "near", "alike")  # the partners that the table lists; 'self' needs no column
WORDS = (*TABLE_WORDS, "self")
INT_COLUMNS = ("clip", "row", "column", *TABLE_WORDS)
COLUMNS = {
    **dict.fromkeys(INT_COLUMNS, np.int32),
    "state": np.int8,
    **dict.fromkeys(("nats", "null", "p", "distance"), np.float32),
    "accepted": np.bool_,
}
LABEL = "label_"


def write(
    folder: Path,
    patches: UInt8[np.ndarray, "N P P 3"],
    columns: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
    pictures: Mapping[str, bytes],
) -> None:
    """Writes a pair set to `folder`, whole or not at all.

    Args:
      folder: must not exist, or be empty.
      patches: uint8 [N, P, P, 3].
      columns: arrays [N] by name, as the module's docstring lists them.
      facts: the content of pairs.json.
      pictures: PNGs by file name.

    Raises:
      UserError: the folder exists and is not empty, or can't be written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    arrays = {name: np.asarray(values, COLUMNS.get(name, np.int32)) for name, values in columns.items()}
    try:
        (temporary / "pictures").mkdir(parents=True)
        np.save(temporary / PATCHES, patches)
        np.savez(temporary / TABLE, **arrays)  # type: ignore[arg-type]
        (temporary / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for name, png in pictures.items():
            (temporary / "pictures" / name).write_bytes(png)
        os.replace(temporary, folder)  # replaces an empty folder, and fails for any other
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror})", fix="give another --workdir") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path) -> tuple[UInt8[np.ndarray, "N P P 3"], dict[str, np.ndarray], dict[str, Any]]:
    """Reads a pair set. Returns the patches (memory-mapped), the columns and the content of pairs.json.

    Raises UserError if the folder is not a pair set, or is damaged.
    """
    if not (folder / FACTS).is_file():
        what = "holds no pairs.json" if folder.is_dir() else "is not a folder"
        raise UserError(
            f"{folder} {what}", fix="make it with python -m mi_contrast.pairs --clips=PATH --workdir=FOLDER"
        )
    facts = read_json(folder / FACTS)
    try:
        patches = np.load(folder / PATCHES, mmap_mode="r")
        check_npz_sizes(folder / TABLE)
        with np.load(folder / TABLE, allow_pickle=False) as table:
            columns = {name: table[name] for name in table.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder} is damaged ({' '.join(str(error).split())[:80]})", fix="make it anew") from None
    missing = [name for name in COLUMNS if name not in columns]
    wrong = [name for name, values in columns.items() if values.shape != patches.shape[:1]]
    if missing or wrong or patches.ndim != 4 or patches.dtype != np.uint8:
        fault = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(wrong)} of another length"
        raise UserError(f"{folder / TABLE} {fault if missing or wrong else 'has no patches'}", fix="make it anew")
    return patches, columns, facts


def load(folder: Path, split: str, *, size: int | None = None) -> ImageSet:
    """Loads the patches as an ImageSet with `partners`.

    Groups and the factor 'clip' are the clips, so the held-out part consists of whole clips. Labels are the columns
    label_<name>. For each word in `WORDS`, `partners` has the partner of every patch. A patch is its own partner under
    every word if its twin was not accepted, or if one of its partners is outside the range.

    Args:
      folder: of the pair set.
      split: 'train' or a range of it, which counts patches.
      size: if given, patches are resized to squares of this side.

    Raises:
      UserError: as `read`, or the split is unknown or the range empty.
    """
    patches, columns, facts = read(folder)
    name = f"pairs:{folder}"
    ranges = resolve_ranges({"train": len(patches)}, name, split)
    rows = np.concatenate([np.arange(len(patches))[part] for _, part in ranges])
    side = patches.shape[1] if size is None else size

    def read_pixels(indices: Ints) -> UInt8[np.ndarray, "n side side 3"]:
        pixels = np.asarray(patches[rows[np.asarray(indices)]])
        if side == pixels.shape[1]:
            return pixels
        resized = [np.asarray(crop_square(Image.fromarray(patch), side)) for patch in pixels]
        return np.stack(resized) if resized else np.zeros((0, side, side, 3), np.uint8)

    labels = {n.removeprefix(LABEL): v[rows].astype(np.int32) for n, v in columns.items() if n.startswith(LABEL)}
    clips = columns["clip"][rows].astype(np.int32)
    return ImageSet(
        name,
        split,
        len(rows),
        (side, side, 3),
        read_pixels,
        labels,
        {label: tuple(facts.get("classes", {}).get(label, ())) for label in labels},
        groups=clips,
        factors={"clip": clips},
        partners=select_partners(columns, rows),
        fingerprint={"set": name, "patches": list(patches.shape), "sha256": compute_digest(folder)},
    )


def compute_digest(folder: Path) -> str:
    """Returns the sha256 of a pair set's table and facts."""
    return hashlib.sha256((folder / TABLE).read_bytes() + (folder / FACTS).read_bytes()).hexdigest()


def select_partners(columns: Mapping[str, np.ndarray], rows: Ints) -> dict[str, Ints]:
    """Returns the partner of each patch in `rows`, int32 [n] by word of `WORDS`, as a position in `rows`.

    A patch is its own partner under every word unless its twin was accepted and all of its partners are in `rows`.
    """
    position = np.full(len(columns["twin"]), -1, np.int32)
    position[rows] = np.arange(len(rows), dtype=np.int32)
    partners = {word: position[columns[word][rows]] for word in TABLE_WORDS}
    is_paired = columns["accepted"][rows] & np.logical_and.reduce([p >= 0 for p in partners.values()])
    own = np.arange(len(rows), dtype=np.int32)
    return {**{word: np.where(is_paired, partner, own) for word, partner in partners.items()}, "self": own}
