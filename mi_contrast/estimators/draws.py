"""k candidates drawn from a support with replacement, by key, as counts: weights for any estimator's `where`.

The value over counts divides by 1 + their sum, as every value does by the weights it is given; never by 1 + k, which a
Poisson sum is only on average. Draws with replacement bound I only where k is small against the support.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

STEPS = 2**30  # the cumulative weights are integers, so that no sum is rounded and weight 0 is never drawn
TERMS = 12  # more than 12 of a Poisson of rate 1 are less likely than 2^-32
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


@functools.partial(jax.jit, static_argnums=2)
def multinomial_counts(key: Key[Array, ""], weights: Float[Array, "... K"], k: int) -> Float[Array, "... K"]:
    """How often each candidate is met in k draws with replacement, in proportion to its weight.

    c ~ Multinomial(k, s / sum s) for each row, independently.

    Args:
      key: typed key.
      weights: bool or weights s >= 0 [..., K], a support, e.g. `rank_weights(pool, lower, upper)`.
      k: how many draws.
    Returns:
      f32 [..., K], each row's sum k, or 0 where nothing has weight; NaN where a weight is not finite. No gradient.
      Probabilities are exact for masks, and else right to 2^-30 of the whole.

    >>> counts = multinomial_counts(jax.random.key(0), jnp.array([[1, 0, 1, 1]]), 5)
    >>> float(counts.sum()), float(counts[0, 1])
    (5.0, 0.0)
    """
    weights = lax.stop_gradient(jnp.asarray(weights)).astype(jnp.float32)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    good = jnp.isfinite(total)
    share = jnp.where(good & (total > 0), weights / jnp.where(total > 0, total, 1.0), 0.0)
    edges = jnp.cumsum((share * STEPS).astype(jnp.int32), axis=-1).reshape(-1, weights.shape[-1])
    drawn = jax.random.randint(key, (edges.shape[0], k), 0, edges[:, -1:])

    def of_row(edges: Array, drawn: Array) -> Array:
        found = jnp.searchsorted(edges, drawn, side="right")
        return jnp.zeros(edges.shape, jnp.float32).at[found].add(1.0, mode="drop")

    return jnp.where(good, jax.vmap(of_row)(edges, drawn).reshape(weights.shape), jnp.nan)


def poisson_counts(
    key: Key[Array, ""],
    weights: Float[Array, "... K"],
    k: Float[Array, ""] | int,
    ids: Int[Array, "... K"],
    *,
    anchors: Int[Array, "..."] | None = None,
    size: Float[Array, "..."] | None = None,
) -> Float[Array, "... K"]:
    """On average k draws, each candidate's count a function of the key, its own global index and the anchor's alone.

    c_j ~ Poisson(k s_j / n), n = sum s, independently; given their sum N they are N draws with replacement. However the
    pool or the anchors are cut into blocks or shards, each candidate gets the same count.

    Args:
      key: typed key.
      weights: bool or weights s >= 0 [..., K], a support, or the part of one that is at hand.
      k: how many draws on average; may be traced.
      ids: int32 [K] or [..., K], the candidates' indices in the whole pool.
      anchors: int32 [...], the anchors' indices in the whole batch; default 0, 1, ...
      size: f32 [...], n over the whole pool; default the sum of these weights.
    Returns:
      f32 [..., K]; NaN where a weight or the size is not finite. No gradient.
      Exact to 2^-32 for any rate: the inverse distribution function in 12 terms up to rate 1, and a sum of such counts
      above, which costs one more pass for each 1 of the greatest rate.

    >>> pool, ids = jnp.ones((1, 4)), jnp.arange(4)
    >>> whole = poisson_counts(jax.random.key(0), pool, 8, ids)
    >>> half = poisson_counts(jax.random.key(0), pool[:, 2:], 8, ids[2:], size=jnp.array([4.0]))
    >>> bool((whole[:, 2:] == half).all())
    True
    """
    weights = jnp.asarray(weights)
    if anchors is None:
        rows = weights.shape[:-1]
        anchors = jnp.arange(max(1, weights[..., 0].size)).reshape(rows) if rows else jnp.int32(0)
    return _poisson_counts(*lax.stop_gradient((key, weights.astype(jnp.float32), k, ids, anchors, size)))


@jax.jit
def _poisson_counts(key: Array, weights: Array, k: Array, ids: Array, anchors: Array, size: Array | None) -> Array:
    size = jnp.sum(weights, axis=-1) if size is None else jnp.broadcast_to(size, weights.shape[:-1])
    rate = k * weights / jnp.where(size == 0, 1.0, size)[..., None]
    bad = ~jnp.isfinite(rate)
    counter = jnp.asarray(anchors)[..., None].astype(jnp.uint32), jnp.asarray(ids).astype(jnp.uint32)

    def more(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        piece, left, counts = carry
        uniform = _bits(jax.random.fold_in(key, piece), *counter).astype(jnp.float32) * 2.0**-32
        return piece + 1, left - 1, counts + _up_to_rate_one(jnp.clip(left, 0.0, 1.0), uniform)

    start = jnp.int32(0), jnp.where(bad, 0.0, rate), jnp.zeros_like(rate)
    _, _, counts = lax.while_loop(lambda carry: jnp.any(carry[1] > 0), more, start)
    return jnp.where(bad, jnp.nan, counts)


def _up_to_rate_one(rate: Array, uniform: Array) -> Array:
    """The count whose tail holds `uniform`: how many c have uniform < P(more than c). Tails are summed from their end,
    so that each keeps float32's relative precision at any small rate.
    """
    terms = [jnp.exp(-rate)]
    for c in range(1, TERMS + 1):
        terms.append(terms[-1] * (rate / c))
    tail, count = jnp.zeros_like(rate), jnp.zeros_like(rate)
    for term in terms[:0:-1]:
        tail = tail + term
        count = count + (uniform < tail)
    return count


def _bits(key: Array, high: Array, low: Array) -> Array:
    """32 random bits for each counter (high, low), uint32: threefry 2x32 of 20 rounds (Salmon et al. 2011).

    jax.random keeps its counters to itself, and a key folded with each candidate costs seven times as much.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    schedule = first, second, first ^ second ^ jnp.uint32(0x1BD11BDA)
    a, b = high + schedule[0], low + schedule[1]
    for four in range(5):
        for i in range(4):
            turn = ROTATIONS[(4 * four + i) % 8]
            a = a + b
            b = ((b << turn) | (b >> (32 - turn))) ^ a
        a, b = a + schedule[(four + 1) % 3], b + schedule[(four + 2) % 3] + jnp.uint32(four + 1)
    return a
