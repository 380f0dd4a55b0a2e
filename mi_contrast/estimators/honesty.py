"""What a number may be called: when a restricted support still bounds InfoNCE, and how much an estimate can read."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mi_contrast.estimators.mass import log_mean, mass, present


def bound_holds(
    pool: Float[Array, "... B K"], weights: Float[Array, "... B K"], *, where: Array | None = None, strict: bool = False
) -> Bool[Array, "... B"]:
    """Whether the value over a support is still at most InfoNCE over the pool, anchor by anchor.

    weak:   mean of e^f over the support >= mean of e^f over the pool;
    strict: every candidate of the support has e^f above the pool's mean.

    Scope. With one positive outside the pool, the value over a *whole* support of size n is at most J_n = f+ -
    log((e^{f+} + n meanexp(pool)) / (n + 1)), itself at most InfoNCE with n negatives in the mean, exactly where the
    weak condition holds; with the positive in the pool it does not tell. For k draws from the support, against InfoNCE
    with k draws from the pool, it suffices (and is not needed at a given k) where the support is a percentile band; for
    other supports ask `strict`. With several positives nothing here bounds the mutual information, and n must not be
    chosen by score. A batch is honest where the mean of value - J_n is at most 0: a share of anchors can hide a gap.
    Draws with replacement bound I only where k is small against the support.

    Args:
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate; the positive in neither set.
      weights: bool or weights >= 0 [..., B, K], the support.
      where: bool or weights >= 0 [..., B, K], the pool's valid candidates; default all.
      strict: ask the strict condition.
    Returns:
      bool [..., B]; True where the support is empty (the value is then 0 nats), False where a counted score is NaN.
    Source: Wu et al. 2021, theorem 1 (strict); the weak form follows from second-order dominance of percentile bands.

    >>> f = jnp.log(jnp.array([[1.0, 2.0, 3.0, 10.0]]))
    >>> bound_holds(f, jnp.array([[0, 0, 1, 0]])), bound_holds(f, jnp.array([[0, 0, 0, 1]]))
    (Array([False], dtype=bool), Array([ True], dtype=bool))
    """
    pool = jnp.asarray(pool).astype(jnp.float32)
    inside, _ = present(pool, weights)
    average, support = log_mean(mass(pool, where)), mass(pool, weights)
    if strict:
        holds = jnp.min(jnp.where(inside, pool, jnp.inf), axis=-1, initial=jnp.inf) > average
    else:
        holds = log_mean(support) >= average
    return holds | (support.size == 0)


def ceiling(candidates: Float[Array, "..."] | int, positives: Float[Array, "..."] | int = 1) -> Float[Array, "..."]:
    """The most an estimate can read: log(|C| / |P|) nats.

    Args:
      candidates: |C|, how many candidates there are, the positives among them: n + 1 for InfoNCE with n negatives.
      positives: |P|, how many positives.
    Returns:
      nats, f32 [...].

    >>> round(float(ceiling(1024)), 4)
    6.9315
    """
    return jnp.log(jnp.asarray(candidates, jnp.float32)) - jnp.log(jnp.asarray(positives, jnp.float32))
