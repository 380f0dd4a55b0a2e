"""A pair set: patches of clips' first frames, and for each its twin and the partners that are compared with it.

A folder holds it:
  patches.npy   uint8 [N, P, P, 3], clip by clip, in a clip row by row; an example's index is its place here
  pairs.npz     columns [N]: clip, row, column (the patch's centre in pixels), state (`STATES`), twin, nats, null, p,
                distance (pixels to the twin), accepted, random, near, alike, and label_<name> for each label;
                twin, random, near and alike are indices, a patch's own where it has none
  pairs.json    how it was made: clips' names, labels' classes, options, what was found
  pictures/     first frames with their twins

As a data set, 'pairs:FOLDER', its examples are the patches. A patch whose twin was not accepted is its own partner
under every word, so that words differ in partners alone and nowhere else.
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
from mi_contrast.core.errors import FileError
from mi_contrast.core.layout import read_json
from mi_contrast.data.decoding import square
from mi_contrast.data.imageset import ImageSet, Ints

PATCHES, TABLE, FACTS = "patches.npy", "pairs.npz", "pairs.json"
STATES = ("tracked", "still", "lost")
TAKEN = ("twin", "random", "near", "alike")  # partners that the table names; 'self' needs no table
WORDS = (*TAKEN, "self")
NUMBERS = ("clip", "row", "column", *TAKEN)
COLUMNS = {
    **dict.fromkeys(NUMBERS, np.int32),
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
    """Writes a pair set to `folder`, whole or not at all: beside it, then renamed.

    Args:
      columns: those of the module's text, [N] each; pictures: file names to PNGs.
    Raises:
      UserError: the folder is there and not empty, or can't be written.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        (beside / "pictures").mkdir(parents=True)
        np.save(beside / PATCHES, patches)
        np.savez(beside / TABLE, **{n: np.asarray(v, COLUMNS.get(n, np.int32)) for n, v in columns.items()})  # type: ignore[arg-type]
        (beside / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for name, png in pictures.items():
            (beside / "pictures" / name).write_bytes(png)
        os.replace(beside, folder)  # an empty folder gives way, another does not
    except OSError as error:
        raise FileError(f"{folder} can't be written ({error.strerror})", fix="give another --workdir") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read(folder: Path) -> tuple[UInt8[np.ndarray, "N P P 3"], dict[str, np.ndarray], dict[str, Any]]:
    """Patches (mapped from disk), columns and facts. UserError where the folder is no pair set, or a broken one."""
    if not (folder / FACTS).is_file():
        what = "holds no pairs.json" if folder.is_dir() else "is not a folder"
        raise FileError(
            f"{folder} {what}", fix="make it with python -m mi_contrast.pairs --clips=PATH --workdir=FOLDER"
        )
    facts = read_json(folder / FACTS)
    try:
        patches = np.load(folder / PATCHES, mmap_mode="r")
        check_npz_sizes(folder / TABLE)
        with np.load(folder / TABLE, allow_pickle=False) as table:
            columns = {name: table[name] for name in table.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FileError(f"{folder} is damaged ({' '.join(str(error).split())[:80]})", fix="make it anew") from None
    missing = [name for name in COLUMNS if name not in columns]
    wrong = [name for name, values in columns.items() if values.shape != patches.shape[:1]]
    if missing or wrong or patches.ndim != 4 or patches.dtype != np.uint8:
        said = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(wrong)} of another length"
        raise FileError(f"{folder / TABLE} {said if missing or wrong else 'has no patches'}", fix="make it anew")
    return patches, columns, facts


def load(folder: Path, split: str, *, size: int | None = None) -> ImageSet:
    """The patches as an ImageSet with `partners`; the split 'train', or a range of it, which counts patches.

    Groups are clips, so that a hold-out takes whole clips; the factor 'clip' is the same. Labels are the table's
    label_<name>. `partners` holds, for each of `WORDS`, the partner of every patch: its own index under all of them
    where its twin is not accepted, or where a partner lies outside the range.

    Args:
      size: if given, patches are resized to it.
    Raises:
      UserError: as `read`; an unknown split or an empty range.
    """
    from mi_contrast.data.records import ranges  # it needs TFDS

    patches, columns, facts = read(folder)
    name = f"pairs:{folder}"
    every = np.arange(len(patches))
    chosen = np.concatenate([every[part] for _, part in ranges({"train": len(patches)}, name, split)])
    side = patches.shape[1] if size is None else size

    def pixels(indices: Ints) -> UInt8[np.ndarray, "n side side 3"]:
        taken = np.asarray(patches[chosen[np.asarray(indices)]])
        if side == taken.shape[1]:
            return taken
        resized = [np.asarray(square(Image.fromarray(patch), side)) for patch in taken]
        return np.stack(resized) if resized else np.zeros((0, side, side, 3), np.uint8)

    labels = {n.removeprefix(LABEL): v[chosen].astype(np.int32) for n, v in columns.items() if n.startswith(LABEL)}
    clips = columns["clip"][chosen].astype(np.int32)
    return ImageSet(
        name,
        split,
        len(chosen),
        (side, side, 3),
        pixels,
        labels,
        {label: tuple(facts.get("classes", {}).get(label, ())) for label in labels},
        groups=clips,
        factors={"clip": clips},
        partners=settled(columns, chosen),
        fingerprint={"set": name, "patches": list(patches.shape), "sha256": digest_of(folder)},
    )


def digest_of(folder: Path) -> str:
    """The sha256 of a pair set's table and facts."""
    return hashlib.sha256((folder / TABLE).read_bytes() + (folder / FACTS).read_bytes()).hexdigest()


def settled(columns: Mapping[str, np.ndarray], chosen: Ints) -> dict[str, Ints]:
    """int32 [n] of each of `WORDS`: partners as places in `chosen`, which differ between words only where the twin was
    accepted and all partners are among the chosen.
    """
    place = np.full(len(columns["twin"]), -1, np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)
    among = {word: place[columns[word][chosen]] for word in TAKEN}
    paired = columns["accepted"][chosen] & np.logical_and.reduce([p >= 0 for p in among.values()])
    own = np.arange(len(chosen), dtype=np.int32)
    return {**{word: np.where(paired, partner, own) for word, partner in among.items()}, "self": own}
