"""Says which values are lower bounds on the mutual information, and how large a value can be."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_contrast.estimators.mass import log_mean, mask_weights, mass


def bound_holds(
    pool: Float[Array, "... B K"], weights: Float[Array, "... B K"], *, where: Array | None = None, strict: bool = False
) -> Bool[Array, "... B"]:
    """Returns, for each anchor, whether the value over a support is at most InfoNCE over the pool.

    weak:   mean of e^f over the support >= mean of e^f over the pool;
    strict: every candidate of the support has e^f above the mean of the pool.

    Scope. Let one positive be outside of the pool, n the size of the support, and J_n = f+ - log((e^{f+} + n
    meanexp(pool)) / (n + 1)), whose mean is at most InfoNCE with n negatives. The value over the *whole* support is at
    most J_n if and only if the weak condition holds. If the positive is in the pool, the condition says nothing. For k
    draws from the support, compared with InfoNCE with k draws from the pool, the weak condition suffices if the support
    is a band of percentiles; for other supports use `strict`. With several positives, and with n chosen by score,
    nothing here bounds the mutual information.

    Over a batch, the mean of value - J_n has to be at most 0. The share of anchors whose condition holds does not tell
    this. Draws with replacement bound I only if k is small against the support.

    Args:
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate, without the positive.
      weights: bool or weights >= 0 [..., B, K], of the support.
      where: bool or weights >= 0 [..., B, K], the pool's valid candidates; default all.
      strict: whether to check the strict condition.
    Returns:
      bool [..., B]; True where the support is empty (the value is 0 nats), False where a valid score is NaN.
    Source: Wu et al. 2021, theorem 1 (strict). The weak form follows from second-order dominance of percentile bands.

    >>> f = jnp.log(jnp.array([[1.0, 2.0, 3.0, 10.0]]))
    >>> bound_holds(f, jnp.array([[0, 0, 1, 0]])), bound_holds(f, jnp.array([[0, 0, 0, 1]]))
    (Array([False], dtype=bool), Array([ True], dtype=bool))
    """
    pool = jnp.asarray(pool).astype(jnp.float32)
    support_mask, _ = mask_weights(pool, weights)
    pool_mean, support = log_mean(mass(pool, where)), mass(pool, weights)
    if strict:
        holds = jnp.min(jnp.where(support_mask, pool, jnp.inf), axis=-1, initial=jnp.inf) > pool_mean
    else:
        holds = log_mean(support) >= pool_mean
    return holds | (support.size == 0)


def ceiling(candidates: Float[Array, "..."] | int, positives: Float[Array, "..."] | int = 1) -> Float[Array, "..."]:
    """Returns the largest possible contrastive value, log(|C| / |P|) nats.

    Args:
      candidates: |C|, the number of candidates including the positives: n + 1 for InfoNCE with n negatives.
      positives: |P|, the number of positives.
    Returns:
      nats, f32 [...].

    >>> round(float(ceiling(1024)), 4)
    6.9315
    """
    return jnp.log(jnp.asarray(candidates, jnp.float32)) - jnp.log(jnp.asarray(positives, jnp.float32))
