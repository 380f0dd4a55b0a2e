"""Contrastive values from embeddings, without holding all B x K scores at once."""

from __future__ import annotations

import jax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.estimators.inputs import OptionalInputs, prepare_inputs
from mi_contrast.estimators.shards import Axis
from mi_contrast.estimators.streaming import StaticArgs, jit_contrast_in_blocks
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
    """Returns the contrastive value of each anchor with its positive against a support of the pool, in nats.

    value = reduce_P(f) - log( (1/|C|) sum_C e^f ), with f = inner product / temperature, P the positives and C the
    candidates. Supports and forms give the same values as `info_nce`, `ball`, `ring`, `cave`, `local_aggregation`,
    `supervised`, `decoupled`, `hard_negatives` and `binary_nce` on the matrix of scores, and the same gradients with
    respect to anchors, positives and temperature.

    Args:
      anchors, positives: f32 or bf16 [B, D]; row i of `positives` is the positive of row i of `anchors`.
      pool: f32 or bf16 [K, D], the candidates. If the positive is among them, exclude it by ids.
      support: All(), Ball(lower), Ring(lower, upper), Cave(lower, upper), Nearest(k), Close(of) or Drawn(k, of).
        Percentiles may be traced, one for all or [B].
      form: Softmax(reduce), Decoupled(), Hard(beta, prior, floor) or Binary(log_normaliser, data_size). The last three
        need a support with one positive.
      temperature: > 0; may be traced; one for all or [B].
      valid: bool [K], False for candidates that do not exist, such as empty slots of a queue. Their rows must be
        finite too.
      anchor_ids, pool_ids: int32 [B] or [B, E], and int32 [K]. A candidate that has one of an anchor's ids is excluded
        for this anchor. The id -1 matches nothing.
      anchor_labels, pool_labels: int32 [B] and [K], or [B, R] and [K, R], for `Close`: a candidate is a further
        positive if it agrees with the anchor in any column. The label -1 matches nothing.
      key: rng for `Drawn`, a random key of JAX. With one for all, the draws of an anchor also depend on its index in
        the global batch. With rngs [B], each anchor uses its own.
      block: number of anchors scored at a time. Memory beyond the inputs is about 2 x block x K float32.
      axis_name: inside `shard_map`, the mesh axis (or axes) over which anchors and pool are sharded. All arrays and the
        result are this device's parts. Anchors are gathered, the pool is not.
      pool_gradient: whether the pool receives a gradient. By default it is a constant.
    Returns:
      nats, f32 [B], at most log(|C| / |P|) for `Softmax`; 0 with zero gradient where the support is empty; NaN where a
      valid score is NaN.
    Raises:
      UserError: shapes that do not fit; an unknown support or form, or a form that cannot handle the support; empty
        concrete bands; a concrete temperature <= 0; ids or labels on one side only; no labels for `Close`; no key for
        `Drawn`.
    Source: Wu et al. 2020 and 2021. Value, ranks and ties are defined in mi_contrast/estimators/README.md.

    >>> import jax.numpy as jnp
    >>> from mi_contrast.estimators import Ring
    >>> anchors, pool = jnp.eye(2), jnp.log(jnp.array([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0], [9.0, 9.0]]))
    >>> nats = contrast(anchors, anchors * jnp.log(6.0), pool, Ring(0.25, 0.75), temperature=1.0)
    >>> bool(jnp.allclose(nats, jnp.log(6 * 3 / (6 + 2 + 3))))
    True
    """
    optional = OptionalInputs(valid, anchor_ids, pool_ids, anchor_labels, pool_labels, key)
    inputs = prepare_inputs(anchors, positives, pool, support, form, temperature, optional, axis_name)
    anchor_inputs, pool_inputs = inputs
    if not pool_gradient:
        pool_inputs = pool_inputs._replace(rows=lax.stop_gradient(pool_inputs.rows))
    return jit_contrast_in_blocks(StaticArgs(block, pool_gradient, axis_name), anchor_inputs, pool_inputs)
