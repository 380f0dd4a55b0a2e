"""Nats from embeddings: anchors against a pool in blocks, never holding B x K, equal to the dense forms throughout."""

from __future__ import annotations

import jax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.estimators.inputs import Given, gather
from mi_contrast.estimators.shards import Axis
from mi_contrast.estimators.streaming import Plan, compiled
from mi_contrast.estimators.supports import SOFTMAX, Form, Support


def contrast(
    anchors: Float[Array, "B D"],
    positives: Float[Array, "B D"],
    pool: Float[Array, "K D"],
    support: Support,
    form: Form = SOFTMAX,
    *,
    temperature: Float[Array, "..."] | float,
    valid: Bool[Array, " K"] | None = None,
    anchor_ids: Int[Array, "B ..."] | None = None,
    pool_ids: Int[Array, " K"] | None = None,
    anchor_labels: Int[Array, "B ..."] | None = None,
    pool_labels: Int[Array, "K ..."] | None = None,
    key: jax.Array | None = None,
    block: int | None = None,
    axis_name: Axis = None,
    pool_gradient: bool = False,
) -> Float[Array, " B"]:
    """Nats of each anchor with its positive against a support of the pool.

    value = reduce_P(f) - log( (1/|C|) sum_C e^f ), f = inner product / temperature: the values of `info_nce`, `ball`,
    `ring`, `cave`, `local_aggregation`, `supervised`, `decoupled`, `hard_negatives` and `binary_nce`, and their
    gradients to anchors, positives and temperature, from blocks of anchors and sums over bands of ranks.

    Args:
      anchors, positives: f32 or bf16 [B, D], row i of one being the positive of row i of the other.
      pool: f32 or bf16 [K, D], candidates; the positive is not among them unless excluded by id.
      support: All(), Ball(lower), Ring(lower, upper), Cave(lower, upper), Nearest(k), Close(of) or Drawn(k, of);
        percentiles may be traced, one for all or [B].
      form: Softmax(reduce), Decoupled(), Hard(beta, prior, floor) or Binary(log_normaliser, data_size); the last three
        take supports of one positive.
      temperature: > 0, may be traced, one for all or [B].
      valid: bool [K], False for candidates that do not exist (unfilled slots of a queue); their rows are finite too.
      anchor_ids: int32 [B] or [B, A]; pool_ids: int32 [K]. A candidate whose id equals any of an anchor's ids is not a
        candidate of that anchor. The id -1 matches nothing.
      anchor_labels, pool_labels: int32 [B] and [K], or [B, R] and [K, R], for `Close`: a candidate is a positive too
        where a column agrees. The label -1 matches nothing.
      key: for `Drawn`: one for all, an anchor's draws depending on its place among all anchors too, or one each [B].
      block: how many anchors are scored at a time; memory beyond the inputs is about 2 x block x K float32.
      axis_name: inside `shard_map`, the mesh axis (or axes) over which anchors and pool are cut. Anchors, positives,
        ids, labels and nats are this device's, the pool's rows too; anchors are gathered, the pool stays where it is.
      pool_gradient: also give a gradient to the pool; without it the pool is a constant.
    Returns:
      nats, f32 [B], at most log(|C| / |P|) for the softmax form; 0 with zero gradient where the support is empty; NaN
      where a valid score is.
    Raises:
      UserError: shapes that do not fit, an unknown support or form or a pair that means nothing, concrete percentiles
        that hold nothing, a concrete temperature <= 0, ids or labels on one side only, no labels for Close, no key for
        Drawn.
    Source: Wu et al. 2020 and 2021; value, ranks and ties as the package defines them.

    >>> import jax.numpy as jnp
    >>> from mi_contrast.estimators import Ring
    >>> anchors, pool = jnp.eye(2), jnp.log(jnp.array([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0], [9.0, 9.0]]))
    >>> nats = contrast(anchors, anchors * jnp.log(6.0), pool, Ring(0.25, 0.75), temperature=1.0)
    >>> bool(jnp.allclose(nats, jnp.log(6 * 3 / (6 + 2 + 3))))
    True
    """
    given = Given(valid, anchor_ids, pool_ids, anchor_labels, pool_labels, key)
    rows, candidates = gather(anchors, positives, pool, support, form, temperature, given, axis_name)
    if not pool_gradient:
        candidates = candidates._replace(rows=lax.stop_gradient(candidates.rows))
    return compiled(Plan(block, pool_gradient, axis_name), rows, candidates)
