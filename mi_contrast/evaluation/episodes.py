"""Few-shot: many small tasks drawn from a set, each of n classes with k examples, each scored on queries of its own."""

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
    """How few-shot episodes are drawn and scored.

    ways: classes an episode; shots: examples a class, of the fitting split; queries: test images a class, of the test
    split; episodes: how many; by: 'ridge', 'prototypes' or 'cosine' (prototypes by cosine); l2: ridge's; normalise:
    whether features are made of length 1 first (after that an l2 belongs to every backbone).
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    episodes: int = 1000
    by: str = "ridge"
    l2: float = 0.1
    normalise: bool = True

    def __post_init__(self):
        """Raises UserError on a value that can't be."""
        if self.by not in CLASSIFIERS:
            raise unknown("few-shot classifier", self.by, CLASSIFIERS)
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1), ("episodes", 2)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")
        if not self.l2 > 0:
            raise UserError(f"l2 is {self.l2}", fix="give a number above 0")


def share_of_each(
    fit: Features, test: Features, settings: Episodes, key: Key[Array, ""]
) -> tuple[Float[np.ndarray, " E"], Mapping[str, Any]]:
    """Top-1 of every episode, and between how many classes they were drawn.

    An episode draws `ways` classes without replacement, of those with enough examples in both splits, then examples of
    each without replacement. Raises UserError where fewer classes than `ways` have enough examples.
    """
    enough = [
        c
        for c in range(len(fit.classes))
        if np.sum(fit.labels == c) >= settings.shots and np.sum(test.labels == c) >= settings.queries
    ]
    if len(enough) < settings.ways:
        raise UserError(
            f"{len(enough)} of {len(fit.classes)} classes have {settings.shots} examples to fit and "
            f"{settings.queries} to test, and an episode needs {settings.ways}",
            fix="lower task.ways, shots or queries",
        )
    tables = tuple(by_class(split.labels, enough) for split in (fit, test))
    values = tuple(jnp.asarray(unit(s.values) if settings.normalise else s.values, jnp.float32) for s in (fit, test))
    keys = jax.random.split(key, settings.episodes)
    return np.asarray(_shares(keys, *values, *tables, settings)), {"classes_drawn_from": len(enough)}


def by_class(labels: Int[np.ndarray, " N"], classes: list[int]) -> tuple[Int[Array, "C M"], Int[Array, " C"]]:
    """The rows of each class, padded to the largest class, and how many they are."""
    rows = [np.flatnonzero(labels == c) for c in classes]
    most = max(map(len, rows))
    table = np.stack([np.pad(row, (0, most - len(row))) for row in rows])
    return jnp.asarray(table, jnp.int32), jnp.asarray([len(row) for row in rows], jnp.int32)


@partial(jax.jit, static_argnames="settings")
def _shares(keys, fit, test, of_fit, of_test, settings):
    ways, labels = settings.ways, jnp.arange(settings.ways)

    def draw(key, rows, chosen, number):
        """`number` rows without replacement of each chosen class: the places of the largest of random numbers."""
        table, counts = rows
        random = jax.random.uniform(key, (ways, table.shape[1]))
        real = jnp.arange(table.shape[1]) < counts[chosen][:, None]
        _, places = jax.lax.top_k(jnp.where(real, random, -1.0), number)
        return jnp.take_along_axis(table[chosen], places, axis=1).ravel(), jnp.repeat(labels, number)

    def episode(key):
        of_classes, of_support, of_queries = jax.random.split(key, 3)
        chosen = jax.random.permutation(of_classes, of_fit[0].shape[0])[:ways]
        rows, given = draw(of_support, of_fit, chosen, settings.shots)
        asked, truth = draw(of_queries, of_test, chosen, settings.queries)
        support, queries = fit[rows], test[asked]
        if settings.by == "ridge":
            scores = fewshot.ridge(queries, support, given, settings.l2, classes=ways)
        else:
            scores = fewshot.prototypes(queries, support, given, classes=ways, cosine=settings.by == "cosine")
        return jnp.mean((jnp.argmax(scores, axis=1) == truth).astype(jnp.float32))

    return jax.lax.map(episode, keys)


def mean_and_interval(shares: Float[np.ndarray, " E"]) -> tuple[float, tuple[float, float]]:
    """Mean over episodes, and the mean -+ 1.96 standard errors: over draws of episodes from this set, not over sets."""
    mean = float(np.mean(shares, dtype=np.float64))
    half = Z95 * float(np.std(shares, ddof=1, dtype=np.float64)) / math.sqrt(len(shares))
    return mean, (max(0.0, mean - half), min(1.0, mean + half))
