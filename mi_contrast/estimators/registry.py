"""Estimators from samples by the names of the command line, and which of them can handle labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mi_contrast.estimators.correlation import canonical_correlation
from mi_contrast.estimators.discrete import discrete, discrete_continuous
from mi_contrast.estimators.learned import estimate
from mi_contrast.estimators.neighbours import ksg, three_kl
from mi_contrast.estimators.result import Estimate
from mi_contrast.estimators.ties import most_copies

EstimateFn = Callable[[np.ndarray, np.ndarray, int, jax.Array, bool], Estimate]


class EstimatorMethod(NamedTuple):
    """An estimator of the command line.

    Attributes:
      estimate: the function, of x, y, k, a random key, and whether to replace columns by their normal scores.
      description: how it estimates, or what its number bounds, in at most 38 letters.
      is_quadratic: whether its time grows with the square of the number of samples.
      takes_normal_scores: whether replacing columns by normal scores is an option.
      saturates: whether it is too low near its ceiling.
    """

    estimate: EstimateFn
    description: str
    is_quadratic: bool = False
    takes_normal_scores: bool = False
    saturates: bool = False


def _learned(method: str, description: str, corrected: bool = False) -> EstimatorMethod:
    def run(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
        return estimate(x, y, method, key=key, corrected=corrected)

    return EstimatorMethod(run, description, saturates=True)


def _ksg(variant: int) -> EstimatorMethod:
    def run(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
        return ksg(x, y, k, variant, standardise=not ranks, normal_scores=ranks)

    description = "{k} nearest neighbours"
    return EstimatorMethod(run, description, is_quadratic=True, takes_normal_scores=True, saturates=True)


def _three_kl(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
    return three_kl(x, y, k, standardise=not ranks, normal_scores=ranks)


def _correlation(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
    return canonical_correlation(x, y, normal_scores=ranks)


def _labels_first(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
    return discrete_continuous(x, y, k) if _count_values(x) <= _count_values(y) else discrete_continuous(y, x, k)


METHODS = {
    "ksg": _ksg(1),
    "ksg2": _ksg(2),
    "three_kl": EstimatorMethod(
        _three_kl, "three entropies, often far off", is_quadratic=True, takes_normal_scores=True
    ),
    "cca": EstimatorMethod(_correlation, "linear dependence", takes_normal_scores=True),
    "discrete_continuous": EstimatorMethod(_labels_first, "{k} neighbours within a label"),
    "discrete": EstimatorMethod(lambda x, y, k, key, ranks: discrete(x, y), "frequencies of values"),
    "info_nce": _learned("info_nce", "Gaussian copula, or a critic if better", corrected=True),
    "nwj": _learned("nwj", "lower bound"),
    "jensen_shannon": _learned("jensen_shannon", "lower bound"),
    "donsker_varadhan": _learned("donsker_varadhan", "nearly a lower bound"),
    "mine": _learned("mine", "nearly a lower bound"),
    "smile": _learned("smile", "clipped, no bound"),
}
DEFAULT = "ksg,cca,info_nce,nwj,smile"
DENSITY_METHODS = ("ksg", "ksg2", "three_kl", "cca")
NEIGHBOUR_METHODS = ("ksg", "ksg2", "three_kl", "discrete_continuous")


def discrete_sides(x: np.ndarray, y: np.ndarray, k: int) -> tuple[bool, bool]:
    """Returns whether x and y are discrete: at most sqrt(N) distinct rows, which occur more than k times in the median.

    >>> discrete_sides(np.arange(100)[:, None] % 2, np.arange(100.0)[:, None], 3)
    (True, False)
    """

    def is_discrete(z: np.ndarray) -> bool:
        counts = np.unique(z, axis=0, return_counts=True)[1]
        return bool(len(counts) <= np.sqrt(len(z)) and np.median(counts) > k)

    return is_discrete(x), is_discrete(y)


def tied_sides(x: np.ndarray, y: np.ndarray, k: int) -> tuple[bool, bool]:
    """Returns whether x and y are numbers of which some occur more than k times, so that neighbours have no density.

    Labels are no such numbers. Where pairs are discrete (more than k copies in the median) both are False, too: there
    is no density to be had.

    >>> tied_sides(np.arange(100)[:, None] // 5, np.arange(100.0)[:, None], 3)
    (True, False)
    """
    are_labels = discrete_sides(x, y, k)
    if not any(are_labels):
        copies = np.unique(np.concatenate([x, y], axis=1), axis=0, return_counts=True)[1]
        if np.median(copies) > k:
            return False, False
    first, second = (not is_label and most_copies(z) > k for z, is_label in zip((x, y), are_labels, strict=True))
    return first, second


def replace_for_labels(methods: Sequence[str], labels: tuple[bool, bool]) -> tuple[list[str], list[str]]:
    """Replaces methods that suppose densities by those for labels.

    Args:
      methods: names of methods.
      labels: whether x and y are labels, at least one of them.
    Returns:
      the names of the methods to use, and a line that says which were replaced, if any.

    >>> replace_for_labels(["ksg", "cca", "nwj"], (True, False))
    (['discrete_continuous', 'nwj'], ['discrete_continuous in place of ksg and cca'])
    """
    substitute = "discrete" if all(labels) else "discrete_continuous"
    unsuitable = [name for name in methods if name in DENSITY_METHODS]
    suitable = list(dict.fromkeys(substitute if name in unsuitable else name for name in methods))
    return suitable, [f"{substitute} in place of {' and '.join(unsuitable)}"] if unsuitable else []


def _count_values(x: np.ndarray) -> int:
    return len(np.unique(x, axis=0))
