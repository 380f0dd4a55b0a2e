"""Weighted sets of scores, summed up so that sets can be joined: what every softmax form is made of."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


class Mass(NamedTuple):
    """A weighted set of scores f: log of sum w e^f (-inf when empty), and the sum of w. Both float32 [...]."""

    log_sum: Float[Array, "..."]
    size: Float[Array, "..."]


def present(scores: Float[Array, "..."], weights: Array | None) -> tuple[Bool[Array, "..."], Float[Array, "..."]]:
    """Which candidates count at all (score not -inf, weight not 0), and their weights, 0 where they don't."""
    here = scores != -jnp.inf
    if weights is None:
        return here, here.astype(jnp.float32)
    weights = jnp.broadcast_to(jnp.asarray(weights).astype(jnp.float32), scores.shape)
    here &= weights != 0
    return here, jnp.where(here, weights, 0.0)


def mass(scores: Float[Array, "... C"], weights: Array | None) -> Mass:
    """The mass of the last axis: float32 scores, weights >= 0 (None = 1). Gradients are finite where it is empty."""
    here, weights = present(scores, weights)
    top = _reference(jnp.max(jnp.where(here, scores, -jnp.inf), axis=-1, initial=-jnp.inf))
    terms = weights * jnp.exp(jnp.where(here, scores, 0.0) - jnp.where(here, top[..., None], 0.0))
    return Mass(_log(jnp.sum(jnp.where(here, terms, 0.0), axis=-1)) + top, jnp.sum(weights, axis=-1))


def join(a: Mass, b: Mass) -> Mass:
    """The mass of both sets together."""
    top = _reference(jnp.maximum(a.log_sum, b.log_sum))
    return Mass(_log(_exp(a.log_sum, top) + _exp(b.log_sum, top)) + top, a.size + b.size)


def log_mean(mass: Mass) -> Float[Array, "..."]:
    """log( (sum w e^f) / (sum w) ), and 0 with zero gradient for an empty set."""
    some = mass.size != 0
    return jnp.where(some, jnp.where(some, mass.log_sum, 0.0) - jnp.log(jnp.where(some, mass.size, 1.0)), 0.0)


def _reference(top: Array) -> Array:
    """A score to measure the others from, without gradient; 0 where the greatest is not finite."""
    top = lax.stop_gradient(top)
    return jnp.where(jnp.isfinite(top), top, 0.0)


def _log(x: Array) -> Array:
    """Log x, and -inf with zero gradient at 0."""
    return jnp.where(x == 0, -jnp.inf, jnp.log(jnp.where(x == 0, 1.0, x)))


def _exp(x: Array, top: Array) -> Array:
    """e^(x - top), and 0 with zero gradient at -inf."""
    gone = x == -jnp.inf
    return jnp.where(gone, 0.0, jnp.exp(jnp.where(gone, 0.0, x) - jnp.where(gone, 0.0, top)))
