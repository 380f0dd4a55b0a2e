"""Computes the result of `estimate` from a trained critic and from the Gaussian copula, with its 90 % interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mi_contrast.estimators.copula import gaussian_copula
from mi_contrast.estimators.result import Estimate

WIDTH = 2.24  # standard errors on either side of the estimate, which hold 97.5 % of a normal distribution
MIN_GAIN = 2.0  # standard errors by which the critic's value must exceed that of the Gaussian copula to be used
MARGIN = 0.5  # an estimate within this many nats of log(size of a part) is a lower limit
SAMPLES_PER_PRODUCT = 10  # an interval needs this many samples for each product dx dy of dimensions


class CrossFit(NamedTuple):
    """Result of cross-fitting, in nats.

    Attributes:
      nats: mean over parts of the bound on held-out samples.
      error: standard error of nats, over draws of held-out samples and over critics.
      gain_error: standard error of the difference between nats and the value of the Gaussian copula's critic, over
        draws of held-out samples, with fixed critics.
    """

    nats: float
    error: float
    gain_error: float


def combine_parts(
    bounds: Float[np.ndarray, " P"], effects: Float[np.ndarray, "P n"], copula_effects: Float[np.ndarray, "P n"]
) -> CrossFit:
    """Returns the mean of the P parts' bounds, and its standard error.

    With L_p the bound of part p, s_p^2 its variance over draws of its n held-out samples, and L = mean_p L_p,

        error^2 = mean_p s_p^2 / P + v / P,   v = max( 0, sum_p (L_p - L)^2 / (P - 1) - mean_p s_p^2 ).

    v is the variance between critics: what the bounds of parts differ beyond what the draw of pairs explains. Critics
    share training samples, and what they have in common is not seen.

    Args:
      bounds: L_p.
      effects: effect of each held-out sample on L_p, minus their mean; s_p^2 is their variance over n.
      copula_effects: the same under the Gaussian copula's critic.

    >>> combine_parts(np.array([1.0, 1.2, 1.4]), np.zeros((3, 5)), np.zeros((3, 5))).error.__round__(4)
    0.1155
    """
    squared_errors = lambda effects: np.var(effects, axis=1) / effects.shape[1]  # noqa: E731 - s_p^2
    sampling = np.mean(squared_errors(effects))
    between = max(float(np.var(bounds, ddof=1) - sampling), 0.0)
    gain = np.mean(squared_errors(effects - copula_effects))
    error = np.sqrt((sampling + between) / len(bounds))
    return CrossFit(float(np.mean(bounds)), float(error), float(np.sqrt(gain / len(bounds))))


def estimate_with_interval(
    x: Float[np.ndarray, "N dx"],
    y: Float[np.ndarray, "N dy"],
    cross_fit: CrossFit,
    ceiling: float,
    rng: np.random.Generator,
    part_size: int,
    refit: Callable[[np.ndarray, int], float] | None,
) -> Estimate:
    """Returns the estimate and its interval by the rules in the docstring of `estimate`.

    Args:
      x, y: float64 [N, dx], [N, dy].
      cross_fit: the result for all samples.
      ceiling: the largest value that the method can return.
      rng: random generator for the bootstrap and for the split into halves.
      part_size: number of samples in a held-out part.
      refit: returns the nats of cross-fitting on a subset of the samples, from their indices and a number that makes
        its random keys differ. None if half of the samples are too few.
    Returns:
      Estimate of float32 scalars. low and high are at least 0; high is infinite for a lower limit.
    """
    copula = gaussian_copula(x, y, rng)
    nats, error, bias = cross_fit.nats, cross_fit.error, 0.0
    max_nats = np.log(part_size) - MARGIN  # above it, held-out samples cannot tell two critics apart
    product = x.shape[1] * y.shape[1]
    is_limit = not max(nats, copula.nats) <= max_nats or product * SAMPLES_PER_PRODUCT > len(x)
    # For independent variables, 2 N times the nats of the copula is chi-squared with dx dy degrees of freedom.
    noise = np.hypot(cross_fit.gain_error, np.sqrt(product / 2) / len(x))
    if not is_limit and not nats > max(copula.nats, 0.0) + MIN_GAIN * noise:
        nats, error = copula
    elif not is_limit and refit is not None:
        halves = np.array_split(rng.permutation(len(x))[: len(x) // 2 * 2], 2)
        half_nats = [refit(indices, number) for number, indices in enumerate(halves, 1)]
        bias = max(nats - float(np.mean(half_nats)), 0.0)
    nats, error, bias, ceiling = (jnp.float32(value) for value in (nats, error, bias, ceiling))
    low = jnp.maximum(nats - WIDTH * error, 0.0)
    high = jnp.maximum(nats + WIDTH * error + bias, 0.0)
    return Estimate(nats, error, jnp.asarray(ceiling), low, high).as_lower_limit(is_limit)
