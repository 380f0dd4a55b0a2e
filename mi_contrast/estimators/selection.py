"""Selection by counting: the band of ranks [r_lower, r_upper) of every row, without sorting.

Whether a candidate is inside needs only two edges a row: scores between them weigh 1, scores equal to an edge share.
Counts of scores below a pivot are all that is asked of the scores, and counts add across blocks and devices.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.estimators.blocks import over_rows

NEGATIVE_ZERO = jnp.iinfo(jnp.int32).min
LARGEST = jnp.iinfo(jnp.int32).max
INFINITY = 0x7F800000  # the image of +inf
PIVOTS = (-1.0, 0.0, 1.0)
GROUP = 16  # rows whose scores stay in a processor's cache from one pass to the next


class Band(NamedTuple):
    """Scores f of a row weigh 1 if lower < f < upper, `lower_share` at lower, `upper_share` at upper, else 0.

    Where lower = upper both shares are the same; an empty band has lower > upper. All float32 [R, 1].
    """

    lower: Float[Array, "R 1"]
    upper: Float[Array, "R 1"]
    lower_share: Float[Array, "R 1"]
    upper_share: Float[Array, "R 1"]


class Census(NamedTuple):
    """Of the candidates of each row, int32 [R]: how many, the images of the least and the greatest score."""

    count: Int[Array, " R"]
    least: Int[Array, " R"]
    most: Int[Array, " R"]

    @property
    def unordered(self) -> Bool[Array, " R"]:
        """Whether a row holds a NaN: its image lies beyond an infinity's."""
        return (self.most > INFINITY) | (self.least < -INFINITY)


class Bracket(NamedTuple):
    """Where the edge of a rank lies, as images and counts of scores below: below_low < rank <= below_high. int32 [R, 2]."""

    low: Int[Array, "R 2"]
    high: Int[Array, "R 2"]
    below_low: Int[Array, "R 2"]
    below_high: Int[Array, "R 2"]


def weigh(scores: Float[Array, "R K"], band: Band) -> Float[Array, "R K"]:
    """Each score's weight in its row's band, in [0, 1]."""
    edge = jnp.where(scores == band.lower, band.lower_share, 0.0)
    edge = jnp.where(scores == band.upper, band.upper_share, edge)
    return jnp.where((scores > band.lower) & (scores < band.upper), 1.0, edge)


def ordered(scores: Float[Array, "..."]) -> Int[Array, "..."]:
    """An int32 image that keeps the order of float32 scores; -0 and +0 share one image."""
    bits = lax.bitcast_convert_type(scores, jnp.int32)
    bits = jnp.where(bits == NEGATIVE_ZERO, 0, bits)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def unordered(image: Int[Array, "..."]) -> Float[Array, "..."]:
    """The score of an image; inverse of `ordered`."""
    return lax.bitcast_convert_type(image ^ ((image >> 31) & 0x7FFFFFFF), jnp.float32)


def census(scores: Float[Array, "R K"]) -> Census:
    """Counts the candidates (scores other than -inf) and finds their range."""
    image = ordered(scores)
    here = scores != -jnp.inf
    operands = here.astype(jnp.int32), jnp.where(here, image, LARGEST), image
    start = jnp.int32(0), jnp.int32(LARGEST), jnp.int32(NEGATIVE_ZERO)
    combine = lambda a, b: (a[0] + b[0], jnp.minimum(a[1], b[1]), jnp.maximum(a[2], b[2]))  # noqa: E731
    return Census(*lax.reduce(operands, start, combine, (1,)))


def count_below(scores: Float[Array, "R K"], pivots: Float[Array, "R P"]) -> Int[Array, "R P"]:
    """How many scores of each row lie below each of its pivots."""
    # One pass for all pivots: int32 sums of several operands are what compilers turn into vector code here.
    operands = tuple((scores < pivots[:, i : i + 1]).astype(jnp.int32) for i in range(pivots.shape[1]))
    start = (jnp.int32(0),) * len(operands)
    return jnp.stack(lax.reduce(operands, start, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), (1,)), 1)


def select(
    scores: Float[Array, "R K"],
    lower: Int[Array, " R"],
    upper: Int[Array, " R"],
    found: Census,
    reach: Float[Array, "R 1"] | float = jnp.inf,
) -> Band:
    """The band of ranks [lower, upper) among the candidates of each row, ties at an edge sharing.

    Args:
      scores: float32 [R, K]; -inf is no candidate.
      lower, upper: int32 [R], 0 <= lower <= upper <= number of candidates.
      found: census(scores).
      reach: how far above the greatest score inside it `Band.upper` may lie, float32 [R, 1].
    Returns:
      Band, whose weights sum to upper - lower in every row, and whose upper is at least every score inside.
    """
    reach = jnp.broadcast_to(jnp.asarray(reach, jnp.float32), (len(scores), 1))
    rows = scores, lower, upper, found, reach
    in_groups = lambda *rows: over_rows(lambda group: _select(*group), rows, GROUP)  # noqa: E731
    return lax.platform_dependent(*rows, cpu=in_groups, default=_select)


def _select(
    scores: Float[Array, "R K"],
    lower: Int[Array, " R"],
    upper: Int[Array, " R"],
    found: Census,
    reach: Float[Array, "R 1"],
) -> Band:
    """Each edge is a bracket of two scores, closed in on by three pivots a pass: around the rank's place on a logistic curve
    through the bracket's ends, or, where that has not helped, at the quarters of the float32 numbers between them. It ends
    where a number has exactly `rank` scores below it, or where the ends are neighbouring float32 numbers, that is, at a tie.
    """
    size = scores.shape[1]
    removed = size - found.count[:, None]
    rank = jnp.stack([lower, upper], axis=1) + removed
    first = jnp.zeros_like(rank)
    bracket = Bracket(found.least[:, None] + first, found.most[:, None] + 1 + first, removed + first, size + first)

    def settled(bracket: Bracket) -> Array:
        outside = (rank <= removed) | (rank >= size)  # nothing or everything lies below the edge
        near = unordered(bracket.high) - unordered(bracket.low) <= reach
        return outside | ((bracket.below_high == rank) & near) | (bracket.low + 1 >= bracket.high)

    def tighten(state: tuple[Bracket, Array]) -> tuple[Bracket, Array]:
        bracket, stuck = state
        images = jnp.where(stuck[..., None], _quarters(bracket), _guesses(bracket, rank, removed, size))
        images = jnp.clip(images, bracket.low[..., None] + 1, bracket.high[..., None] - 1)
        below = count_below(scores, unordered(images).reshape(len(rank), -1)).reshape(images.shape)
        less = below < rank[..., None]
        low = jnp.max(jnp.where(less, images, bracket.low[..., None]), axis=-1)
        high = jnp.min(jnp.where(less, bracket.high[..., None], images), axis=-1)
        below_low = jnp.max(jnp.where(less, below, bracket.below_low[..., None]), axis=-1)
        below_high = jnp.min(jnp.where(less, bracket.below_high[..., None], below), axis=-1)
        slow = 4 * (below_high - below_low) > bracket.below_high - bracket.below_low
        keep = settled(bracket)
        closer = Bracket(low, high, below_low, below_high)
        return Bracket(*(jnp.where(keep, a, b) for a, b in zip(bracket, closer, strict=True))), slow & ~stuck

    bracket, _ = lax.while_loop(lambda state: ~jnp.all(settled(state[0])), tighten, (bracket, rank < 0))
    return _band(bracket, rank, removed, size, found.most)


def _quarters(bracket: Bracket) -> Int[Array, "R 2 3"]:
    """The images at the quarters of a bracket."""
    middle = lambda a, b: (a >> 1) + (b >> 1) + (a & b & 1)  # noqa: E731
    half = middle(bracket.low, bracket.high)
    return jnp.stack([middle(bracket.low, half), half, middle(half, bracket.high)], axis=-1)


def _guesses(bracket: Bracket, rank: Int[Array, "R 2"], removed: Int[Array, "R 1"], size: int) -> Int[Array, "R 2 3"]:
    """Images around where the rank should lie if the scores between the ends followed a logistic curve."""
    logit = lambda below: jnp.log((below - removed + 0.5) / (size - below + 0.5))  # noqa: E731
    low, high = logit(bracket.below_low), logit(bracket.below_high)
    place = (logit(rank - 0.5) - low) / (high - low)
    inside = (bracket.below_high - bracket.below_low).astype(jnp.float32)
    spread = jnp.minimum(1.5 * lax.rsqrt(inside), 0.25)
    spread = jnp.where(inside > 0.9 * (size - removed), 0.03, spread)
    place = jnp.clip(place[..., None] + spread[..., None] * jnp.asarray(PIVOTS), 0.0, 1.0)
    start, end = unordered(bracket.low)[..., None], unordered(bracket.high)[..., None]
    return ordered(start + (end - start) * place)


def _band(
    bracket: Bracket, rank: Int[Array, "R 2"], removed: Int[Array, "R 1"], size: int, most: Int[Array, " R"]
) -> Band:
    """Edges and shares: everything below an edge is below the rank, and `inside` of the `tied` at the edge."""
    none, whole = rank <= removed, rank >= size
    exact = bracket.below_high == rank
    edge = unordered(jnp.where(whole, most[:, None], jnp.where(exact, bracket.high, bracket.low)))
    edge = jnp.where(none, -jnp.inf, edge)
    tie = ~(none | whole | exact)
    tied = jnp.where(tie, bracket.below_high - bracket.below_low, 1)
    inside = jnp.where(tie, rank - bracket.below_low, none | whole)
    (before, upto), (below, among) = (jnp.split(x, 2, axis=1) for x in (inside, tied))
    both = (jnp.where(whole[:, 1:], below, upto) - before) / jnp.maximum(below, among)  # the edges are one score
    same = edge[:, :1] == edge[:, 1:]
    lower_share = jnp.where(same, both, (below - before) / below)
    upper_share = jnp.where(same, both, upto / among)
    empty = rank[:, :1] >= rank[:, 1:]
    return Band(
        jnp.where(empty, jnp.inf, edge[:, :1]),
        jnp.where(empty, -jnp.inf, edge[:, 1:]),
        jnp.where(empty, 0.0, lower_share),
        jnp.where(empty, 0.0, upper_share),
    )
