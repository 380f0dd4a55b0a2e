"""Reads a study from its folder: every setting, how far each of its runs is, and its numbers over seeds.

The spread of a number goes from the least to the greatest over seeds. A single seed has none, and no difference is
claimed from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_contrast.core.config import differences
from mi_contrast.core.layout import RunDirectory, read_json
from mi_contrast.reporting.panels import SECTIONS
from mi_contrast.reporting.run import Run, read_run
from mi_contrast.reporting.words import THIN, signed

STUDY, FAILED = "study.json", "failed.json"  # in the study's folder, and in that of a run that failed
MEASURES = {  # the metrics of a run that a study's columns may name: metric -> (title, unit)
    **{
        metric: (name or panel.title.lower(), panel.unit)
        for _, panels in SECTIONS
        for panel in panels
        for metric, name in panel.names.items()
    },
    "mi_nats": ("MI", "nats"),
    "mi_ceiling": ("MI ceiling", "nats"),
    "knn_top1": ("held-out kNN", "%"),
    "probe_top1": ("online probe", "%"),
    "objective_ceiling": ("objective ceiling", "nats"),
    "bound_share": ("bound holds", "%"),
    "bound_gap": ("bound gap", "nats"),
    "lower": ("from percentile", "%"),
    "upper": ("to percentile", "%"),
}
POINTS = f"{THIN}points"
CEILINGS = {"mi_nats": "mi_ceiling", "objective": "objective_ceiling"}


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
      word: 'done', 'failed', 'trained' (but not evaluated by every task), 'begun' or 'waiting'.
      step: the last step logged, of `total`.
      reason: why the run failed.
    """

    word: str
    step: int = 0
    total: int = 0
    reason: str = ""

    def __str__(self) -> str:
        if self.word == "failed":
            return f"failed: {self.reason}"
        return f"at step {self.step:,} of {self.total:,}" if self.word == "begun" else self.word


@dataclass(frozen=True)
class Spread:
    """One number of a setting: its finite values by seed, at least one."""

    values: Mapping[int, float]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return math.fsum(self.values.values()) / self.n

    @property
    def low(self) -> float:
        return min(self.values.values())

    @property
    def high(self) -> float:
        return max(self.values.values())


@dataclass(frozen=True)
class Setting:
    """A setting of the study.

    Attributes:
      runs: (seed, folder within the study, state) of each seed.
      values: by column, where a run has a value.
      untrained: the untrained networks' top-1, by task.
      changes: the config fields that the setting changes.
      command: the command that starts its first seed.
    """

    label: str
    group: str
    runs: tuple[tuple[int, str, State], ...]
    values: Mapping[str, Spread]
    untrained: Mapping[str, Spread]
    changes: Mapping[str, Any]
    command: str

    def count(self, word: str) -> int:
        """Returns how many of its runs are in that state."""
        return sum(state.word == word for _, _, state in self.runs)


@dataclass(frozen=True)
class Column:
    """A number of every setting. task: whether it is the top-1 of an evaluation, which has an untrained twin."""

    name: str
    title: str
    unit: str
    task: bool


@dataclass(frozen=True)
class Study:
    """A study as its folder describes it.

    Attributes:
      figure: the columns that are drawn.
      curve: the column that accuracy is drawn against, or None.
      reference: the label of the setting that the others are compared with, or None.
    """

    name: str
    variant: str | None
    question: str
    columns: tuple[Column, ...]
    figure: tuple[Column, ...]
    reference: str | None
    settings: tuple[Setting, ...]
    curve: Column | None = None

    @property
    def runs(self) -> list[tuple[Setting, int, str, State]]:
        """Every run: its setting, seed, folder and state."""
        return [(setting, *run) for setting in self.settings for run in setting.runs]


@dataclass(frozen=True)
class Comparison:
    """A setting's accuracy minus the reference's, seed by seed, and what may be claimed from it."""

    label: str
    title: str
    points: Spread
    verdict: str

    def __str__(self) -> str:
        mean, low, high = (signed(100 * v, "points") for v in (self.points.mean, self.points.low, self.points.high))
        return f"{mean} ({low.removesuffix(POINTS)} to {high.removesuffix(POINTS)})"


def read_study(root: Path) -> Study:
    """Returns the study of that folder. Runs that have not begun are waiting.

    Raises:
      UserError: the folder has no study.json.
    """
    description = read_json(root / STUDY)
    tasks = tuple(description["tasks"])
    columns = [Column(task["name"], f"{task['name']} top-1", "%", True) for task in tasks]
    columns += [Column(name, *MEASURES[name], False) for name in description["columns"]]
    settings = []
    for row in description["settings"]:
        runs = [(run["seed"], run["folder"], root / run["folder"]) for run in row["runs"]]
        begun = {seed: read_run(path) for seed, _, path in runs if RunDirectory(path).config.is_file()}
        trained = {seed: run for seed, run in begun.items() if run.manifest is not None}
        last = {
            name: {s: float(run.curves[name].values[-1]) for s, run in trained.items() if name in run.curves}
            for name in {c.name for c in columns if not c.task} | set(CEILINGS.values())
        }
        top1, untrained_top1 = (
            {
                task["name"]: {s: f["top1"] for s, run in begun.items() if (f := find_result(run, task, untrained))}
                for task in tasks
            }
            for untrained in (False, True)
        )
        settings.append(
            Setting(
                row["label"],
                row["group"],
                tuple((seed, folder, read_state(path, tasks)) for seed, folder, path in runs),
                _spreads(top1 | last),
                _spreads(untrained_top1),
                row["changes"],
                row["command"],
            )
        )
    drawn = tuple(column for name in description["figure"] for column in columns if column.name == name)
    curve = next((column for column in columns if column.name == description.get("curve")), None)
    return Study(
        description["name"],
        description["variant"],
        description["question"],
        tuple(columns),
        drawn,
        description["reference"],
        tuple(settings),
        curve,
    )


def _spreads(numbers: Mapping[str, Mapping[int, float]]) -> dict[str, Spread]:
    finite = {name: {s: v for s, v in values.items() if math.isfinite(v)} for name, values in numbers.items()}
    return {name: Spread(values) for name, values in finite.items() if values}


def find_result(run: Run, task: Mapping[str, Any], untrained: bool) -> Mapping[str, Any] | None:
    """Returns the run's result of that task, or None.

    Args:
      task: its name, its settings with the kind, its dataset (None: the run's own) and label (None: the set's own).
      untrained: take the result of the untrained twin.
    """
    dataset, label = task["dataset"] or run.config.get("data", {}).get("name"), task.get("label")
    for result in run.results:
        shown = {name: result.get("settings", {}).get(name) for name in task["settings"]}
        same = result.get("dataset") == dataset and not differences(shown, task["settings"])
        same = same and label in (None, result.get("label"))
        if same and bool(result.get("untrained")) is untrained:
            return result
    return None


def read_state(path: Path, tasks: Iterable[Mapping[str, Any]]) -> State:
    """Returns how far the run in that folder is."""
    if (path / FAILED).is_file():
        return State("failed", reason=read_json(path / FAILED)["reason"])
    if not RunDirectory(path).config.is_file():
        return State("waiting")
    run = read_run(path)
    at, total = run.step or 0, run.total or 0
    if run.manifest is None:
        return State("begun", at, total)
    judged = all(find_result(run, task, untrained) for task in tasks for untrained in (False, True))
    return State("done" if judged else "trained", at, total)


def compute_gain(setting: Setting, task: str) -> Spread | None:
    """Returns the top-1 minus that of the untrained twin of the same seed, or None where either is unknown."""
    return subtract(setting.values.get(task), setting.untrained.get(task))


def subtract(a: Spread | None, b: Spread | None) -> Spread | None:
    """Returns `a` minus `b` over the seeds that both have, or None where there is no such seed."""
    if a is None or b is None:
        return None
    both = {seed: value - b.values[seed] for seed, value in a.values.items() if seed in b.values}
    return Spread(both) if both else None


def compare_settings(study: Study) -> list[Comparison]:
    """Returns how each setting's accuracies compare with the reference's, over at least two seeds that both have."""
    against: Mapping[str, Spread] = next((s.values for s in study.settings if s.label == study.reference), {})
    paired_values = [
        (setting, column, subtract(setting.values.get(column.name), against.get(column.name)))
        for setting in study.settings
        for column in study.columns
        if column.task and setting.label != study.reference
    ]
    return [
        Comparison(s.label, column.title, points, _verdict(points))
        for s, column, points in paired_values
        if points and points.n > 1
    ]


def _verdict(points: Spread) -> str:
    above, below = (sum(sign * v > 0 for v in points.values.values()) for sign in (1, -1))
    if points.n not in (above, below):
        return f"above in {above} of {points.n} seeds: no difference is claimed"
    word = "above" if above else "below"
    return f"{word} in each of {points.n} seeds (by luck alone: 1 in {2 ** (points.n - 1)})"


def list_failures(study: Study) -> list[tuple[str, str, str]]:
    """Returns (setting and seed, folder, reason) of every run that failed."""
    return [
        (f"{s.label}, seed {seed}", at, state.reason) for s, seed, at, state in study.runs if state.word == "failed"
    ]
