"""What a page says of a run: its headline numbers with their ceilings, and which curve belongs beside which."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mi_contrast.reporting.figures import Chart, Level, Line
from mi_contrast.reporting.run import Curve, Run
from mi_contrast.reporting.words import THIN, count, number, signed


@dataclass(frozen=True)
class Card:
    """A headline: from the first value to the last, of a ceiling. meter: (first, last) as shares of it, or None."""

    title: str
    first: str | None
    last: str
    of: str
    note: str
    meter: tuple[float, float] | None


@dataclass(frozen=True)
class Verdict:
    """Whether the objective bounds mutual information. figures: (what, number) pairs; sentence: what may be claimed."""

    figures: tuple[tuple[str, str], ...]
    sentence: str


@dataclass(frozen=True)
class Panel:
    """How some metrics are drawn together. names: metric -> what the legend calls it; ceiling: a metric's name;
    untrained: show the values at step 0 as levels; the rest as in `Chart`.
    """

    title: str
    note: str
    names: dict[str, str]
    unit: str = ""
    ceiling: str | None = None
    untrained: bool = False
    low: float | None = None
    high: float | None = None
    logarithmic: bool = False
    between: bool = False


SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "What the representation holds",
        (
            Panel(
                "Mutual information",
                "InfoNCE on held-out pairs, apart from the training objective: what two views tell of each other.",
                {"mi_nats": "mi_nats"},
                "nats",
                ceiling="mi_ceiling",
                low=0.0,
            ),
            Panel(
                "Accuracy",
                "On a held-out twentieth of the training split, never the test split. Dotted: before the first step.",
                {"knn_top1": "kNN", "probe_top1": "linear probe"},
                "%",
                untrained=True,
            ),
        ),
    ),
    (
        "What training climbs",
        (
            Panel(
                "Training objective",
                "What the gradient climbs, on training batches. Its ceiling moves with the size of the support.",
                {"objective": "objective"},
                "nats",
                ceiling="objective_ceiling",
                low=0.0,
            ),
            Panel(
                "Support",
                "Percentiles of the pool that serve as negatives: 0 % least, 100 % most similar to the anchor.",
                {"lower": "from", "upper": "up to"},
                "%",
                low=0.0,
                high=1.0,
                between=True,
            ),
            Panel(
                "Anchors whose bound holds",
                "Share of anchors whose support is at least as hard as the pool, in the mean of exp(score).",
                {"bound_share": "anchors"},
                "%",
                low=0.0,
                high=1.0,
            ),
            Panel(
                "Bound gap",
                "Log mean exp(score), support minus pool, averaged over anchors: below 0 the objective is no bound.",
                {"bound_gap": "gap"},
                "nats",
                low=0.0,
                high=0.0,
            ),
        ),
    ),
    (
        "Inside the support",
        (
            Panel(
                "Same class or instance",
                "Negatives that share the anchor's label, or are the same instance: false negatives.",
                {"same_class": "same class", "same_instance": "same instance"},
                "%",
                low=0.0,
            ),
            Panel("Support size", "Candidates inside the support.", {"support_size": "candidates"}, low=0.0),
            Panel(
                "Queue fill", "Share of the queue that holds keys.", {"queue_fill": "filled"}, "%", low=0.0, high=1.0
            ),
        ),
    ),
    (
        "Geometry of the embedding",
        (
            Panel(
                "Alignment", "Mean squared distance of positive pairs, 0 to 4; smaller is closer.", {"alignment": ""}
            ),
            Panel(
                "Uniformity",
                "Log mean exp(-2 distance²), -8 to 0; smaller covers the sphere better.",
                {"uniformity": ""},
            ),
            Panel(
                "Effective rank", "Directions in use: exp of the entropy of singular values.", {"effective_rank": ""}
            ),
        ),
    ),
    (
        "The machine",
        (
            Panel("Learning rate", "As used.", {"lr": ""}, low=0.0),
            Panel("Temperature", "As used.", {"temperature": ""}),
            Panel("Speed", "Images a second.", {"images_per_second": "images/s"}, low=0.0),
            Panel("Target momentum", "Of the target network's average.", {"momentum": ""}),
            Panel("Weight", "Of the first term.", {"weight": ""}),
            Panel("Probe loss", "Cross-entropy of the online probe.", {"probe_loss": ""}, "nats", low=0.0),
            Panel("Gradient norm", "Before clipping.", {"grad_norm": ""}, logarithmic=True),
            Panel("Bad steps", "Steps in a row whose loss or gradient was not finite.", {"bad_steps": ""}, low=0.0),
        ),
    ),
)


def log_of(ceiling: float) -> str:
    """A ceiling in words: 'log 1,024 = 6.93 nats' where it is the logarithm of a whole number."""
    if ceiling < 20 and abs(math.exp(ceiling) - round(math.exp(ceiling))) < 1e-3 * math.exp(ceiling):
        return f"log {count(round(math.exp(ceiling)))} = {number(ceiling, 'nats')}"
    return number(ceiling, "nats")


def constant(curve: Curve) -> bool:
    """Whether the curve has several points, all of one finite value."""
    return len(curve.values) > 1 and bool(np.isfinite(curve.values).all()) and bool(np.ptp(curve.values) == 0)


def chart(panel: Panel, run: Run) -> Chart | None:
    """The panel's chart, or None where none of its metrics was logged."""
    found = [(name, run.at(name)) for name in panel.names]
    lines = [
        Line(panel.names[name] or panel.title.lower(), curve, colour)
        for colour, (name, curve) in enumerate(found, start=1)
        if curve is not None
    ]
    if not lines:
        return None
    levels = []
    ceiling = run.at(panel.ceiling) if panel.ceiling else None
    if ceiling is not None and (constant(ceiling) or len(ceiling.values) == 1) and math.isfinite(ceiling.last):
        levels.append(Level(f"ceiling {log_of(ceiling.last)}", ceiling.last))
    elif ceiling is not None:
        lines.append(Line("ceiling", ceiling, 0, ceiling=True))
    if panel.untrained:
        levels += [
            Level(f"{line.name} at step 0: {number(line.curve.first, panel.unit)}", line.curve.first, line.colour, True)
            for line in lines
            if line.curve.steps[0] == 0 and math.isfinite(line.curve.first)
        ]
    return Chart(
        panel.title,
        panel.note,
        tuple(lines),
        tuple(levels),
        panel.unit,
        panel.low,
        panel.high,
        panel.logarithmic,
        panel.between,
        tuple(int(start["from_step"]) for start in run.starts if isinstance(start.get("from_step"), int)),
        (min(int(curve.steps[0]) for curve in run.curves.values()), run.step or 0),
    )


def sections(run: Run) -> Iterable[tuple[str, list[Chart], list[str]]]:
    """(title, charts, metrics that never moved, in words) of each section that has any, unknown metrics last."""
    known = {name for _, panels in SECTIONS for panel in panels for name in panel.names} | {
        panel.ceiling for _, panels in SECTIONS for panel in panels
    }
    others = tuple(Panel(name.replace("_", " "), "", {name: ""}) for name in run.curves if name not in known)
    for place, (title, panels) in enumerate((*SECTIONS, ("Everything else", others))):
        charts, still = [], []
        for panel in panels:
            made = chart(panel, run)
            if made is not None and place > 0 and all(constant(line.curve) for line in made.lines):
                still += [f"{panel.title.lower()} {number(line.curve.last, panel.unit)}" for line in made.lines]
            elif made is not None:
                charts.append(made)
        if charts or still:
            yield title, charts, still


def bound_sentence(share: float | None, gap: float | None) -> str:
    """What may be claimed of the objective, from the share of anchors whose bound holds and the mean gap in nats."""
    if share is None or gap is None or not (math.isfinite(share) and math.isfinite(gap)):
        return "Nothing was logged that tells whether the objective is a bound: don't read it as an estimate."
    if gap < 0:
        return (
            "The support is easier than the pool on average: the objective is no estimate of mutual information, "
            "however high it reads. mi_nats is."
        )
    if share < 0.9995:
        return (
            f"For {number(1 - share, '%')} of anchors the support is easier than the pool: the objective is no bound "
            "for them and no estimate of mutual information. mi_nats is."
        )
    return (
        "The support was at least as hard as the pool for every anchor looked at: in the mean the objective stays "
        "below InfoNCE on the same pool, a lower bound, on training pairs."
    )


def cards(run: Run) -> Iterable[Card]:
    """The headline numbers of what was logged."""
    information, ceiling = run.at("mi_nats"), run.at("mi_ceiling")
    if information is not None:
        top = ceiling.last if ceiling is not None and ceiling.last > 0 else None
        yield Card(
            "Mutual information",
            _first(information, ""),
            number(information.last, "nats"),
            f"of at most {log_of(top)}" if top else "",
            "Held-out pairs, InfoNCE: a lower bound on what two views share.",
            _meter(information, top),
        )
    neighbours = run.at("knn_top1")
    if neighbours is not None:
        gained = 100 * (neighbours.last - neighbours.first)
        known = neighbours.steps[0] == 0 and len(neighbours.values) > 1 and math.isfinite(gained)
        yield Card(
            "kNN accuracy",
            _first(neighbours, "%"),
            number(neighbours.last, "%"),
            f"{signed(gained, 'points')} over untrained" if known else "",
            "Top-1 on a held-out twentieth of the training split.",
            _meter(neighbours, 1.0),
        )
    probe = run.at("probe_top1")
    if probe is not None:
        yield Card(
            "Linear probe",
            _first(probe, "%"),
            number(probe.last, "%"),
            "learns beside the network",
            "Same twentieth. It begins unfitted: its first value says nothing of the network.",
            _meter(probe, 1.0),
        )
    objective, ceiling = run.at("objective"), run.at("objective_ceiling")
    if objective is not None:
        top = ceiling.last if ceiling is not None and ceiling.last > 0 else None
        yield Card(
            "Training objective",
            _first(objective, ""),
            number(objective.last, "nats"),
            f"of at most {log_of(top)}" if top else "",
            "Another number than mi_nats: other pairs, other negatives.",
            _meter(objective, top),
        )


def verdict(run: Run) -> Verdict | None:
    """What the last row says of the objective as a bound, or None where nothing was logged of it."""
    share, gap = (run.at(name) for name in ("bound_share", "bound_gap"))
    figures = []
    if share is not None:
        figures.append(("of anchors: the bound holds", number(share.last, "%")))
    if gap is not None:
        figures.append(("gap: support over pool", number(gap.last, "nats")))
    if not figures:
        return None
    sentence = bound_sentence(*(None if curve is None else curve.last for curve in (share, gap)))
    return Verdict(tuple(figures), sentence)


def _first(curve: Curve, unit: str) -> str | None:
    """The first value, without 'nats': the last one beside it says the unit."""
    if len(curve.values) < 2:
        return None
    return number(curve.first, unit or "nats").removesuffix(f"{THIN}nats")


def _meter(curve: Curve, top: float | None) -> tuple[float, float] | None:
    if top is None or not (math.isfinite(curve.first) and math.isfinite(curve.last)):
        return None
    return tuple(min(max(v / top, 0.0), 1.0) for v in (curve.first, curve.last))  # type: ignore[return-value]
