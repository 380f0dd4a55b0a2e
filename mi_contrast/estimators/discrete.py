"""Mutual information of discrete variables: of a discrete and a continuous one from neighbours, of two from counts.

Both estimators run on the host in float64 and take concrete arrays only.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int
from scipy.spatial import cKDTree
from scipy.special import digamma

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.result import Estimate
from mi_contrast.estimators.samples import as_columns, as_real, as_whole_number, centre_and_scale

NUM_GROUPS = 30  # of samples, each of which the jackknife leaves out once


def discrete_continuous(
    labels: Float[ArrayLike, "N dl"] | Int[ArrayLike, " N"], y: Float[ArrayLike, "N dy"], k: int = 3
) -> Estimate:
    """Returns Ross's estimate of the mutual information of a discrete and a continuous variable, in nats.

    nats = psi(N) + < psi(k_i) - psi(N_l) - psi(m_i) >, k_i = min(k, N_l - 1), with N_l the number of samples with the
    same label and m_i the number of samples, including the sample itself, that are strictly closer in y than the k_i-th
    neighbour with the same label. Distances are max-norm. Samples whose label occurs once are ignored, as in
    scikit-learn.

    Args:
      labels: the discrete variable [N] or [N, dl]: numbers, booleans or text. Equal rows are the same label.
      y: the continuous variable [N, dy] or [N].
      k: number of neighbours with the same label.
    Returns:
      Estimate of float32 scalars. nats: can be below 0 without dependence. standard_error: that of a jackknife that
      leaves out one of 30 groups of samples at a time. ceiling: psi(N) - <psi(N_l)>, the estimate if y determines the
      label.
    Raises:
      UserError: values that are not numbers or not finite; different lengths; no label that occurs twice; k below 1.
    Source: Ross 2014, as implemented in scikit-learn.

    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(2, size=500)
    >>> round(float(discrete_continuous(labels, 10 * labels + rng.normal(size=500)).nats), 1)
    0.7
    """
    k = as_whole_number("k", k)
    indices, values = _label_indices(labels, "labels"), np.asarray(as_columns(y, "y"))
    if values.ndim != 2 or len(values) != len(indices) or not values.shape[1]:
        raise UserError(f"{len(indices)} labels and y {values.shape} do not fit", fix="give [N] and [N, dy]")
    if not np.isfinite(values).all():
        raise UserError("y has values that are not finite", fix="leave those pairs out")
    values = centre_and_scale(values)[0]
    is_repeated = np.bincount(indices)[indices] > 1
    indices, values = indices[is_repeated], values[is_repeated]
    if len(indices) < 4:
        raise UserError("no label occurs often enough", fix="give labels that repeat, or use ksg")
    nats, ceiling = _estimate_and_ceiling(indices, values, k)
    groups = np.random.default_rng(0).permutation(len(indices)) % min(NUM_GROUPS, len(indices))
    without = np.array(
        [
            _estimate_and_ceiling(indices[groups != group], values[groups != group], k)[0]
            for group in range(groups.max() + 1)
        ]
    )
    error = np.sqrt((len(without) - 1) / len(without) * np.sum((without - without.mean()) ** 2))
    return Estimate.from_error(*(jnp.float32(value) for value in (min(nats, ceiling), error, ceiling)))


def _estimate_and_ceiling(labels: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    is_repeated = np.bincount(labels)[labels] > 1
    labels, y = labels[is_repeated], y[is_repeated]
    radius, num_neighbours = np.empty(len(y)), np.empty(len(y))
    for label in np.unique(labels):
        same = labels == label
        num_neighbours[same] = min(k, same.sum() - 1)
        distances, _ = cKDTree(y[same]).query(y[same], k=[int(num_neighbours[same][0]) + 1], p=np.inf)
        radius[same] = np.nextafter(distances[:, 0], 0)
    num_closer = cKDTree(y).query_ball_point(y, radius, p=np.inf, return_length=True)
    ceiling = digamma(len(y)) - digamma(np.bincount(labels)[labels]).mean()
    return float(ceiling + np.mean(digamma(num_neighbours) - digamma(num_closer))), float(ceiling)


def discrete(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Returns the mutual information of two discrete variables from counts, with Miller and Madow's correction.

    H(x) + H(y) - H(x, y) + (m_x + m_y - m_xy - 1) / (2 N), with H the entropies of the observed frequencies and m the
    numbers of different values that occur. The correction supposes that most possible values occur several times.

    Args:
      x, y: labels [N] or [N, d]: numbers, booleans or text. Equal rows are the same value.
    Returns:
      Estimate of float32 scalars. standard_error: sqrt( max(0, V - f / N) / N + f / (2 N^2) ), with V the variance of
      log p_xy / (p_x p_y) and f = (m_x - 1)(m_y - 1); without dependence V is f / N on average. ceiling: the smaller of
      the two entropies, with the same correction.
    Raises:
      UserError: different lengths; fewer than 2 samples; values that are not finite.
    Source: Miller 1955.

    >>> x = np.array([0, 0, 1, 1] * 50)
    >>> round(float(discrete(x, x).nats), 3)
    0.696
    """
    a, b = _label_indices(x, "x"), _label_indices(y, "y")
    if len(a) != len(b) or len(a) < 2:
        raise UserError(f"x of {len(a)} samples and y of {len(b)} do not fit", fix="give as many of both, 2 at least")
    count = len(a)
    if (a.max() + 1) * (b.max() + 1) >= 1e7:
        raise UserError("x and y have too many values to count", fix="use ksg, or bin them")
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / count)
    p_x, p_y = joint.sum(axis=1), joint.sum(axis=0)
    occurs = joint > 0
    log_ratio = np.log(joint[occurs] / np.outer(p_x, p_y)[occurs])
    uncorrected = float(np.sum(joint[occurs] * log_ratio))
    correction = (len(p_x) + len(p_y) - occurs.sum() - 1) / (2 * count)
    variance = float(np.sum(joint[occurs] * (log_ratio - uncorrected) ** 2)) / count
    freedom = (len(p_x) - 1) * (len(p_y) - 1)  # without dependence, the variance is freedom / N^2 on average
    error = np.sqrt(max(0.0, variance - freedom / count**2) + freedom / (2 * count**2))
    ceiling = min(-np.sum(p * np.log(p)) + (len(p) - 1) / (2 * count) for p in (p_x, p_y))
    nats = min(uncorrected + correction, ceiling)
    return Estimate.from_error(*(jnp.float32(value) for value in (nats, error, ceiling)))


def _label_indices(x: Any, name: str) -> Int[np.ndarray, " N"]:
    """Returns the index of each sample's label among all labels, 0, 1, ..."""
    array = np.asarray(x)
    values = array if array.dtype.kind in "US" else as_real(x, name)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise UserError(f"{name} has shape {values.shape}", fix="give [N] or [N, d]")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{name} has values that are not finite", fix="leave those pairs out")
    return np.unique(values.reshape(len(values), -1), axis=0, return_inverse=True)[1].reshape(-1)
