"""What a run directory says, read once. Nothing here knows how it was made; every piece but config.json may lack."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import RunDirectory, read_json

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Curve:
    """One logged number over steps: int64 [n] rising, float64 [n]; values may be NaN or infinite."""

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
    """A run directory's content.

    name, variant, config: of config.json; total: config's steps, or None; step: the last one logged, or None;
    starts: run.json's, oldest first; curves: by metric; seconds: spent training over all starts; results: of results/
    those with a top-1, by file name; detections: those with average precisions; pictures: (title, PNG bytes) of
    the training; found: those of results/; manifest: the export's, or None; unread: what could not be read, in words.
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
    found: tuple[tuple[str, bytes], ...]
    manifest: Mapping[str, Any] | None
    unread: tuple[str, ...]

    @property
    def total(self) -> int | None:
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def step(self) -> int | None:
        return max((int(curve.steps[-1]) for curve in self.curves.values()), default=None)

    def at(self, name: str) -> Curve | None:
        """The curve of that metric, or None where it was never logged."""
        return self.curves.get(name)


def read_run(root: Path) -> Run:
    """Reads a run directory. UserError where it isn't one; what else is broken or missing is said in `unread`."""
    folder = RunDirectory(root)
    if not folder.config.is_file():
        raise FileError(f"{root} is not a run directory (it has no config.json)", fix="name the --workdir of a run")
    described, unread = read_json(folder.config), []

    def read(path: Path) -> Any:
        try:
            return read_json(path) if path.is_file() else None
        except UserError as error:
            unread.append(str(error))
            return None

    rows, broken = read_rows(folder.metrics)
    if broken:
        unread.append(f"{broken} line{'s' if broken > 1 else ''} of metrics.jsonl")
    judged = [value for path in sorted(folder.results.glob("*.json")) if isinstance(value := read(path), dict)]

    def pictures(of: Path) -> Iterator[tuple[str, bytes]]:
        for path in sorted(of.glob("*.png")):
            data = path.read_bytes()
            if data.startswith(PNG):
                yield path.stem.replace("_", " "), data
            else:
                unread.append(f"{path} is not a PNG")

    starts = read(folder.starts) or {}
    return Run(
        root=root,
        name=described.get("name") or root.name,
        variant=described.get("variant"),
        config=described.get("config") or {},
        starts=tuple(starts.get("starts", ()) if isinstance(starts, dict) else starts),
        curves=curves_of(rows),
        seconds=seconds_of(rows),
        results=tuple(value for value in judged if "top1" in value),
        detections=tuple(value for value in judged if "ap" in value),
        pictures=tuple(pictures(folder.pictures)),
        found=tuple(pictures(folder.results)),
        manifest=read(folder.export / "manifest.json"),
        unread=tuple(unread),
    )


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a metrics.jsonl, and how many lines are no rows (the last may be half written)."""
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
    """Each metric's curve, in the order in which metrics first appear; of two rows of one step the later counts."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "seconds") and isinstance(value, (int, float)) and not isinstance(value, bool):
                found.setdefault(name, {})[row["step"]] = float(value)
    return {
        name: Curve(np.array(sorted(points), np.int64), np.array([points[step] for step in sorted(points)], np.float64))
        for name, points in found.items()
    }


def seconds_of(rows: list[dict[str, Any]]) -> float:
    """Seconds over all starts: each start's clock begins at 0 again."""
    total = before = 0.0
    for row in rows:
        now = row.get("seconds")
        if isinstance(now, (int, float)) and math.isfinite(now):
            total += now - before if now >= before else now
            before = now
    return total
