"""Charts of held-out images: the map of their features, and the similarities of pairs with the ring drawn on them."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Float

from mi_contrast.reporting.charts import WIDTH, Row, as_rows, finish
from mi_contrast.reporting.colours import CATEGORIES
from mi_contrast.reporting.held_out import HeldOut

MAP_HEIGHT, HISTOGRAM_HEIGHT = 340, 130
MOST_COLOURS = 24  # classes that are told apart by their colour
GROUPS = {  # of similarities
    "positive": "positives",
    "same_class": "negatives of the same class",
    "other_class": "other negatives",
    "negative": "negatives",
}


def name_images(held_out: HeldOut) -> list[str]:
    """Returns the class of each image on the map, or what it is where classes are unknown."""
    if held_out.labels is None:
        return ["held-out image" if held else "training image" for held in _held(held_out)]
    return [held_out.classes[label] if label >= 0 else "unknown" for label in held_out.labels]


def map_rows(held_out: HeldOut, places: Mapping[str, Float[np.ndarray, "M 2"]]) -> list[Row]:
    """Returns a row for each image on the map: its class, its picture, and x and y on each of several maps.

    Args:
      places: the places of the images by the name of the map. A map 'after' has the fields 'after x' and 'after y'.
    """
    columns: dict[str, Any] = {
        "class": name_images(held_out),
        "part": ["held out" if held else "trained on" for held in _held(held_out)],
        "example": [] if held_out.index is None else held_out.index,
        "image": held_out.pictures,
    }
    for name, place in places.items():
        columns |= {f"{name} {axis}": np.round(place[:, i].astype(np.float64), 4) for i, axis in enumerate("xy")}
    return as_rows(columns)


def choose_colours(count: int) -> list[str] | None:
    """Returns a colour for each of `count` classes, hues around the circle; None where the theme's colours suffice."""
    if count <= len(CATEGORIES):
        return None
    shown = min(count, MOST_COLOURS)
    hues = [colorsys.hls_to_rgb(i / shown, 0.5 + 0.06 * (i % 2), 0.62) for i in range(shown)]
    wheel = ["#" + "".join(f"{round(255 * part):02x}" for part in hue) for hue in hues]
    return [wheel[i % shown] for i in range(count)]


def draw_map(rows: Sequence[Row], name: str, classes: Sequence[str]) -> alt.Chart:
    """Returns a map of images: a dot each, near where features are alike, whose picture shows on hover.

    Args:
      rows: as `map_rows` returns them.
      name: of the map whose places are drawn.
      classes: the classes, in the order of their colours (`choose_colours`).
    """
    x, y = (
        alt.X(f"{name} x:Q", axis=None, scale=alt.Scale(zero=False, nice=False, padding=10)),
        alt.Y(f"{name} y:Q", axis=None, scale=alt.Scale(zero=False, nice=False, padding=10)),
    )
    colours = choose_colours(len(classes))
    scale = alt.Scale(domain=list(classes), range=alt.Undefined if colours is None else colours)
    colour = alt.Color("class:N", scale=scale)
    tips = [alt.Tooltip("image:N"), alt.Tooltip("class:N"), alt.Tooltip("example:Q"), alt.Tooltip("part:N")]
    dots = alt.Chart(alt.InlineData(values=list(rows))).mark_circle(size=64, opacity=0.75)
    opacity = alt.condition("datum.part == 'held out'", alt.value(0.8), alt.value(0.35))
    return finish(
        dots.encode(x=x, y=y, color=colour, tooltip=tips, opacity=opacity).properties(width=WIDTH, height=MAP_HEIGHT)
    )


def similarity_rows(measured: Mapping[str, Any]) -> list[Row]:
    """Returns a row for each bin of each group of similarities: group, from, to, centre, pairs and share."""
    rows = []
    for group, counts in measured["similarities"].items():
        edges, total = np.linspace(-1, 1, len(counts) + 1), max(sum(counts), 1)
        filled = np.flatnonzero(counts)
        # One empty bin on each side closes the outline of the group.
        first, last = (max(filled[0] - 1, 0), min(filled[-1] + 1, len(counts) - 1)) if len(filled) else (0, -1)
        for i in range(first, last + 1):
            low, high = float(edges[i]), float(edges[i + 1])
            rows.append(
                {"group": GROUPS[group], "from": low, "to": high, "centre": (low + high) / 2, "pairs": counts[i],
                 "share": counts[i] / total}
            )  # fmt: skip
    return as_rows({name: [row[name] for row in rows] for name in rows[0]}) if rows else []


def draw_similarities(measured: Mapping[str, Any], span: tuple[float, float] | None = None) -> alt.LayerChart:
    """Returns the distribution of similarities of held-out pairs, each group's area being 1, and the ring as a band.

    Args:
      measured: a line of measurements.jsonl.
      span: the ends of the axis of similarity.
    """
    rows = similarity_rows(measured)
    names = list(dict.fromkeys(row["group"] for row in rows))
    domain = span or (min(row["from"] for row in rows), max(row["to"] for row in rows))
    x = alt.X(
        "centre:Q", title="cosine similarity", scale=alt.Scale(domain=domain, nice=False), axis=alt.Axis(tickCount=5)
    )
    layers: list[Any] = []
    if ring := measured.get("ring"):
        tips = [
            alt.Tooltip(f"{name}:Q", title=title, format=form)
            for name, title, form in (
                ("lower", "ring from percentile", ".1%"), ("upper", "up to percentile", ".1%"),
                ("from", "similarity from", ".3f"), ("to", "up to similarity", ".3f"),
            )
        ]  # fmt: skip
        band = alt.Chart(alt.InlineData(values=as_rows([ring]))).mark_rect(style="bad", opacity=0.2, clip=True)
        layers.append(
            band.encode(x=alt.X("from:Q", scale=alt.Scale(domain=domain, nice=False)), x2="to:Q", tooltip=tips)
        )
    colour = alt.Color("group:N", scale=alt.Scale(domain=names))
    y = alt.Y("share:Q", stack=None, axis=None)
    tips = [
        alt.Tooltip("group:N"),
        alt.Tooltip("from:Q", format=".3f"),
        alt.Tooltip("to:Q", format=".3f"),
        alt.Tooltip("pairs:Q", format=","),
        alt.Tooltip("share:Q", format=".1%"),
    ]
    table = alt.Chart(alt.InlineData(values=rows))
    area = table.mark_area(interpolate="step", opacity=0.22, line={"strokeWidth": 1.6}, clip=True)
    layers.append(area.encode(x=x, y=y, color=colour))
    bins = table.mark_bar(opacity=0, clip=True)  # unseen, so that every bin tells its numbers on hover
    layers.append(bins.encode(x=alt.X("from:Q", title=None), x2="to:Q", y=y, tooltip=tips))
    return finish(alt.layer(*layers).properties(width=WIDTH, height=HISTOGRAM_HEIGHT))


def choose_steps(steps: Sequence[int], most: int = 6) -> list[int]:
    """Returns at most `most` of the steps, evenly spaced in their order, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _held(held_out: HeldOut) -> Sequence[bool]:
    return [] if held_out.is_held_out is None else [bool(held) for held in held_out.is_held_out]
