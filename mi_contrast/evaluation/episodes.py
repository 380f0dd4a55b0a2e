"""Few-shot evaluation: the mean accuracy over episodes, each a small task with n classes and k examples of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.evaluation.features import Features
from mi_contrast.readout import fewshot
from mi_contrast.readout.accuracy import Z95
from mi_contrast.readout.knn import unit

CLASSIFIERS = ("ridge", "prototypes", "cosine")


@dataclass(frozen=True)
class Episodes:
    """Settings of few-shot episodes.

    ways: number of classes in an episode.
    shots: number of examples per class, from the fitting split.
    queries: number of test images per class, from the test split.
    episodes: number of episodes.
    by: the classifier: 'ridge' regression, 'prototypes' (nearest mean) or 'cosine' (nearest mean by cosine).
    l2: regulariser of ridge regression.
    normalise: whether features are scaled to unit norm first, so that one l2 suits every backbone.
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    episodes: int = 1000
    by: str = "ridge"
    l2: float = 0.1
    normalise: bool = True

    def __post_init__(self):
        """Raises UserError on an invalid value."""
        if self.by not in CLASSIFIERS:
            raise unknown("few-shot classifier", self.by, CLASSIFIERS)
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1), ("episodes", 2)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")
        if not self.l2 > 0:
            raise UserError(f"l2 is {self.l2}", fix="give a number above 0")


def run_episodes(
    fit: Features, test: Features, settings: Episodes, rng: Key[Array, ""]
) -> tuple[Float[np.ndarray, " E"], Mapping[str, Any]]:
    """Returns the top-1 of every episode, and {'classes_drawn_from': number of eligible classes}.

    An episode draws `ways` classes without replacement from those with enough examples in both splits, then examples
    of each class without replacement. Raises UserError if fewer classes than `ways` have enough examples.
    """
    eligible = [
        c
        for c in range(len(fit.classes))
        if np.sum(fit.labels == c) >= settings.shots and np.sum(test.labels == c) >= settings.queries
    ]
    if len(eligible) < settings.ways:
        raise UserError(
            f"{len(eligible)} of {len(fit.classes)} classes have {settings.shots} examples to fit and "
            f"{settings.queries} to test, and an episode needs {settings.ways}",
            fix="lower task.ways, shots or queries",
        )
    tables = tuple(index_rows(split.labels, eligible) for split in (fit, test))
    values = tuple(jnp.asarray(unit(s.values) if settings.normalise else s.values, jnp.float32) for s in (fit, test))
    rngs = jax.random.split(rng, settings.episodes)
    return np.asarray(_run_episodes(rngs, *values, *tables, settings)), {"classes_drawn_from": len(eligible)}


def index_rows(labels: Int[np.ndarray, " N"], classes: list[int]) -> tuple[Int[Array, "C M"], Int[Array, " C"]]:
    """Returns the row indices of each class, padded to the largest class, and their numbers."""
    rows = [np.flatnonzero(labels == c) for c in classes]
    largest = max(map(len, rows))
    table = np.stack([np.pad(row, (0, largest - len(row))) for row in rows])
    return jnp.asarray(table, jnp.int32), jnp.asarray([len(row) for row in rows], jnp.int32)


@partial(jax.jit, static_argnames="settings")
def _run_episodes(rngs, fit, test, fit_rows, test_rows, settings):
    """Runs one episode after another. fit_rows and test_rows are as `index_rows` returns them."""
    ways, labels = settings.ways, jnp.arange(settings.ways)

    def draw(rng, rows, classes, number):
        """Draws `number` rows of each class without replacement, as those with the largest random numbers."""
        table, counts = rows
        random = jax.random.uniform(rng, (ways, table.shape[1]))
        valid = jnp.arange(table.shape[1]) < counts[classes][:, None]
        _, columns = jax.lax.top_k(jnp.where(valid, random, -1.0), number)
        return jnp.take_along_axis(table[classes], columns, axis=1).ravel(), jnp.repeat(labels, number)

    def run_episode(rng):
        class_rng, support_rng, query_rng = jax.random.split(rng, 3)
        classes = jax.random.permutation(class_rng, fit_rows[0].shape[0])[:ways]
        support_rows, support_labels = draw(support_rng, fit_rows, classes, settings.shots)
        query_rows, query_labels = draw(query_rng, test_rows, classes, settings.queries)
        support, queries = fit[support_rows], test[query_rows]
        if settings.by == "ridge":
            scores = fewshot.ridge(queries, support, support_labels, settings.l2, classes=ways)
        else:
            scores = fewshot.prototypes(queries, support, support_labels, classes=ways, cosine=settings.by == "cosine")
        return jnp.mean((jnp.argmax(scores, axis=1) == query_labels).astype(jnp.float32))

    return jax.lax.map(run_episode, rngs)


def mean_and_interval(accuracies: Float[np.ndarray, " E"]) -> tuple[float, tuple[float, float]]:
    """Returns the mean accuracy over episodes and its 95 % interval, the mean -+ 1.96 standard errors.

    The interval covers the random draw of episodes from this data set; it says nothing about other data sets.
    """
    mean = float(np.mean(accuracies, dtype=np.float64))
    half_width = Z95 * float(np.std(accuracies, ddof=1, dtype=np.float64)) / math.sqrt(len(accuracies))
    return mean, (max(0.0, mean - half_width), min(1.0, mean + half_width))
