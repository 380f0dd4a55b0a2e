"""Writes a transfer as a table, in CSV and Markdown, and as a chart: the accuracy on each data set and its twin's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mi_contrast.core.layout import write_text
from mi_contrast.reporting.words import count, signed

COLUMNS = (
    "dataset", "classes", "label", "fit_split", "fit_examples", "test_split", "test_examples", "top1", "low", "high",
    "untrained_top1", "untrained_low", "untrained_high", "chance", "missing",
)  # fmt: skip


def write_tables(result: Mapping[str, Any], path: Path) -> tuple[Path, ...]:
    """Writes the .csv, .md and .svg of a transfer beside its .json at `path`. Returns their paths."""
    written = {".csv": as_csv(result), ".md": as_markdown(result), ".svg": as_svg(result)}
    for suffix, text in written.items():
        write_text(path.with_suffix(suffix), text)
    return tuple(path.with_suffix(suffix) for suffix in written)


def as_svg(result: Mapping[str, Any]) -> str:
    """Returns the chart of the transfer as an SVG file."""
    from mi_contrast.reporting import (
        charts,
        drawing,
    )  # Altair takes half a second to import, and most jobs draw nothing

    by = ", ".join(str(result["by"][name]) for name in ("kind", "solver", "by") if name in result["by"])
    note = [f"top-1 on the test split with its 95 % interval; images at {result['size']} px"]
    twins = any("untrained" in row for row in result["rows"])
    note.append("ring: the untrained network; grey stroke: chance" if twins else "grey stroke: chance")
    chart = charts.draw_accuracies(accuracy_rows(result))
    return drawing.as_svg(chart.properties(title=charts.title_of(f"Transfer by {by}", note)))


def accuracy_rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the rows of `charts.draw_accuracies`: each data set, and the untrained twin on it."""
    for row in result["rows"]:
        name = f"{name_of(row)}, {row['classes']} classes"
        if "missing" in row:
            yield {"name": name, "kind": "trained", "missing": "missing"}
        for kind in ("trained", "untrained"):
            if kind in row:
                low, high = row[kind]["interval95"]
                shares = {"top1": row[kind]["top1"], "low": low, "high": high, "chance": row["chance"]}
                yield {"name": name, "kind": kind, **shares}


def name_of(row: Mapping[str, Any]) -> str:
    """Returns the data set's name as a reader knows it: of a folder the last part."""
    return str(row["dataset"]).removeprefix("folder:").rstrip("/").rpartition("/")[2]


def as_csv(result: Mapping[str, Any]) -> str:
    """Returns a line for each data set: shares in [0, 1], or why the set is missing."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in result["rows"]:
        line = {name: row.get(name) for name in ("dataset", "classes", "label", "chance", "missing")}
        for part in ("fit", "test"):
            line |= {f"{part}_{name}": row.get(part, {}).get(name) for name in ("split", "examples")}
        for which, before in (("trained", ""), ("untrained", "untrained_")):
            if judged := row.get(which):
                values = (judged["top1"], *judged["interval95"])
                line |= {before + name: value for name, value in zip(("top1", "low", "high"), values, strict=True)}
        writer.writerow(line)
    return file.getvalue()


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns the table for a reader: top-1 in % with its 95 % interval."""
    twins = any("untrained" in row for row in result["rows"])
    head = ["set", "classes", "fitted on", "tested on", "top-1 (95 %)"]
    head += ["untrained (95 %)", "gain"] if twins else []
    lines = [head, ["---"] * len(head), *_lines(result, twins)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{title_of(result)}\n\n{table}\n"


def title_of(result: Mapping[str, Any]) -> str:
    """Returns a sentence on the task, the size of images and the backbone."""
    task = ", ".join(
        f"{name} {value}"
        for name, value in result["by"].items()
        if name in ("kind", "solver", "k", "by") and value is not None
    )
    return f"Transfer ({task}), images at {result['size']} px, backbone {result['backbone']}, step {result['step']}."


def _lines(result: Mapping[str, Any], twins: bool) -> Iterator[list[str]]:
    for row in result["rows"]:
        name = name_of(row)
        if "missing" in row:
            yield [name, str(row["classes"]), f"missing: {row['missing']}", "", "", *(["", ""] if twins else [])]
            continue
        splits = [f"{row[part]['split']}, {count(row[part]['examples'])}" for part in ("fit", "test")]
        shares = [_share(row["trained"])]
        if twins:
            gain = 100 * (row["trained"]["top1"] - row["untrained"]["top1"])
            shares += [_share(row["untrained"]), signed(gain, "points")]
        yield [name, str(row["classes"]), *splits, *shares]


def _share(result: Mapping[str, Any]) -> str:
    low, high = result["interval95"]
    return f"{100 * result['top1']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
