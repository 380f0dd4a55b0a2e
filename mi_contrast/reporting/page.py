"""The page of a run: one self-contained HTML file, from the run directory alone."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mi_contrast.core import schedules
from mi_contrast.core.layout import RunDirectory, write_text
from mi_contrast.reporting import figures, story, words
from mi_contrast.reporting.run import Run, read_run

PICTURE_WIDTH = 1040  # small pictures are shown enlarged by a whole factor up to this many pixels

PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # of COCO; keypoints have no small ones
DETECTOR = {"model": "R-CNN", "trainable_layers": "of 5 layers trained", "iterations": "iterations"}
SOUGHT = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


@dataclass(frozen=True)
class Figure:
    """A chart ready for the page: its legend is HTML beside the SVG, so that it wraps."""

    title: str
    note: str
    svg: Markup
    legend: tuple[tuple[str, str, int], ...]  # name, last value, colour


@dataclass(frozen=True)
class Figures:
    """A section's figures, two beside each other (wide) or three."""

    all: tuple[Figure, ...]
    wide: bool


@dataclass(frozen=True)
class Picture:
    """An image inlined as data. width: CSS pixels, or None for its own; enlarged: shown without smoothing."""

    title: str
    source: str
    width: int | None
    enlarged: bool


@dataclass(frozen=True)
class Row:
    """A judgement in the table of results."""

    task: str
    dataset: str
    label: str
    top1: str
    interval: str
    bar: Markup
    gain: str | None
    twin: bool
    splits: tuple[str, ...]
    step: str
    settings: str


@dataclass(frozen=True)
class Detection:
    """A line of the table of detections: of one kind, before fitting (start) or after, a score a name of PRECISIONS."""

    dataset: str
    kind: str
    when: str
    scores: tuple[str, ...]
    twin: bool
    settings: str


@dataclass(frozen=True)
class Field:
    """A line of the config: how deep it is nested, its name, its value in words or None for a heading."""

    depth: int
    name: str
    value: str | None


def template(name: str) -> jinja2.Template:
    """A page's template, from this folder."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def render(root: Path) -> str:
    """The page's HTML. UserError where `root` is not a run directory; missing pieces are left out."""
    run = read_run(root)
    sections = [(title, _figures(charts), still) for title, charts, still in story.sections(run)]
    return template("page.html.j2").render(
        run=run,
        facts=list(_facts(run)),
        done=_done(run),
        cards=list(story.cards(run)),
        verdict=story.verdict(run),
        sections=sections,
        pictures=[_picture(title, data) for title, data in run.pictures],
        found=[_picture(title, data) for title, data in run.found],
        results=list(_results(run)),
        precisions=PRECISIONS,
        detections=list(_detections(run)),
        export=list(_export(run.manifest)) if run.manifest else [],
        config=[(name, list(fields(value))) for name, value in _sorted(run.config)],
        starts=[_start(start) for start in run.starts],
    )


def write_report(root: Path) -> Path:
    """Writes report.html into the run directory, whole or not at all. Returns its path."""
    path, text = RunDirectory(root).report, render(root)
    write_text(path, text)
    return path


def _done(run: Run) -> float | None:
    return None if run.step is None or not run.total else min(run.step / run.total, 1.0)


def _facts(run: Run) -> Iterable[str]:
    if run.step is None:
        yield "nothing logged yet"
    elif run.total and run.step >= run.total:
        yield f"finished: {words.count(run.total)} steps"
    else:
        yield f"at step {words.count(run.step)}" + (f" of {words.count(run.total)}" if run.total else "")
    if run.seconds > 0:
        yield f"{words.duration(run.seconds)} of training"
    data = run.config.get("data")
    if isinstance(data, Mapping) and data.get("name"):
        yield f"on {data['name']}"
    model = run.config.get("model")
    if isinstance(model, Mapping) and model.get("backbone"):
        yield f"{model['backbone']}" + (f" of width {model['width']}" if model.get("width") else "")
    if "seed" in run.config:
        yield f"seed {run.config['seed']}"
    if len(run.starts) > 1:
        yield f"started {len(run.starts)} times"


def _figures(charts: list[figures.Chart]) -> Figures:
    wide = len(charts) in (1, 2, 4)
    drawn = []
    for chart in charts:
        legend = tuple((line.name, words.number(line.curve.last, chart.unit), line.colour) for line in chart.lines)
        svg = figures.draw(chart, figures.WIDE if wide else figures.COMPACT)
        drawn.append(Figure(chart.title, chart.note, svg, legend))
    return Figures(tuple(drawn), wide)


def _picture(title: str, data: bytes) -> Picture:
    width = int.from_bytes(data[16:20], "big")
    factor = PICTURE_WIDTH // width if width else 0
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    return Picture(title, source, width * factor if factor > 1 else None, factor > 1)


def _results(run: Run) -> Iterable[Row]:
    twins = {_judged(result): result for result in run.results if result.get("untrained")}
    for result in sorted(run.results, key=lambda result: (*_judged(result), bool(result.get("untrained")))):
        low, high = result["interval95"]
        twin = twins.get(_judged(result))
        gain = None
        if twin is not None and not result.get("untrained"):
            gain = words.signed(100 * (result["top1"] - twin["top1"]), "points")
        sizes = [result.get(part, {}) for part in ("fit", "test")]
        yield Row(
            task=str(result.get("task")),
            dataset=str(result.get("dataset")),
            label=str(result.get("label", "")),
            top1=words.number(result["top1"], "%"),
            interval=f"{words.number(low, '%')} to {words.number(high, '%')}",
            bar=figures.interval_bar(
                result["top1"], low, high, 1 / result["classes"] if result.get("classes") else None
            ),
            gain=gain,
            twin=bool(result.get("untrained")),
            splits=tuple(f"{s['split']} {words.count(s['examples'])}" for s in sizes if s),
            step="" if result.get("step") is None else words.count(result["step"]),
            settings=", ".join(
                f"{name} {value(v)}" for name, v in result.get("settings", {}).items() if name != "kind"
            ),
        )


def _detections(run: Run) -> Iterable[Detection]:
    for result in sorted(run.detections, key=lambda result: (*_judged(result), bool(result.get("untrained")))):
        settings = result.get("settings", {})
        told = [f"{settings[name]} {said}" for name, said in DETECTOR.items() if name in settings]
        for kind, scores in result["ap"].items():
            for when in ("start", "end"):
                yield Detection(
                    dataset=str(result.get("dataset")),
                    kind=SOUGHT.get(kind, kind),
                    when=when,
                    scores=tuple(
                        words.number(scores[when][name], "%") if name in scores[when] else "" for name in PRECISIONS
                    ),
                    twin=bool(result.get("untrained")),
                    settings=", ".join(told),
                )


def _judged(result: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(result.get(name)) for name in ("task", "dataset", "label", "settings"))


def _export(manifest: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, item in manifest.items():
        if name == "config":
            continue
        if isinstance(item, (list, tuple, Mapping)) and len(str(item)) > 300:
            yield name, f"{len(item)} entries"
        elif item is not None:
            yield name, value(item)


def _start(start: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = []
    for name, item in start.items():
        if name == "commit" and isinstance(item, str):
            item = item[:12]
        if name == "devices" and isinstance(item, list):
            item = ", ".join(f"{item.count(kind)} x {kind}" for kind in dict.fromkeys(item))
        if isinstance(item, Mapping):
            item = ", ".join(f"{key} {text}" for key, text in item.items() if text is not None)
        if item is not None:
            shown.append((name.replace("_", " "), value(item)))
    return shown


def _sorted(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Single values first, gathered under '', then the sections in their own order."""
    single = {name: item for name, item in config.items() if not isinstance(item, Mapping)}
    nested = [(name, item) for name, item in config.items() if isinstance(item, Mapping)]
    return [("", single), *nested] if single else nested


def fields(config: Any, depth: int = 0) -> Iterable[Field]:
    """The config's lines, nested ones indented; a schedule is one line: 'linear(a=0, b=0.9, start=0, end=0.5)'."""
    for name, item in config.items():
        nested = item
        if isinstance(item, (list, tuple)) and any(isinstance(each, Mapping) for each in item):
            nested = dict(enumerate(item))
        if isinstance(nested, Mapping) and nested and not _is_schedule(nested):
            yield Field(depth, str(name), None)
            yield from fields(nested, depth + 1)
        else:
            yield Field(depth, str(name), value(item))


def value(item: Any) -> str:
    """A config's value in words."""
    if _is_schedule(item):
        return f"{item['kind']}({', '.join(f'{n}={value(v)}' for n, v in item.items() if n != 'kind')})"
    if isinstance(item, Mapping):
        return ", ".join(f"{n} {value(v)}" for n, v in item.items()) or "none"
    if isinstance(item, (list, tuple)):
        return "(" + ", ".join(value(v) for v in item) + ")"
    if isinstance(item, bool) or item is None:
        return {True: "yes", False: "no", None: "none"}[item]
    return f"{item:g}" if isinstance(item, float) else str(item)


def _is_schedule(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("kind") in schedules.FIELDS
