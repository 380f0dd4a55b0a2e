"""Geometry of embeddings: alignment of pairs, uniformity on the sphere, and effective rank."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.readout.accuracy import Arrays
from mi_contrast.readout.knn import unit


@jax.jit
def alignment(x: Float[Arrays, "N D"], y: Float[Arrays, "N D"]) -> Float[Array, ""]:
    """Returns the mean squared distance of positive pairs on the unit sphere, mean_i |x_i - y_i|^2, in [0, 4].

    Args:
      x, y: float [N, D]; rows are normalised to unit length here.
    Returns:
      float32 scalar.
    Source: Wang & Isola 2020, "Understanding contrastive representation learning through alignment and uniformity on
      the hypersphere" (alpha = 2).
    """
    return jnp.mean(jnp.sum((unit(x) - unit(y)) ** 2, axis=-1))


@jax.jit
def uniformity(x: Float[Arrays, "N D"]) -> Float[Array, ""]:
    """Returns the uniformity of points on the sphere, log mean_{i != j} e^{-2 |x_i - x_j|^2}, in [-8, 0].

    Smaller values mean that the points cover the sphere more evenly. Memory is N x N.

    Args:
      x: float [N, D], N >= 2; rows are normalised to unit length here.
    Returns:
      float32 scalar.
    Source: Wang & Isola 2020 (t = 2), over distinct pairs.
    """
    x = unit(x)
    squared = jnp.maximum(2.0 - 2.0 * jnp.matmul(x, x.T, precision="highest"), 0.0)
    logs = jnp.where(jnp.eye(len(x), dtype=bool), -jnp.inf, -2.0 * squared)
    return jax.nn.logsumexp(logs) - jnp.log(jnp.float32(len(x)) * (len(x) - 1))


@jax.jit
def effective_rank(x: Float[Arrays, "N D"]) -> Float[Array, ""]:
    """Returns the effective rank exp(-sum p_k log p_k), with p_k = s_k / sum s from the singular values s.

    Args:
      x: float [N, D]; neither centred nor scaled here.
    Returns:
      float32 scalar in [1, min(N, D)]; NaN for a zero matrix.
    Source: Roy & Vetterli 2007, "The effective rank"; Garrido et al. 2023 (RankMe).
    """
    values = jnp.linalg.svd(jnp.asarray(x, jnp.float32), compute_uv=False)
    shares = values / jnp.sum(values)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(shares, shares)))
