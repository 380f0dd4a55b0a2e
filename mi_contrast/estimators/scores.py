"""Contrastive values from scores, in nats, one for each anchor.

Scores are critic values f = similarity / temperature, float32 or bfloat16; results are float32. Larger values mean more
information, and a training loss is minus their mean. I is the mutual information. Every softmax form has the same core.
With P the positives, C the candidates (P is part of C) and |.| sums of weights:

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
from mi_contrast.estimators.mass import Mass, join, log_mean, mask_weights, mass
from mi_contrast.estimators.percentiles import Percentile, check_band, millionths, nan_or_zero, rank
from mi_contrast.estimators.selection import select_band, summarise_scores, weigh

REDUCTIONS = ("logsumexp", "mean")


def contrastive(
    scores: Float[Array, "... B C"],
    positives: Float[Array, "... B C"],
    candidates: Float[Array, "... B C"],
    *,
    reduce: str = "logsumexp",
) -> Float[Array, "... B"]:
    """Returns the reduced score of the positives minus the log-mean-exp over the candidates.

    value = reduce_P(f) - log( (1/|C|) sum_C e^f ), with |.| sums of weights. It is at most log(|C| / |P|).

    Args:
      scores: f32 or bf16 [..., B, C], critic values; -inf removes a candidate from the sum and from |C|.
      positives: bool or weights >= 0 [..., B, C] of the positives.
      candidates: bool or weights >= 0 [..., B, C] of the candidates, including the positives unless decoupled.
      reduce: 'logsumexp' (log-mean-exp over the positives) or 'mean' (their weighted mean).
    Returns:
      nats, f32 [..., B]; 0 with zero gradient where there is no positive or no candidate; NaN where a valid score is
      NaN.
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
    denominator = mass(scores, candidates)
    valid, weights = mask_weights(scores, positives)
    size = jnp.sum(weights, axis=-1)
    if reduce == "mean":
        total = jnp.sum(jnp.where(valid, weights * jnp.where(valid, scores, 0.0), 0.0), axis=-1)
        reduced = total / jnp.where(size == 0, 1.0, size)
    else:
        reduced = log_mean(mass(scores, positives))
    return jnp.where((size == 0) | (denominator.size == 0), 0.0, reduced - log_mean(denominator))


@jax.jit
def _one_positive(positive: Array, pool: Array, weights: Array | None) -> Array:
    """Returns f+ - log((e^{f+} + sum_S w e^f) / (1 + |S|)), with S the candidates other than the positive."""
    candidates = join(Mass(positive, jnp.ones_like(positive)), mass(pool, weights))
    missing = positive == -jnp.inf
    return jnp.where(missing, 0.0, jnp.where(missing, 0.0, positive) - log_mean(candidates))


def as_float32(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"]
) -> tuple[Float[Array, "... B"], Float[Array, "... B K"]]:
    """Returns both arrays in float32.

    Raises:
      UserError: the shapes are not [..., B] and [..., B, K] with equal leading axes.
    """
    positive, pool = jnp.asarray(positive), jnp.asarray(pool)
    if positive.shape != pool.shape[:-1]:
        raise UserError(
            f"positive {positive.shape} and pool {pool.shape} do not fit", fix="give [..., B] and [..., B, K]"
        )
    return positive.astype(jnp.float32), pool.astype(jnp.float32)


def contrastive_with_positive(
    positive: Array, pool: Array, close: Array, background: Array, reduce: str
) -> Float[Array, "... B"]:
    """Returns `contrastive` with the positive added to both sets: P = {f+} + close, C = {f+} + background.

    Args:
      positive, pool: f32 [..., B] and [..., B, K], critic values of the positive and of the other candidates.
      close: bool or weights >= 0 [..., B, K] of the further positives.
      background: bool or weights >= 0 [..., B, K] of the candidates, including the further positives.
      reduce: see `contrastive`.
    """
    one = jnp.ones_like(positive)[..., None]
    weights = [jnp.concatenate([one, weights], axis=-1) for weights in (close, background)]
    return contrastive(jnp.concatenate([positive[..., None], pool], axis=-1), *weights, reduce=reduce)


def info_nce(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"], *, where: Array | None = None
) -> Float[Array, "... B"]:
    """Returns InfoNCE of the positive against all valid candidates of the pool.

    value = f+ - log((e^{f+} + sum_j e^{f_j}) / (n + 1)), with n the number of valid candidates.

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate, without the positive.
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
    Returns:
      nats, f32 [..., B], at most log(n + 1). The mean is a lower bound on I if the candidates are independent draws.
    Source: van den Oord et al. 2018, with the positive in the denominator as in Wu et al. 2020 and 2021.

    >>> bool(jnp.allclose(info_nce(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 2.0]]))), jnp.log(6 / 3)))
    True
    """
    return _one_positive(*as_float32(positive, pool), where)


def ball(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"], lower: Percentile, *, where: Array | None = None
) -> Float[Array, "... B"]:
    """Returns the value of ball discrimination: InfoNCE against the most similar share (1 - lower) of the pool.

    value = f+ - log((e^{f+} + sum_{j in S} e^{f_j}) / (n + 1)), with S the n candidates from percentile `lower` up.

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate.
      lower: percentile in [0, 1), 0 = least similar; may be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
    Returns:
      nats, f32 [..., B], at most log(n + 1). The mean is at most that of InfoNCE with n draws from the whole pool.
    Raises:
      UserError: a concrete `lower` outside [0, 1).
    Source: Wu et al. 2020 (ball discrimination). Value, ranks and ties are defined in mi_contrast/estimators/README.md.

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
    """Returns the value of ring discrimination: InfoNCE against a band of percentiles of the pool.

    value = f+ - log((e^{f+} + sum_{j in S} e^{f_j}) / (n + 1)), with S the n candidates of percentiles [lower, upper).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate.
      lower, upper: percentiles in [0, 1], lower < upper; 0 = least similar. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
    Returns:
      nats, f32 [..., B], at most log(n + 1). It is a lower bound on I only if `bound_holds` is True.
    Raises:
      UserError: concrete percentiles outside [0, 1] or lower >= upper.
    Source: Wu et al. 2021 (Ring), section 3. Value, ranks and ties are defined in mi_contrast/estimators/README.md.

    >>> f = jnp.log(jnp.array([[4.0, 1.0, 3.0, 2.0]]))
    >>> bool(jnp.allclose(ring(jnp.log(jnp.array([6.0])), f, 0.25, 0.75), jnp.log(6 * 3 / (6 + 2 + 3))))
    True
    """
    positive, pool = as_float32(positive, pool)
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
    """Returns the value of cave discrimination: a band of percentiles as negatives, all above it as further positives.

    P = the positive and the candidates from `upper` up; C = the positive and the candidates from `lower` up;
    value = reduce_P(f) - log( (1/|C|) sum_C e^f ).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate.
      lower, upper: percentiles in [0, 1], lower < upper; 0 = least similar. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates; default all.
      reduce: 'logsumexp' or 'mean', over the positives.
    Returns:
      nats, f32 [..., B], at most log(|C| / |P|). It is no bound on I: positives chosen by their score give
      values above 0 even for independent data.
    Raises:
      UserError: concrete percentiles outside [0, 1] or lower >= upper; an unknown `reduce`.
    Source: Wu et al. 2020. Value, ranks and ties are defined in mi_contrast/estimators/README.md.

    >>> f = jnp.log(jnp.array([[1.0, 2.0, 3.0, 4.0]]))
    >>> bool(jnp.allclose(cave(jnp.log(jnp.array([6.0])), f, 0.5, 0.75), jnp.log((10 / 2) / (13 / 3))))
    True
    """
    check_band(lower, upper)
    positive, pool = as_float32(positive, pool)
    candidates = rank_weights(pool, lower, 1.0, where=where)
    further_positives = candidates - rank_weights(pool, lower, upper, where=where)
    return contrastive_with_positive(positive, pool, further_positives, candidates, reduce)


def decoupled(
    positive: Float[Array, "... B"], pool: Float[Array, "... B K"], *, where: Array | None = None
) -> Float[Array, "... B"]:
    """Returns the decoupled contrastive value: InfoNCE without the positive among the candidates.

    value = f+ - log( (1/n) sum_j e^{f_j} ), with n the number of valid candidates.

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate, without the positive.
      where: bool or weights >= 0 [..., B, K], valid candidates or the weights of any support; default all.
    Returns:
      nats, f32 [..., B]; 0 with zero gradient where there is no positive or no candidate. It is no lower bound on I
      and has no ceiling: its mean is at least Donsker and Varadhan's bound for the same critic.
    Source: Yeh et al. 2022, equation without the positive in the denominator; their loss is log(n) minus this value.

    >>> bool(jnp.allclose(decoupled(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 2.0]]))), jnp.log(6 / 1.5)))
    True
    """
    return _decoupled(*as_float32(positive, pool), where)


@jax.jit
def _decoupled(positive: Array, pool: Array, where: Array | None) -> Array:
    candidates = mass(pool, where)
    is_empty = (positive == -jnp.inf) | (candidates.size == 0)
    return jnp.where(is_empty, 0.0, jnp.where(is_empty, 0.0, positive) - log_mean(candidates))


def rank_weights(
    pool: Float[Array, "... B K"], lower: Percentile, upper: Percentile, *, where: Array | None = None
) -> Float[Array, "... B K"]:
    """Returns the weights of candidates in a band of percentiles: 1 inside, 0 outside, fractions for ties at an edge.

    Of n valid candidates the band contains r(upper) - r(lower), with r(p) = floor((n P + 500,000) / 10^6) and
    P = round(10^6 p). If s of t tied candidates belong inside, each of them weighs s / t. So the weights sum to the
    size of the band, and nothing depends on the order of the pool. -0 and +0 are tied, and so are subnormal numbers on
    devices that flush them to 0. There is no gradient.

    Args:
      pool: f32 or bf16 [..., B, K], scores; -inf is no candidate.
      lower, upper: percentiles in [0, 1], lower < upper; 0 = least similar. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K]; default all. Candidates of positive weight are ranked, each counted
        once. The result is the product of this weight and the weight in the band.
    Returns:
      f32 [..., B, K]; NaN for an anchor with a NaN among its valid scores.
    Raises:
      UserError: concrete percentiles outside [0, 1] or lower >= upper.
    Source: Wu et al. 2021 (Ring), section 3, except for ties.

    >>> rank_weights(jnp.array([[1.0, 2.0, 2.0, 3.0]]), 0.5, 1.0)
    Array([[0. , 0.5, 0.5, 1. ]], dtype=float32)
    """
    check_band(lower, upper)
    pool, where, nan = lax.stop_gradient((jnp.asarray(pool), where, nan_or_zero(lower, upper)))
    return _rank_weights(pool, millionths(lower), millionths(upper), where) + nan[..., None]


@jax.jit
def _rank_weights(pool: Array, lower: Array, upper: Array, where: Array | None) -> Array:
    pool = pool.astype(jnp.float32)
    valid, weights = mask_weights(pool, where)
    rows = jnp.where(valid, pool, -jnp.inf).reshape(math.prod(pool.shape[:-1]), pool.shape[-1])
    low, high = (jnp.broadcast_to(p, pool.shape[:-1]).reshape(-1) for p in (lower, upper))
    score_range = summarise_scores(rows)
    low, high = rank(low, score_range.size), rank(high, score_range.size)
    band_weights = weigh(rows, select_band(rows, low, jnp.maximum(low, high), score_range))
    band_weights = jnp.where(score_range.has_nan[:, None], jnp.nan, band_weights).reshape(pool.shape)
    return jnp.where(valid, band_weights * weights, 0.0)
