"""Estimates the mutual information between two views from fixed features; no critic network is trained."""

from __future__ import annotations

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
GROUPS = 16  # groups of pairs that the jackknife leaves out one at a time
MIN_EFFECTIVE_PAIRS = 30  # mismatched pairs needed to know the error of a mean of e^f
DIRECTIONS = 4  # principal directions that the nearest-neighbour estimate reads
CLIP = 5.0

Views = Float[np.ndarray, "N F"]
Matrix = Float[np.ndarray, "N N"]


def estimate_information(first: Views, second: Views, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Returns estimates, in nats, of the information that features of two views share, by four estimators.

    The critic is f = s cos(x, y) + b on features centred by their mean. Half of the pairs, the fitting half, choose the
    scale s, and the shift b that makes mean_{i != j} e^f equal to 1 (InfoNCE needs no b). All numbers are computed on
    the other half, N pairs.

    InfoNCE and NWJ are lower bounds in expectation; they are loose where the cosine says little about the pairing.
    SMILE is clipped and bounds nothing. KSG sees only the first 4 principal directions of the two views.

    Entries of a score matrix that share a row or a column are not independent. The standard errors are therefore those
    of a jackknife that leaves out whole pairs (a row and its column), one sixteenth of a half at a time. NWJ's is None
    if the mean of e^f rests on fewer than 30 effective mismatched pairs, since such a sample doesn't show its variance.

    Args:
      first, second: float [M, F]; row i of both belongs to the same image. M >= 4.
      seed: decides which pairs form the fitting half.
    Returns:
      {estimator: {nats, standard_error, ceiling, what}}; a ceiling is None where the estimator has none.
    """
    order = permutation(len(first), 1, seed)
    half = len(first) // 2
    fit, test = order[:half], order[half:]
    centre = np.concatenate([first[fit], second[fit]]).mean(axis=0)
    x, y = (unit(view - centre) for view in (first, second))
    fit_cosines, test_cosines = (
        np.asarray(jnp.matmul(x[rows], y[rows].T, precision="highest"), np.float64) for rows in (fit, test)
    )
    scales = [1 / temperature for temperature in TEMPERATURES]
    scale = max(scales, key=lambda s: info_nce(s * fit_cosines))
    estimates = {
        "info_nce": as_record(
            info_nce(scale * test_cosines),
            jackknife(test_cosines, lambda cosines: info_nce(scale * cosines)),
            math.log(len(test)),
            f"a lower bound; cos / {1 / scale:.2f}, {len(test) - 1} negatives",
        )
    }
    scale = max(scales, key=lambda s: nwj(s * fit_cosines + normalising_shift(s * fit_cosines)))
    negatives = f"cos / {1 / scale:.2f}, {len(test) - 1} negatives"
    pairs = min(effective_pairs(scale * fit_cosines), effective_pairs(scale * test_cosines))
    nats, error = shifted_bound(nwj, fit_cosines, test_cosines, scale)
    what = f"a lower bound; {negatives}"
    if pairs < MIN_EFFECTIVE_PAIRS:
        error, what = math.nan, f"{what}; error unknown, it rests on about {pairs:.0f} mismatched pairs"
    estimates["nwj"] = as_record(nats, error, None, what)
    nats, error = shifted_bound(smile, fit_cosines, test_cosines, scale)
    estimates["smile"] = as_record(nats, error, None, f"no bound; {negatives}, clipped at {CLIP:g}")
    estimates["ksg"] = estimate_by_neighbours(x, y, fit, test)
    return estimates


def shifted_bound(
    bound: Callable[[Matrix], float], fit_cosines: Matrix, test_cosines: Matrix, scale: float
) -> tuple[float, float]:
    """Returns the value of `bound` on the test half and its standard error; the shift b is fitted on the other half.

    Both halves contribute to the error: the fitting half through b, the test half through the scores.
    """
    shift = normalising_shift(scale * fit_cosines)

    def vary_shift(cosines: Matrix) -> float:
        return bound(scale * test_cosines + normalising_shift(scale * cosines))

    def vary_scores(cosines: Matrix) -> float:
        return bound(scale * cosines + shift)

    error = math.hypot(jackknife(fit_cosines, vary_shift), jackknife(test_cosines, vary_scores))
    return bound(scale * test_cosines + shift), error


def info_nce(scores: Matrix) -> float:
    """Returns the mean over rows i of f_ii - log mean_j e^{f_ij}."""
    return float(np.mean(np.diag(scores) - log_mean_exp(scores, axis=1)))


def nwj(scores: Matrix) -> float:
    """Returns NWJ of f + 1: mean_i f_ii + 1 - mean_{i != j} e^f."""
    return float(np.mean(np.diag(scores)) + 1 - np.exp(np.minimum(log_mean_exp(off_diagonal(scores)), 700.0)))


def smile(scores: Matrix) -> float:
    """Returns SMILE: mean_i f_ii - log mean_{i != j} e^{clip(f)}."""
    return float(np.mean(np.diag(scores)) - log_mean_exp(np.clip(off_diagonal(scores), -CLIP, CLIP)))


def normalising_shift(scores: Matrix) -> float:
    """Returns the b for which e^(f + b) has mean 1 over mismatched pairs."""
    return -float(log_mean_exp(off_diagonal(scores)))


def effective_pairs(scores: Matrix) -> float:
    """Returns the effective number of mismatched pairs in the mean of w = e^f: (sum w)^2 / sum w^2."""
    weights = np.exp(off_diagonal(scores) - off_diagonal(scores).max())
    return float(weights.sum() ** 2 / np.square(weights).sum())


def off_diagonal(scores: Matrix) -> Float[np.ndarray, " K"]:
    """Returns the scores of mismatched pairs, which lie off the diagonal."""
    return scores[~np.eye(len(scores), dtype=bool)]


def log_mean_exp(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Returns log mean e^value, without overflow."""
    largest = values.max(axis=axis, keepdims=True)
    return (np.log(np.mean(np.exp(values - largest), axis=axis, keepdims=True)) + largest).squeeze(axis)


def jackknife(scores: Matrix, statistic: Callable[[Matrix], float]) -> float:
    """Returns the standard error of a statistic of a square matrix of scores; leaves out pairs as row and column.

    sqrt( (G - 1) / G sum_g (v_g - mean v)^2 ), v_g the statistic without group g of G = 16 (fewer if pairs are few).
    """
    groups = min(GROUPS, len(scores) // 2)
    if groups < 2:
        return math.nan
    group = np.arange(len(scores)) % groups
    values = [statistic(scores[np.ix_(group != g, group != g)]) for g in range(groups)]
    return math.sqrt((groups - 1) * np.var(values))


def estimate_by_neighbours(x: Array, y: Array, fit: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Returns the KSG estimate on the first principal directions, which both views share and the fitting half sets."""
    both = np.concatenate([np.asarray(x)[fit], np.asarray(y)[fit]])
    _, _, directions = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)
    projection = directions[: min(DIRECTIONS, len(directions))].T
    estimate = mi.ksg(np.asarray(x)[test] @ projection, np.asarray(y)[test] @ projection, k=3)
    what = f"neither bound; {projection.shape[1]} principal directions of each view, k 3"
    return as_record(float(estimate.nats), float(estimate.standard_error), float(estimate.ceiling), what)


def as_record(nats: float, error: float, ceiling: float | None, what: str) -> dict[str, Any]:
    """Returns an estimate as plain data, with None for what is not finite."""
    numbers = {"nats": float(nats), "standard_error": float(error)}
    return {name: v if math.isfinite(v) else None for name, v in numbers.items()} | {"ceiling": ceiling, "what": what}
