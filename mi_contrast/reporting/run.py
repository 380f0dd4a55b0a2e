"""Reads a run directory for its page. Every file but config.json may be missing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.errors import FileError, UserError, nearest
from mi_contrast.core.layout import RunDirectory, read_json
from mi_contrast.reporting.held_out import HeldOut, read_held_out

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Curve:
    """One metric over training: steps int64 [n], rising, and values float64 [n], which may be NaN or infinite."""

    steps: np.ndarray
    values: np.ndarray

    @property
    def first(self) -> float:
        return float(self.values[0])

    @property
    def last(self) -> float:
        return float(self.values[-1])


@dataclass(frozen=True)
class Run:
    """The content of a run directory.

    Attributes:
      name, variant, config: the entries of config.json.
      starts: the entries of run.json, oldest first.
      curves: maps a metric's name to its curve.
      seconds: time spent in training over all starts.
      results: the result files that have a top-1 accuracy, sorted by file name.
      detections: the result files that have average precisions.
      pictures: (title, PNG bytes) of the pictures of training.
      result_pictures: the same of results/.
      manifest: that of the export, or None.
      held_out: what the run keeps of its held-out images; runs of 0.1.0 keep nothing.
      problems: a message for each file or line that could not be read.
    """

    root: Path
    name: str
    variant: str | None
    config: Mapping[str, Any]
    starts: tuple[Mapping[str, Any], ...]
    curves: Mapping[str, Curve]
    seconds: float
    results: tuple[Mapping[str, Any], ...]
    detections: tuple[Mapping[str, Any], ...]
    pictures: tuple[tuple[str, bytes], ...]
    result_pictures: tuple[tuple[str, bytes], ...]
    manifest: Mapping[str, Any] | None
    held_out: HeldOut
    problems: tuple[str, ...]

    @property
    def total(self) -> int | None:
        """The config's number of steps, or None."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def step(self) -> int | None:
        """The last step logged, or None."""
        return max((int(curve.steps[-1]) for curve in self.curves.values()), default=None)


def read_run(root: Path) -> Run:
    """Returns the content of a run directory. Unreadable files are listed in `problems` instead of raising.

    Raises:
      UserError: `root` is not a run directory.
    """
    folder = RunDirectory(root)
    if not folder.config.is_file():
        siblings = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        near = None if root.exists() else nearest(root.name, siblings)
        problem = f"{root} is not a run directory (it has no config.json)"
        raise FileError(problem, nearest=near, fix="name the --workdir of a run")
    described, problems = read_json(folder.config), []

    def read(path: Path) -> Any:
        try:
            return read_json(path) if path.is_file() else None
        except UserError as error:
            problems.append(str(error))
            return None

    rows, broken = read_rows(folder.metrics)
    if broken:
        problems.append(f"{broken} line{'s' if broken > 1 else ''} of metrics.jsonl")
    results = [value for path in sorted(folder.results.glob("*.json")) if isinstance(value := read(path), dict)]

    def pictures(directory: Path) -> Iterator[tuple[str, bytes]]:
        for path in sorted(directory.glob("*.png")):
            data = path.read_bytes()
            if data.startswith(PNG):
                yield path.stem.replace("_", " "), data
            else:
                problems.append(f"{path} is not a PNG")

    starts = read(folder.starts) or {}
    held_out = read_held_out(root)
    return Run(
        root=root,
        name=described.get("name") or root.name,
        variant=described.get("variant"),
        config=described.get("config") or {},
        starts=tuple(starts.get("starts", ()) if isinstance(starts, dict) else starts),
        curves=curves_of(rows),
        seconds=seconds_of(rows),
        results=tuple(value for value in results if "top1" in value),
        detections=tuple(value for value in results if "ap" in value),
        pictures=tuple(pictures(folder.pictures)),
        result_pictures=tuple(pictures(folder.results)),
        manifest=read(folder.export / "manifest.json"),
        held_out=held_out,
        problems=(*problems, *held_out.problems),
    )


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the rows of a metrics.jsonl and the number of unreadable lines. The last line may be half written."""
    rows, broken = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
            rows.append(row)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            broken += bool(line.strip())
    return rows, broken


def curves_of(rows: list[dict[str, Any]]) -> dict[str, Curve]:
    """Returns a Curve for each metric, by first appearance. A later row overrides an earlier one of the same step."""
    points: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "seconds") and isinstance(value, (int, float)) and not isinstance(value, bool):
                points.setdefault(name, {})[row["step"]] = float(value)
    return {
        name: Curve(np.array(sorted(values), np.int64), np.array([values[step] for step in sorted(values)], np.float64))
        for name, values in points.items()
    }


def seconds_of(rows: list[dict[str, Any]]) -> float:
    """Returns the total training time in seconds. `seconds` restarts at 0 in each start of the run."""
    total = before = 0.0
    for row in rows:
        now = row.get("seconds")
        if isinstance(now, (int, float)) and math.isfinite(now):
            total += now - before if now >= before else now
            before = now
    return total
