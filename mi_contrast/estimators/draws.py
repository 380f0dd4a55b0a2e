"""k candidates drawn from a support with replacement, by seed, as counts: weights for any estimator's `where`.

The value over counts divides by 1 + their sum, as every value does by the weights it is given; never by 1 + k, which a
Poisson sum is only on average. Draws with replacement bound I only where k is small against the support.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

STEPS = 2**30  # weights become integers for exact draws, so that no sum is rounded and weight 0 is never drawn
RATE, TERMS = 2.0, 16  # more than 16 of a Poisson of rate 2 are less likely than 2^-34
LOW_RATE, LOW_TERMS = 1 / 3, 8  # more than 8 of a Poisson of rate 1/3 are less likely than 2^-33
LANES = 128  # of the candidates when weights are summed up
ONE_BY_ONE = np.uint32(2**31)  # the first stream of draws one by one; Poisson counts take streams 0, 1, ...
GOLDEN = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio, as in SplitMix (Steele et al. 2014)


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
      Probabilities are equal for equal weights, and else right to 2^-30 of the whole.

    >>> counts = multinomial_counts(jax.random.key(0), jnp.array([[1, 0, 1, 1]]), 5)
    >>> float(counts.sum()), float(counts[0, 1])
    (5.0, 0.0)
    """
    weights = lax.stop_gradient(jnp.asarray(weights)).astype(jnp.float32)
    rows = weights.reshape(math.prod(weights.shape[:-1]), weights.shape[-1])
    return draw_exactly(jax.random.bits(key, (len(rows), 2), jnp.uint32), rows, k).reshape(weights.shape)


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
      Probabilities are those of the inverse distribution function to 2^-32 and float32's rounding, at any rate. Each 2
      of the greatest rate cost a pass over the counts.

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
    seed = lambda anchor: jax.random.bits(jax.random.fold_in(key, anchor), (2,), jnp.uint32)  # noqa: E731
    anchors = jnp.asarray(anchors)
    seeds = jax.vmap(seed)(anchors.reshape(-1)).reshape(*anchors.shape, 2)
    return draw_on_average(seeds, weights, k / jnp.where(size == 0, 1.0, size), ids)


def draw_on_average(
    seeds: UInt32[Array, "... 2"],
    weights: Float[Array, "... K"],
    rate: Float[Array, "..."],
    ids: Int[Array, "... K"],
    *,
    low: bool = False,
) -> Float[Array, "... K"]:
    """Counts c_j ~ Poisson(rate s_j), each a function of its row's seed, its id, its weight and its row's rate alone.

    Args:
      seeds: of each row's own draws.
      weights: s >= 0.
      rate: the mean count of a candidate of weight 1.
      ids: the candidates' indices in the whole pool, [K] or one each.
      low: all weights are 0 or 1 and no rate is above LOW_RATE, so that LOW_TERMS in one pass give the same counts.
    Returns:
      float32, NaN where the mean is not finite.
    """
    ids, one = jnp.asarray(ids).astype(jnp.uint32), weights == 1
    if low:
        few = _count_alike(_bits(seeds, jnp.uint32(0), ids), rate[..., None], LOW_TERMS)
        return jnp.where(one, few, 0).astype(jnp.float32)
    # Candidates of weight 1 have one mean a row, so that its thresholds are computed once a row.
    shared = _add_pieces(rate[..., None], one, lambda piece, mean: _count_alike(_bits(seeds, piece, ids), mean, TERMS))
    if weights.dtype == bool:
        return shared
    mean = rate[..., None] * weights
    bad = ~jnp.isfinite(mean)
    others = jnp.where(one | bad, 0.0, mean)
    own = _add_pieces(others, ~one, lambda piece, mean: _count_each(_bits(seeds, piece, ids), mean))
    return jnp.where(bad, jnp.nan, jnp.where(one, shared, own))


def _add_pieces(
    mean: Float[Array, "... #K"], where: Bool[Array, "... K"], count: Callable[[Array, Array], Array]
) -> Float[Array, "... K"]:
    """Poisson counts as sums of counts of mean RATE at most: `count` of a piece's number and mean; 0 elsewhere."""

    def more(state: tuple[Array, Array]) -> tuple[Array, Array]:
        piece, counts = state
        new = count(piece.astype(jnp.uint32), jnp.clip(mean - RATE * piece, 0.0, RATE))
        return piece + 1, counts + jnp.where(where, new, 0).astype(jnp.float32)

    unfinished = lambda state: jnp.any(mean > RATE * state[0])  # noqa: E731
    return lax.while_loop(unfinished, more, more((jnp.int32(0), jnp.float32(0.0))))[1]


def _count_alike(bits: UInt32[Array, "... K"], mean: Float[Array, "... 1"], terms: int) -> Int[Array, "... K"]:
    """Poisson counts of one mean a row."""
    # Signed whole numbers are compared faster than unsigned or real ones.
    ordered = lambda x: lax.bitcast_convert_type(x ^ jnp.uint32(2**31), jnp.int32)  # noqa: E731
    thresholds = [ordered(jnp.round(tail * 2.0**32).astype(jnp.uint32)) for tail in _tails(mean)[-terms:]]
    return functools.reduce(jnp.add, [(ordered(bits) < threshold).astype(jnp.int32) for threshold in thresholds])


def _count_each(bits: UInt32[Array, "... K"], mean: Float[Array, "... K"]) -> Int[Array, "... K"]:
    """Poisson counts of one mean each."""
    uniform = bits.astype(jnp.float32) * 2.0**-32
    return functools.reduce(jnp.add, [(uniform < tail).astype(jnp.int32) for tail in _tails(mean)])


def _tails(mean: Float[Array, "..."]) -> list[Float[Array, "..."]]:
    """P(count >= c), c = TERMS down to 1, of a Poisson: so many of them as a uniform number lies below are its count.

    They are summed from their end, so that each keeps float32's relative precision at any small mean.
    """
    terms = [jnp.exp(-mean)]
    for c in range(1, TERMS + 1):
        terms.append(terms[-1] * (mean / c))
    return list(itertools.accumulate(terms[:0:-1]))


def draw_exactly(seeds: UInt32[Array, "B 2"], weights: Float[Array, "B K"], k: int) -> Float[Array, "B K"]:
    """Counts of k draws with replacement from each row, in proportion to weight; see `multinomial_counts`.

    Poisson counts are, given their sum N, N draws with replacement, and cost one pass over the weights. So most of the
    k draws are Poisson counts, four standard deviations fewer than k in the mean, and the other k - N are drawn one by
    one. A row with N > k, one in some 20,000, is drawn one by one as a whole.
    """
    total = jnp.sum(weights, axis=1, dtype=jnp.float32)
    good = jnp.isfinite(total)
    some, rows = good & (total > 0), jnp.arange(len(weights))[:, None]
    whole = jnp.where(some, total, 1.0)
    greatest = jnp.max(weights, axis=1, initial=0).astype(jnp.float32)
    at_once = max(0.0, k - 4 * math.sqrt(k))
    few = 8 * RATE / jnp.where(some, greatest, 1.0)  # a pass for each RATE of the greatest mean: 8 at most
    rate = jnp.where(some, jnp.minimum(at_once / whole, few), 0.0)
    counts = draw_on_average(seeds, weights, rate, jnp.arange(weights.shape[1]))
    number = jnp.sum(counts, axis=1).astype(jnp.int32)
    counts = jnp.where((number > k)[:, None], 0.0, counts)
    left = jnp.where(some, k - jnp.where(number > k, 0, number), 0)

    lanes, within = _edges(jnp.where(good[:, None], weights, 0), STEPS / whole)
    slots = jnp.arange(min(k, math.ceil(8 * math.sqrt(k))), dtype=jnp.uint32)

    def more(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, left, counts = state
        place = (_bits(seeds, ONE_BY_ONE + turn, slots) >> 2).astype(jnp.int32)
        hit = place < lanes[:, -1:]  # the edges end at STEPS or little below
        hit &= jnp.cumsum(hit, axis=1) <= left[:, None]
        index = jnp.where(hit, _find(lanes, within, place), weights.shape[1])
        counts = counts.at[rows, index].add(1.0, mode="drop")
        return turn + 1, left - jnp.sum(hit, axis=1), counts

    _, _, counts = lax.while_loop(lambda state: jnp.any(state[1] > 0), more, (jnp.uint32(0), left, counts))
    return jnp.where(good[:, None], counts, jnp.nan)


def _edges(weights: Float[Array, "B K"], scale: Float[Array, " B"]) -> tuple[Int[Array, "B L"], Int[Array, "C B L"]]:
    """Sums of the scaled weights up to each lane's end, and within a lane up to each candidate; int32.

    Candidate c L + l lies in lane l. Sums along lanes add whole vectors, where sums along candidates add number by
    number.
    """
    padded = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % LANES)))
    columns = padded.reshape(len(weights), -1, LANES)

    def add(total: Array, c: Array) -> tuple[Array, Array]:
        total = total + (lax.dynamic_index_in_dim(columns, c, 1, keepdims=False) * scale[:, None]).astype(jnp.int32)
        return total, total

    start = jnp.zeros_like(columns[:, 0], jnp.int32)
    totals, within = lax.scan(add, start, jnp.arange(columns.shape[1]))
    return jnp.cumsum(totals, axis=1), within


def _find(lanes: Int[Array, "B L"], within: Int[Array, "C B L"], place: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """The candidate within whose weight each place lies."""
    last = LANES - 1
    lane = jnp.minimum(jax.vmap(lambda edges, x: jnp.searchsorted(edges, x, side="right"))(lanes, place), last)
    place = place - jnp.where(lane > 0, jnp.take_along_axis(lanes, jnp.maximum(lane - 1, 0), axis=1), 0)
    row, count = jnp.arange(len(lanes))[:, None], len(within)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) // 2
        beyond = within[middle, row, lane] <= place
        return jnp.where(beyond, middle + 1, low), jnp.where(beyond, high, middle)

    start = jnp.zeros_like(place), jnp.full_like(place, count - 1)
    return lax.fori_loop(0, (count - 1).bit_length(), halve, start)[0] * LANES + lane


def _bits(
    seeds: UInt32[Array, "... 2"], stream: UInt32[Array, ""], counters: UInt32[Array, "... K"]
) -> UInt32[Array, "... K"]:
    """32 random bits for each counter: two rounds of `_mix`, a word of the row's seed being mixed in before each.

    This is a cipher of Even and Mansour (1997) of two rounds, run over a counter; each stream of a row has words of its
    own. It takes four multiplications, where the 20 rounds of threefry cost more than the scores. One round with one
    word is not enough: all rows would have the same bits in another order.
    """
    first, second = jnp.split(_mix(seeds + GOLDEN * jnp.asarray(stream)), 2, axis=-1)
    return _mix(_mix(counters ^ first) + second)


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finaliser of MurmurHash3 (Appleby 2011), a permutation in which a bit in flips each bit out half the time."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
