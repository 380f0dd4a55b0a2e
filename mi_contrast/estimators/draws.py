"""Draws candidates with replacement. The counts of the draws serve as weights (`where`) of any estimator.

Estimators normalise by 1 + the sum of the counts. With Poisson counts that sum is k only in expectation. Values over
draws with replacement bound the mutual information only if k is small against the size of the support.
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

STEPS = 2**30  # weights are scaled to integers of this sum, so that sums are exact and weight 0 is never drawn
RATE, TERMS = 2.0, 16  # a Poisson count of mean 2 exceeds 16 with probability below 2^-34
LOW_RATE, LOW_TERMS = 1 / 3, 8  # a Poisson count of mean 1/3 exceeds 8 with probability below 2^-33
LANES = 128  # columns in which cumulative weights are computed, for the sake of vector units
SINGLE_DRAWS = np.uint32(2**31)  # first random stream of single draws; Poisson counts use streams 0, 1, ...
GOLDEN = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio, as in SplitMix (Steele et al. 2014)


@functools.partial(jax.jit, static_argnums=2)
def multinomial_counts(key: Key[Array, ""], weights: Float[Array, "... K"], k: int) -> Float[Array, "... K"]:
    """Returns how often each candidate occurs in k draws with replacement, with probabilities proportional to weights.

    The counts are c ~ Multinomial(k, s / sum s), independent for each row.

    Args:
      key: random key.
      weights: bool or weights s >= 0 [..., K], such as `rank_weights(pool, lower, upper)`.
      k: number of draws per row.
    Returns:
      f32 [..., K]. Each row sums to k, or to 0 if all its weights are 0. A row is NaN if a weight is not finite. No
      gradient. Equal weights have equal probabilities; all probabilities are exact to 2^-30.

    >>> counts = multinomial_counts(jax.random.key(0), jnp.array([[1, 0, 1, 1]]), 5)
    >>> float(counts.sum()), float(counts[0, 1])
    (5.0, 0.0)
    """
    weights = lax.stop_gradient(jnp.asarray(weights)).astype(jnp.float32)
    rows = weights.reshape(math.prod(weights.shape[:-1]), weights.shape[-1])
    return draw_multinomial(jax.random.bits(key, (len(rows), 2), jnp.uint32), rows, k).reshape(weights.shape)


def poisson_counts(
    key: Key[Array, ""],
    weights: Float[Array, "... K"],
    k: Float[Array, ""] | int,
    ids: Int[Array, "... K"],
    *,
    anchors: Int[Array, "..."] | None = None,
    size: Float[Array, "..."] | None = None,
) -> Float[Array, "... K"]:
    """Returns Poisson counts of k draws in expectation, which do not depend on how pool and anchors are sharded.

    The counts are independent, c_j ~ Poisson(k s_j / n) with n = sum s. Given their sum N, they are distributed like N
    draws with replacement. Each count depends only on the key, the index of the candidate, the index of the anchor, the
    weight and the rate.

    Args:
      key: random key.
      weights: bool or weights s >= 0 [..., K] of all candidates, or of one shard.
      k: expected number of draws per row; may be traced.
      ids: int32 [K] or [..., K], indices of the candidates in the whole pool.
      anchors: int32 [...], indices of the anchors in the whole batch; default 0, 1, ...
      size: f32 [...], n of the whole pool; default the sum of the weights.
    Returns:
      f32 [..., K]; NaN where a weight or the size is not finite. No gradient. Probabilities are exact to 2^-32 and
      float32 rounding. The time grows with the greatest mean: one pass over the counts for each 2.

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
    return draw_poisson(seeds, weights, k / jnp.where(size == 0, 1.0, size), ids)


def draw_poisson(
    seeds: UInt32[Array, "... 2"],
    weights: Float[Array, "... K"],
    rate: Float[Array, "..."],
    ids: Int[Array, "... K"],
    *,
    is_low_rate: bool = False,
) -> Float[Array, "... K"]:
    """Returns counts c_j ~ Poisson(rate s_j) that depend only on their row's seed and rate, their id and their weight.

    Args:
      seeds: two random words per row.
      weights: s >= 0, or bool.
      rate: expected count of a candidate of weight 1.
      ids: indices of the candidates in the whole pool, [K] or [..., K].
      is_low_rate: promises that all weights are 0 or 1 and no rate is above LOW_RATE. The counts are the same, computed
        in one pass with LOW_TERMS terms.
    Returns:
      float32; NaN where the mean is not finite.
    """
    ids, is_one = jnp.asarray(ids).astype(jnp.uint32), weights == 1
    if is_low_rate:
        counts = _count_with_row_mean(_bits(seeds, jnp.uint32(0), ids), rate[..., None], LOW_TERMS)
        return jnp.where(is_one, counts, 0).astype(jnp.float32)
    # Candidates of weight 1 have the same mean within a row, so their thresholds are computed once per row.
    counts_of_ones = _add_pieces(
        rate[..., None], is_one, lambda piece, mean: _count_with_row_mean(_bits(seeds, piece, ids), mean, TERMS)
    )
    if weights.dtype == bool:
        return counts_of_ones
    mean = rate[..., None] * weights
    is_bad = ~jnp.isfinite(mean)
    other_means = jnp.where(is_one | is_bad, 0.0, mean)
    other_counts = _add_pieces(
        other_means, ~is_one, lambda piece, mean: _count_with_own_mean(_bits(seeds, piece, ids), mean)
    )
    return jnp.where(is_bad, jnp.nan, jnp.where(is_one, counts_of_ones, other_counts))


def _add_pieces(
    mean: Float[Array, "... #K"], where: Bool[Array, "... K"], count: Callable[[Array, Array], Array]
) -> Float[Array, "... K"]:
    """Returns Poisson counts as sums of counts with a mean of at most RATE; 0 where `where` is False.

    `count` draws one summand: it takes the number of the piece, for its random stream, and the mean of the piece.
    """

    def add_piece(state: tuple[Array, Array]) -> tuple[Array, Array]:
        piece, counts = state
        summand = count(piece.astype(jnp.uint32), jnp.clip(mean - RATE * piece, 0.0, RATE))
        return piece + 1, counts + jnp.where(where, summand, 0).astype(jnp.float32)

    unfinished = lambda state: jnp.any(mean > RATE * state[0])  # noqa: E731
    return lax.while_loop(unfinished, add_piece, add_piece((jnp.int32(0), jnp.float32(0.0))))[1]


def _count_with_row_mean(bits: UInt32[Array, "... K"], mean: Float[Array, "... 1"], terms: int) -> Int[Array, "... K"]:
    """Returns Poisson counts with one mean per row, from random bits."""
    # Comparing signed integers is faster than comparing unsigned integers or floats.
    to_signed = lambda x: lax.bitcast_convert_type(x ^ jnp.uint32(2**31), jnp.int32)  # noqa: E731
    thresholds = [to_signed(jnp.round(tail * 2.0**32).astype(jnp.uint32)) for tail in _tails(mean)[-terms:]]
    return functools.reduce(jnp.add, [(to_signed(bits) < threshold).astype(jnp.int32) for threshold in thresholds])


def _count_with_own_mean(bits: UInt32[Array, "... K"], mean: Float[Array, "... K"]) -> Int[Array, "... K"]:
    """Returns Poisson counts with a mean for each count, from random bits."""
    uniform = bits.astype(jnp.float32) * 2.0**-32
    return functools.reduce(jnp.add, [(uniform < tail).astype(jnp.int32) for tail in _tails(mean)])


def _tails(mean: Float[Array, "..."]) -> list[Float[Array, "..."]]:
    """Returns the tail probabilities P(count >= c) of a Poisson count, for c = TERMS down to 1.

    A uniform random number is below as many of them as its count. The tails are summed from the smallest term, so that
    each keeps the relative precision of float32 for any small mean.
    """
    terms = [jnp.exp(-mean)]
    for c in range(1, TERMS + 1):
        terms.append(terms[-1] * (mean / c))
    return list(itertools.accumulate(terms[:0:-1]))


def draw_multinomial(seeds: UInt32[Array, "B 2"], weights: Float[Array, "B K"], k: int) -> Float[Array, "B K"]:
    """Returns counts of k draws with replacement per row; see `multinomial_counts`.

    Given their sum N, Poisson counts are distributed like N draws with replacement, and they take one pass over the
    weights. So most draws are Poisson counts, with an expected sum four standard deviations below k. The other k - N
    are single draws. If N > k, which happens in about one row of 20,000, the whole row is made of single draws.
    """
    total = jnp.sum(weights, axis=1, dtype=jnp.float32)
    is_finite = jnp.isfinite(total)
    nonempty, rows = is_finite & (total > 0), jnp.arange(len(weights))[:, None]
    total = jnp.where(nonempty, total, 1.0)
    max_weight = jnp.max(weights, axis=1, initial=0).astype(jnp.float32)
    num_poisson = max(0.0, k - 4 * math.sqrt(k))
    max_rate = 8 * RATE / jnp.where(nonempty, max_weight, 1.0)  # limits `_add_pieces` to 8 passes
    rate = jnp.where(nonempty, jnp.minimum(num_poisson / total, max_rate), 0.0)
    counts = draw_poisson(seeds, weights, rate, jnp.arange(weights.shape[1]))
    num_drawn = jnp.sum(counts, axis=1).astype(jnp.int32)
    counts = jnp.where((num_drawn > k)[:, None], 0.0, counts)
    num_left = jnp.where(nonempty, k - jnp.where(num_drawn > k, 0, num_drawn), 0)

    lane_sums, sums_in_lane = _cumulative_weights(jnp.where(is_finite[:, None], weights, 0), STEPS / total)
    slots = jnp.arange(min(k, math.ceil(8 * math.sqrt(k))), dtype=jnp.uint32)

    def draw_singles(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, num_left, counts = state
        position = (_bits(seeds, SINGLE_DRAWS + turn, slots) >> 2).astype(jnp.int32)
        is_hit = position < lane_sums[:, -1:]  # rounding leaves the total slightly below STEPS
        is_hit &= jnp.cumsum(is_hit, axis=1) <= num_left[:, None]
        index = jnp.where(is_hit, _find_candidate(lane_sums, sums_in_lane, position), weights.shape[1])
        counts = counts.at[rows, index].add(1.0, mode="drop")
        return turn + 1, num_left - jnp.sum(is_hit, axis=1), counts

    state = (jnp.uint32(0), num_left, counts)
    _, _, counts = lax.while_loop(lambda state: jnp.any(state[1] > 0), draw_singles, state)
    return jnp.where(is_finite[:, None], counts, jnp.nan)


def _cumulative_weights(
    weights: Float[Array, "B K"], scale: Float[Array, " B"]
) -> tuple[Int[Array, "B L"], Int[Array, "C B L"]]:
    """Returns cumulative sums of the scaled weights, int32: up to the end of each lane, and within each lane.

    Candidate c L + l is the c-th of lane l. This order lets a cumulative sum add whole vectors of L lanes.
    """
    padded = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % LANES)))
    columns = padded.reshape(len(weights), -1, LANES)

    def add(total: Array, c: Array) -> tuple[Array, Array]:
        total = total + (lax.dynamic_index_in_dim(columns, c, 1, keepdims=False) * scale[:, None]).astype(jnp.int32)
        return total, total

    start = jnp.zeros_like(columns[:, 0], jnp.int32)
    totals, sums_in_lane = lax.scan(add, start, jnp.arange(columns.shape[1]))
    return jnp.cumsum(totals, axis=1), sums_in_lane


def _find_candidate(
    lane_sums: Int[Array, "B L"], sums_in_lane: Int[Array, "C B L"], position: Int[Array, "B S"]
) -> Int[Array, "B S"]:
    """Returns the candidate at each position of the cumulative weights: first its lane, then its place by bisection."""
    last = LANES - 1
    search = lambda sums, x: jnp.searchsorted(sums, x, side="right")  # noqa: E731
    lane = jnp.minimum(jax.vmap(search)(lane_sums, position), last)
    position = position - jnp.where(lane > 0, jnp.take_along_axis(lane_sums, jnp.maximum(lane - 1, 0), axis=1), 0)
    row, length = jnp.arange(len(lane_sums))[:, None], len(sums_in_lane)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) // 2
        is_low = sums_in_lane[middle, row, lane] <= position
        return jnp.where(is_low, middle + 1, low), jnp.where(is_low, high, middle)

    bracket = jnp.zeros_like(position), jnp.full_like(position, length - 1)
    return lax.fori_loop(0, (length - 1).bit_length(), halve, bracket)[0] * LANES + lane


def _bits(
    seeds: UInt32[Array, "... 2"], stream: UInt32[Array, ""], counters: UInt32[Array, "... K"]
) -> UInt32[Array, "... K"]:
    """Returns 32 random bits for each counter, a function of the row's seed, the stream and the counter.

    The generator is a two-round cipher of Even and Mansour (1997) in counter mode: before each round of `_mix`, a word
    derived from seed and stream is added. It takes four multiplications; the 20 rounds of threefry would take longer
    than the scores themselves. One round would not be enough: all rows would have the same bits in another order.
    """
    first, second = jnp.split(_mix(seeds + GOLDEN * jnp.asarray(stream)), 2, axis=-1)
    return _mix(_mix(counters ^ first) + second)


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Returns the finaliser of MurmurHash3 (Appleby 2011), a permutation of 32-bit words that spreads every bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
