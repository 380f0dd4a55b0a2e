"""The mutual information of a Gaussian copula: the part of it that ranks and correlations show, with its sampling law.

Ranks do not change under a rising map of a coordinate. So the answer is exact, in the limit, for Gaussians and for all
their coordinatewise rising maps. `estimate` uses it as the reference that a trained critic has to beat.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mi_contrast.estimators.critics import whiten

DRAWS = 100  # of the parametric bootstrap
LARGEST = 10_000  # pairs in a draw; beyond, bias and error are scaled from a draw of this size


class Copula(NamedTuple):
    """nats: the estimate, corrected for its bias; it may be slightly below 0. error: its standard deviation."""

    nats: float
    error: float


def gaussian_copula(
    x: Float[np.ndarray, "N dx"], y: Float[np.ndarray, "N dy"], draw: np.random.Generator, draws: int = DRAWS
) -> Copula:
    """Returns the mutual information of the Gaussian copula of x and y, and its standard error.

    With u, v the normal scores Phi^-1((rank - 1/2) / N) of each coordinate and r their canonical correlations,

        g = -1/2 sum_c log(1 - r_c^2) - 1/2 ( sum_{i=1..dx} - sum_{i=dy+1..dx+dy} ) psi((N - i) / 2).

    The second term is the exact small-sample bias of Gaussian samples. Ranks add a small one of their own. Both what is
    left of the bias and the standard error come from a parametric bootstrap: `draws` samples of N pairs of the fitted
    Gaussian go through the same steps, ranks included.

    Args:
      x, y: float64 [N, dx], [N, dy], finite, N >= dx + dy + 2.
      draw: the generator of the bootstrap.
      draws: how many samples the bootstrap draws, at least 2.
    Returns:
      Copula, in nats. Where a correlation is 1, both values are infinite.
    Source: van der Waerden 1952 for normal scores; Ince et al. 2017 for the Gaussian copula's mutual information; Efron
    1979 for the bootstrap.

    >>> rng = np.random.default_rng(0)
    >>> x, e = rng.normal(size=(2, 4000, 1))
    >>> found = gaussian_copula(np.exp(5 * x), (0.8 * x + 0.6 * e) ** 3, rng)
    >>> abs(found.nats - 0.511) < 3 * found.error < 0.06
    True
    """
    if len(x) < x.shape[1] + y.shape[1] + 2:
        return Copula(np.nan, np.nan)
    correlations = _correlations(_scores(x), _scores(y))
    bias = _bias(len(x), x.shape[1], y.shape[1])
    plain = _nats(correlations)
    if not np.isfinite(plain):
        return Copula(np.inf, np.inf)
    fitted = correlations * _shrinkage(correlations, max(plain - bias, 0.0))
    size = min(len(x), LARGEST)
    found = np.array([_redraw(fitted, size, x.shape[1], y.shape[1], draw) for _ in range(draws)])
    lost = found.mean() - _bias(size, x.shape[1], y.shape[1]) - _nats(fitted)
    ratio = size / len(x)
    return Copula(float(plain - bias - lost * ratio), float(found.std(ddof=1) * np.sqrt(ratio)))


def _redraw(correlations: np.ndarray, size: int, dx: int, dy: int, draw: np.random.Generator) -> float:
    x, y = draw.standard_normal((size, dx)), draw.standard_normal((size, dy))
    pairs = len(correlations)
    y[:, :pairs] = correlations * x[:, :pairs] + np.sqrt(1 - correlations**2) * y[:, :pairs]
    return _nats(_correlations(_scores(x), _scores(y)))


def _scores(values: np.ndarray) -> np.ndarray:
    """Normal scores of mid-ranks, each column to mean 0 and variance 1; a constant column becomes 0."""
    out = np.empty(values.shape)
    for j, column in enumerate(values.T):
        order = np.argsort(column)
        ordered = column[order]
        first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        if first.all():
            out[order, j] = _quantiles(len(column))
            continue
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], len(column))
        out[order, j] = np.repeat(_normal_quantile((starts + ends) / 2 / len(column)), ends - starts)
    out -= out.mean(axis=0)
    return out / np.maximum(out.std(axis=0), 1e-12)


@functools.lru_cache(maxsize=4)
def _quantiles(size: int) -> np.ndarray:
    return _normal_quantile((np.arange(size) + 0.5) / size)


def _normal_quantile(shares: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    return ndtri(shares)


def _correlations(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Canonical correlations, in [0, 1], greatest first."""
    size = len(u)
    from_u, from_v = whiten(u.T @ u / size), whiten(v.T @ v / size)
    return np.clip(np.linalg.svd(from_u.T @ (u.T @ v / size) @ from_v, compute_uv=False), 0.0, 1.0)


def _nats(correlations: np.ndarray) -> float:
    left = 1 - correlations**2
    return float(-0.5 * np.log(left).sum()) if (left > 1e-9).all() else np.inf


def _bias(size: int, dx: int, dy: int) -> float:
    from scipy.special import digamma

    terms = 0.5 * digamma((size - np.arange(1, dx + dy + 1)) / 2)
    return float(terms[:dx].sum() - terms[dy:].sum())


def _shrinkage(correlations: np.ndarray, nats: float) -> float:
    """The factor t in [0, 1] with which the correlations t r have this many nats, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _nats(middle * correlations) < nats else (low, middle)
    return high if nats > 0 else 0.0
