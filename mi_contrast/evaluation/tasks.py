"""The tasks: each fits on one split's features and scores another's. A task is a row of TASKS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.evaluation.features import Features, watched
from mi_contrast.readout import knn as neighbours
from mi_contrast.readout import linear, logistic

Scores = Float[Array, "Q C"]
Settings = Mapping[str, Any]
Task = Callable[[Features, Features, Settings, Key[Array, ""]], tuple[Scores, dict[str, Any]]]


def by_linear(fit: Features, test: Features, settings: Settings, key: Key[Array, ""]) -> tuple[Scores, dict[str, Any]]:
    """A linear classifier, `solver` 'sgd' (readout.linear, after its last epoch) or 'lbfgs' (readout.logistic)."""
    solver = settings.get("solver")
    fields = {name: value for name, value in settings.items() if name != "solver"}
    if solver == "sgd":
        chosen = fill(linear.SGD, fields)
        watch = watched("linear probe", "epoch")
        model = linear.fit(fit.values, fit.labels, key, chosen, classes=len(fit.classes), watch=watch)
        return linear.scores(model, test.values), {}
    if solver == "lbfgs":
        found = logistic.fit(fit.values, fit.labels, fill(logistic.LBFGS, fields), classes=len(fit.classes))
        how = {"iterations": int(found.iterations), "largest_gradient": float(found.gradient)}
        return linear.scores(found.model, test.values), how
    raise unknown("solver of the linear task", solver, ("sgd", "lbfgs"))


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """How nearest neighbours vote: the k nearest, each with weight e^{cos / temperature}."""

    k: int = 200
    temperature: float = 0.07

    def __post_init__(self):
        """Raises UserError on a temperature that can't be."""
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}", fix="give a temperature above 0")


def by_knn(fit: Features, test: Features, settings: Settings, key: Key[Array, ""]) -> tuple[Scores, dict[str, Any]]:
    """Weighted nearest neighbours among the features of the fitting split (readout.knn); draws nothing."""
    chosen = dataclasses.asdict(fill(Neighbours, settings))
    return neighbours.knn(test.values, fit.values, fit.labels, classes=len(fit.classes), **chosen), {}


TASKS: dict[str, Task] = {"linear": by_linear, "knn": by_knn}


def fill(kind: Callable[..., Any], fields: Settings) -> Any:
    """The settings dataclass `kind` with these fields. UserError on a field that it hasn't."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in fields:
        if name not in names:
            raise unknown("field of config.task", name, names)
    return kind(**fields)


def run_task(settings: Settings, fit: Features, test: Features, *, seed: int) -> tuple[Scores, dict[str, Any]]:
    """Scores of the test split by the task that `settings` name, fitted on the fitting split alone.

    Args:
      settings: {'kind': a name in TASKS, and the task's own fields}.
      seed: decides whatever the task draws.

    Returns:
      (float32 [Q, C], what the fit says about itself).
    Raises UserError on an unknown task or field, or where the two splits' classes differ.
    """
    kind = settings.get("kind")
    if kind not in TASKS:
        raise unknown("task", kind, TASKS)
    if fit.classes != test.classes:
        raise UserError(
            f"the fitting split has {len(fit.classes)} classes, the test split {len(test.classes)} or other ones",
            fix="give two splits of one set",
        )
    fields = {name: value for name, value in settings.items() if name != "kind"}
    return TASKS[kind](fit, test, fields, jax.random.key(seed))
