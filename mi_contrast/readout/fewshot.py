"""Classifiers of a few examples a class, in closed form: ridge regression on one-hot labels, and prototypes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mi_contrast.readout.accuracy import Arrays
from mi_contrast.readout.knn import unit


@partial(jax.jit, static_argnames="classes")
def ridge(
    queries: Float[Arrays, "Q F"],
    support: Float[Arrays, "S F"],
    labels: Int[Arrays, " S"],
    l2: Float[Array, ""] | float,
    *,
    classes: int,
) -> Float[Array, "Q C"]:
    """Scores of ridge regression from the support's features to its one-hot labels, on centred features.

    W = argmin |X W - Y|^2 + l2 |W|^2, X the support's features less their mean, Y the one-hot labels less theirs;
    by the S x S system where S < F, W = X^T (X X^T + l2)^-1 Y, else by the F x F one. Scores: (q - mean) W + mean of Y.

    Args:
      queries, support: float [Q, F] and [S, F]; labels: int [S] in [0, classes).
      l2: above 0; it belongs to the scale of the features.
      classes: static.
    Returns:
      float32 [Q, classes].
    Source: Hoerl and Kennard 1970; as a few-shot classifier Bertinetto et al. 2019 (R2-D2), without their learned
      scale.
    """
    support, queries = jnp.asarray(support, jnp.float32), jnp.asarray(queries, jnp.float32)
    targets = jax.nn.one_hot(labels, classes)
    centre, level = jnp.mean(support, axis=0), jnp.mean(targets, axis=0)
    x, y = support - centre, targets - level
    if len(x) < x.shape[1]:
        gram = jnp.matmul(x, x.T, precision="highest") + l2 * jnp.eye(len(x))
        weights = jnp.matmul(x.T, jnp.linalg.solve(gram, y), precision="highest")
    else:
        gram = jnp.matmul(x.T, x, precision="highest") + l2 * jnp.eye(x.shape[1])
        weights = jnp.linalg.solve(gram, jnp.matmul(x.T, y, precision="highest"))
    return jnp.matmul(queries - centre, weights, precision="highest") + level


@partial(jax.jit, static_argnames=("classes", "cosine"))
def prototypes(
    queries: Float[Arrays, "Q F"],
    support: Float[Arrays, "S F"],
    labels: Int[Arrays, " S"],
    *,
    classes: int,
    cosine: bool = False,
) -> Float[Array, "Q C"]:
    """Nearness of each query to each class's prototype, the mean of its examples.

    -|q - p_c|^2, or the cosine of q and p_c, the examples made of length 1 before their mean.

    Args:
      queries, support: float [Q, F] and [S, F]; labels: int [S] in [0, classes), each class at least once.
      classes, cosine: static.
    Returns:
      float32 [Q, classes]; NaN for a class without an example.
    Source: Snell et al. 2017 (prototypical networks), whose features are learned for it.
    """
    support, queries = jnp.asarray(support, jnp.float32), jnp.asarray(queries, jnp.float32)
    support = unit(support) if cosine else support
    member = jax.nn.one_hot(labels, classes)
    means = jnp.matmul(member.T, support, precision="highest") / jnp.sum(member, axis=0)[:, None]
    if cosine:
        return jnp.matmul(unit(queries), unit(means).T, precision="highest")
    product = jnp.matmul(queries, means.T, precision="highest")
    return 2 * product - jnp.sum(means**2, axis=1) - jnp.sum(queries**2, axis=1, keepdims=True)
