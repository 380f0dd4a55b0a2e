"""Mutual information from distances to nearest neighbours: Kraskov, Stoegbauer and Grassberger's two estimators, and
the sum of three entropies. Distances are max-norm.

The standard error is that of the jackknife. The change of the estimate without a sample follows from neighbours of rank
k + 1, so a second pass over the distances replaces N estimates. On average the jackknife's error is too large (Efron
and Stein 1981). On Gaussians of 1 and 2 dimensions, N 40 to 1,000 and k 3 and 10, it was 1.05 to 1.9 times
the spread over samples, most where there is no dependence. The spread of the terms over sqrt(N) was .4 to .85 of it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from mi_contrast.core.errors import unknown
from mi_contrast.estimators.blocks import map_blocks
from mi_contrast.estimators.distances import (
    Space,
    choose_block_sizes,
    count_true,
    kth_smallest,
    map_pairs,
    max_norm_distances,
)
from mi_contrast.estimators.result import Estimate
from mi_contrast.estimators.samples import SamplePair, as_whole_number, prepare_pair
from mi_contrast.estimators.ties import warn_of_ties

VARIANTS = (1, 2)
MAX_DIMENSIONS = 4  # dx + dy up to which the interval contains the truth


def digamma(maximum: int) -> np.ndarray:
    """Returns the digamma function at 0, ..., maximum, computed in float64, as float32. At 0 (a pole) it is psi(1).

    >>> digamma(3).round(3).tolist() == np.float32([-0.577, -0.577, 0.423, 0.923]).tolist()
    True
    """
    sums = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, max(maximum, 2)))]) - np.euler_gamma
    return np.concatenate([sums[:1], sums[:maximum]]).astype(np.float32)


def ksg(
    x: Float[ArrayLike, "... N dx"],
    y: Float[ArrayLike, "... N dy"],
    k: int = 3,
    variant: int = 1,
    *,
    standardise: bool = False,
    normal_scores: bool = False,
    errors: bool = True,
    chunk: int | None = None,
) -> Estimate:
    """Returns Kraskov, Stoegbauer and Grassberger's estimate from k nearest neighbours, in nats.

    variant 1:  psi(k) + psi(N) - < psi(n_x + 1) + psi(n_y + 1) >, with n_x the number of other samples that are
                *strictly* closer in x than the k-th neighbour in (x, y);
    variant 2:  psi(k) - 1/k + psi(N) - < psi(n_x) + psi(n_y) >, with n_x the number of other samples within the
                distance in x that the k nearest neighbours in (x, y) span. The edge is included, and so are all
                neighbours tied for the k-th place.

    The estimate is about 0 without dependence, and too low for strong dependence or many dimensions. It is no bound. It
    supposes a density: repeated values (rounded data) make variant 1 too high, so add noise below their resolution. The
    samples must be independent: the estimate for positions along two independent walks is far above 0, that for their
    steps need not be.

    Args:
      x, y: numbers [..., N, dx] and [..., N, dy], or [N]. One call for many pairs is fastest; `vmap` needs no more
        memory.
      k: number of neighbours, 1 <= k < N. Fewer give less bias, more give less variance. Time grows with k.
      variant: 1 or 2.
      standardise: whether to scale each column to unit variance first. By default data are used as they are, which is
        right only if x and y have similar scales: the estimate for y = 3 x is far below that for y = x.
      normal_scores: whether to replace each column by its normal scores first (see `normal_scores`), which does not
        change mutual information and removes heavy tails.
      errors: whether to compute the standard error, which takes half of the time; otherwise it is NaN.
      chunk: number of samples whose distances to all others are computed at once; by default what fits a CPU's cache.
    Returns:
      Estimate, float32 [...], without gradient. nats: NaN where a sample has k or more exact copies (the k-th neighbour
      has distance 0) or data are not finite. standard_error: that of variant 1 for both variants; NaN if N = k + 1.
      ceiling: psi(N) - psi(k), minus 1/k for variant 2, which is the estimate for y = x. high: infinite (a lower limit)
      where dx + dy > 4 or nats is within dx + dy of the ceiling, because there the bias exceeds the standard error.
    Raises:
      UserError: values that are not real numbers; shapes that do not fit; k outside [1, N); an unknown variant; chunk
      below 1.
    Warns:
      where a value of a column occurs more than k times (not under jit); see `discrete_continuous`.
    Source: Kraskov et al. 2004.

    >>> x = jax.random.normal(jax.random.key(0), (40, 2))
    >>> estimate = ksg(x, x)
    >>> [round(float(value), 3) for value in (estimate.nats, estimate.ceiling)]
    [2.754, 2.754]
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, map(str, VARIANTS))
    k = as_whole_number("k", k)
    samples = _prepare(x, y, k, standardise, normal_scores)
    warn_of_ties(samples.x, samples.y, k, f"variant {variant}")
    count = samples.x.shape[-2]
    nats, error = _ksg(*samples, k, variant, errors, choose_block_sizes(count, _count_pairs(samples.x), chunk))
    psi = digamma(count)
    ceiling = psi[-1] - psi[k] - (1 / k if variant == 2 else 0)
    nats = jnp.minimum(nats, ceiling)  # float32 sums may exceed it by a rounding error
    dimensions = samples.x.shape[-1] + samples.y.shape[-1]
    is_limit = _is_wide(samples) | (nats > ceiling - dimensions)  # there the bias was measured to exceed the spread
    return Estimate.from_error(nats, error, jnp.full_like(nats, ceiling)).as_lower_limit(is_limit)


def three_kl(
    x: Float[ArrayLike, "... N dx"],
    y: Float[ArrayLike, "... N dy"],
    k: int = 3,
    *,
    standardise: bool = False,
    normal_scores: bool = False,
    errors: bool = True,
    chunk: int | None = None,
) -> Estimate:
    """Returns H(x) + H(y) - H(x, y), with each entropy from the distances to k-th neighbours in its space, in nats.

    psi(N) - psi(k) + dx <log eps_x> + dy <log eps_y> - (dx + dy) <log eps_xy>, with eps the distances.

    Use it for comparison only. The biases of the three entropies do not cancel: the estimate is too low by whole nats
    if x or y lies on a surface of fewer dimensions, from about five dimensions on, and for bounded or heavy-tailed
    data. `ksg` works there.

    Args:
      x, y, k, standardise, normal_scores, errors, chunk: see `ksg`.
    Returns:
      Estimate, float32 [...], without gradient. nats: NaN where a sample has k or more exact copies in x, in y or in
      both, or data are not finite. standard_error: that of the jackknife; NaN if N = k + 1. ceiling: infinite. high:
      infinite where dx + dy > 4.
    Raises:
      UserError: shapes that do not fit; k outside [1, N); chunk below 1.
    Warns:
      where a value of a column occurs more than k times (not under jit); see `discrete_continuous`.
    Source: Kozachenko and Leonenko 1987 for the entropies; the name 3KL is that of Gao, Oh and Viswanath.

    >>> x = jax.random.normal(jax.random.key(0), (500, 1))
    >>> bool(abs(three_kl(x, jax.random.normal(jax.random.key(1), (500, 1))).nats) < 0.15)
    True
    """
    k = as_whole_number("k", k)
    samples = _prepare(x, y, k, standardise, normal_scores)
    warn_of_ties(samples.x, samples.y, k, "three_kl")
    nats, error = _three_kl(
        *samples, k, errors, choose_block_sizes(samples.x.shape[-2], _count_pairs(samples.x), chunk)
    )
    return Estimate.from_error(nats, error, jnp.full_like(nats, jnp.inf)).as_lower_limit(_is_wide(samples))


def _prepare(x: Any, y: Any, k: int, standardise: bool, normal_scores: bool) -> SamplePair:
    """Returns the samples with the units of their columns in the place of standard deviations; 1 by default."""
    scale = "columns" if standardise or normal_scores else "shared"
    samples = prepare_pair(x, y, min_samples=k + 1, scale=scale, normal_scores=normal_scores)
    if standardise or normal_scores:
        return samples
    units = (jnp.ones_like(unit) for unit in (samples.deviation_x, samples.deviation_y))
    return SamplePair(samples.x, samples.y, *units)


def _is_wide(samples: SamplePair) -> bool:
    """Whether there are so many dimensions that bias makes the interval miss the truth."""
    return samples.x.shape[-1] + samples.y.shape[-1] > MAX_DIMENSIONS


def _count_pairs(x: Array) -> int:
    return max(1, int(np.prod(x.shape[:-2])))


def _error(influence: Float[Array, " N"]) -> Float[Array, ""]:
    """Returns the jackknife's standard error, from the change of the sum of all terms without each sample."""
    return jnp.std(influence, ddof=1) / np.sqrt(len(influence))


def _is_finite(x: Array, y: Array) -> Array:
    return jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _ksg(
    x: Array, y: Array, unit_x: Array, unit_y: Array, k: int, variant: int, errors: bool, block_sizes: tuple[int, int]
) -> tuple[Array, Array]:
    n = x.shape[-2]
    psi = digamma(n)
    psi_at = lambda counts: jnp.asarray(psi)[jnp.maximum(counts, 1).astype(jnp.int32)]  # noqa: E731
    errors = errors and n > k + 1

    def compute_terms(x: Space, y: Space, points: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        """For C points: digamma terms of the variant and radii; for errors also terms of variant 1 and counts.

        `next_terms` are the terms of variant 1 without one of the k neighbours. The radius is then the distance to the
        (k + 1)-th neighbour, and one sample less is counted.
        """
        to_x, to_y = max_norm_distances(x, points[1], points[0]), max_norm_distances(y, points[2], points[0])
        to_both = jnp.maximum(to_x, to_y)
        radius = kth_smallest(to_both, k)
        count_x, count_y = count_true(to_x < radius), count_true(to_y < radius)
        terms_1 = terms = psi_at(count_x + 1) + psi_at(count_y + 1)
        if variant == 2:
            is_neighbour = to_both <= radius
            strips = (d <= jnp.max(jnp.where(is_neighbour, d, 0.0), axis=0) for d in (to_x, to_y))
            terms = 1 / k + sum((psi_at(count_true(strip)) for strip in strips), jnp.zeros(()))
        if not errors:
            return terms, radius
        next_radius = kth_smallest(to_both, k + 1)
        next_terms = psi_at(count_true(to_x < next_radius)) + psi_at(count_true(to_y < next_radius))
        return terms, radius, terms_1, next_terms, count_x, count_y

    def compute_influence(
        x: Space, y: Space, statistics: tuple[Array, ...], points: tuple[Array, Array, Array]
    ) -> Array:
        """For C points: how much the sum of minus the other samples' terms changes if the point is left out."""
        radius, terms_1, next_terms, count_x, count_y = (s[:, None] for s in statistics)
        to_x, to_y = max_norm_distances(x, points[1], points[0]), max_norm_distances(y, points[2], points[0])
        count_change = jnp.where(to_x < radius, 1 / count_x, 0.0) + jnp.where(to_y < radius, 1 / count_y, 0.0)
        change = jnp.where(jnp.maximum(to_x, to_y) <= radius, terms_1 - next_terms, count_change)
        return jnp.sum(change, axis=0)

    def estimate_pair(rows_x: Array, rows_y: Array, unit_x: Array, unit_y: Array) -> tuple[Array, Array]:
        x, y = Space(rows_x, unit_x), Space(rows_y, unit_y)
        samples = (jnp.arange(n), rows_x, rows_y)
        terms, radius, *rest = map_blocks(lambda points: compute_terms(x, y, points), samples, block_sizes[1])
        is_valid = _is_finite(rows_x, rows_y) & jnp.all(radius > 0)
        nats = psi[k] + psi[n] - jnp.mean(terms)
        error = jnp.float32(jnp.nan)
        if errors:
            influence = map_blocks(
                lambda points: compute_influence(x, y, (radius, *rest), points), samples, block_sizes[1]
            )
            error = _error(rest[0] + influence)
        return jnp.where(is_valid, nats, jnp.nan), jnp.where(is_valid, error, jnp.nan)

    return map_pairs(
        estimate_pair, block_sizes[0], *lax.optimization_barrier(lax.stop_gradient((x, y, unit_x, unit_y)))
    )


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _three_kl(
    x: Array, y: Array, unit_x: Array, unit_y: Array, k: int, errors: bool, block_sizes: tuple[int, int]
) -> tuple[Array, Array]:
    n = x.shape[-2]
    psi = digamma(n)
    signed_dims = np.array([x.shape[-1], y.shape[-1], -x.shape[-1] - y.shape[-1]], np.float32)
    errors = errors and n > k + 1

    def compute_distances(x: Space, y: Space, points: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        to_x, to_y = max_norm_distances(x, points[1], points[0]), max_norm_distances(y, points[2], points[0])
        return to_x, to_y, jnp.maximum(to_x, to_y)

    def compute_radii(x: Space, y: Space, points: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        """For C points: distances to the k-th and the (k + 1)-th neighbour in x, in y and in both, [C, 3] each."""
        spaces = compute_distances(x, y, points)
        radii = jnp.stack([kth_smallest(s, k) for s in spaces], axis=1)
        return radii, jnp.stack([kth_smallest(s, k + 1) for s in spaces], axis=1) if errors else radii

    def compute_influence(x: Space, y: Space, radii: Array, growth: Array, points: tuple[Array, Array, Array]) -> Array:
        """For C points: how much the sum of the other samples' terms changes if the point is left out."""
        spaces = compute_distances(x, y, points)
        change = (jnp.where(s <= radii[:, i : i + 1], growth[:, i : i + 1], 0.0) for i, s in enumerate(spaces))
        return jnp.sum(sum(change, jnp.zeros(())), axis=0)

    def estimate_pair(rows_x: Array, rows_y: Array, unit_x: Array, unit_y: Array) -> tuple[Array, Array]:
        x, y = Space(rows_x, unit_x), Space(rows_y, unit_y)
        samples = (jnp.arange(n), rows_x, rows_y)
        radii, next_radii = map_blocks(lambda points: compute_radii(x, y, points), samples, block_sizes[1])
        is_valid = _is_finite(rows_x, rows_y) & jnp.all(radii > 0)
        terms = jnp.log(radii) @ signed_dims
        error = jnp.float32(jnp.nan)
        if errors:
            growth = jnp.log(next_radii / radii) * signed_dims
            influence = map_blocks(
                lambda points: compute_influence(x, y, radii, growth, points), samples, block_sizes[1]
            )
            error = _error(influence - terms)
        return jnp.where(is_valid, psi[n] - psi[k] + jnp.mean(terms), jnp.nan), jnp.where(is_valid, error, jnp.nan)

    return map_pairs(
        estimate_pair, block_sizes[0], *lax.optimization_barrier(lax.stop_gradient((x, y, unit_x, unit_y)))
    )
