"""Whether neighbouring rows of two samples resemble each other, so that the rows are fewer draws than they look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

DEVIATIONS = 4.0  # standard errors of independent rows, 1 / sqrt(N), that both correlations must exceed
LEAST_PRODUCT = 0.05  # product of the correlations, at which intervals are 5 % too narrow; less is no matter
THINNED_PRODUCT = 0.02  # product of the correlations that is left between the rows which thinning keeps


class SerialCorrelation(NamedTuple):
    """How much each row of two samples resembles the next one.

    Attributes:
      x, y: correlations of rows with the rows that follow them, of the column of each side where it is largest.
      rows: the number of rows, N.
    """

    x: float
    y: float
    rows: int

    @property
    def product(self) -> float:
        """The product x y, to which the error of a correlation between the two sides is due; 0 if signs differ."""
        return max(0.0, self.x * self.y)

    @property
    def is_strong(self) -> bool:
        """Whether both sides exceed what independent rows show, by so much that intervals are too narrow."""
        least = DEVIATIONS / math.sqrt(self.rows)
        return min(abs(self.x), abs(self.y)) > least and self.product > LEAST_PRODUCT

    @property
    def effective_rows(self) -> float:
        """The number of independent rows that tell as much, N (1 - x y) / (1 + x y)."""
        return self.rows * (1 - self.product) / (1 + self.product)

    @property
    def thinning(self) -> int:
        """The least k for which every k-th row of such a series is nearly independent: (x y)^k <= .02."""
        if self.product <= THINNED_PRODUCT:
            return 1
        if self.product >= 1:
            return self.rows
        return min(self.rows, math.ceil(math.log(THINNED_PRODUCT) / math.log(self.product)))


def correlate_rows(x: Float[np.ndarray, "N dx"], y: Float[np.ndarray, "N dy"]) -> SerialCorrelation:
    """Returns the correlations between neighbouring rows of two samples, in the order in which they are given.

    r = sum_t z_t z_{t+1} / sum_t z_t^2, with z the ranks of a column without their mean. Of several columns, the one
    with the largest |r| counts for its side.

    Two series that share nothing are correlated by chance with the variance (1 + r_x r_y) / (1 - r_x r_y) / N, if each
    is autoregressive of order 1. With independent rows it is 1 / N, and r itself has the standard error 1 / sqrt(N).

    Args:
      x, y: finite numbers [N, d].
    Source: Bartlett 1946, "On the theoretical specification and sampling properties of autocorrelated time-series".

    >>> correlate_rows(np.arange(100.0)[:, None], np.arange(100.0)[:, None]).thinning
    65
    """
    return SerialCorrelation(_correlate_side(x), _correlate_side(y), len(x))


def correlate_orders(
    x: Float[np.ndarray, "N dx"], y: Float[np.ndarray, "N dy"], orders: Mapping[str, Float[np.ndarray, " N"]]
) -> tuple[SerialCorrelation, str]:
    """Returns the correlations in the order in which neighbouring rows resemble each other most, and its name.

    The order in which the rows are given counts, too. Its name is ''.

    Args:
      x, y: finite numbers [N, d].
      orders: numbers to sort the rows by, by name.
    """
    correlations = [(correlate_rows(x, y), "")]
    for name, places in orders.items():
        rows = np.argsort(places, kind="stable")
        correlations.append((correlate_rows(x[rows], y[rows]), name))
    return max(correlations, key=lambda item: (item[0].is_strong, item[0].product))


def _correlate_side(columns: np.ndarray) -> float:
    """Returns the correlation of neighbours in the column in which it is largest in size; 0 for constant columns."""
    correlations = [_correlate_neighbours(column) for column in columns.T]
    return max(correlations, key=abs, default=0.0)


def _correlate_neighbours(column: np.ndarray) -> float:
    _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2)[places.reshape(-1)]
    ranks -= ranks.mean()
    spread = float(ranks @ ranks)
    return 0.0 if spread == 0 else float(ranks[:-1] @ ranks[1:]) / spread
