"""A transfer as a table, in CSV and Markdown, and as a figure: a row a set, a backbone beside its untrained twin."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mi_contrast.core.layout import write_text
from mi_contrast.reporting.transfer_figure import draw, name_of
from mi_contrast.reporting.words import count, signed

COLUMNS = (
    "dataset", "classes", "label", "fit_split", "fit_examples", "test_split", "test_examples", "top1", "low", "high",
    "untrained_top1", "untrained_low", "untrained_high", "chance", "missing",
)  # fmt: skip


def write_tables(result: Mapping[str, Any], path: Path) -> tuple[Path, ...]:
    """Writes a transfer's .csv, .md and .svg beside its .json at `path`; the paths."""
    written = {".csv": as_csv(result), ".md": as_markdown(result), ".svg": draw(result)}
    for suffix, text in written.items():
        write_text(path.with_suffix(suffix), text)
    return tuple(path.with_suffix(suffix) for suffix in written)


def as_csv(result: Mapping[str, Any]) -> str:
    """A line a set, shares as numbers in [0, 1]; of a set that is missing, why."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in result["rows"]:
        line = {name: row.get(name) for name in ("dataset", "classes", "label", "chance", "missing")}
        for part in ("fit", "test"):
            line |= {f"{part}_{name}": row.get(part, {}).get(name) for name in ("split", "examples")}
        for which, before in (("trained", ""), ("untrained", "untrained_")):
            if found := row.get(which):
                values = (found["top1"], *found["interval95"])
                line |= {before + name: value for name, value in zip(("top1", "low", "high"), values, strict=True)}
        writer.writerow(line)
    return file.getvalue()


def as_markdown(result: Mapping[str, Any]) -> str:
    """The table for a reader: top-1 in % with its 95 % interval."""
    twins = any("untrained" in row for row in result["rows"])
    head = ["set", "classes", "fitted on", "tested on", "top-1 (95 %)"]
    head += ["untrained (95 %)", "gain"] if twins else []
    lines = [head, ["---"] * len(head), *_lines(result, twins)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{title_of(result)}\n\n{table}\n"


def title_of(result: Mapping[str, Any]) -> str:
    """By which task, at what size, of what."""
    how = ", ".join(f"{name} {value}" for name, value in result["by"].items() if name in ("kind", "solver", "k", "by"))
    return f"Transfer ({how}), images at {result['size']} px, backbone {result['backbone']}, step {result['step']}."


def _lines(result: Mapping[str, Any], twins: bool) -> Iterator[list[str]]:
    for row in result["rows"]:
        name = name_of(row)
        if "missing" in row:
            yield [name, str(row["classes"]), f"missing: {row['missing']}", "", "", *(["", ""] if twins else [])]
            continue
        splits = [f"{row[part]['split']}, {count(row[part]['examples'])}" for part in ("fit", "test")]
        found = [_share(row["trained"])]
        if twins:
            gain = 100 * (row["trained"]["top1"] - row["untrained"]["top1"])
            found += [_share(row["untrained"]), signed(gain, "points")]
        yield [name, str(row["classes"]), *splits, *found]


def _share(found: Mapping[str, Any]) -> str:
    low, high = found["interval95"]
    return f"{100 * found['top1']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
