"""Several runs side by side: a table, their curves in common charts, their maps, and a page of all that."""

from __future__ import annotations

import html
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import altair as alt

from mi_contrast.core.config import differences
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory, write_text
from mi_contrast.reporting import charts, drawing, exhibits, glossary, held_out_charts, story, templates, words
from mi_contrast.reporting.embeddings import embed
from mi_contrast.reporting.exhibits import Map, Maps, Similarities
from mi_contrast.reporting.held_out import HeldOut
from mi_contrast.reporting.panels import SECTIONS, Panel
from mi_contrast.reporting.run import Run, read_run
from mi_contrast.reporting.shares import Share
from mi_contrast.reporting.story import Figure
from mi_contrast.reporting.templates import say

SHOWN = ("mi_nats", "knn_top1", "probe_top1", "effective_rank", "alignment", "uniformity")  # metrics of the charts
ON_MAP = 150  # images on the map of each run, where the runs do not show the same images
TOO_FEW = "too few held-out images to tell"
MOST_RUNS = 8  # as many as there are colours


@dataclass(frozen=True)
class Line:
    """A run in the table of the page: its name, a link to its page, and its cells."""

    name: str
    link: str | None
    cells: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs side by side, read when the comparison was made. In a notebook it shows its table.

    Attributes:
      runs: their contents.
      names: what each is called: its folder's name, or as much of its path as tells it from the others.
    """

    runs: tuple[Run, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, roots: Sequence[Path]) -> Comparison:
        """Reads these run directories. Raises UserError if there are fewer than two or too many, or one is no run."""
        unique = list(dict.fromkeys(Path(os.path.normpath(root)) for root in roots))
        if not 2 <= len(unique) <= MOST_RUNS:
            raise UserError(f"{len(unique)} runs to compare", fix=f"name 2 to {MOST_RUNS} run directories")
        return cls(tuple(read_run(root) for root in unique), tuple(name_runs(unique)))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each run: run, steps, seconds, and the last value of each metric that is shown."""
        return [
            {"run": name, "step": run.step, "of": run.total, "seconds": run.seconds}
            | {metric: run.curves[metric].last if metric in run.curves else None for metric in SHOWN}
            for name, run in zip(self.names, self.runs, strict=True)
        ]

    @property
    def table(self) -> Any:
        """The rows as a pandas DataFrame, or as they are where pandas is missing."""
        try:
            return importlib.import_module("pandas").DataFrame(self.rows).set_index("run")
        except ImportError:
            return self.rows

    def plot(self, metric: str = "mi_nats") -> alt.TopLevelMixin:
        """Returns the curves of a metric of all runs in one chart. Raises UserError if no run logged it."""
        figure = draw_metric(self, metric)
        if figure is None:
            raise UserError(f"none of the runs logged {metric!r}", fix=f"they logged {', '.join(self._metrics())}")
        return figure.chart

    def write(self, path: str | Path | None = None) -> Path:
        """Writes the page of the comparison, by default comparison.html beside the first run. Returns its path."""
        target = self.runs[0].root.parent / "comparison.html" if path is None else Path(path)
        write_text(target, render(self, target.parent))
        return target

    def _metrics(self) -> list[str]:
        return sorted({name for run in self.runs for name in run.curves})

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.names)})"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(title)}</th>" for title in ("", *COLUMNS))
        body = "".join(
            f"<tr><td><b>{html.escape(line.name)}</b></td>"
            + "".join(f"<td{' style=opacity:.5' if pale else ''}>{html.escape(text)}</td>" for text, pale in line.cells)
            + "</tr>"
            for line in list_lines(self, None)
        )
        return f"<table><tr>{head}</tr>{body}</table>"


COLUMNS = ("steps", "mutual information", "kNN, held out", "linear probe, held out", "effective rank")


def name_runs(roots: Sequence[Path]) -> list[str]:
    """Returns the shortest ends of the paths that tell them apart."""
    for length in range(1, 1 + max(len(root.parts) for root in roots)):
        names = ["/".join(root.parts[-length:]) for root in roots]
        if len(set(names)) == len(names):
            break
    return names


def list_lines(comparison: Comparison, folder: Path | None) -> Iterator[Line]:
    """Yields the lines of the table.

    Args:
      folder: of the page, from which links start; None for no links.
    """
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        report, link = RunDirectory(run.root).report, None
        if folder is not None and report.is_file():
            link = Path(os.path.relpath(report, folder)).as_posix()
        steps = "none" if run.step is None else words.count(run.step) + (f" of {words.count(run.total or 0)}")
        cells = [(steps, False), (_say_information(run), story.is_too_small(run, "mi_nats"))]
        for metric in ("knn_top1", "probe_top1"):
            share = story.measure(run, metric, -1) if metric in run.curves else None
            if story.is_too_small(run, metric):
                cells.append((f"{TOO_FEW}: {words.count(story.count_measured(run, metric) or 0)}", True))
            else:
                cells.append(("", False) if share is None else (_say_share(share), share.is_uncertain))
        rank = run.curves.get("effective_rank")
        cells.append(("" if rank is None else words.number(rank.last), False))
        yield Line(name, link, tuple(cells))


def _say_information(run: Run) -> str:
    if "mi_nats" not in run.curves:
        return ""
    if story.is_too_small(run, "mi_nats"):
        return f"{TOO_FEW}: {words.count(story.count_measured(run, 'mi_nats') or 0)}"
    ceiling = run.curves.get("mi_ceiling")
    limit = "" if ceiling is None else f" of {words.number(ceiling.last, 'nats')}"
    return words.number(run.curves["mi_nats"].last, "nats").removesuffix(f"{words.THIN}nats" if limit else "") + limit


def _say_share(share: Share) -> str:
    return f"{words.number(share.value, '%')} ({share.describe()})"


def draw_metric(comparison: Comparison, metric: str) -> Figure | None:
    """Returns the curves of one metric, a colour for each run, or None where no run logged it."""
    panel = next((p for _, panels in SECTIONS for p in panels if metric in p.names), Panel(metric, "", {metric: ""}))
    rows, legend, is_pale = [], [], False
    for number, (name, run) in enumerate(zip(comparison.names, comparison.runs, strict=True), 1):
        if metric not in run.curves:
            continue
        curve, mine = run.curves[metric], charts.curve_rows(name, run.curves[metric].steps, run.curves[metric].values)
        if metric in story.ACCURACIES:
            mine = [row | story.find_interval(run, metric, row) for row in mine]
            is_pale |= story.measure(run, metric, -1).is_uncertain
        rows += mine
        legend.append((name, words.number(curve.last, panel.unit), number))
    if not rows:
        return None
    name = panel.names.get(metric) or ""
    title = f"{panel.title}: {name}" if name and name != metric else panel.title
    note = panel.note + (" Bands are 95 % intervals." if any("low" in row for row in rows) else "")
    chart = charts.draw_curves(rows, unit=panel.unit, reach=panel.reach if metric not in story.ACCURACIES else ())
    return Figure(title, note, chart, tuple(legend), pale=is_pale)


def make_maps(comparison: Comparison) -> Maps | None:
    """Returns the map of each trained run, or None where none keeps one. Runs of the same images share their rows."""
    maps, classes = [], []
    places: dict[str, Any] = {}
    kept = [(n, run.held_out) for n, run in zip(comparison.names, comparison.runs, strict=True) if run.held_out.after]
    same = len({held_out.pictures for _, held_out in kept}) == 1
    chosen = [(name, held_out if same else shorten(held_out, ON_MAP)) for name, held_out in kept]
    chosen = [(name, held_out) for name, held_out in chosen if held_out.after and len(held_out.pictures) >= 4]
    for name, held_out in chosen:
        assert held_out.after is not None
        if not same:
            places = {}
        places = places or {
            n: embed(h.after.components, exhibits.choose_method(h))
            for n, h in chosen
            if h.after and (same or n == name)
        }
        classes = exhibits.list_classes(held_out)
        chart = held_out_charts.draw_map(held_out_charts.map_rows(held_out, places), name, classes)
        note = f"Step {words.count(held_out.after.step)}. {exhibits.describe_components(held_out.after)}"
        maps.append(Map(name, note, chart))
    if not maps:
        return None
    colours = held_out_charts.choose_colours(len(classes)) or [f"var(--c{i})" for i in range(1, 9)]
    legend = tuple(zip(classes, colours, strict=False)) if same and len(classes) <= len(colours) else ()
    caption = exhibits.HOW_TO_READ_A_MAP + exhibits.HOW_PLACED[exhibits.choose_method(held_out)]
    return Maps(tuple(maps), legend, caption)


def shorten(held_out: HeldOut, most: int) -> HeldOut:
    """Returns the first `most` images of the map."""
    after = held_out.after
    return replace(
        held_out,
        pictures=held_out.pictures[:most],
        index=None if held_out.index is None else held_out.index[:most],
        is_held_out=None if held_out.is_held_out is None else held_out.is_held_out[:most],
        labels=None if held_out.labels is None else held_out.labels[:most],
        after=None if after is None else replace(after, components=after.components[:most]),
    )


def make_similarities(comparison: Comparison) -> Similarities | None:
    """Returns the newest distribution of similarities of each run, or None where no run keeps one."""
    newest = {}
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        measured = {step: row for step, row in (run.held_out.measurements or {}).items() if "similarities" in row}
        if measured:
            newest[name] = (max(measured), measured[max(measured)])
    rows = [row for _, measured in newest.values() for row in held_out_charts.similarity_rows(measured)]
    if not rows:
        return None
    span = min(row["from"] for row in rows), max(row["to"] for row in rows)
    figures = tuple(
        (f"{name}, step {words.count(step)}", held_out_charts.draw_similarities(measured, span))
        for name, (step, measured) in newest.items()
    )
    has_ring = any(measured.get("ring") for _, measured in newest.values())
    return Similarities(figures, exhibits.list_groups(rows, has_ring), exhibits.describe_similarities(has_ring))


def list_differences(runs: Sequence[Run]) -> Iterator[tuple[str, list[str]]]:
    """Yields each field of the configs that is not the same in all runs, with its value in each."""
    first = runs[0].config
    fields = dict.fromkeys(name for run in runs[1:] for name in differences(first, run.config))
    for name in fields:
        yield name, [_read_field(run.config, name) for run in runs]


def _read_field(config: Mapping[str, Any], path: str) -> str:
    item: Any = config
    for name in path.split("."):
        if isinstance(item, (list, tuple)) and name.isdigit() and int(name) < len(item):
            item = item[int(name)]
        elif isinstance(item, Mapping) and name in item:
            item = item[name]
        else:
            return "absent"
    return say(item)


def list_results(comparison: Comparison) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Yields each judgement that some run has, with the top-1 of each run and whether it is pale."""
    from mi_contrast.reporting.shares import read_share

    found: dict[str, dict[str, Share]] = {}
    for name, run in zip(comparison.names, comparison.runs, strict=True):
        for result in run.results:
            what = ", ".join(str(result[part]) for part in ("task", "dataset", "label") if result.get(part))
            what += ", untrained" if result.get("untrained") else ""
            found.setdefault(what, {})[name] = read_share(result)
    for what, shares in sorted(found.items()):
        cells = [
            (("", False) if (s := shares.get(n)) is None else (_say_share(s), s.is_uncertain)) for n in comparison.names
        ]
        yield what, cells


@drawing.unvalidated
def render(comparison: Comparison, folder: Path) -> str:
    """Returns the HTML of the page, whose links start from `folder`."""
    figures = [figure for metric in SHOWN if (figure := draw_metric(comparison, metric)) is not None]
    return templates.render(
        "comparison.html.j2",
        names=comparison.names,
        columns=COLUMNS,
        lines=list(list_lines(comparison, folder)),
        figures=figures,
        maps=make_maps(comparison),
        similarities=make_similarities(comparison),
        differences=list(list_differences(comparison.runs)),
        results=list(list_results(comparison)),
        problems=[f"{n}: {p}" for n, run in zip(comparison.names, comparison.runs, strict=True) for p in run.problems],
        glossary=glossary.WORDS,
    )
