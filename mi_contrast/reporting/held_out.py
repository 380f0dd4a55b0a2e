"""Reads what a run keeps of its held-out images: thumbnails, places on the map, neighbours, and counts."""

from __future__ import annotations

import base64
import itertools
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_contrast.core.layout import RunDirectory


@dataclass(frozen=True)
class Snapshot:
    """What a network at one step makes of the kept images.

    Attributes:
      components: float32 [M, C], principal components of the features on the map, the largest first.
      explained: float32 [C], their shares of the features' variance.
      similarities: float32 [Q, K], cosines of the queries with their nearest training images.
      neighbour_index: int [Q, K], those images.
      neighbour_pictures: data URLs, a row for each query.
      neighbour_labels: int [Q, K], or None.
    """

    step: int
    components: Float[np.ndarray, "M C"]
    explained: Float[np.ndarray, " C"]
    similarities: Float[np.ndarray, "Q K"]
    neighbour_index: Int[np.ndarray, "Q K"]
    neighbour_pictures: tuple[tuple[str, ...], ...]
    neighbour_labels: Int[np.ndarray, "Q K"] | None


@dataclass(frozen=True)
class HeldOut:
    """What a run keeps of its held-out images.

    Attributes:
      pictures: data URLs of the M images on the map. The first `queries` of them are those whose neighbours are kept.
      index: int [M], their indices in the training split.
      is_held_out: bool [M], false for training images that fill up the map of a small set.
      labels: int [M] in `classes`, or None.
      before: of the untrained network; after: of the latest measurement. None where the run has none yet.
      measurements: the lines of measurements.jsonl, by step, without those of problems.
      problems: what could not be kept or read.
    """

    pictures: tuple[str, ...] = ()
    index: Int[np.ndarray, " M"] | None = None
    is_held_out: Bool[np.ndarray, " M"] | None = None
    labels: Int[np.ndarray, " M"] | None = None
    classes: tuple[str, ...] = ()
    queries: int = 0
    before: Snapshot | None = None
    after: Snapshot | None = None
    measurements: Mapping[int, Mapping[str, Any]] | None = None
    problems: tuple[str, ...] = ()

    def count_queries(self, step: int) -> int | None:
        """Returns the number of held-out images that an accuracy of this step was taken on; None if it is unknown."""
        measured = (self.measurements or {}).get(step, {})
        return sum(measured["queries"]) if "queries" in measured else None

    def count_independent(self, step: int, metric: str) -> float | None:
        """Returns the number of independent images that would be as informative as those of this accuracy."""
        return (self.measurements or {}).get(step, {}).get("independent", {}).get(metric)


def read_held_out(root: Path) -> HeldOut:
    """Returns the content of a run's folder held_out/. What is missing is left out; what is damaged is a problem."""
    folder, problems = RunDirectory(root).held_out, []

    def read(name: str) -> dict[str, np.ndarray] | None:
        file = folder / f"{name}.npz"
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            problems.append(f"held_out/{name}.npz ({' '.join(str(error).split())[:100]})")
            return None

    measurements: dict[int, Mapping[str, Any]] = {}
    for row in _read_lines(folder / "measurements.jsonl"):
        if "problem" in row:
            problems.append(f"held_out/ at step {row['step']} ({row['problem']})")
        else:
            measurements[row["step"]] = row
    examples = read("examples")
    if examples is None:
        return HeldOut(measurements=measurements, problems=tuple(problems))
    try:
        return HeldOut(
            pictures=tuple(_split_pictures(examples)),
            index=examples["index"],
            is_held_out=examples["held_out"],
            labels=examples.get("labels"),
            classes=tuple(map(str, examples.get("classes", ()))),
            queries=int(examples["queries"]),
            before=_make_snapshot(read("before")),
            after=_make_snapshot(read("after")),
            measurements=measurements,
            problems=tuple(problems),
        )
    except (KeyError, ValueError) as error:
        return HeldOut(measurements=measurements, problems=(*problems, f"held_out/ (no field {error})"))


def _make_snapshot(arrays: Mapping[str, np.ndarray] | None) -> Snapshot | None:
    if arrays is None:
        return None
    similarities = arrays["similarities"]
    pictures, width = _split_pictures(arrays), similarities.shape[1]
    return Snapshot(
        step=int(arrays["step"]),
        components=arrays["components"].astype(np.float32),
        explained=arrays["explained"],
        similarities=similarities,
        neighbour_index=arrays["neighbour_index"],
        neighbour_pictures=tuple(tuple(pictures[i : i + width]) for i in range(0, len(pictures), width)),
        neighbour_labels=arrays.get("neighbour_labels"),
    )


def _split_pictures(arrays: Mapping[str, np.ndarray]) -> list[str]:
    data, ends = arrays["pictures"].tobytes(), [0, *map(int, arrays["ends"])]
    return [as_data_url(data[start:end], "webp") for start, end in itertools.pairwise(ends)]


def as_data_url(data: bytes, kind: str) -> str:
    """Returns an image file as a data URL; `kind` is 'png' or 'webp'."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def _read_lines(path: Path) -> Sequence[dict[str, Any]]:
    """Returns the rows of a file of JSON lines that have a step. The last line may be half written."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
