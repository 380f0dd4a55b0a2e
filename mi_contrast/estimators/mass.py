"""Log-sums of weighted sets of scores. Those of disjoint sets can be joined, which every softmax form relies on."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


class Mass(NamedTuple):
    """Summary of a set of scores f with weights w.

    Attributes:
      log_sum: log(sum w e^f), float32 [...]; -inf for an empty set.
      size: sum of the weights, float32 [...].
    """

    log_sum: Float[Array, "..."]
    size: Float[Array, "..."]


def mask_weights(scores: Float[Array, "..."], weights: Array | None) -> tuple[Bool[Array, "..."], Float[Array, "..."]]:
    """Returns the mask of valid scores and the weights, set to 0 where the mask is False.

    A score is valid if it is not -inf and its weight is not 0. `weights=None` means a weight of 1 for each.
    """
    valid = scores != -jnp.inf
    if weights is None:
        return valid, valid.astype(jnp.float32)
    weights = jnp.broadcast_to(jnp.asarray(weights).astype(jnp.float32), scores.shape)
    valid &= weights != 0
    return valid, jnp.where(valid, weights, 0.0)


def mass(scores: Float[Array, "... C"], weights: Array | None) -> Mass:
    """Returns the mass over the last axis. Gradients are finite for an empty set too.

    Args:
      scores: float32 [..., C]; -inf removes a score.
      weights: weights >= 0 [..., C], or None for weights of 1.
    """
    valid, weights = mask_weights(scores, weights)
    top = _finite_or_zero(jnp.max(jnp.where(valid, scores, -jnp.inf), axis=-1, initial=-jnp.inf))
    terms = weights * jnp.exp(jnp.where(valid, scores, 0.0) - jnp.where(valid, top[..., None], 0.0))
    return Mass(_log(jnp.sum(jnp.where(valid, terms, 0.0), axis=-1)) + top, jnp.sum(weights, axis=-1))


def join(a: Mass, b: Mass) -> Mass:
    """Returns the mass of the union of two disjoint sets."""
    top = _finite_or_zero(jnp.maximum(a.log_sum, b.log_sum))
    return Mass(_log(_exp(a.log_sum, top) + _exp(b.log_sum, top)) + top, a.size + b.size)


def log_mean(mass: Mass) -> Float[Array, "..."]:
    """Returns log((sum w e^f) / (sum w)); for an empty set 0 with zero gradient."""
    nonempty = mass.size != 0
    log_sum = jnp.where(nonempty, mass.log_sum, 0.0)
    return jnp.where(nonempty, log_sum - jnp.log(jnp.where(nonempty, mass.size, 1.0)), 0.0)


def _finite_or_zero(top: Array) -> Array:
    """Returns the shift to subtract before exponentiating, without gradient: `top`, or 0 where it is not finite."""
    top = lax.stop_gradient(top)
    return jnp.where(jnp.isfinite(top), top, 0.0)


def _log(x: Array) -> Array:
    """Returns log x; at 0 it is -inf with zero gradient."""
    return jnp.where(x == 0, -jnp.inf, jnp.log(jnp.where(x == 0, 1.0, x)))


def _exp(x: Array, top: Array) -> Array:
    """Returns e^(x - top); at x = -inf it is 0 with zero gradient."""
    empty = x == -jnp.inf
    return jnp.where(empty, 0.0, jnp.exp(jnp.where(empty, 0.0, x) - jnp.where(empty, 0.0, top)))
