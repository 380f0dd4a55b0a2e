"""Mutual information where a variable is discrete: labels and numbers by nearest neighbours, two labels by counts.

Both run on the host in float64 and take concrete arrays only.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.reading import Estimate
from mi_contrast.estimators.samples import as_columns, as_real, scaled, whole_number

GROUPS = 30  # of samples that the jackknife leaves out in turn


def discrete_continuous(
    labels: Float[ArrayLike, "N dl"] | Int[ArrayLike, " N"], y: Float[ArrayLike, "N dy"], k: int = 3
) -> Estimate:
    """Ross's estimate of the mutual information of a discrete and a continuous variable, in nats.

    psi(N) + < psi(k_i) - psi(N_l) - psi(m_i) >, with N_l the number of samples of the same label, k_i = min(k, N_l - 1)
    and m_i the number of samples (the sample itself included) strictly nearer in y than the k_i-th neighbour of the
    same label. Distances are max-norm. Samples whose label occurs once are left out, as scikit-learn does.

    Args:
      labels: the discrete variable [N] or [N, dl]: numbers, booleans or text; equal rows are one label.
      y: the continuous variable [N, dy] or [N], float64 on the host.
      k: neighbours within a label.
    Returns:
      Estimate of float32 scalars. nats may lie below 0 where there is no dependence. standard_error: a jackknife that
      leaves out one of 30 groups of samples at a time. ceiling: psi(N) - <psi(N_l)>, the reading where y tells the
      label.
    Raises:
      UserError: values that are not numbers or not finite, lengths that differ, no label that occurs twice, k below 1.
    Source: Ross 2014, as scikit-learn implements it.

    >>> draw = np.random.default_rng(0)
    >>> labels = draw.integers(2, size=500)
    >>> round(float(discrete_continuous(labels, 10 * labels + draw.normal(size=500)).nats), 1)
    0.7
    """
    k = whole_number("k", k)
    groups, values = _labels(labels, "labels"), np.asarray(as_columns(y, "y"))
    if values.ndim != 2 or len(values) != len(groups) or not values.shape[1]:
        raise UserError(f"{len(groups)} labels and y {values.shape} do not fit", fix="give [N] and [N, dy]")
    if not np.isfinite(values).all():
        raise UserError("y has values that are not finite", fix="leave those pairs out")
    values = scaled(values)[0]
    kept = np.bincount(groups)[groups] > 1
    groups, values = groups[kept], values[kept]
    if len(groups) < 4:
        raise UserError("no label occurs often enough", fix="give labels that repeat, or use ksg")
    nats, ceiling = _ross(groups, values, k)
    parts = np.random.default_rng(0).permutation(len(groups)) % min(GROUPS, len(groups))
    left = np.array([_ross(groups[parts != part], values[parts != part], k)[0] for part in range(parts.max() + 1)])
    error = np.sqrt((len(left) - 1) / len(left) * np.sum((left - left.mean()) ** 2))
    return Estimate.from_error(*(jnp.float32(value) for value in (min(nats, ceiling), error, ceiling)))


def _ross(groups: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    """The estimate, and the most that it can be."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    counts = np.bincount(groups)
    kept = counts[groups] > 1
    groups, y = groups[kept], y[kept]
    radius, neighbours = np.empty(len(y)), np.empty(len(y))
    for label in np.unique(groups):
        own = groups == label
        neighbours[own] = min(k, own.sum() - 1)
        far, _ = cKDTree(y[own]).query(y[own], k=[int(neighbours[own][0]) + 1], p=np.inf)
        radius[own] = np.nextafter(far[:, 0], 0)
    within = cKDTree(y).query_ball_point(y, radius, p=np.inf, return_length=True)
    ceiling = digamma(len(y)) - digamma(np.bincount(groups)[groups]).mean()
    return float(ceiling + np.mean(digamma(neighbours) - digamma(within))), float(ceiling)


def discrete(x: ArrayLike, y: ArrayLike) -> Estimate:
    """The mutual information of two discrete variables from counts, with Miller and Madow's correction, in nats.

    H(x) + H(y) - H(x, y) + (m_x + m_y - m_xy - 1) / (2 N), H the entropies of the observed shares and m the numbers of
    values that occur.

    Args:
      x, y: labels [N] or [N, d]: numbers, booleans or text; equal rows are one value.
    Returns:
      Estimate of float32 scalars. standard_error: sqrt( max(0, V - f / N) / N + f / (2 N^2) ) with V the variance of
      log p_xy / (p_x p_y) and f = (m_x - 1)(m_y - 1), the spread where there is no dependence. ceiling: the lesser of
      the two entropies, corrected alike. The correction supposes that most values which can occur do, several
      times each.
    Raises:
      UserError: lengths that differ, fewer than 2 samples, values that are not finite.
    Source: Miller 1955.

    >>> x = np.array([0, 0, 1, 1] * 50)
    >>> round(float(discrete(x, x).nats), 3)
    0.696
    """
    a, b = _labels(x, "x"), _labels(y, "y")
    if len(a) != len(b) or len(a) < 2:
        raise UserError(f"x of {len(a)} samples and y of {len(b)} do not fit", fix="give as many of both, 2 at least")
    count = len(a)
    table = np.zeros((a.max() + 1, b.max() + 1)) if (a.max() + 1) * (b.max() + 1) < 1e7 else None
    if table is None:
        raise UserError("x and y have too many values to count", fix="use ksg, or bin them")
    np.add.at(table, (a, b), 1 / count)
    of_x, of_y = table.sum(axis=1), table.sum(axis=0)
    there = table > 0
    ratio = np.log(table[there] / np.outer(of_x, of_y)[there])
    plain = float(np.sum(table[there] * ratio))
    correction = (len(of_x) + len(of_y) - there.sum() - 1) / (2 * count)
    variance = float(np.sum(table[there] * (ratio - plain) ** 2)) / count
    freedom = (len(of_x) - 1) * (len(of_y) - 1)  # chance alone adds freedom / N to the observed variance
    error = np.sqrt(max(0.0, variance - freedom / count**2) + freedom / (2 * count**2))
    entropies = [-np.sum(p * np.log(p)) + (len(p) - 1) / (2 * count) for p in (of_x, of_y)]
    ceiling = min(entropies)
    return Estimate.from_error(*(jnp.float32(value) for value in (min(plain + correction, ceiling), error, ceiling)))


def _labels(x: Any, name: str) -> Int[np.ndarray, " N"]:
    """The number of each sample's label, 0, 1, ..."""
    text = np.asarray(x)
    values = text if text.dtype.kind in "US" else as_real(x, name)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise UserError(f"{name} has shape {values.shape}", fix="give [N] or [N, d]")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{name} has values that are not finite", fix="leave those pairs out")
    return np.unique(values.reshape(len(values), -1), axis=0, return_inverse=True)[1].reshape(-1)
