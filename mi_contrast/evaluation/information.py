"""Nats between two views as read from fixed features: several estimators on the same pairs, none of them trained."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast import estimators as mi
from mi_contrast.data.order import permutation
from mi_contrast.readout.knn import unit

TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
GROUPS = 16  # of pairs that the jackknife leaves out in turn
FEWEST = 30  # crossed pairs that must carry a mean of e^f before its error can be told
DIRECTIONS = 4  # of the features that the neighbour estimate reads
CLIP = 5.0

Views = Float[np.ndarray, "N F"]
Matrix = Float[np.ndarray, "N N"]


def estimates(first: Views, second: Views, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """{estimator: nats, standard_error, ceiling (None where none), what}: of pairs of features of two views.

    The critic is f = s cos(x, y) + b of features centred by their mean. Its s, and for all but InfoNCE the b that makes
    mean_{i != j} e^f 1, come from half of the pairs; every number is of the other half, N of them. So InfoNCE and NWJ
    are, in the mean, lower bounds on the nats between the views, low where cosines say little; SMILE, clipped, is
    neither; KSG reads the first 4 principal directions of both views alone and knows nothing of the rest.

    Rows of a matrix of scores share their candidates, so they are not independent: errors are those of a jackknife that
    leaves out whole pairs, as rows and as columns, a sixteenth at a time from either half. NWJ's is None where fewer
    than 30 crossed pairs carry the mean of e^f: its variance cannot be read from such a sample.

    Args:
      first, second: float [M, F], rows that belong together; M >= 4.
    """
    order = permutation(len(first), 1, seed)
    half = len(first) // 2
    fit, read = order[:half], order[half:]
    centre = np.concatenate([first[fit], second[fit]]).mean(axis=0)
    x, y = (unit(view - centre) for view in (first, second))
    fitted, held = (np.asarray(jnp.matmul(x[rows], y[rows].T, precision="highest"), np.float64) for rows in (fit, read))
    bounds = {scale: bound_rows(fitted * scale) for scale in (1 / t for t in TEMPERATURES)}
    best = max(bounds, key=bounds.__getitem__)
    found = {
        "info_nce": told(
            bound_rows(held * best),
            jackknife(held, lambda scores: bound_rows(scores * best)),
            math.log(len(read)),
            f"a lower bound; cos / {1 / best:.2f}, {len(read) - 1} negatives",
        )
    }
    scales = {scale: bound_all(fitted * scale + level(fitted * scale)) for scale in bounds}
    scale = max(scales, key=scales.__getitem__)
    shift = level(fitted * scale)
    carriers = min(carrying(fitted * scale), carrying(held * scale))
    for name, bound, what in (("nwj", bound_all, "a lower bound"), ("smile", clipped, "no bound")):
        by_level = functools.partial(lambda bound, scores: bound(held * scale + level(scores * scale)), bound)
        by_pairs = functools.partial(lambda bound, scores: bound(scores * scale + shift), bound)
        error = math.hypot(jackknife(fitted, by_level), jackknife(held, by_pairs))
        what += f"; cos / {1 / scale:.2f}, {len(read) - 1} negatives"
        if name == "nwj" and carriers < FEWEST:
            error, what = math.nan, f"{what}; error unknown, about {carriers:.0f} crossed pairs carry it"
        elif name == "smile":
            what += f", clipped at {CLIP:g}"
        found[name] = told(bound(held * scale + shift), error, None, what)
    found["ksg"] = nearest_neighbours(x, y, fit, read)
    return found


def bound_rows(scores: Matrix) -> float:
    """InfoNCE of every row against all the others' positives, in the mean."""
    return float(np.mean(np.diag(scores) - log_mean_exp(scores, axis=1)))


def bound_all(scores: Matrix) -> float:
    """NWJ of f + 1: mean_i f_ii + 1 - mean_{i != j} e^f."""
    return float(np.mean(np.diag(scores)) + 1 - np.exp(np.minimum(log_mean_exp(crossed(scores)), 700.0)))


def clipped(scores: Matrix) -> float:
    """SMILE: mean_i f_ii - log mean_{i != j} e^{clip(f)}."""
    return float(np.mean(np.diag(scores)) - log_mean_exp(np.clip(crossed(scores), -CLIP, CLIP)))


def level(scores: Matrix) -> float:
    """The b with which e^(f + b) has mean 1 over crossed pairs."""
    return -float(log_mean_exp(crossed(scores)))


def carrying(scores: Matrix) -> float:
    """How many crossed pairs carry the mean of e^f: (sum w)^2 / sum w^2."""
    weights = np.exp(crossed(scores) - crossed(scores).max())
    return float(weights.sum() ** 2 / np.square(weights).sum())


def crossed(scores: Matrix) -> Float[np.ndarray, " K"]:
    """The scores off the diagonal."""
    return scores[~np.eye(len(scores), dtype=bool)]


def log_mean_exp(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Returns log mean e^value, without overflow."""
    most = values.max(axis=axis, keepdims=True)
    return (np.log(np.mean(np.exp(values - most), axis=axis, keepdims=True)) + most).squeeze(axis)


def jackknife(scores: Matrix, reading: Callable[[Matrix], float]) -> float:
    """The standard error of a reading of a square matrix of scores, whole pairs being left out: row and column.

    sqrt( (G - 1) / G sum_g (v_g - mean v)^2 ), v_g the reading without group g of G = 16 (fewer where pairs are few).
    """
    groups = min(GROUPS, len(scores) // 2)
    if groups < 2:
        return math.nan
    group = np.arange(len(scores)) % groups
    left = [reading(scores[np.ix_(group != g, group != g)]) for g in range(groups)]
    return math.sqrt((groups - 1) * np.var(left))


def nearest_neighbours(x: Array, y: Array, fit: np.ndarray, read: np.ndarray) -> dict[str, Any]:
    """KSG of the first principal directions of both views together, found on the fitting half."""
    both = np.concatenate([np.asarray(x)[fit], np.asarray(y)[fit]])
    _, _, directions = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)
    seen = directions[: min(DIRECTIONS, len(directions))].T
    found = mi.ksg(np.asarray(x)[read] @ seen, np.asarray(y)[read] @ seen, k=3)
    what = f"neither bound; {seen.shape[1]} principal directions of each view, k 3"
    return told(float(found.nats), float(found.standard_error), float(found.ceiling), what)


def told(nats: float, error: float, ceiling: float | None, what: str) -> dict[str, Any]:
    """An estimate as plain data; what is not known is None."""
    known = {"nats": float(nats), "standard_error": float(error)}
    return {name: v if math.isfinite(v) else None for name, v in known.items()} | {"ceiling": ceiling, "what": what}
