"""Weighted k-nearest-neighbour classification by cosine similarity."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.readout.accuracy import Arrays, top1

__all__ = ["knn", "top1", "unit"]

MAX_SIMILARITIES = 2**23  # computed at once: 32 MiB


def unit(x: Float[Arrays, "... D"]) -> Float[Array, "... D"]:
    """Normalises the last axis to length 1, in float32. A zero vector stays zero."""
    x = jnp.asarray(x, jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def knn(
    queries: Float[Arrays, "Q D"],
    bank: Float[Arrays, "N D"],
    labels: Int[Arrays, " N"],
    *,
    k: int = 200,
    temperature: float = 0.07,
    classes: int,
) -> Float[Array, "Q C"]:
    """Returns the share of each class among the k nearest neighbours of each query, weighted by e^{cosine / T}.

    share_c = sum_{j in k nearest, label_j = c} e^{cos_j / T} / sum_{j in k nearest} e^{cos_j / T}

    Args:
      queries: features, float [Q, D], of any scale.
      bank: features of the neighbours, float [N, D], of any scale.
      labels: of the bank, int [N] in [0, classes).
      k: number of neighbours. Of rows tied at the k-th place the first ones count.
      temperature: T.
      classes: number of classes, static.
    Returns:
      float32 [Q, classes]. Rows sum to 1; a query with a NaN has a row of NaN. Queries are processed in blocks, so
      memory does not grow with Q x N.
    Raises:
      UserError: k is not in [1, N], or a concrete label is out of range.
    Source: Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination" (k 200, T .07).
    """
    if not 1 <= k <= len(bank):
        raise UserError(f"k is {k} and the bank has {len(bank)} rows", fix=f"give a k from 1 to {len(bank)}")
    if not isinstance(labels, jax.core.Tracer):
        values = np.asarray(labels)
        if values.min() < 0 or values.max() >= classes:
            raise UserError(f"labels run from {values.min()} to {values.max()}", fix=f"give labels in [0, {classes})")
    return _knn(jnp.asarray(queries), jnp.asarray(bank), jnp.asarray(labels), temperature, k, classes)


@partial(jax.jit, static_argnames=("k", "classes"))
def _knn(queries, bank, labels, temperature, k, classes):
    bank = unit(bank)

    def class_shares(query):
        cosines, rows = jax.lax.top_k(jnp.matmul(bank, query, precision="highest"), k)
        weights = jax.nn.softmax(cosines / temperature)
        return jnp.full(classes, 0 * jnp.sum(weights)).at[labels[rows]].add(weights)  # a NaN makes the whole row NaN

    block_size = max(1, min(len(queries), MAX_SIMILARITIES // len(bank)))
    return jax.lax.map(class_shares, unit(queries), batch_size=block_size)
