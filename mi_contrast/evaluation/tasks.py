"""The tasks on features: each fits on one split's features and scores another's. A task is a row of TASKS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.evaluation.episodes import Episodes, share_of_each
from mi_contrast.evaluation.features import Features, validation_part, watched
from mi_contrast.readout import knn as neighbours
from mi_contrast.readout import linear, logistic
from mi_contrast.readout.accuracy import top1

Settings = Mapping[str, Any]
VALIDATION = 0.2  # of the fitting split, to choose a setting on


@dataclass(frozen=True)
class Outcome:
    """What a task found.

    scores: float32 [Q, C] of every test image; or shares: float32 [E], the top-1 of every episode. how: what the fit
    says about itself, plain data. head: the linear classifier that was fitted, if one was.
    """

    scores: Float[Array, "Q C"] | None = None
    shares: Float[np.ndarray, " E"] | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    head: linear.Linear | None = None


Task = Callable[[Features, Features, Settings, Key[Array, ""]], Outcome]


def by_linear(fit: Features, test: Features, settings: Settings, key: Key[Array, ""]) -> Outcome:
    """A linear classifier, `solver` 'sgd' (readout.linear, after its last epoch) or 'lbfgs' (readout.logistic).

    Where several learning rates (`factors` of lr) or several regularisers (`l2`, a tuple) are given, each is fitted on
    a part of the fitting split and scored on the rest of it, the share `validation`; the best is fitted anew on the
    whole split. The test split has no say.
    """
    solver = settings.get("solver")
    if solver not in SOLVERS:
        raise unknown("solver of the linear task", solver, SOLVERS)
    fields = {name: value for name, value in settings.items() if name not in ("solver", "validation")}
    model, how = SOLVERS[solver](fit, fields, settings.get("validation", VALIDATION), key)
    return Outcome(linear.scores(model, test.values), how=how, head=model)


def by_sgd(
    fit: Features, fields: Mapping[str, Any], validation: float, key: Key[Array, ""]
) -> tuple[linear.Linear, dict[str, Any]]:
    """SGD at one learning rate, or at the best of several that are fitted side by side in one run."""
    factors = fields.get("factors")
    settings = fill(linear.SGD, {name: value for name, value in fields.items() if name != "factors"})
    classes, factor = len(fit.classes), 1.0
    how: dict[str, Any] = {}

    def fit_each(part: Features, chosen: Sequence[float]) -> linear.Linear:
        watch = watched(f"linear probe, {len(chosen)} rates" if len(chosen) > 1 else "linear probe", "epoch")
        return linear.fit_each(part.values, part.labels, key, settings, chosen, classes=classes, watch=watch)

    if factors is not None:
        factors = sorted(numbers("factors", factors))
        held = validation_part(fit, validation, seed=0)
        scored = linear.scores_each(fit_each(fit.of(~held), factors), fit.values[held])
        shares = [float(top1(scores, fit.labels[held])) for scores in scored]
        factor, how = best("factor", factors, shares, int(held.sum()))
    return linear.one_of(fit_each(fit, (factor,)), 0), how


def by_lbfgs(
    fit: Features, fields: Mapping[str, Any], validation: float, key: Key[Array, ""]
) -> tuple[linear.Linear, dict[str, Any]]:
    """The optimum of the regularised problem, for one regulariser or the best of several; nothing is drawn."""
    l2, classes = fields.get("l2"), len(fit.classes)
    how: dict[str, Any] = {}
    settings = fill(logistic.LBFGS, {name: value for name, value in fields.items() if name != "l2"})
    if isinstance(l2, (tuple, list)):
        l2s = sorted(numbers("l2", l2), reverse=True)
        held = validation_part(fit, validation, seed=0)
        part, watch = fit.of(~held), watched("logistic regression", "regulariser")
        path = logistic.fit_path(part.values, part.labels, settings, l2s, classes=classes, watch=watch)
        shares = [float(top1(linear.scores(each.model, fit.values[held]), fit.labels[held])) for each in path]
        l2, how = best("l2", l2s, shares, int(held.sum()))
    if l2 is not None:
        settings = dataclasses.replace(settings, l2=l2)
    found = logistic.fit(fit.values, fit.labels, settings, classes=classes)
    return found.model, {**how, "iterations": int(found.iterations), "largest_gradient": float(found.gradient)}


SOLVERS = {"sgd": by_sgd, "lbfgs": by_lbfgs}


def numbers(name: str, given: Any) -> list[float]:
    """The numbers of a grid. UserError where there are none, one is not above 0, or two are the same."""
    found = [float(x) for x in given] if isinstance(given, (tuple, list)) else []
    if not found or not min(found) > 0 or len(set(found)) < len(found):
        raise UserError(f"{name} is {given!r}", fix="give a tuple of different numbers above 0")
    return found


def best(name: str, values: Sequence[float], shares: Sequence[float], examples: int) -> tuple[float, dict[str, Any]]:
    """The value of the largest share on validation, the first where several tie, and what to tell about the choice.

    Raises BadNumbersError where every share is NaN: no value gave a fit of finite numbers.
    """
    finite = [-1.0 if np.isnan(share) else share for share in shares]
    chosen = int(np.argmax(finite))
    if finite[chosen] < 0:
        raise BadNumbersError(f"no {name} of {tuple(values)} gave finite scores; give smaller learning rates")
    told = {str(value): None if np.isnan(share) else share for value, share in zip(values, shares, strict=True)}
    at_edge = len(values) > 1 and chosen in (0, len(values) - 1)
    return values[chosen], {name: values[chosen], "at_edge": at_edge, "validation": examples, "validation_top1": told}


@dataclass(frozen=True)
class Neighbours:
    """How nearest neighbours vote: the k nearest, each with weight e^{cos / temperature}."""

    k: int = 200
    temperature: float = 0.07

    def __post_init__(self):
        """Raises UserError on a temperature that can't be."""
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}", fix="give a temperature above 0")


def by_knn(fit: Features, test: Features, settings: Settings, key: Key[Array, ""]) -> Outcome:
    """Weighted nearest neighbours among the features of the fitting split (readout.knn); draws nothing."""
    chosen = dataclasses.asdict(fill(Neighbours, settings))
    return Outcome(neighbours.knn(test.values, fit.values, fit.labels, classes=len(fit.classes), **chosen))


def by_fewshot(fit: Features, test: Features, settings: Settings, key: Key[Array, ""]) -> Outcome:
    """Episodes of few examples a class (evaluation.episodes)."""
    shares, how = share_of_each(fit, test, fill(Episodes, settings), key)
    return Outcome(shares=shares, how=how)


TASKS: dict[str, Task] = {"linear": by_linear, "knn": by_knn, "fewshot": by_fewshot}


def fill(kind: Callable[..., Any], fields: Settings) -> Any:
    """The settings dataclass `kind` with these fields. UserError on a field that it hasn't."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in fields:
        if name not in names:
            raise unknown("field of config.task", name, names)
    return kind(**fields)


def run_task(settings: Settings, fit: Features, test: Features, *, seed: int) -> Outcome:
    """What the task that `settings` name finds of the test split, fitted on the fitting split alone.

    Args:
      settings: kind, a name of TASKS, and the task's own fields.
      seed: of what the task draws; equal arguments give equal scores.

    Raises UserError on an unknown task or field, or where the two splits' classes differ.
    """
    kind = settings.get("kind")
    if kind not in TASKS:
        raise unknown("task", kind, TASKS)
    if fit.classes != test.classes:
        raise UserError(
            f"the fitting split has {len(fit.classes)} classes, the test split {len(test.classes)} or other ones",
            fix="give two splits of one set, or two sets of the same classes",
        )
    fields = {name: value for name, value in settings.items() if name != "kind"}
    return TASKS[kind](fit, test, fields, jax.random.key(seed))
