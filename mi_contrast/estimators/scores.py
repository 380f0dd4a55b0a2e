"""Nats from scores, per anchor: one core, *reduce over positives minus log-mean-exp over candidates*, and its forms.

Scores are critic values f = similarity / temperature, float32 or bfloat16 in, float32 out. Larger means more; a
training loss is minus the mean of these. With P the positives, C the candidates (P belongs to C), |.| sums of weights:

    value = reduce_P(f) - log( (1/|C|) sum_C e^f ),   reduce_P = log-mean-exp over P, or the mean over P
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.estimators.mass import Mass, join, log_mean, mass, present
from mi_contrast.estimators.percentiles import Percentile, check_band, millionths, not_a_number, rank
from mi_contrast.estimators.selection import census, select, weigh

REDUCTIONS = ("logsumexp", "mean")


def contrastive(
    scores: Float[Array, "... B C"],
    positives: Float[Array, "... B C"],
    candidates: Float[Array, "... B C"],
    *,
    reduce: str = "logsumexp",
) -> Float[Array, "... B"]:
    """The core: reduce over positives minus log-mean-exp over candidates.

    value = reduce_P(f) - log( (1/|C|) sum_C e^f ), |.| sums of weights; at most log(|C| / |P|).

    Args:
      scores: f32 or bf16 [..., B, C], critic values; -inf removes a candidate from the sum and from |C|.
      positives: bool or weights >= 0 [..., B, C], who is a positive.
      candidates: bool or weights >= 0 [..., B, C], who is a candidate; contains the positives unless decoupled.
      reduce: 'logsumexp' (log-mean-exp over the positives) or 'mean' (their weighted mean).
    Returns:
      nats, f32 [..., B]; 0 with zero gradient where there is no positive or no candidate; NaN where a score that counts
      is NaN.
    Raises:
      UserError: an unknown `reduce`.

    >>> f = jnp.log(jnp.array([[6.0, 1.0, 2.0]]))
    >>> positive = jnp.array([[True, False, False]])
    >>> bool(jnp.allclose(contrastive(f, positive, jnp.ones((1, 3))), jnp.log(6 / 3)))
    True
    """
    if reduce not in REDUCTIONS:
        raise unknown("reduce", reduce, REDUCTIONS)
    return _contrastive(scores, positives, candidates, reduce)


@functools.partial(jax.jit, static_argnums=3)
def _contrastive(scores: Array, positives: Array, candidates: Array, reduce: str) -> Array:
    scores = jnp.asarray(scores).astype(jnp.float32)
    among = mass(scores, candidates)
    here, weights = present(scores, positives)
    size = jnp.sum(weights, axis=-1)
    if reduce == "mean":
        total = jnp.sum(jnp.where(here, weights * jnp.where(here, scores, 0.0), 0.0), axis=-1)
        reduced = total / jnp.where(size == 0, 1.0, size)
    else:
        reduced = log_mean(mass(scores, positives))
    return jnp.where((size == 0) | (among.size == 0), 0.0, reduced - log_mean(among))


@jax.jit
def _one_positive(positive: Array, pool: Array, weights: Array | None) -> Array:
    """f+ - log((e^{f+} + sum_S w e^f) / (1 + |S|)): the core with one positive, without joining the arrays."""
    candidates = join(Mass(positive, jnp.ones_like(positive)), mass(pool, weights))
    missing = positive == -jnp.inf
    return jnp.where(missing, 0.0, jnp.where(missing, 0.0, positive) - log_mean(candidates))


def fitting(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"]
) -> tuple[Float[Array, "... B"], Float[Array, "... B K"]]:
    """Both in float32.

    Raises:
      UserError: shapes that would be broadcast into something never meant.
    """
    positive, pool = jnp.asarray(positive), jnp.asarray(pool)
    if positive.shape != pool.shape[:-1]:
        raise UserError(
            f"positive {positive.shape} and pool {pool.shape} do not fit", fix="give [..., B] and [..., B, K]"
        )
    return positive.astype(jnp.float32), pool.astype(jnp.float32)


def beside(positive: Array, pool: Array, close: Array, background: Array, reduce: str) -> Float[Array, "... B"]:
    """The core with candidates of the pool beside the positive: P = {f+} + close, C = {f+} + background."""
    one = jnp.ones_like(positive)[..., None]
    roles = [jnp.concatenate([one, weights], axis=-1) for weights in (close, background)]
    return contrastive(jnp.concatenate([positive[..., None], pool], axis=-1), *roles, reduce=reduce)


def info_nce(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"], *, where: Array | None = None
) -> Float[Array, "... B"]:
    """InfoNCE: the positive against every valid candidate of the pool.

    value = f+ - log((e^{f+} + sum_j e^{f_j}) / (n + 1)), n the number of valid candidates.

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate, the positive not among them.
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
    Returns:
      nats, f32 [..., B], at most log(n + 1); in the mean a lower bound on I where candidates are independent draws.
    Source: van den Oord et al. 2018; the form with the positive inside, as Wu et al. 2020 and 2021 have it.

    >>> bool(jnp.allclose(info_nce(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 2.0]]))), jnp.log(6 / 3)))
    True
    """
    return _one_positive(*fitting(positive, pool), where)


def ball(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"], lower: Percentile, *, where: Array | None = None
) -> Float[Array, "... B"]:
    """Ball discrimination: InfoNCE against the closest (1 - lower) of the pool.

    value = f+ - log((e^{f+} + sum_{j in S} e^{f_j}) / (n + 1)), S = candidates of similarity rank `lower` or more.

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate.
      lower: percentile in [0, 1), 0 = least similar; may be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
    Returns:
      nats, f32 [..., B], at most log(n + 1), and at most InfoNCE with as many draws from the whole pool, in the mean.
    Raises:
      UserError: a concrete `lower` outside [0, 1).
    Source: Wu et al. 2020 (ball discrimination); value, ranks and ties as the package defines them.

    >>> f = jnp.log(jnp.array([[1.0, 2.0, 3.0, 4.0]]))
    >>> bool(jnp.allclose(ball(jnp.log(jnp.array([5.0])), f, 0.5), jnp.log(5 / 4)))
    True
    """
    return ring(positive, pool, lower, 1.0, where=where)


def ring(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    lower: Percentile,
    upper: Percentile,
    *,
    where: Array | None = None,
) -> Float[Array, "... B"]:
    """Ring discrimination: InfoNCE against a percentile band of the pool.

    value = f+ - log((e^{f+} + sum_{j in S} e^{f_j}) / (n + 1)), S = candidates of similarity rank in [lower, upper).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate.
      lower, upper: percentiles in [0, 1], lower < upper; 0 = least similar. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
    Returns:
      nats, f32 [..., B], at most log(n + 1). A lower bound on I only where `bound_holds`.
    Raises:
      UserError: concrete percentiles outside [0, 1] or lower >= upper.
    Source: Wu et al. 2021 (Ring), section 3; value, ranks and ties as the package defines them.

    >>> f = jnp.log(jnp.array([[4.0, 1.0, 3.0, 2.0]]))
    >>> bool(jnp.allclose(ring(jnp.log(jnp.array([6.0])), f, 0.25, 0.75), jnp.log(6 * 3 / (6 + 2 + 3))))
    True
    """
    positive, pool = fitting(positive, pool)
    return _one_positive(positive, pool, rank_weights(pool, lower, upper, where=where))


def cave(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    lower: Percentile,
    upper: Percentile,
    *,
    where: Array | None = None,
    reduce: str = "logsumexp",
) -> Float[Array, "... B"]:
    """Cave discrimination: the band [lower, upper) as negatives, what lies above it as more positives.

    P = the positive and the candidates from `upper` up; C = the positive and the candidates from `lower` up;
    value = reduce_P(f) - log( (1/|C|) sum_C e^f ).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate.
      lower, upper: percentiles in [0, 1], lower < upper; 0 = least similar. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
      reduce: 'logsumexp' or 'mean', over the positives.
    Returns:
      nats, f32 [..., B], at most log(|C| / |P|). No bound on I: positives picked by score read above 0 on independent
      data.
    Raises:
      UserError: concrete percentiles outside [0, 1] or lower >= upper; an unknown `reduce`.
    Source: Wu et al. 2020; value, ranks and ties as the package defines them.

    >>> f = jnp.log(jnp.array([[1.0, 2.0, 3.0, 4.0]]))
    >>> bool(jnp.allclose(cave(jnp.log(jnp.array([6.0])), f, 0.5, 0.75), jnp.log((10 / 2) / (13 / 3))))
    True
    """
    check_band(lower, upper)
    positive, pool = fitting(positive, pool)
    close = rank_weights(pool, lower, 1.0, where=where)
    above = close - rank_weights(pool, lower, upper, where=where)
    return beside(positive, pool, above, close, reduce)


def decoupled(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"], *, where: Array | None = None
) -> Float[Array, "... B"]:
    """Decoupled: the positive left out of the candidates.

    value = f+ - log( (1/n) sum_j e^{f_j} ), n the number of valid candidates.

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate, the positive not among them.
      where: bool or weights >= 0 [..., B, K], valid candidates or the weights of any support; default all.
    Returns:
      nats, f32 [..., B]; 0 with zero gradient where there is no positive or no candidate. No lower bound on I and no
      ceiling: in the mean it is at least Donsker and Varadhan's bound for the same critic.
    Source: Yeh et al. 2022, equation without the positive in the denominator; their loss is log(n) minus this value.

    >>> bool(jnp.allclose(decoupled(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 2.0]]))), jnp.log(6 / 1.5)))
    True
    """
    return _decoupled(*fitting(positive, pool), where)


@jax.jit
def _decoupled(positive: Array, pool: Array, where: Array | None) -> Array:
    candidates = mass(pool, where)
    nothing = (positive == -jnp.inf) | (candidates.size == 0)
    return jnp.where(nothing, 0.0, jnp.where(nothing, 0.0, positive) - log_mean(candidates))


def rank_weights(
    pool: Float[Array, "... B K"], lower: Percentile, upper: Percentile, *, where: Array | None = None
) -> Float[Array, "... B K"]:
    """Weights of the candidates of similarity rank in [lower, upper): 1 inside, 0 outside, shared by ties at an edge.

    With n valid candidates the band holds r(upper) - r(lower) of them, r(p) = floor((n P + 500,000) / 10^6) and
    P = round(10^6 p); t tied candidates of which s belong inside weigh s / t each, so the weights sum to the band's
    size and nothing depends on the pool's order. -0 and +0 tie (subnormal numbers too, where the device flushes them).
    No gradient.

    Args:
      pool: f32 or bf16 [..., B, K], scores; -inf is no candidate.
      lower, upper: percentiles in [0, 1], lower < upper; 0 = least similar. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], default all. Candidates of positive weight are ranked, each counted
        once; the weight returned is theirs times the band's.
    Returns:
      f32 [..., B, K]; NaN for an anchor that has a NaN among its valid scores.
    Raises:
      UserError: concrete percentiles outside [0, 1] or lower >= upper.
    Source: Wu et al. 2021 (Ring), section 3, with ties shared.

    >>> rank_weights(jnp.array([[1.0, 2.0, 2.0, 3.0]]), 0.5, 1.0)
    Array([[0. , 0.5, 0.5, 1. ]], dtype=float32)
    """
    check_band(lower, upper)
    pool, where, bad = lax.stop_gradient((jnp.asarray(pool), where, not_a_number(lower, upper)))
    return _rank_weights(pool, millionths(lower), millionths(upper), where) + bad[..., None]


@jax.jit
def _rank_weights(pool: Array, lower: Array, upper: Array, where: Array | None) -> Array:
    pool = pool.astype(jnp.float32)
    here, weights = present(pool, where)
    rows = jnp.where(here, pool, -jnp.inf).reshape(math.prod(pool.shape[:-1]), pool.shape[-1])
    low, high = (jnp.broadcast_to(p, pool.shape[:-1]).reshape(-1) for p in (lower, upper))
    found = census(rows)
    low, high = rank(low, found.size), rank(high, found.size)
    inside = weigh(rows, select(rows, low, jnp.maximum(low, high), found))
    inside = jnp.where(found.has_nan[:, None], jnp.nan, inside).reshape(pool.shape)
    return jnp.where(here, inside * weights, 0.0)
