"""Mutual information of the Gaussian copula of samples, with its standard error.

It is exact in the limit of many samples for Gaussians, and for Gaussians whose coordinates went through increasing
maps, because it uses only ranks. `estimate` returns it unless a trained critic finds more.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import digamma, ndtri

from mi_contrast.estimators.critics import whiten

NUM_DRAWS = 100  # of the parametric bootstrap
MAX_SIZE = 10_000  # samples in a draw; for more samples, bias and error are extrapolated from draws of this size


class Copula(NamedTuple):
    """The estimate in nats, corrected for bias, so that it can be slightly below 0, and its standard deviation."""

    nats: float
    error: float


def gaussian_copula(
    x: Float[np.ndarray, "N dx"], y: Float[np.ndarray, "N dy"], rng: np.random.Generator, draws: int = NUM_DRAWS
) -> Copula:
    """Returns the mutual information of the Gaussian copula of x and y, and its standard error.

    With u, v the normal scores Phi^-1((rank - 1/2) / N) of each coordinate and r their canonical correlations,

        g = -1/2 sum_c log(1 - r_c^2) - 1/2 ( sum_{i=1..dx} - sum_{i=dy+1..dx+dy} ) psi((N - i) / 2).

    The second term is the exact small-sample bias for Gaussian samples. Ranks add a small bias of their own. It and the
    standard error come from a parametric bootstrap: the same computation, with ranks, on `draws` samples of N pairs
    from the fitted Gaussian.

    Args:
      x, y: float64 [N, dx], [N, dy], finite. If N < dx + dy + 2, both results are NaN.
      rng: random generator for the bootstrap.
      draws: number of bootstrap samples, at least 2.
    Returns:
      Copula. If a correlation is 1, both values are infinite.
    Source: van der Waerden 1952 for normal scores; Ince et al. 2017 for the mutual information of Gaussian copulas;
    Efron 1979 for the bootstrap.

    >>> rng = np.random.default_rng(0)
    >>> x, e = rng.normal(size=(2, 4000, 1))
    >>> copula = gaussian_copula(np.exp(5 * x), (0.8 * x + 0.6 * e) ** 3, rng)
    >>> abs(copula.nats - 0.511) < 3 * copula.error < 0.06
    True
    """
    if len(x) < x.shape[1] + y.shape[1] + 2:
        return Copula(np.nan, np.nan)
    correlations = _canonical_correlations(_normal_scores(x), _normal_scores(y))
    bias = _bias(len(x), x.shape[1], y.shape[1])
    uncorrected = _nats(correlations)
    if not np.isfinite(uncorrected):
        return Copula(np.inf, np.inf)
    fitted = correlations * _find_shrinkage(correlations, max(uncorrected - bias, 0.0))
    size = min(len(x), MAX_SIZE)
    bootstrap = np.array([_sample_nats(fitted, size, x.shape[1], y.shape[1], rng) for _ in range(draws)])
    remaining_bias = bootstrap.mean() - _bias(size, x.shape[1], y.shape[1]) - _nats(fitted)
    ratio = size / len(x)
    nats = uncorrected - bias - remaining_bias * ratio
    return Copula(float(nats), float(bootstrap.std(ddof=1) * np.sqrt(ratio)))


def _sample_nats(correlations: np.ndarray, size: int, dx: int, dy: int, rng: np.random.Generator) -> float:
    """Returns the uncorrected estimate for a sample of Gaussian pairs with these canonical correlations."""
    x, y = rng.standard_normal((size, dx)), rng.standard_normal((size, dy))
    num_pairs = len(correlations)
    y[:, :num_pairs] = correlations * x[:, :num_pairs] + np.sqrt(1 - correlations**2) * y[:, :num_pairs]
    return _nats(_canonical_correlations(_normal_scores(x), _normal_scores(y)))


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Returns the normal scores of mid-ranks, standardised. A constant column becomes 0."""
    scores = np.empty(values.shape)
    for j, column in enumerate(values.T):
        order = np.argsort(column)
        ordered = column[order]
        is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        if is_first.all():
            scores[order, j] = _normal_quantiles(len(column))
            continue
        starts = np.flatnonzero(is_first)
        ends = np.append(starts[1:], len(column))
        scores[order, j] = np.repeat(ndtri((starts + ends) / 2 / len(column)), ends - starts)
    scores -= scores.mean(axis=0)
    return scores / np.maximum(scores.std(axis=0), 1e-12)


@functools.lru_cache(maxsize=4)
def _normal_quantiles(size: int) -> np.ndarray:
    return ndtri((np.arange(size) + 0.5) / size)


def _canonical_correlations(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns the canonical correlations, in [0, 1], greatest first."""
    size = len(u)
    whiten_u, whiten_v = whiten(u.T @ u / size), whiten(v.T @ v / size)
    return np.clip(np.linalg.svd(whiten_u.T @ (u.T @ v / size) @ whiten_v, compute_uv=False), 0.0, 1.0)


def _nats(correlations: np.ndarray) -> float:
    unexplained = 1 - correlations**2
    return float(-0.5 * np.log(unexplained).sum()) if (unexplained > 1e-9).all() else np.inf


def _bias(size: int, dx: int, dy: int) -> float:
    terms = 0.5 * digamma((size - np.arange(1, dx + dy + 1)) / 2)
    return float(terms[:dx].sum() - terms[dy:].sum())


def _find_shrinkage(correlations: np.ndarray, nats: float) -> float:
    """Returns the factor t in [0, 1] for which the correlations t r have this many nats, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _nats(middle * correlations) < nats else (low, middle)
    return high if nats > 0 else 0.0
