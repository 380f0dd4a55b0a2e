"""The interval of an estimate by a trained critic: the Gaussian copula's where the critic shows nothing beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mi_contrast.estimators.copula import gaussian_copula
from mi_contrast.estimators.reading import Estimate

WIDTH = 2.24  # standard errors on either side of the estimate: 97.5 % of a normal law
BEYOND = 2.0  # standard errors by which a trained critic must read more than the Gaussian copula to be believed
MARGIN = 0.5  # nats below log of a part's size from where the answer is a lower limit
PAIRS = 10  # samples per product of dimensions that an interval needs


class Reading(NamedTuple):
    """A cross-fitted reading, its error, and the error of its gain over the Gaussian copula's critic; critics fixed."""

    nats: float
    error: float
    gain_error: float


def with_interval(
    x: Float[np.ndarray, "N dx"],
    y: Float[np.ndarray, "N dy"],
    found: Reading,
    ceiling: float,
    draw: np.random.Generator,
    size: int,
    read_again: Callable[[np.ndarray, int], float] | None,
) -> Estimate:
    """Returns the estimate and its interval, as `estimate` describes them.

    Args:
      x, y: float64 [N, dx], [N, dy].
      found: the reading of all samples.
      ceiling: the largest value that the method can read.
      draw: the generator of the bootstrap and of the halves.
      size: pairs in a held-out part.
      read_again: reads the samples with these indices; the number tells its trainings apart. None: too few to halve.
    Returns:
      Estimate of float32 scalars; low and high are at least 0, high is infinite for a lower limit.
    """
    copula = gaussian_copula(x, y, draw)
    nats, error, missing = found.nats, found.error, 0.0
    visible = np.log(size) - MARGIN  # beyond, held-out pairs cannot tell two critics apart
    limit = not max(nats, copula.nats) <= visible or x.shape[1] * y.shape[1] * PAIRS > len(x)
    # of independent samples both are nearly 0, and g has the spread of a chi-squared of dx dy degrees over 2 N
    noise = np.hypot(found.gain_error, np.sqrt(x.shape[1] * y.shape[1] / 2) / len(x))
    if not limit and not nats > max(copula.nats, 0.0) + BEYOND * noise:
        nats, error = copula
    elif not limit and read_again is not None:
        halves = np.array_split(draw.permutation(len(x))[: len(x) // 2 * 2], 2)
        again = [read_again(own, number) for number, own in enumerate(halves, 1)]
        missing = max(nats - float(np.mean(again)), 0.0)
    estimate, spread, unseen, highest = (jnp.float32(value) for value in (nats, error, missing, ceiling))
    low = jnp.maximum(estimate - WIDTH * spread, 0.0)
    high = jnp.maximum(estimate + WIDTH * spread + unseen, 0.0)
    return Estimate(estimate, spread, jnp.asarray(highest), low, high).as_lower_limit(limit)
