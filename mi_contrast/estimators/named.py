"""The estimators from samples by the names that the command line gives them, and which of them suit labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mi_contrast.estimators.correlation import canonical_correlation
from mi_contrast.estimators.discrete import discrete, discrete_continuous
from mi_contrast.estimators.learned import estimate
from mi_contrast.estimators.neighbours import ksg, three_kl
from mi_contrast.estimators.reading import Estimate

Read = Callable[[np.ndarray, np.ndarray, int, jax.Array, bool], Estimate]


class Method(NamedTuple):
    """A named estimator.

    read: of x, y, k, a key, and whether columns become normal scores first; what: what its number is; by_neighbours:
    whether it compares every sample with every other; ranked: whether normal scores are an option; saturates: whether
    it falls behind the truth as it comes near its ceiling.
    """

    read: Read
    what: str
    by_neighbours: bool = False
    ranked: bool = False
    saturates: bool = False


def _learned(method: str, what: str, corrected: bool = False) -> Method:
    def read(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
        return estimate(x, y, method, key=key, corrected=corrected)

    return Method(read, what, saturates=True)


def _ksg(variant: int) -> Method:
    def read(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
        return ksg(x, y, k, variant, standardise=not ranks, normal_scores=ranks)

    return Method(read, "estimate: {k} nearest neighbours", by_neighbours=True, ranked=True, saturates=True)


def _three_kl(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
    return three_kl(x, y, k, standardise=not ranks, normal_scores=ranks)


def _correlation(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
    return canonical_correlation(x, y, normal_scores=ranks)


def _labels_first(x: np.ndarray, y: np.ndarray, k: int, key: jax.Array, ranks: bool) -> Estimate:
    return discrete_continuous(x, y, k) if _count_values(x) <= _count_values(y) else discrete_continuous(y, x, k)


METHODS = {
    "ksg": _ksg(1),
    "ksg2": _ksg(2),
    "three_kl": Method(_three_kl, "estimate: three entropies, often far off", by_neighbours=True, ranked=True),
    "cca": Method(_correlation, "estimate: as if Gaussian (linear part)", ranked=True),
    "discrete_continuous": Method(_labels_first, "estimate: {k} nearest neighbours within a label"),
    "discrete": Method(lambda x, y, k, key, ranks: discrete(x, y), "estimate: counts of both"),
    "info_nce": _learned("info_nce", "estimate: Gaussian copula, or a critic that reads more", corrected=True),
    "nwj": _learned("nwj", "lower bound"),
    "jensen_shannon": _learned("jensen_shannon", "lower bound"),
    "donsker_varadhan": _learned("donsker_varadhan", "estimate: lower bound but for log of a mean"),
    "mine": _learned("mine", "estimate: lower bound but for log of a mean"),
    "smile": _learned("smile", "estimate: clipped, no bound"),
}
DEFAULT = "ksg,cca,info_nce,nwj,smile"
OF_DENSITIES = ("ksg", "ksg2", "three_kl", "cca")


def discrete_sides(x: np.ndarray, y: np.ndarray, k: int) -> tuple[bool, bool]:
    """Whether x and y have few values: at most sqrt(N) distinct rows, which come more than k times in the median.

    >>> discrete_sides(np.arange(100)[:, None] % 2, np.arange(100.0)[:, None], 3)
    (True, False)
    """

    def has_few(z: np.ndarray) -> bool:
        copies = np.unique(z, axis=0, return_counts=True)[1]
        return bool(len(copies) <= np.sqrt(len(z)) and np.median(copies) > k)

    return has_few(x), has_few(y)


def for_labels(methods: Sequence[str], labels: tuple[bool, bool]) -> tuple[list[str], list[str]]:
    """Returns the methods with those that suppose densities replaced, and a line on each that was.

    >>> for_labels(["ksg", "cca", "nwj"], (True, False))
    (['discrete_continuous', 'nwj'], ['discrete_continuous in place of ksg and cca'])
    """
    right = "discrete" if all(labels) else "discrete_continuous"
    wrong = [name for name in methods if name in OF_DENSITIES]
    chosen = list(dict.fromkeys(right if name in wrong else name for name in methods))
    return chosen, [f"{right} in place of {' and '.join(wrong)}"] if wrong else []


def _count_values(x: np.ndarray) -> int:
    return len(np.unique(x, axis=0))
