"""Warns about repeated values, for which estimates from nearest neighbours are not made."""

from __future__ import annotations

import warnings

import jax
import numpy as np
from jaxtyping import Array, Float

# What repeated values do to each estimator.
EFFECTS = {
    "variant 1": "has no density to read",
    "variant 2": "reads far too low",
    "three_kl": "has no density to read and may be NaN",
}


def most_copies(x: Float[np.ndarray, "... N d"]) -> int:
    """Returns how often the most frequent value of any column occurs; 1 for constant columns.

    >>> most_copies(np.array([[0.0, 5.0], [1.0, 5.0], [1.0, 5.0]]))
    2
    """
    columns = np.sort(np.moveaxis(x, -2, -1).reshape(-1, x.shape[-2]), axis=1)
    maximum = 1
    for column in columns[columns[:, 0] != columns[:, -1]]:
        edges = np.flatnonzero(np.r_[True, column[1:] != column[:-1], True])
        maximum = max(maximum, int(np.diff(edges).max()))
    return maximum


def spread_ties(x: Float[np.ndarray, "N d"], k: int, rng: np.random.Generator) -> Float[np.ndarray, "N d"]:
    """Returns samples whose repeated values are spread over the gap up to the next larger value, at random.

    The value v becomes v + u gap, with u uniform in [0, 1). This keeps the order of different values, and v can be read
    off the result, so that mutual information stays exactly as it is; yet the result has a density, which estimators by
    nearest neighbours suppose. Columns in which no value occurs more than k times, and constant ones, stay as they are.

    Args:
      x: finite numbers [N, d].
    Returns:
      float64 [N, d], or x itself if nothing is spread.
    Source: Kraskov et al. 2004, section II, add noise of low amplitude where values are degenerate.

    >>> spread_ties(np.array([[1.0], [1.0], [3.0]]), 1, np.random.default_rng(0)).round(2).tolist()
    [[2.27], [1.54], [3.0]]
    """
    tied = [most_copies(column[:, None]) > k for column in x.T]
    if not any(tied):
        return x
    spread = np.asarray(x, np.float64).copy()
    for j in np.flatnonzero(tied):
        values, places, counts = np.unique(spread[:, j], return_inverse=True, return_counts=True)
        gaps = np.diff(values)
        widths = np.where(counts > 1, np.append(gaps, gaps[-1]), 0.0)
        spread[:, j] += rng.random(len(spread)) * widths[places.reshape(-1)]
    return spread


def warn_of_ties(x: Float[Array, "... N dx"], y: Float[Array, "... N dy"], k: int, estimator: str) -> None:
    """Warns if a value occurs more than k times in a column. Traced samples are not checked.

    Args:
      estimator: a word in `EFFECTS`.
    """
    if isinstance(x, jax.core.Tracer) or isinstance(y, jax.core.Tracer):
        return
    copies = {name: most_copies(np.asarray(z)) for name, z in (("x", x), ("y", y))}
    tied = [name for name, count in copies.items() if count > k]
    if not tied:
        return
    if len(tied) == 2:
        better = "estimators.discrete (both discrete), or noise below the data's resolution"
    else:
        better = f"estimators.discrete_continuous with {tied[0]} as the labels" + (
            ", or variant=1" if estimator == "variant 2" else ""
        )
    times = " and ".join(f"{name} {copies[name]} times" for name in tied)
    warnings.warn(
        f"a value repeats in {times}, more than k = {k}: {estimator} {EFFECTS[estimator]} there; use {better}",
        stacklevel=3,
    )


def warn_of_tied_series(series: Float[Array, "P T d"], k: int, estimator: str) -> None:
    """Warns if a value occurs more than k times in a column of a series. Traced series are not checked.

    Args:
      estimator: a word in `EFFECTS`.
    """
    if isinstance(series, jax.core.Tracer):
        return
    copies = np.array([most_copies(one) for one in np.asarray(series)])
    tied = np.flatnonzero(copies > k)
    if len(tied):
        first = ", ".join(f"{index} ({copies[index]} times)" for index in tied[:3])
        more = f" and {len(tied) - 3} more" if len(tied) > 3 else ""
        warnings.warn(
            f"a value repeats in series {first}{more}, more than k = {k}: {estimator} {EFFECTS[estimator]} there; "
            "use estimators.discrete_continuous on such a pair, or add noise below the data's resolution",
            stacklevel=4,
        )
