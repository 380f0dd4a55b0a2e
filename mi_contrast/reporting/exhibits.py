"""The parts of a run's page that show held-out images: the map, neighbours before and after, and similarities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from mi_contrast.reporting import held_out_charts as drawn
from mi_contrast.reporting.colours import CATEGORIES
from mi_contrast.reporting.embeddings import LEAST, embed
from mi_contrast.reporting.held_out import HeldOut, Snapshot
from mi_contrast.reporting.run import Run
from mi_contrast.reporting.words import count, number

HOW_TO_READ_A_MAP = (
    "Each dot is an image; hover or tap to see it. Images that the network finds alike lie together: if dots of one "
    "colour gather after training and did not before, the network has learned to tell that class apart. "
)
HOW_PLACED = {
    "tsne": "Places are by t-SNE of the features, which keeps neighbours together; how far apart groups lie, and how "
    "large they are, means little.",
    "pca": "Places are the first two principal components of the features.",
}
HOW_TO_READ_NEIGHBOURS = (
    "Left: a held-out image. Then the training images whose features are most similar to its own, the most similar "
    "first, in the untrained and in the trained network. A dashed frame marks an image of another class."
)
HOW_TO_READ_SIMILARITIES = (
    "How similar two views are, by the cosine of their embeddings; each outline has area 1. Training moves positives "
    "to the right, away from negatives. Where negatives of the same class lie to the right as well, they are false "
    "negatives."
)
RING = (
    " The red band is the ring: the negatives that training uses lie in it. Each anchor has its own ring; the band "
    "goes from the mean of their lower ends to the mean of their upper ends."
)


@dataclass(frozen=True)
class Map:
    """One of several maps of the same images: its title, a note and its chart."""

    title: str
    note: str
    chart: alt.Chart


@dataclass(frozen=True)
class Maps:
    """The maps of a run, untrained network first, and the legend of their colours: (class, CSS colour)."""

    maps: tuple[Map, ...]
    legend: tuple[tuple[str, str], ...]
    caption: str


@dataclass(frozen=True)
class Neighbour:
    """A training image near a query; `matches` says whether it has the query's class, None if classes are unknown."""

    picture: str
    tip: str
    matches: bool | None


@dataclass(frozen=True)
class Query:
    """A held-out image with its nearest training images in the untrained and in the trained network."""

    picture: str
    name: str
    before: tuple[Neighbour, ...]
    after: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Neighbours:
    """The queries, and a sentence on how many of their neighbours have their class, or '' where it is unknown."""

    queries: tuple[Query, ...]
    sentence: str
    caption: str


@dataclass(frozen=True)
class Similarities:
    """The distributions of similarities at some steps: (title, chart), and the legend: (name, CSS colour)."""

    figures: tuple[tuple[str, alt.LayerChart], ...]
    legend: tuple[tuple[str, str], ...]
    caption: str


def make_maps(held_out: HeldOut) -> Maps | None:
    """Returns the maps of the untrained and the trained network, or None where the run keeps neither."""
    snapshots = {"before": held_out.before, "after": held_out.after}
    kept = {name: shot for name, shot in snapshots.items() if shot is not None and shot.components.shape[1] >= 2}
    if not kept or len(held_out.pictures) < 4:
        return None
    method = choose_method(held_out)
    rows = drawn.map_rows(held_out, {name: embed(shot.components, method) for name, shot in kept.items()})
    classes = list_classes(held_out)
    maps = []
    for name, shot in kept.items():
        title = "Untrained network" if name == "before" else f"After {count(shot.step)} steps"
        maps.append(Map(title, describe_components(shot), drawn.draw_map(rows, name, classes)))
    caption = HOW_TO_READ_A_MAP + HOW_PLACED[method]
    if held_out.is_held_out is not None and not held_out.is_held_out.all():
        few, more = int(held_out.is_held_out.sum()), int((~held_out.is_held_out).sum())
        caption += f" Only {count(few)} images are held out, so {count(more)} training images are added, as pale dots."
    colours = drawn.choose_colours(len(classes)) or [f"var(--{name})" for name in CATEGORIES]
    legend = tuple(zip(classes, colours, strict=False)) if len(classes) <= drawn.MOST_COLOURS else ()
    if not legend:
        caption += f" There are {count(len(classes))} classes, more than colours: hover to read the class."
    return Maps(tuple(maps), legend, caption)


def choose_method(held_out: HeldOut) -> str:
    """Returns how the images of a page's map are placed: by t-SNE, or for very few images by PCA."""
    return "tsne" if len(held_out.pictures) >= LEAST else "pca"


def describe_components(shot: Snapshot) -> str:
    """Returns how much of the features' variance is in the directions that the map is made of."""
    count = shot.components.shape[1]
    return f"Of {count} principal components, which hold {number(float(shot.explained.sum()), '%')} of the variance."


def list_classes(held_out: HeldOut) -> list[str]:
    """Returns the classes of the images on the map, in the order of their numbers."""
    names = drawn.name_images(held_out)
    order = {name: i for i, name in enumerate(held_out.classes)}
    return sorted(set(names), key=lambda name: (order.get(name, len(order)), name))


def make_neighbours(held_out: HeldOut) -> Neighbours | None:
    """Returns the queries with their neighbours, or None where the run keeps none of a trained network."""
    after, before = held_out.after, held_out.before
    if after is None or held_out.queries == 0:
        return None
    names = drawn.name_images(held_out)
    queries = tuple(
        Query(
            held_out.pictures[i],
            names[i] if held_out.labels is not None else "",
            () if before is None else _list_neighbours(held_out, before, i),
            _list_neighbours(held_out, after, i),
        )
        for i in range(held_out.queries)
    )
    total = sum(len(query.after) for query in queries)
    sentence = ""
    if held_out.labels is not None:
        hits = [sum(bool(near.matches) for query in queries for near in side(query)) for side in (_before, _after)]
        was = f"{hits[0]} before training, " if before is not None else ""
        sentence = (
            f"Of these {total} neighbours, {was}{hits[1]} after it have the class of their query. These are examples: "
            f"{len(queries)} images are too few to measure anything."
        )
    return Neighbours(queries, sentence, HOW_TO_READ_NEIGHBOURS)


def _before(query: Query) -> tuple[Neighbour, ...]:
    return query.before


def _after(query: Query) -> tuple[Neighbour, ...]:
    return query.after


def _list_neighbours(held_out: HeldOut, shot: Snapshot, query: int) -> tuple[Neighbour, ...]:
    found = []
    for k, picture in enumerate(shot.neighbour_pictures[query]):
        tip, matches = f"cosine {shot.similarities[query, k]:.3f}, example {shot.neighbour_index[query, k]}", None
        if shot.neighbour_labels is not None and held_out.labels is not None:
            label = int(shot.neighbour_labels[query, k])
            tip, matches = f"{held_out.classes[label]}, {tip}", label == int(held_out.labels[query])
        found.append(Neighbour(picture, tip, matches))
    return tuple(found)


def make_similarities(run: Run) -> Similarities | None:
    """Returns the distributions of similarities at up to six steps, or None where the run keeps none."""
    measured = {step: row for step, row in sorted((run.held_out.measurements or {}).items()) if "similarities" in row}
    if not measured:
        return None
    steps = drawn.choose_steps(list(measured))
    rows = [row for step in steps for row in drawn.similarity_rows(measured[step])]
    span = (min(row["from"] for row in rows), max(row["to"] for row in rows)) if rows else (-1.0, 1.0)
    figures = tuple((_title(step, measured[step]), drawn.draw_similarities(measured[step], span)) for step in steps)
    has_ring = any(measured[step].get("ring") for step in steps)
    return Similarities(figures, list_groups(rows, has_ring), describe_similarities(has_ring))


def list_groups(rows: Sequence[Mapping[str, Any]], has_ring: bool) -> tuple[tuple[str, str], ...]:
    """Returns the legend of charts of similarities, (name, CSS colour)."""
    names = list(dict.fromkeys(row["group"] for row in rows))
    legend = [(name, f"var(--{colour})") for name, colour in zip(names, CATEGORIES, strict=False)]
    return (*legend, ("ring", "var(--bad)")) if has_ring else tuple(legend)


def describe_similarities(has_ring: bool) -> str:
    """Returns how to read charts of similarities."""
    return HOW_TO_READ_SIMILARITIES + (RING if has_ring else "")


def _title(step: int, measured: Mapping[str, Any]) -> str:
    when = "Untrained network" if step == 0 else f"Step {count(step)}"
    ring = measured.get("ring")
    return when if not ring else f"{when}: ring from {100 * ring['lower']:.0f} to {100 * ring['upper']:.0f} %"
