"""The tasks on features: each fits on the features of one split and scores another. TASKS lists them by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.evaluation.episodes import Episodes, run_episodes
from mi_contrast.evaluation.features import Features, select_validation, show_progress
from mi_contrast.readout import knn as neighbours
from mi_contrast.readout import linear, logistic
from mi_contrast.readout.accuracy import top1

Settings = Mapping[str, Any]
K = 200  # neighbours that vote, as in Wu et al. 2018
VALIDATION = 0.2  # share of the fitting split that a setting is chosen on


@dataclass(frozen=True)
class Outcome:
    """The result of a task: either scores or accuracies.

    scores: float32 [Q, C], a score of every class for every test image.
    accuracies: float32 [E], the top-1 of every episode.
    details: plain data about the fit, such as the chosen setting.
    head: the linear classifier that was fitted, if there is one.
    """

    scores: Float[Array, "Q C"] | None = None
    accuracies: Float[np.ndarray, " E"] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    head: linear.LinearModel | None = None


Task = Callable[[Features, Features, Settings, Key[Array, ""]], Outcome]


def run_linear(fit: Features, test: Features, settings: Settings, rng: Key[Array, ""]) -> Outcome:
    """Fits a linear classifier; `solver` is 'sgd' (readout.linear, its last epoch) or 'lbfgs' (readout.logistic).

    If the settings give several learning rates (`factors` of lr) or several regularisers (`l2`, a tuple), the share
    `validation` of the fitting split is held out. Every candidate is fitted on the rest and scored on that share, and
    the best one is fitted again on the whole fitting split. The test split plays no part in the choice.
    """
    solver = settings.get("solver")
    if solver not in SOLVERS:
        raise unknown("solver of the linear task", solver, SOLVERS)
    fields = {name: value for name, value in settings.items() if name not in ("solver", "validation")}
    model, details = SOLVERS[solver](fit, fields, settings.get("validation", VALIDATION), rng)
    return Outcome(linear.scores(model, test.values), details=details, head=model)


def fit_sgd(
    fit: Features, fields: Mapping[str, Any], validation: float, rng: Key[Array, ""]
) -> tuple[linear.LinearModel, dict[str, Any]]:
    """Fits by SGD at one learning rate, or at the best of several; all rates are fitted at once, vectorised."""
    factors = fields.get("factors")
    settings = make_settings(linear.SGD, {name: value for name, value in fields.items() if name != "factors"})
    classes, factor = len(fit.classes), 1.0
    details: dict[str, Any] = {}

    def fit_rates(part: Features, rates: Sequence[float]) -> linear.LinearModel:
        watch = show_progress(f"linear probe, {len(rates)} rates" if len(rates) > 1 else "linear probe", "epoch")
        return linear.fit_each(part.values, part.labels, rng, settings, rates, classes=classes, watch=watch)

    if factors is not None:
        factors = sorted(check_grid("factors", factors))
        held_out = select_validation(fit, validation, seed=0)
        scores_by_rate = linear.scores_each(fit_rates(fit.select(~held_out), factors), fit.values[held_out])
        accuracies = [float(top1(scores, fit.labels[held_out])) for scores in scores_by_rate]
        factor, details = select_best("factor", factors, accuracies, int(held_out.sum()))
    return linear.select_model(fit_rates(fit, (factor,)), 0), details


def fit_lbfgs(
    fit: Features, fields: Mapping[str, Any], validation: float, rng: Key[Array, ""]
) -> tuple[linear.LinearModel, dict[str, Any]]:
    """Solves the regularised problem to its optimum, for one regulariser or the best of several; `rng` is not used."""
    l2, classes = fields.get("l2"), len(fit.classes)
    details: dict[str, Any] = {}
    settings = make_settings(logistic.LBFGS, {name: value for name, value in fields.items() if name != "l2"})
    if isinstance(l2, (tuple, list)):
        l2s = sorted(check_grid("l2", l2), reverse=True)
        held_out = select_validation(fit, validation, seed=0)
        part, watch = fit.select(~held_out), show_progress("logistic regression", "regulariser")
        path = logistic.fit_path(part.values, part.labels, settings, l2s, classes=classes, watch=watch)
        values, labels = fit.values[held_out], fit.labels[held_out]
        accuracies = [float(top1(linear.scores(solution.model, values), labels)) for solution in path]
        l2, details = select_best("l2", l2s, accuracies, int(held_out.sum()))
    if l2 is not None:
        settings = dataclasses.replace(settings, l2=l2)
    solution = logistic.fit(fit.values, fit.labels, settings, classes=classes)
    solver = {"iterations": int(solution.iterations), "largest_gradient": float(solution.gradient)}
    return solution.model, {**details, **solver}


SOLVERS = {"sgd": fit_sgd, "lbfgs": fit_lbfgs}


def check_grid(name: str, values: Any) -> list[float]:
    """Returns the values of a grid as floats. Raises UserError unless they are different numbers above 0."""
    grid = [float(x) for x in values] if isinstance(values, (tuple, list)) else []
    if not grid or not min(grid) > 0 or len(set(grid)) < len(grid):
        raise UserError(f"{name} is {values!r}", fix="give a tuple of different numbers above 0")
    return grid


def select_best(
    name: str, values: Sequence[float], accuracies: Sequence[float], examples: int
) -> tuple[float, dict[str, Any]]:
    """Returns the value with the best accuracy on `examples` validation examples, and a record of the choice.

    The first of several equally good values is taken. Raises BadNumbersError if every accuracy is NaN, which means
    that no value gave a fit with finite numbers.
    """
    finite = [-1.0 if np.isnan(accuracy) else accuracy for accuracy in accuracies]
    best = int(np.argmax(finite))
    if finite[best] < 0:
        raise BadNumbersError(f"no {name} of {tuple(values)} gave finite scores; give smaller learning rates")
    table = {str(value): None if np.isnan(a) else a for value, a in zip(values, accuracies, strict=True)}
    at_edge = len(values) > 1 and best in (0, len(values) - 1)
    return values[best], {name: values[best], "at_edge": at_edge, "validation": examples, "validation_top1": table}


@dataclass(frozen=True)
class Neighbours:
    """Settings of the nearest-neighbour vote: the k nearest, each with weight e^{cos / temperature}."""

    k: int | None = None  # None stands for `choose_k`
    temperature: float = 0.07

    def __post_init__(self):
        """Raises UserError on a temperature that is not above 0."""
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}", fix="give a temperature above 0")


def run_knn(fit: Features, test: Features, settings: Settings, rng: Key[Array, ""]) -> Outcome:
    """Classifies by weighted nearest neighbours in the fitting split (readout.knn); `rng` is not used."""
    vote = make_settings(Neighbours, settings)
    k, details = (vote.k, {}) if vote.k is not None else choose_k(len(fit))
    classes = len(fit.classes)
    scores = neighbours.knn(test.values, fit.values, fit.labels, k=k, temperature=vote.temperature, classes=classes)
    return Outcome(scores, details=details)


def choose_k(examples: int) -> tuple[int, dict[str, Any]]:
    """Returns k where none is set, and a record of it: 200 as in the paper, or a tenth of fewer examples than that."""
    if examples >= K:
        return K, {"k": K}
    k = max(1, examples // 10)
    return k, {"k": k, "why_k": f"k {k}, a tenth of the fitting images, for {examples} are fewer than {K}"}


def run_fewshot(fit: Features, test: Features, settings: Settings, rng: Key[Array, ""]) -> Outcome:
    """Classifies in episodes of a few examples per class (evaluation.episodes)."""
    accuracies, details = run_episodes(fit, test, make_settings(Episodes, settings), rng)
    return Outcome(accuracies=accuracies, details=details)


TASKS: dict[str, Task] = {"linear": run_linear, "knn": run_knn, "fewshot": run_fewshot}


def make_settings(kind: Callable[..., Any], fields: Settings) -> Any:
    """Returns the settings dataclass `kind` with these fields. Raises UserError on a field that it doesn't have."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in fields:
        if name not in names:
            raise unknown("field of config.task", name, names)
    return kind(**fields)


def run_task(settings: Settings, fit: Features, test: Features, *, seed: int) -> Outcome:
    """Runs the task that `settings` names: fits on the fitting split and scores the test split.

    Args:
      settings: kind, a name in TASKS, and the task's own fields.
      fit, test: features of the two splits, with the same classes in the same order.
      seed: of the task's random numbers. Equal arguments give equal scores.

    Raises UserError on an unknown task or field, or if the classes of the two splits differ.
    """
    kind = settings.get("kind")
    if kind not in TASKS:
        raise unknown("task", kind, TASKS)
    if fit.classes != test.classes:
        raise UserError(
            f"the fitting split has {len(fit.classes)} classes, the test split {len(test.classes)}, or other names",
            fix="give two splits of one set, or two sets of the same classes",
        )
    fields = {name: value for name, value in settings.items() if name != "kind"}
    return TASKS[kind](fit, test, fields, jax.random.key(seed))
