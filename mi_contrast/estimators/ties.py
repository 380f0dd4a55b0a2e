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
