"""Selects the candidates of ranks [lower, upper) in every row of scores, by counting and without sorting.

A band of ranks is described by two edge scores per row. Scores between the edges weigh 1, scores equal to an edge share
the places that are left, all others weigh 0. Finding an edge takes only counts of scores below trial values (pivots).
Such counts add up across blocks and devices, which sorting does not.

The search bisects int32 *codes*: integers that sort as the float32 scores do. Neighbouring codes are neighbouring
float32 numbers, so the search is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.estimators.blocks import map_blocks
from mi_contrast.estimators.shards import Axis, count_devices, max_over_devices, min_over_devices, sum_over_devices

MIN_INT32, MAX_INT32 = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max
INFINITY_CODE = 0x7F800000  # the code of +inf; that of -inf is -INFINITY_CODE - 1
CPU_BLOCK_SIZE = 16  # rows whose scores stay in a CPU's cache from one pass to the next
FIRST_SPREAD = 0.03  # half-width of the first three pivots, as a share of the scores' range


class ScoreRange(NamedTuple):
    """Number and range of the candidates of each row.

    Attributes:
      size: number of candidates (scores other than -inf), int32 [R].
      lowest, highest: codes of the lowest and highest score, int32 [R].
    """

    size: Int[Array, " R"]
    lowest: Int[Array, " R"]
    highest: Int[Array, " R"]

    @property
    def has_nan(self) -> Bool[Array, " R"]:
        """Whether a row contains a NaN. The code of a NaN lies beyond those of the infinities."""
        return (self.highest > INFINITY_CODE) | (self.lowest < -INFINITY_CODE - 1)


class Band(NamedTuple):
    """Edges of a band of scores and the weights of scores at the edges. All float32 [R, 1].

    A score f weighs 1 if lower < f < upper, `lower_share` if f = lower, `upper_share` if f = upper, and 0 otherwise.
    If lower = upper, both shares are equal. An empty band has lower > upper.
    """

    lower: Float[Array, "R 1"]
    upper: Float[Array, "R 1"]
    lower_share: Float[Array, "R 1"]
    upper_share: Float[Array, "R 1"]


class Request(NamedTuple):
    """The arguments of `select_band` beside the scores, one for each row."""

    lower: Int[Array, " R"]
    upper: Int[Array, " R"]
    score_range: ScoreRange
    reach: Float[Array, "R 1"]


class Ranks(NamedTuple):
    """The numbers of scores that must lie below the two edges of each row.

    Attributes:
      below: number of scores below the lower and the upper edge, including removed ones, int32 [R, 2].
      removed: number of scores that are -inf, int32 [R, 1].
      num_scores: number of scores in a row over all devices.
    """

    below: Int[Array, "R 2"]
    removed: Int[Array, "R 1"]
    num_scores: int


class Bracket(NamedTuple):
    """An interval of codes around each edge, and the numbers of scores below its ends. All int32 [R, 2].

    Invariant: below_low < rank <= below_high.
    """

    low: Int[Array, "R 2"]
    high: Int[Array, "R 2"]
    below_low: Int[Array, "R 2"]
    below_high: Int[Array, "R 2"]


def encode_scores(scores: Float[Array, "..."]) -> Int[Array, "..."]:
    """Returns int32 codes that sort as the float32 scores do. -0 and +0 have the same code."""
    bits = lax.bitcast_convert_type(scores, jnp.int32)
    bits = jnp.where(bits == MIN_INT32, 0, bits)
    return bits ^ ((bits >> 31) & MAX_INT32)


def decode_scores(codes: Int[Array, "..."]) -> Float[Array, "..."]:
    """Returns the float32 scores of codes: the inverse of `encode_scores`."""
    return lax.bitcast_convert_type(codes ^ ((codes >> 31) & MAX_INT32), jnp.float32)


def summarise_scores(scores: Float[Array, "R K"], axis: Axis = None) -> ScoreRange:
    """Returns number and range of the candidates of each row, over all devices of `axis`."""
    codes, valid = encode_scores(scores), scores != -jnp.inf
    start = jnp.int32(0), jnp.int32(MAX_INT32), jnp.int32(-INFINITY_CODE - 1)
    combine = lambda a, b: (a[0] + b[0], jnp.minimum(a[1], b[1]), jnp.maximum(a[2], b[2]))  # noqa: E731
    operands = valid.astype(jnp.int32), jnp.where(valid, codes, MAX_INT32), codes
    size, lowest, highest = lax.reduce(operands, start, combine, (1,))
    return ScoreRange(sum_over_devices(size, axis), min_over_devices(lowest, axis), max_over_devices(highest, axis))


def count_below(scores: Float[Array, "R K"], pivots: Float[Array, "R P"]) -> Int[Array, "R P"]:
    """Returns how many scores of each row lie below each of the row's pivots, in one pass over the scores."""
    # XLA fuses several int32 sums in one reduction into one vectorised loop; it would materialise float32 terms first.
    operands = tuple((scores < pivots[:, i : i + 1]).astype(jnp.int32) for i in range(pivots.shape[1]))
    add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))  # noqa: E731
    return jnp.stack(lax.reduce(operands, (jnp.int32(0),) * len(operands), add, (1,)), axis=1)


def weigh(scores: Float[Array, "R K"], band: Band) -> Float[Array, "R K"]:
    """Returns the weight of each score in its row's band, in [0, 1]."""
    edge = jnp.where(scores == band.lower, band.lower_share, 0.0)
    edge = jnp.where(scores == band.upper, band.upper_share, edge)
    return jnp.where((scores > band.lower) & (scores < band.upper), 1.0, edge)


@functools.partial(jax.jit, static_argnames="axis")
def select_band(
    scores: Float[Array, "R K"],
    lower: Int[Array, " R"],
    upper: Int[Array, " R"],
    score_range: ScoreRange,
    reach: Float[Array, "R 1"] | float = jnp.inf,
    *,
    axis: Axis = None,
) -> Band:
    """Returns the band of ranks [lower, upper) among the candidates of each row. Ties at an edge share its weight.

    Args:
      scores: float32 [R, K]; -inf is no candidate. With `axis`, this device's columns of the same rows.
      lower, upper: int32 [R], 0 <= lower <= upper <= number of candidates.
      score_range: summarise_scores(scores, axis).
      reach: how far `Band.upper` may lie above the highest score inside the band, float32 [R, 1] or one for all.
      axis: the mesh axis over which the columns are sharded. Only counts are communicated.
    Returns:
      Band. Its weights sum to upper - lower in every row, and `Band.upper` is at least every score inside.
    """
    reach = jnp.broadcast_to(jnp.asarray(reach, jnp.float32), (len(scores), 1))
    rows = scores, Request(lower, upper, score_range, reach)
    in_blocks = lambda f: lambda *x: map_blocks(lambda block: f(*block), x, CPU_BLOCK_SIZE)  # noqa: E731
    if axis is None:
        # On CPU the whole search of a block of rows runs before the next block, while its scores are in the cache.
        search = functools.partial(_search_edges, count_below)
        return lax.platform_dependent(*rows, cpu=in_blocks(search), default=search)

    def count(scores: Array, pivots: Array) -> Array:
        counts = lax.platform_dependent(scores, pivots, cpu=in_blocks(count_below), default=count_below)
        return sum_over_devices(counts, axis)

    return _search_edges(count, *rows, count_devices(axis))


def _search_edges(
    count: Callable[[Array, Array], Array], scores: Array, request: Request, num_devices: int = 1
) -> Band:
    """Narrows a bracket around each edge, with three pivots per pass over the scores, until `_is_done`.

    Pivots are first placed where interpolation expects the edge (`_interpolate_pivots`). After a pass that left more
    than a quarter of the scores in the bracket, they quarter the codes of the bracket instead. Together this takes at
    most 2 * 17 + log4(K) passes.
    """
    num_scores, score_range = scores.shape[1] * num_devices, request.score_range
    removed = num_scores - score_range.size[:, None]
    ranks = Ranks(jnp.stack([request.lower, request.upper], axis=1) + removed, removed, num_scores)
    zeros = jnp.zeros_like(ranks.below)
    bracket = Bracket(
        score_range.lowest[:, None] + zeros,
        score_range.highest[:, None] + 1 + zeros,
        removed + zeros,
        num_scores + zeros,
    )

    def narrow(state: tuple[Bracket, Array]) -> tuple[Bracket, Array]:
        bracket, slow = state
        pivots = jnp.where(slow[..., None], _quarter_pivots(bracket), _interpolate_pivots(bracket, ranks))
        pivots = jnp.clip(pivots, bracket.low[..., None] + 1, bracket.high[..., None] - 1)
        counts = count(scores, decode_scores(pivots).reshape(len(scores), 2 * 3)).reshape(pivots.shape)
        is_low = counts < ranks.below[..., None]
        narrower = Bracket(
            jnp.max(jnp.where(is_low, pivots, bracket.low[..., None]), axis=-1),
            jnp.min(jnp.where(is_low, bracket.high[..., None], pivots), axis=-1),
            jnp.max(jnp.where(is_low, counts, bracket.below_low[..., None]), axis=-1),
            jnp.min(jnp.where(is_low, bracket.below_high[..., None], counts), axis=-1),
        )
        is_slow = 4 * (narrower.below_high - narrower.below_low) > bracket.below_high - bracket.below_low
        done = _is_done(bracket, ranks, request.reach)
        return Bracket(*(jnp.where(done, a, b) for a, b in zip(bracket, narrower, strict=True))), is_slow & ~slow

    unfinished = lambda state: ~jnp.all(_is_done(state[0], ranks, request.reach))  # noqa: E731
    bracket, _ = lax.while_loop(unfinished, narrow, (bracket, zeros != 0))
    return _make_band(bracket, ranks, score_range.highest)


def _is_done(bracket: Bracket, ranks: Ranks, reach: Float[Array, "R 1"]) -> Bool[Array, "R 2"]:
    """Whether the bracket's high end separates the right number of scores, or its low end holds tied scores."""
    is_trivial = (ranks.below <= ranks.removed) | (ranks.below >= ranks.num_scores)  # no or every candidate is below
    is_near = decode_scores(bracket.high) - decode_scores(bracket.low) <= reach
    return is_trivial | ((bracket.below_high == ranks.below) & is_near) | (bracket.low + 1 >= bracket.high)


def _quarter_pivots(bracket: Bracket) -> Int[Array, "R 2 3"]:
    """Returns the three codes that divide a bracket into quarters."""
    midpoint = lambda a, b: (a >> 1) + (b >> 1) + (a & b & 1)  # noqa: E731
    middle = midpoint(bracket.low, bracket.high)
    return jnp.stack([midpoint(bracket.low, middle), middle, midpoint(middle, bracket.high)], axis=-1)


def _interpolate_pivots(bracket: Bracket, ranks: Ranks) -> Int[Array, "R 2 3"]:
    """Returns three codes around the expected edge, which may lie outside of the bracket.

    The expectation is that counts follow a logistic curve through both ends of the bracket.
    """
    to_float = lambda count: count.astype(jnp.float32)  # noqa: E731
    removed, num_scores = to_float(ranks.removed), float(ranks.num_scores)
    logit = lambda below: jnp.log((below - removed + 0.5) / (num_scores - below + 0.5))  # noqa: E731
    low, high = logit(to_float(bracket.below_low)), logit(to_float(bracket.below_high))
    position = (logit(to_float(ranks.below) - 0.5) - low) / (high - low)
    num_inside = to_float(bracket.below_high - bracket.below_low)
    spread = jnp.minimum(1.5 * lax.rsqrt(num_inside), 0.25)
    spread = jnp.where(num_inside > 0.9 * (num_scores - removed), FIRST_SPREAD, spread)
    positions = position[..., None] + spread[..., None] * jnp.array([-1.0, 0.0, 1.0], jnp.float32)
    positions = jnp.clip(positions, 0.0, 1.0)
    start, end = decode_scores(bracket.low)[..., None], decode_scores(bracket.high)[..., None]
    return encode_scores(start + (end - start) * positions)


def _make_band(bracket: Bracket, ranks: Ranks, highest: Int[Array, " R"]) -> Band:
    """Returns edges and shares. Of `num_tied` scores at an edge, `num_below` have a rank below that of the edge."""
    nothing, everything = ranks.below <= ranks.removed, ranks.below >= ranks.num_scores
    exact = bracket.below_high == ranks.below
    tied = ~(nothing | everything | exact)
    edge = decode_scores(jnp.where(everything, highest[:, None], jnp.where(exact, bracket.high, bracket.low)))
    edge = jnp.where(nothing, -jnp.inf, edge)
    num_tied = jnp.where(tied, bracket.below_high - bracket.below_low, 1)
    num_below = jnp.where(tied, ranks.below - bracket.below_low, nothing | everything)
    (lower_below, upper_below), (lower_tied, upper_tied) = (jnp.split(x, 2, axis=1) for x in (num_below, num_tied))
    divide = lambda part, whole: part.astype(jnp.float32) / whole.astype(jnp.float32)  # noqa: E731
    common_share = divide(
        jnp.where(everything[:, 1:], lower_tied, upper_below) - lower_below, jnp.maximum(lower_tied, upper_tied)
    )
    is_common = edge[:, :1] == edge[:, 1:]  # both edges are the same score
    empty = ranks.below[:, :1] >= ranks.below[:, 1:]
    lower = jnp.where(empty, jnp.inf, edge[:, :1])
    upper = jnp.where(empty, -jnp.inf, edge[:, 1:])
    lower_share = jnp.where(is_common, common_share, divide(lower_tied - lower_below, lower_tied))
    lower_share = jnp.where(empty, 0.0, lower_share)
    upper_share = jnp.where(is_common, common_share, divide(upper_below, upper_tied))
    upper_share = jnp.where(empty, 0.0, upper_share)
    return Band(lower, upper, lower_share, upper_share)
