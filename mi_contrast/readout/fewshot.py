"""Classifiers from a few examples per class, in closed form: ridge regression on one-hot labels, and prototypes."""

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
    """Returns the queries' scores by ridge regression from the support's features to its one-hot labels.

    W = argmin |X W - Y|^2 + l2 |W|^2, with X the features and Y the one-hot labels, both minus their means. The scores
    are (q - mean of features) W + mean of labels. The linear system is S x S if S < F, with
    W = X^T (X X^T + l2)^-1 Y, and F x F otherwise.

    Args:
      queries, support: features, float [Q, F] and [S, F].
      labels: of the support, int [S] in [0, classes).
      l2: regulariser, > 0. The best value depends on the scale of the features.
      classes: number of classes, static.
    Returns:
      float32 [Q, classes].
    Source: Hoerl and Kennard 1970; as a few-shot classifier Bertinetto et al. 2019 (R2-D2), without their learned
      scale.
    """
    support, queries = jnp.asarray(support, jnp.float32), jnp.asarray(queries, jnp.float32)
    targets = jax.nn.one_hot(labels, classes)
    feature_mean, target_mean = jnp.mean(support, axis=0), jnp.mean(targets, axis=0)
    x, y = support - feature_mean, targets - target_mean
    if len(x) < x.shape[1]:
        gram = jnp.matmul(x, x.T, precision="highest") + l2 * jnp.eye(len(x))
        weights = jnp.matmul(x.T, jnp.linalg.solve(gram, y), precision="highest")
    else:
        gram = jnp.matmul(x.T, x, precision="highest") + l2 * jnp.eye(x.shape[1])
        weights = jnp.linalg.solve(gram, jnp.matmul(x.T, y, precision="highest"))
    return jnp.matmul(queries - feature_mean, weights, precision="highest") + target_mean


@partial(jax.jit, static_argnames=("classes", "cosine"))
def prototypes(
    queries: Float[Arrays, "Q F"],
    support: Float[Arrays, "S F"],
    labels: Int[Arrays, " S"],
    *,
    classes: int,
    cosine: bool = False,
) -> Float[Array, "Q C"]:
    """Returns the similarity of each query q to the prototype p_c of each class, the mean of the class's examples.

    The similarity is -|q - p_c|^2. With `cosine` it is the cosine of q and p_c, where p_c is the mean of examples
    normalised to unit norm.

    Args:
      queries, support: features, float [Q, F] and [S, F].
      labels: of the support, int [S] in [0, classes), each class at least once.
      classes: number of classes, static.
      cosine: static.
    Returns:
      float32 [Q, classes]; NaN for a class without examples.
    Source: Snell et al. 2017 (prototypical networks, where the features are trained for this classifier).
    """
    support, queries = jnp.asarray(support, jnp.float32), jnp.asarray(queries, jnp.float32)
    support = unit(support) if cosine else support
    membership = jax.nn.one_hot(labels, classes)
    means = jnp.matmul(membership.T, support, precision="highest") / jnp.sum(membership, axis=0)[:, None]
    if cosine:
        return jnp.matmul(unit(queries), unit(means).T, precision="highest")
    product = jnp.matmul(queries, means.T, precision="highest")
    return 2 * product - jnp.sum(means**2, axis=1) - jnp.sum(queries**2, axis=1, keepdims=True)
