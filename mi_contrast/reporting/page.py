"""The page of a run: one self-contained HTML file, from the run directory alone."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mi_contrast.core.layout import RunDirectory, write_text
from mi_contrast.reporting import charts, drawing, exhibits, glossary, next_steps, story, templates, words
from mi_contrast.reporting.held_out import as_data_url
from mi_contrast.reporting.run import Run, read_run
from mi_contrast.reporting.shares import ENOUGH, read_share
from mi_contrast.reporting.templates import is_schedule, say

RESULTS_CAPTION = (
    "Top-1 on test images with its 95 % interval. An orange circle is the untrained network, a grey stroke is chance. "
    f"Accuracies on fewer than {ENOUGH} images are greyed out, and no difference is read from them."
)
CAPTIONS = {  # of the pictures that a run writes
    "pairs": "A column is a pair of held-out views. Odd rows are the images that the views are made from, and below "
    "each is the view that the network sees. Positives are the views of one column.",
    "channels": "A column is a held-out image. Below it are the channels of its colour spaces and those that were "
    "learned, from dark (low) to light (high).",
}
LARGE = 150_000  # bytes of a picture above which the page holds it with less detail
PICTURE_WIDTH = 1040  # pixels up to which a small picture is enlarged, by a whole factor

PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # of COCO; keypoints have no APs
DETECTOR = {"model": "R-CNN", "trainable_layers": "of 5 layers trained", "iterations": "iterations"}
KINDS = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


@dataclass(frozen=True)
class Picture:
    """An image inside the page.

    Attributes:
      source: the image as a data URL.
      width: CSS pixels, or None for the image's own.
      enlarged: show it without smoothing.
      caption: how to read it, or ''.
    """

    title: str
    source: str
    width: int | None
    enlarged: bool
    caption: str = ""


@dataclass(frozen=True)
class Row:
    """A judgement in the table of results, in words."""

    task: str
    dataset: str
    label: str
    top1: str
    interval: str
    n: str
    pale: bool
    gain: str | None
    untrained: bool
    splits: tuple[str, ...]
    step: str
    settings: str


@dataclass(frozen=True)
class Detection:
    """A line of the table of detections.

    Attributes:
      when: 'start', before the detector was fitted, or 'end'.
      scores: one a name of PRECISIONS, '' where there is none.
    """

    dataset: str
    kind: str
    when: str
    scores: tuple[str, ...]
    untrained: bool
    settings: str


@dataclass(frozen=True)
class Field:
    """A line of the config: how deep it is nested, its name, and its value in words or None for a heading."""

    depth: int
    name: str
    value: str | None


@drawing.unvalidated
def render(root: Path) -> str:
    """Returns the page's HTML. What a run lacks is left out.

    Raises:
      UserError: `root` is not a run directory.
    """
    run = read_run(root)
    results = list(_results(run))
    return templates.render(
        "page.html.j2",
        run=run,
        facts=list(_facts(run)),
        done=_done(run),
        few=story.explain_few(run),
        cards=list(story.cards(run)),
        verdict=story.verdict(run),
        sections=list(story.sections(run)),
        maps=exhibits.make_maps(run.held_out),
        neighbours=exhibits.make_neighbours(run.held_out),
        similarities=exhibits.make_similarities(run),
        commands=list(next_steps.list_commands(run)),
        files=list(next_steps.list_files(run)),
        glossary=glossary.WORDS,
        results_caption=RESULTS_CAPTION,
        pictures=[_picture(title, data) for title, data in run.pictures],
        result_pictures=[_picture(title, data) for title, data in run.result_pictures],
        results=results,
        accuracies=charts.draw_accuracies(accuracy_rows(run)) if results else None,
        precisions=PRECISIONS,
        detections=list(_detections(run)),
        export=list(_export(run.manifest)) if run.manifest else [],
        config=[(name, list(fields(value))) for name, value in _sections_of(run.config)],
        starts=[_start(start) for start in run.starts],
    )


def write_report(root: Path) -> Path:
    """Writes report.html into the run directory, whole or not at all. Returns its path."""
    path, text = RunDirectory(root).report, render(root)
    write_text(path, text)
    return path


def accuracy_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yields the rows of `charts.draw_accuracies`: every judgement with a top-1, and its untrained twin."""
    names: dict[tuple[str, ...], str] = {}
    for result in _sorted(run.results):
        if (key := _identity(result)) not in names:
            name = ", ".join(str(result[part]) for part in ("task", "dataset", "label") if result.get(part))
            names[key] = f"{name}, {_settings(result)}" if name in names.values() else name
        low, high = result["interval95"]
        yield {
            "name": names[key],
            "kind": "untrained" if result.get("untrained") else "trained",
            "top1": result["top1"],
            "low": low,
            "high": high,
            "chance": 1 / result["classes"] if result.get("classes") else None,
            "n": read_share(result).n,
        }


def _done(run: Run) -> float | None:
    return None if run.step is None or not run.total else min(run.step / run.total, 1.0)


def _facts(run: Run) -> Iterator[str]:
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


def _picture(title: str, data: bytes) -> Picture:
    width = int.from_bytes(data[16:20], "big")
    factor = PICTURE_WIDTH // width if width else 0
    source = as_data_url(data, "png") if len(data) <= LARGE else as_data_url(_compress(data), "webp")
    return Picture(title, source, width * factor if factor > 1 else None, factor > 1, CAPTIONS.get(title, ""))


def _compress(png: bytes) -> bytes:
    """Returns a picture as WebP, so that a page with pictures of photos stays small."""
    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, "WEBP", quality=80)
    return file.getvalue()


def _results(run: Run) -> Iterator[Row]:
    twins = {_identity(result): result for result in run.results if result.get("untrained")}
    for result in _sorted(run.results):
        low, high = result["interval95"]
        twin = twins.get(_identity(result))
        share, gain = read_share(result), None
        if twin is not None and not result.get("untrained"):
            both = (share, read_share(twin))
            too_few = any(each.n is not None and each.is_uncertain for each in both)
            gain = words.signed(100 * (result["top1"] - twin["top1"]), "points") if not too_few else "too few to tell"
        sizes = [result.get(part, {}) for part in ("fit", "test")]
        yield Row(
            task=str(result.get("task")),
            dataset=str(result.get("dataset")),
            label=str(result.get("label", "")),
            top1=words.number(result["top1"], "%"),
            interval=f"{words.number(low, '%')} to {words.number(high, '%')}",
            n="" if share.n is None else words.count(share.n),
            pale=share.n is not None and share.is_uncertain,
            gain=gain,
            untrained=bool(result.get("untrained")),
            splits=tuple(f"{size['split']} {words.count(size['examples'])}" for size in sizes if size),
            step="" if result.get("step") is None else words.count(result["step"]),
            settings=_settings(result),
        )


def _detections(run: Run) -> Iterator[Detection]:
    for result in _sorted(run.detections):
        settings = result.get("settings", {})
        detector = [f"{settings[name]} {text}" for name, text in DETECTOR.items() if name in settings]
        for kind, scores in result["ap"].items():
            for when in ("start", "end"):
                yield Detection(
                    dataset=str(result.get("dataset")),
                    kind=KINDS.get(kind, kind),
                    when=when,
                    scores=tuple(
                        words.number(scores[when][name], "%") if name in scores[when] else "" for name in PRECISIONS
                    ),
                    untrained=bool(result.get("untrained")),
                    settings=", ".join(detector),
                )


def _sorted(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(results, key=lambda result: (*_identity(result), bool(result.get("untrained"))))


def _identity(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What a judgement and that of its untrained twin have in common."""
    return tuple(str(result.get(name)) for name in ("task", "dataset", "label", "settings"))


def _settings(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {say(value)}" for name, value in result.get("settings", {}).items() if name != "kind")


def _export(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, item in manifest.items():
        if name == "config":
            continue
        if isinstance(item, (list, tuple, Mapping)) and len(str(item)) > 300:
            yield name, f"{len(item)} entries"
        elif item is not None:
            yield name, say(item)


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
            shown.append((name.replace("_", " "), say(item)))
    return shown


def _sections_of(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Single values first, gathered under '', then the sections in their own order."""
    single = {name: item for name, item in config.items() if not isinstance(item, Mapping)}
    nested = [(name, item) for name, item in config.items() if isinstance(item, Mapping)]
    return [("", single), *nested] if single else nested


def fields(config: Any, depth: int = 0) -> Iterator[Field]:
    """The config's lines, nested ones indented; a schedule is one line: 'linear(a=0, b=0.9, start=0, end=0.5)'."""
    for name, item in config.items():
        nested = item
        if isinstance(item, (list, tuple)) and any(isinstance(each, Mapping) for each in item):
            nested = dict(enumerate(item))
        if isinstance(nested, Mapping) and nested and not is_schedule(nested):
            yield Field(depth, str(name), None)
            yield from fields(nested, depth + 1)
        else:
            yield Field(depth, str(name), say(item))
