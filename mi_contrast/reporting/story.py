"""What the page of a run says: its headline numbers, whether its objective is a bound, and its charts by section."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from mi_contrast.readout.accuracy import FEWEST
from mi_contrast.reporting import charts
from mi_contrast.reporting.panels import SECTIONS, Panel
from mi_contrast.reporting.run import Curve, Run
from mi_contrast.reporting.shares import ENOUGH, Share, class_rows, describe_gain, measure_share
from mi_contrast.reporting.words import THIN, count, number

ACCURACIES = ("knn_top1", "probe_top1")  # on held-out images
MOST_CLASSES = 24  # of which the accuracy is drawn


@dataclass(frozen=True)
class Card:
    """A headline number.

    Attributes:
      first, last: its first and last value in words; first is None where there is one value.
      of: the ceiling, or what was gained, in words.
      meter: the first and the last value as shares of the ceiling, for a bar; None where the ceiling is unknown.
      pale: whether it was taken on too few images to rely on.
    """

    title: str
    first: str | None
    last: str
    of: str
    note: str
    meter: tuple[float, float] | None
    pale: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether the objective bounds mutual information: (name, number) pairs, and a sentence on what may be claimed."""

    figures: tuple[tuple[str, str], ...]
    sentence: str


@dataclass(frozen=True)
class Figure:
    """A chart with its heading.

    Attributes:
      legend: (name, last value, number of its colour) of each curve; colour 0 is the dashed one of ceilings.
      remarks: what each dotted line is, in words.
      pale: whether its accuracies were taken on too few images to rely on.
    """

    title: str
    note: str
    chart: alt.LayerChart
    legend: tuple[tuple[str, str, int], ...] = ()
    remarks: tuple[str, ...] = ()
    pale: bool = False


def say_ceiling(ceiling: float) -> str:
    """Returns a ceiling in words: 'log 1,024 = 6.93 nats' where it is the logarithm of a whole number."""
    if ceiling < 20 and abs(math.exp(ceiling) - round(math.exp(ceiling))) < 1e-3 * math.exp(ceiling):
        return f"log {count(round(math.exp(ceiling)))} = {number(ceiling, 'nats')}"
    return number(ceiling, "nats")


def is_constant(curve: Curve) -> bool:
    """Returns whether the curve has several points, all of one finite value."""
    return len(curve.values) > 1 and bool(np.isfinite(curve.values).all()) and bool(np.ptp(curve.values) == 0)


def draw_panel(panel: Panel, run: Run) -> Figure | None:
    """Returns the panel's chart with its legend, or None where none of its metrics was logged."""
    curves = {
        name or panel.title.lower(): run.curves[metric] for metric, name in panel.names.items() if metric in run.curves
    }
    if not curves:
        return None
    legend = [(name, number(curve.last, panel.unit), colour) for colour, (name, curve) in enumerate(curves.items(), 1)]
    rows = [row for name, curve in curves.items() for row in charts.curve_rows(name, curve.steps, curve.values)]
    note, is_pale = panel.note, False
    if accuracies := {name: metric for metric, name in panel.names.items() if metric in ACCURACIES and name in curves}:
        shares = [measure(run, metric, -1) for metric in accuracies.values()]
        is_pale = any(share.is_uncertain for share in shares)
        rows = [row | find_interval(run, accuracies[row["name"]], row) for row in rows]
        note = f"{note} {describe_bands(shares[0])}"
    if "mi_nats" in panel.names and is_too_small(run, "mi_nats"):
        is_pale, note = (
            True,
            f"{note} It was taken on {count_measured(run, 'mi_nats')} pairs, too few to tell anything.",
        )
    span = (min(int(curve.steps[0]) for curve in run.curves.values()), run.step or 0)
    ceiling = run.curves.get(panel.ceiling or "")
    if ceiling is not None:
        if is_constant(ceiling) or len(ceiling.values) == 1:
            steps = np.unique([*span, *next(iter(curves.values())).steps])
            ceiling = Curve(steps, np.full(len(steps), ceiling.last))
        legend.append(("ceiling", say_ceiling(ceiling.last), 0))
        rows += charts.curve_rows("ceiling", ceiling.steps, ceiling.values)
    untrained = {
        name: curve.first
        for name, curve in curves.items()
        if panel.untrained and curve.steps[0] == 0 and math.isfinite(curve.first)
    }
    chart = charts.draw_curves(
        rows,
        unit=panel.unit,
        ceiling="ceiling",
        untrained=untrained,
        reach=panel.reach,
        logarithmic=panel.logarithmic,
        between=panel.between,
        resumed=[int(start["from_step"]) for start in run.starts if isinstance(start.get("from_step"), int)],
        span=span,
    )
    remarks = tuple(f"{name} at step 0: {number(value, panel.unit)}" for name, value in untrained.items())
    return Figure(panel.title, note, chart, tuple(legend), remarks, is_pale)


def find_interval(run: Run, metric: str, row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the ends of the 95 % interval of a point of an accuracy's curve; {} where its n is unknown."""
    if row.get("value") is None or "low" in row:
        return {}
    share = measure_share(run.held_out, metric, row["step"], row["value"])
    return {} if share.low is None or share.high is None else {"low": share.low, "high": share.high}


def describe_bands(share: Share) -> str:
    """Returns what the bands of an accuracy's curve are, and why it is pale if it is."""
    if share.n is None:
        return "This run did not keep n, so no interval is drawn, and the curve is greyed out."
    pale = f" Below {ENOUGH} images it is greyed out: do not read differences from it." if share.is_uncertain else ""
    return f"Bands are 95 % intervals, n = {count(share.n)}.{pale}"


def draw_classes(run: Run) -> Figure | None:
    """Returns the kNN accuracy of each class, before and after training; None where the run did not keep it."""
    measured = {step: row for step, row in (run.held_out.measurements or {}).items() if "hits" in row}
    if not measured:
        return None
    first, last = min(measured), max(measured)
    names = run.held_out.classes
    rows = list(class_rows(measured[last], names, "knn_top1", "trained"))
    kept = sorted(rows, key=lambda row: row["top1"])
    note = f"kNN on held-out images at step {count(last)}: a dot with its 95 % interval."
    if len(kept) > MOST_CLASSES:
        kept = kept[: MOST_CLASSES // 2] + kept[-MOST_CLASSES // 2 :]
        note += f" The {MOST_CLASSES // 2} worst and the {MOST_CLASSES // 2} best of {len(rows)} classes."
    shown = {row["name"] for row in kept}
    rows = [row for row in rows if row["name"] in shown]
    if first == 0 and last > 0:
        rows += [row for row in class_rows(measured[0], names, "knn_top1", "untrained") if row["name"] in shown]
        note += " An orange circle is the untrained network."
    if any(row["n"] < ENOUGH for row in rows):
        note += f" Classes with fewer than {ENOUGH} images are greyed out: their order is mostly luck."
    return Figure("Accuracy of each class", note, charts.draw_accuracies(rows))


def sections(run: Run) -> Iterable[tuple[str, list[Figure], list[str]]]:
    """Yields (title, figures, metrics that never changed, in words) of each section that has any.

    Metrics that no panel names come last, a chart each. The first section draws constant metrics too.
    """
    known = {name for _, panels in SECTIONS for panel in panels for name in (*panel.names, panel.ceiling)}
    others = tuple(Panel(name.replace("_", " "), "", {name: ""}) for name in run.curves if name not in known)
    for place, (title, panels) in enumerate((*SECTIONS, ("Everything else", others))):
        figures, constant = [], []
        for panel in panels:
            curves = [run.curves[metric] for metric in panel.names if metric in run.curves]
            limits = [run.curves[metric] for metric in [panel.ceiling or ""] if metric in run.curves]
            if place > 0 and curves and all(is_constant(curve) for curve in [*curves, *limits]):
                constant += [f"{panel.title.lower()} {number(curve.last, panel.unit)}" for curve in curves]
            elif (figure := draw_panel(panel, run)) is not None:
                figures.append(figure)
        if place == 0 and (figure := draw_classes(run)) is not None:
            figures.append(figure)
        if figures or constant:
            yield title, figures, constant


def bound_sentence(share: float | None, gap: float | None) -> str:
    """Returns what may be claimed of the objective.

    Args:
      share: the share of anchors whose bound holds, in [0, 1].
      gap: the mean over anchors of log mean exp(score), support minus pool, in nats.
    """
    if share is None or gap is None or not (math.isfinite(share) and math.isfinite(gap)):
        return "Nothing was logged that tells whether the objective is a bound: do not read it as an estimate."
    if gap < 0:
        return (
            "The support is easier than the pool on average, so the objective is no estimate of mutual information, "
            "however high it is. mi_nats is one."
        )
    if share < 0.9995:
        return (
            f"For {number(1 - share, '%')} of anchors the support is easier than the pool, so the objective is no "
            "bound for them and no estimate of mutual information. mi_nats is one."
        )
    return (
        "The support was at least as hard as the pool for every anchor that was checked. On average the objective "
        "stays below InfoNCE on the same pool, which is a lower bound, on training pairs."
    )


def count_measured(run: Run, metric: str) -> int | None:
    """Returns the number of held-out pairs or images that the last value of a measure was taken on, if it is known."""
    if metric == "mi_nats":
        ceiling = run.curves.get("mi_ceiling")  # the log of the number of pairs
        return None if ceiling is None or not 0 <= ceiling.last < 20 else round(math.exp(ceiling.last))
    return measure(run, metric, -1).n


def is_too_small(run: Run, metric: str) -> bool:
    """Whether the last value of a measure was taken on too few held-out images to say anything."""
    return metric in run.curves and (count_measured(run, metric) or FEWEST) < FEWEST


def find_measure(run: Run, metric: str) -> Curve | None:
    """Returns the curve of a measure on held-out images; None if it was not logged, or taken on too few of them."""
    return None if is_too_small(run, metric) else run.curves.get(metric)


def explain_few(run: Run) -> str | None:
    """Returns why there are no headline numbers, in two sentences, if they were taken on too few held-out images."""
    few = [count_measured(run, metric) or 0 for metric in ("mi_nats", *ACCURACIES) if is_too_small(run, metric)]
    if not few:
        return None
    return (
        f"{count(min(few))} images are held out to measure training, too few to tell what was learned. At least "
        f"{FEWEST} are needed: start a new run with more images, or with --config.eval.held_out={FEWEST}."
    )


def cards(run: Run) -> Iterable[Card]:
    """Yields the headline numbers of the metrics that were logged, without those of too few images."""
    information, ceiling = find_measure(run, "mi_nats"), run.curves.get("mi_ceiling")
    if information is not None:
        top = ceiling.last if ceiling is not None and ceiling.last > 0 else None
        yield Card(
            "Mutual information",
            _first(information, ""),
            number(information.last, "nats"),
            f"of at most {say_ceiling(top)}" if top else "",
            "InfoNCE on held-out pairs: a lower bound on the nats that two views share.",
            _meter(information, top),
        )
    neighbours = find_measure(run, "knn_top1")
    if neighbours is not None:
        before, after = (measure(run, "knn_top1", at) for at in (0, -1))
        known = neighbours.steps[0] == 0 and len(neighbours.values) > 1 and math.isfinite(after.value - before.value)
        yield Card(
            "kNN accuracy",
            _first(neighbours, "%"),
            number(neighbours.last, "%"),
            describe_gain(before, after) if known else "",
            f"Top-1 on the held-out part of the training split: {after.describe()}.",
            _meter(neighbours, 1.0),
            pale=after.is_uncertain,
        )
    probe = find_measure(run, "probe_top1")
    if probe is not None:
        yield Card(
            "Linear probe",
            _first(probe, "%"),
            number(probe.last, "%"),
            "trained along with the network",
            f"On the same images: {measure(run, 'probe_top1', -1).describe()}. The probe starts untrained too, so "
            "its first value says nothing of the network.",
            _meter(probe, 1.0),
            pale=measure(run, "probe_top1", -1).is_uncertain,
        )
    objective, ceiling = (run.curves.get(name) for name in ("objective", "objective_ceiling"))
    if objective is not None:
        top = ceiling.last if ceiling is not None and ceiling.last > 0 else None
        yield Card(
            "Training objective",
            _first(objective, ""),
            number(objective.last, "nats"),
            f"of at most {say_ceiling(top)}" if top else "",
            "Another number than mi_nats: its pairs and its negatives differ.",
            _meter(objective, top),
        )


def measure(run: Run, metric: str, at: int) -> Share:
    """Returns the first (0) or the last (-1) value of an accuracy on held-out images."""
    curve = run.curves[metric]
    return measure_share(run.held_out, metric, int(curve.steps[at]), float(curve.values[at]))


def verdict(run: Run) -> Verdict | None:
    """Returns what the last row says of the objective as a bound, or None where nothing was logged of it."""
    share, gap = (run.curves.get(name) for name in ("bound_share", "bound_gap"))
    figures = []
    if share is not None:
        figures.append(("of anchors: the bound holds", number(share.last, "%")))
    if gap is not None:
        figures.append(("gap: support minus pool", number(gap.last, "nats")))
    if not figures:
        return None
    sentence = bound_sentence(*(None if curve is None else curve.last for curve in (share, gap)))
    return Verdict(tuple(figures), sentence)


def _first(curve: Curve, unit: str) -> str | None:
    """The first value without 'nats', because the last value beside it has the unit."""
    if len(curve.values) < 2:
        return None
    return number(curve.first, unit or "nats").removesuffix(f"{THIN}nats")


def _meter(curve: Curve, top: float | None) -> tuple[float, float] | None:
    if top is None or not (math.isfinite(curve.first) and math.isfinite(curve.last)):
        return None
    first, last = (min(max(value / top, 0.0), 1.0) for value in (curve.first, curve.last))
    return first, last
