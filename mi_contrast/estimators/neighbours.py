"""Mutual information from distances to nearest neighbours: Kraskov, Stoegbauer and Grassberger's two estimators, and
the sum of three entropies. Distances are max-norm, within x, within y and across.

Both answer with the jackknife's standard error: how the estimate moves as each sample is left out, read from the
(k + 1)-th neighbours in a second pass and not by N estimates. On average it errs upwards (Efron and Stein 1981): on
Gaussians of 1 and 2 dimensions, N 40 to 1,000, k 3 and 10, it was 1.05 to 1.9 times the spread over samples (most where
there is no dependence), and the spread of the terms over sqrt(N) .4 to .85 of it.
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
from mi_contrast.estimators.blocks import over_rows
from mi_contrast.estimators.distances import Space, between, block_of, count, kth_smallest, of_pairs
from mi_contrast.estimators.reading import Estimate
from mi_contrast.estimators.samples import Paired, paired, whole_number
from mi_contrast.estimators.ties import warn_of_ties

VARIANTS = (1, 2)
WIDEST = 4  # columns of x and y together up to which the interval holds the truth


def digamma(most: int) -> np.ndarray:
    """The digamma function at 0, ..., most, float32 from float64 sums of 1/m; psi(1) stands at 0, its pole.

    >>> digamma(3).round(3).tolist() == np.float32([-0.577, -0.577, 0.423, 0.923]).tolist()
    True
    """
    sums = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, max(most, 2)))]) - np.euler_gamma
    return np.concatenate([sums[:1], sums[:most]]).astype(np.float32)


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
    """Kraskov, Stoegbauer and Grassberger's estimate from k nearest neighbours, in nats.

    variant 1:  psi(k) + psi(N) - < psi(n_x + 1) + psi(n_y + 1) >, n_x the number of other samples *strictly* nearer in
                x than the k-th neighbour in (x, y) is;
    variant 2:  psi(k) - 1/k + psi(N) - < psi(n_x) + psi(n_y) >, n_x the number of other samples in the strip of x that
                the k nearest of (x, y) span, edge included (neighbours that tie for the k-th place all belong).

    It reads low where dependence is strong or dimensions many, and about 0 where there is none; no bound either way.
    It supposes a density. Values that repeat (rounded data) make variant 1 read high: add noise below their
    resolution. Samples must be independent: positions along a walk read far above 0, its steps need not.

    Args:
      x, y: numbers [..., N, dx] and [..., N, dy], or [N]; many pairs in one call are best, and `vmap` costs no memory.
      k: neighbours, 1 <= k < N; fewer for less bias, more for less spread. Time grows with it.
      variant: 1 or 2.
      standardise: whether each column is first brought to unit variance. By default data are taken as they are, which
        is right only where x and y have like scales: y = 3 x reads far less than y = x.
      normal_scores: whether each column is first replaced by its normal scores (see `normal_scores`), which leaves
        mutual information as it is and removes heavy tails.
      errors: whether to spend half the time on the standard error (else NaN).
      chunk: samples whose distances to all others are held at once; by default what fits a processor's cache.
    Returns:
      Estimate, float32 [...]. nats is NaN where a sample has k exact copies or more (a k-th neighbour at distance 0) or
      data are not finite. standard_error: the jackknife's for variant 1, given for both (NaN where N = k + 1).
      ceiling: psi(N) - psi(k), less 1/k for variant 2: what it reads where y = x. high is infinite (a lower limit)
      where dx + dy > 4 or nats is within dx + dy of the ceiling: there the estimate falls behind the truth by more than
      its error. No gradient.
    Raises:
      UserError: values that are not real numbers, shapes that do not fit, k outside [1, N), an unknown variant, chunk
      below 1.
    Warns:
      where a column has values that repeat more than k times (not inside jit): see `discrete_continuous`.
    Source: Kraskov et al. 2004.

    >>> x = jax.random.normal(jax.random.key(0), (40, 2))
    >>> found = ksg(x, x)
    >>> [round(float(value), 3) for value in (found.nats, found.ceiling)]
    [2.754, 2.754]
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, map(str, VARIANTS))
    k = whole_number("k", k)
    samples = _prepare(x, y, k, standardise, normal_scores)
    warn_of_ties(samples.x, samples.y, k, variant)
    count = samples.x.shape[-2]
    nats, error = _ksg(*samples, k, variant, errors, block_of(count, _pairs(samples.x), chunk))
    psi = digamma(count)
    most = psi[-1] - psi[k] - (1 / k if variant == 2 else 0)
    nats = jnp.minimum(nats, most)  # sums of float32 terms may pass it by a rounding error
    columns = samples.x.shape[-1] + samples.y.shape[-1]
    limit = _is_wide(samples) | (nats > most - columns)  # measured: the bias there exceeds the spread
    return Estimate.from_error(nats, error, jnp.full_like(nats, most)).as_lower_limit(limit)


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
    """H(x) + H(y) - H(x, y), each entropy from the distance to its own k-th neighbour, in nats.

    psi(N) - psi(k) + dx <log eps_x> + dy <log eps_y> - (dx + dy) <log eps_xy>.

    For comparison: its three biases do not cancel. It reads low by nats where x or y lies on a surface of fewer
    dimensions, from about five dimensions on, for bounded and for heavy-tailed data; `ksg` does not break there.

    Args:
      x, y, k, standardise, normal_scores, errors, chunk: as `ksg`.
    Returns:
      Estimate, float32 [...]. nats is NaN where a sample has k exact copies or more in x, in y or in both, or data
      are not finite; standard_error is the jackknife's (NaN where N = k + 1); nothing limits it; high is infinite
      where dx + dy > 4. No gradient.
    Raises:
      UserError: shapes that do not fit, k outside [1, N), chunk below 1.
    Source: Kozachenko and Leonenko 1987 for an entropy; the sum of three as named by Gao, Oh and Viswanath.

    >>> x = jax.random.normal(jax.random.key(0), (500, 1))
    >>> bool(abs(three_kl(x, jax.random.normal(jax.random.key(1), (500, 1))).nats) < 0.15)
    True
    """
    k = whole_number("k", k)
    samples = _prepare(x, y, k, standardise, normal_scores)
    nats, error = _three_kl(*samples, k, errors, block_of(samples.x.shape[-2], _pairs(samples.x), chunk))
    return Estimate.from_error(nats, error, jnp.full_like(nats, jnp.inf)).as_lower_limit(_is_wide(samples))


def _prepare(x: Any, y: Any, k: int, standardise: bool, normal_scores: bool) -> Paired:
    """The samples, and the unit of each column: its standard deviation where asked for, else 1."""
    scale = "columns" if standardise or normal_scores else "shared"
    samples = paired(x, y, least=k + 1, scale=scale, normal_scores=normal_scores)
    if standardise or normal_scores:
        return samples
    units = (jnp.ones_like(unit) for unit in (samples.deviation_x, samples.deviation_y))
    return Paired(samples.x, samples.y, *units)


def _is_wide(samples: Paired) -> bool:
    """Whether the bias exceeds the spread so far that the interval would miss the truth."""
    return samples.x.shape[-1] + samples.y.shape[-1] > WIDEST


def _pairs(x: Array) -> int:
    return max(1, int(np.prod(x.shape[:-2])))


def _error(influence: Float[Array, " N"]) -> Float[Array, ""]:
    """The jackknife's, from what each sample's leaving adds to the sum of all terms."""
    return jnp.std(influence, ddof=1) / np.sqrt(len(influence))


def _finite(x: Array, y: Array) -> Array:
    return jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _ksg(
    x: Array, y: Array, unit_x: Array, unit_y: Array, k: int, variant: int, errors: bool, block: tuple[int, int]
) -> tuple[Array, Array]:
    n = x.shape[-2]
    psi = digamma(n)
    of = lambda number: jnp.asarray(psi)[jnp.maximum(number, 1).astype(jnp.int32)]  # noqa: E731
    errors = errors and n > k + 1

    def terms(x: Space, y: Space, points: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        """Of C points: psi terms of the variant, of variant 1, those as a neighbour leaves, radius and both counts."""
        to_x, to_y = between(x, points[1], points[0]), between(y, points[2], points[0])
        to_both = jnp.maximum(to_x, to_y)
        edge = kth_smallest(to_both, k)
        in_x, in_y = count(to_x < edge), count(to_y < edge)
        first = chosen = of(in_x + 1) + of(in_y + 1)
        if variant == 2:
            near = to_both <= edge
            strips = (d <= jnp.max(jnp.where(near, d, 0.0), axis=0) for d in (to_x, to_y))
            chosen = 1 / k + sum((of(count(s)) for s in strips), jnp.zeros(()))
        if not errors:
            return chosen, edge
        after = kth_smallest(to_both, k + 1)  # the radius once one of the k has left, who is counted still
        return chosen, edge, first, of(count(to_x < after)) + of(count(to_y < after)), in_x, in_y

    def leaving(x: Space, y: Space, others: tuple[Array, ...], points: tuple[Array, Array, Array]) -> Array:
        """Of C points: what the leaving of each adds to the sum of minus the first terms of all the others."""
        edge, first, left, in_x, in_y = (o[:, None] for o in others)
        to_x, to_y = between(x, points[1], points[0]), between(y, points[2], points[0])
        counted = jnp.where(to_x < edge, 1 / in_x, 0.0) + jnp.where(to_y < edge, 1 / in_y, 0.0)
        change = jnp.where(jnp.maximum(to_x, to_y) <= edge, first - left, counted)
        return jnp.sum(change, axis=0)

    def one(rows_x: Array, rows_y: Array, unit_x: Array, unit_y: Array) -> tuple[Array, Array]:
        x, y = Space(rows_x, unit_x), Space(rows_y, unit_y)
        samples = (jnp.arange(n), rows_x, rows_y)
        chosen, edge, *rest = over_rows(lambda points: terms(x, y, points), samples, block[1])
        sound = _finite(rows_x, rows_y) & jnp.all(edge > 0)
        nats = psi[k] + psi[n] - jnp.mean(chosen)
        error = jnp.float32(jnp.nan)
        if errors:
            adds = over_rows(lambda points: leaving(x, y, (edge, *rest), points), samples, block[1])
            error = _error(rest[0] + adds)
        return jnp.where(sound, nats, jnp.nan), jnp.where(sound, error, jnp.nan)

    return of_pairs(one, block[0], *lax.optimization_barrier(lax.stop_gradient((x, y, unit_x, unit_y))))


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _three_kl(
    x: Array, y: Array, unit_x: Array, unit_y: Array, k: int, errors: bool, block: tuple[int, int]
) -> tuple[Array, Array]:
    n = x.shape[-2]
    psi = digamma(n)
    d = np.array([x.shape[-1], y.shape[-1], -x.shape[-1] - y.shape[-1]], np.float32)
    errors = errors and n > k + 1

    def distances(x: Space, y: Space, points: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        to_x, to_y = between(x, points[1], points[0]), between(y, points[2], points[0])
        return to_x, to_y, jnp.maximum(to_x, to_y)

    def edges(x: Space, y: Space, points: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        """Of C points: distances to the k-th neighbour in x, in y and in both, and to the one after. [C, 3] each."""
        spaces = distances(x, y, points)
        last = jnp.stack([kth_smallest(s, k) for s in spaces], axis=1)
        return last, jnp.stack([kth_smallest(s, k + 1) for s in spaces], axis=1) if errors else last

    def leaving(x: Space, y: Space, edge: Array, grows: Array, points: tuple[Array, Array, Array]) -> Array:
        """Of C points: what the leaving of each adds to the sum of the terms of all the others."""
        spaces = distances(x, y, points)
        change = (jnp.where(s <= edge[:, i : i + 1], grows[:, i : i + 1], 0.0) for i, s in enumerate(spaces))
        return jnp.sum(sum(change, jnp.zeros(())), axis=0)

    def one(rows_x: Array, rows_y: Array, unit_x: Array, unit_y: Array) -> tuple[Array, Array]:
        x, y = Space(rows_x, unit_x), Space(rows_y, unit_y)
        samples = (jnp.arange(n), rows_x, rows_y)
        edge, after = over_rows(lambda points: edges(x, y, points), samples, block[1])
        sound = _finite(rows_x, rows_y) & jnp.all(edge > 0)
        terms = jnp.log(edge) @ d
        error = jnp.float32(jnp.nan)
        if errors:
            grows = jnp.log(after / edge) * d
            adds = over_rows(lambda points: leaving(x, y, edge, grows, points), samples, block[1])
            error = _error(adds - terms)
        return jnp.where(sound, psi[n] - psi[k] + jnp.mean(terms), jnp.nan), jnp.where(sound, error, jnp.nan)

    return of_pairs(one, block[0], *lax.optimization_barrier(lax.stop_gradient((x, y, unit_x, unit_y))))
