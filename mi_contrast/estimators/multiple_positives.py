"""Contrastive values with several positives per anchor: close neighbours, or all candidates of the same label."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.scores import as_float32, contrastive, contrastive_with_positive


def local_aggregation(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    close: Float[Array, "... B K"],
    background: Float[Array, "... B K"],
    *,
    reduce: str = "logsumexp",
) -> Float[Array, "... B"]:
    """Returns the value of local aggregation: close neighbours as further positives, the background as candidates.

    P = the positive and close * background; C = the positive and background;
    value = reduce_P(f) - log( (1/|C|) sum_C e^f ). With the background `rank_weights(pool, lower, 1)` and no close
    neighbours, this is `ball`.

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive, its own row of the bank.
      pool: f32 or bf16 [..., B, K], critic values of each anchor with all other rows of the bank.
      close: bool or weights in [0, 1] [..., B, K], close neighbours. Those outside of the background are ignored,
        because they would leave the value without a ceiling.
      background: bool or weights >= 0 [..., B, K], e.g. `rank_weights(pool, lower, 1)`.
      reduce: 'logsumexp' (as released) or 'mean', over the positives.
    Returns:
      nats, f32 [..., B], at most log(|C| / |P|). It is no bound on I: the encoder itself chooses the neighbours.
    Raises:
      UserError: shapes that do not fit, an unknown `reduce`.
    Source: Zhuang et al. 2019. The released loss is log(|C| / |P|) minus this value, except that it adds 1e-7 inside
    the logarithm and keeps the anchor's own row among the candidates.

    >>> f, background = jnp.log(jnp.array([[1.0, 2.0, 3.0, 4.0]])), jnp.array([[0, 0, 1, 1]])
    >>> nats = local_aggregation(jnp.log(jnp.array([6.0])), f, jnp.array([[1, 0, 0, 1]]), background)
    >>> bool(jnp.allclose(nats, jnp.log((10 / 2) / (13 / 3))))
    True
    """
    positive, pool = as_float32(positive, pool)
    close, background = (_weights(weights, pool) for weights in (close, background))
    return contrastive_with_positive(positive, pool, close * background, background, reduce)


def supervised(
    scores: Float[Array, "... B C"], same: Float[Array, "... B C"], *, where: Array | None = None, reduce: str = "mean"
) -> Float[Array, "... B"]:
    """Returns the supervised contrastive value: every candidate with the label of the anchor is a positive.

    P = where * same; C = where; value = reduce_P(f) - log( (1/|C|) sum_C e^f ).

    Args:
      scores: f32 or bf16 [..., B, C], critic values of each anchor with every candidate. Exclude the anchor itself by a
        score of -inf or by `where`.
      same: bool or weights in [0, 1] [..., B, C], whether a candidate has the label of the anchor.
      where: bool or weights >= 0 [..., B, C], valid candidates; default all.
      reduce: 'mean' (the mean over positives outside of the logarithm) or 'logsumexp' (inside).
    Returns:
      nats, f32 [..., B], at most log(|C| / |P|); 0 with zero gradient where no candidate has the label. No bound on I.
    Raises:
      UserError: shapes that do not fit, an unknown `reduce`.
    Source: Khosla et al. 2020, L_out ('mean') and L_in ('logsumexp'), each of which is log |C| minus this value. The
    released loss is L_out times temperature / .07, and NaN where no candidate has the label.

    >>> f, same = jnp.log(jnp.array([[4.0, 1.0, 1.0, 2.0]])), jnp.array([[True, True, False, False]])
    >>> bool(jnp.allclose(supervised(f, same), jnp.log(4.0) / 2 - jnp.log(8 / 4)))
    True
    """
    scores = jnp.asarray(scores)
    candidates = jnp.ones(scores.shape, jnp.float32) if where is None else _weights(where, scores)
    return contrastive(scores, _weights(same, scores) * candidates, candidates, reduce=reduce)


def _weights(weights: Array, scores: Array) -> Float[Array, "... B C"]:
    weights = jnp.asarray(weights).astype(jnp.float32)
    try:
        return jnp.broadcast_to(weights, scores.shape)
    except ValueError:
        raise UserError(
            f"weights {weights.shape} do not fit scores {scores.shape}", fix="give one weight for each score"
        ) from None
