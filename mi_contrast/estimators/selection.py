"""Selection by counting: the band of ranks [lower, upper) of every row, without sorting.

Whether a candidate is inside needs only two edges a row: scores between them weigh 1, scores equal to an edge share.
Counts of scores below a pivot are all that is asked of the scores, and counts add across blocks and devices.

An *image* is an int32 that orders as the float32 it stands for, so that halving between images halves float32 numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.estimators.blocks import over_rows
from mi_contrast.estimators.shards import Axis, devices, greatest, least, total

SMALLEST, LARGEST = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max
INFINITY = 0x7F800000  # the image of +inf; that of -inf is -INFINITY - 1
GROUP = 16  # rows whose scores stay in a processor's cache from one pass to the next
FIRST_SPREAD = 0.03  # half-width of the first three pivots, as a share of the scores' range


class Census(NamedTuple):
    """Of the candidates of each row, int32 [R]: how many, the images of the least and the greatest score."""

    size: Int[Array, " R"]
    least: Int[Array, " R"]
    most: Int[Array, " R"]

    @property
    def has_nan(self) -> Bool[Array, " R"]:
        """Whether a row holds a NaN: its image lies beyond an infinity's."""
        return (self.most > INFINITY) | (self.least < -INFINITY - 1)


class Band(NamedTuple):
    """Scores f of a row weigh 1 if lower < f < upper, `lower_share` at lower, `upper_share` at upper, else 0.

    Where lower = upper both shares are the same; an empty band has lower > upper. All float32 [R, 1].
    """

    lower: Float[Array, "R 1"]
    upper: Float[Array, "R 1"]
    lower_share: Float[Array, "R 1"]
    upper_share: Float[Array, "R 1"]


class Goal(NamedTuple):
    """What is asked for in each row: ranks int32 [R], the row's census, and the reach of `select`."""

    lower: Int[Array, " R"]
    upper: Int[Array, " R"]
    found: Census
    reach: Float[Array, "R 1"]


class Ranks(NamedTuple):
    """What is sought in each row: the number of scores below either edge, int32 [R, 2], among `total` scores of which
    the `removed` [R, 1] lowest are -inf.
    """

    below: Int[Array, "R 2"]
    removed: Int[Array, "R 1"]
    total: int


class Bracket(NamedTuple):
    """Where each edge lies: images, and counts of scores below them, below_low < rank <= below_high. int32 [R, 2]."""

    low: Int[Array, "R 2"]
    high: Int[Array, "R 2"]
    below_low: Int[Array, "R 2"]
    below_high: Int[Array, "R 2"]


def ordered(scores: Float[Array, "..."]) -> Int[Array, "..."]:
    """The image of float32 scores; -0 and +0 share one."""
    bits = lax.bitcast_convert_type(scores, jnp.int32)
    bits = jnp.where(bits == SMALLEST, 0, bits)
    return bits ^ ((bits >> 31) & LARGEST)


def unordered(image: Int[Array, "..."]) -> Float[Array, "..."]:
    """The score of an image."""
    return lax.bitcast_convert_type(image ^ ((image >> 31) & LARGEST), jnp.float32)


def census(scores: Float[Array, "R K"], axis: Axis = None) -> Census:
    """Counts the candidates (scores other than -inf) and finds their range, over the devices of `axis`."""
    image, here = ordered(scores), scores != -jnp.inf
    start = jnp.int32(0), jnp.int32(LARGEST), jnp.int32(-INFINITY - 1)
    combine = lambda a, b: (a[0] + b[0], jnp.minimum(a[1], b[1]), jnp.maximum(a[2], b[2]))  # noqa: E731
    size, low, high = lax.reduce((here.astype(jnp.int32), jnp.where(here, image, LARGEST), image), start, combine, (1,))
    return Census(total(size, axis), least(low, axis), greatest(high, axis))


def count_below(scores: Float[Array, "R K"], pivots: Float[Array, "R P"]) -> Int[Array, "R P"]:
    """How many scores of each row lie below each of its pivots, in one pass."""
    # Several int32 sums in one reduction become one loop of vector code; a float32 sum would first write its terms out.
    operands = tuple((scores < pivots[:, i : i + 1]).astype(jnp.int32) for i in range(pivots.shape[1]))
    add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))  # noqa: E731
    return jnp.stack(lax.reduce(operands, (jnp.int32(0),) * len(operands), add, (1,)), axis=1)


def weigh(scores: Float[Array, "R K"], band: Band) -> Float[Array, "R K"]:
    """Each score's weight in its row's band, in [0, 1]."""
    edge = jnp.where(scores == band.lower, band.lower_share, 0.0)
    edge = jnp.where(scores == band.upper, band.upper_share, edge)
    return jnp.where((scores > band.lower) & (scores < band.upper), 1.0, edge)


@functools.partial(jax.jit, static_argnames="axis")
def select(
    scores: Float[Array, "R K"],
    lower: Int[Array, " R"],
    upper: Int[Array, " R"],
    found: Census,
    reach: Float[Array, "R 1"] | float = jnp.inf,
    *,
    axis: Axis = None,
) -> Band:
    """The band of ranks [lower, upper) among the candidates of each row, ties at an edge sharing.

    Args:
      scores: float32 [R, K]; -inf is no candidate. With `axis`, this device's columns of the same rows.
      lower, upper: int32 [R], 0 <= lower <= upper <= number of candidates.
      found: census(scores, axis).
      reach: how far above the greatest score inside it `Band.upper` may lie, float32 [R, 1].
      axis: the mesh axis over which the columns are cut; only counts cross it.
    Returns:
      Band, whose weights sum to upper - lower in every row, and whose upper is at least every score inside.
    """
    reach = jnp.broadcast_to(jnp.asarray(reach, jnp.float32), (len(scores), 1))
    rows = scores, Goal(lower, upper, found, reach)
    in_groups = lambda f: lambda *x: over_rows(lambda group: f(*group), x, GROUP)  # noqa: E731
    if axis is None:  # a group of rows is settled before the next is looked at
        alone = functools.partial(_close_in, count_below)
        return lax.platform_dependent(*rows, cpu=in_groups(alone), default=alone)

    def count(scores: Array, pivots: Array) -> Array:
        return total(lax.platform_dependent(scores, pivots, cpu=in_groups(count_below), default=count_below), axis)

    return _close_in(count, *rows, devices(axis))


def _close_in(count: Callable[[Array, Array], Array], scores: Array, goal: Goal, devices: int = 1) -> Band:
    """Closes in on each edge by three pivots a pass, until a number has as many scores below it as the rank says, or
    the bracket's ends are neighbouring float32 numbers: the scores at its low end are tied.

    Pivots lie around the rank's place on a logistic curve through the bracket's ends or, after a pass that kept more
    than a quarter of the scores, at the quarters of the float32 numbers between. 2 * 17 + log4(K) passes always do.
    """
    total, found, reach = scores.shape[1] * devices, goal.found, goal.reach
    removed = total - found.size[:, None]
    ranks = Ranks(jnp.stack([goal.lower, goal.upper], axis=1) + removed, removed, total)
    both = jnp.zeros_like(ranks.below)
    bracket = Bracket(found.least[:, None] + both, found.most[:, None] + 1 + both, removed + both, total + both)

    def tighten(state: tuple[Bracket, Array]) -> tuple[Bracket, Array]:
        bracket, stuck = state
        images = jnp.where(stuck[..., None], _quarters(bracket), _guesses(bracket, ranks))
        images = jnp.clip(images, bracket.low[..., None] + 1, bracket.high[..., None] - 1)
        counts = count(scores, unordered(images).reshape(len(scores), 2 * 3)).reshape(images.shape)
        less = counts < ranks.below[..., None]
        closer = Bracket(
            jnp.max(jnp.where(less, images, bracket.low[..., None]), axis=-1),
            jnp.min(jnp.where(less, bracket.high[..., None], images), axis=-1),
            jnp.max(jnp.where(less, counts, bracket.below_low[..., None]), axis=-1),
            jnp.min(jnp.where(less, bracket.below_high[..., None], counts), axis=-1),
        )
        slow = 4 * (closer.below_high - closer.below_low) > bracket.below_high - bracket.below_low
        keep = _settled(bracket, ranks, reach)
        return Bracket(*(jnp.where(keep, a, b) for a, b in zip(bracket, closer, strict=True))), slow & ~stuck

    unsettled = lambda state: ~jnp.all(_settled(state[0], ranks, reach))  # noqa: E731
    bracket, _ = lax.while_loop(unsettled, tighten, (bracket, both != 0))
    return _band(bracket, ranks, found.most)


def _settled(bracket: Bracket, ranks: Ranks, reach: Float[Array, "R 1"]) -> Bool[Array, "R 2"]:
    outside = (ranks.below <= ranks.removed) | (ranks.below >= ranks.total)  # nothing or everything is below the edge
    near = unordered(bracket.high) - unordered(bracket.low) <= reach
    return outside | ((bracket.below_high == ranks.below) & near) | (bracket.low + 1 >= bracket.high)


def _quarters(bracket: Bracket) -> Int[Array, "R 2 3"]:
    """The images at the quarters of a bracket."""
    middle = lambda a, b: (a >> 1) + (b >> 1) + (a & b & 1)  # noqa: E731
    half = middle(bracket.low, bracket.high)
    return jnp.stack([middle(bracket.low, half), half, middle(half, bracket.high)], axis=-1)


def _guesses(bracket: Bracket, ranks: Ranks) -> Int[Array, "R 2 3"]:
    """Images around where the rank lies if counts follow a logistic curve between the ends; the caller clips them."""
    real = lambda count: count.astype(jnp.float32)  # noqa: E731
    removed, total = real(ranks.removed), float(ranks.total)
    logit = lambda below: jnp.log((below - removed + 0.5) / (total - below + 0.5))  # noqa: E731
    low, high = logit(real(bracket.below_low)), logit(real(bracket.below_high))
    place = (logit(real(ranks.below) - 0.5) - low) / (high - low)
    between = real(bracket.below_high - bracket.below_low)
    spread = jnp.minimum(1.5 * lax.rsqrt(between), 0.25)
    spread = jnp.where(between > 0.9 * (total - removed), FIRST_SPREAD, spread)
    places = jnp.clip(place[..., None] + spread[..., None] * jnp.array([-1.0, 0.0, 1.0], jnp.float32), 0.0, 1.0)
    start, end = unordered(bracket.low)[..., None], unordered(bracket.high)[..., None]
    return ordered(start + (end - start) * places)


def _band(bracket: Bracket, ranks: Ranks, most: Int[Array, " R"]) -> Band:
    """Edges and shares: all scores below an edge are below the rank, and so are `inside` of the `tied` at the edge."""
    nothing, everything = ranks.below <= ranks.removed, ranks.below >= ranks.total
    exact = bracket.below_high == ranks.below
    tie = ~(nothing | everything | exact)
    edge = unordered(jnp.where(everything, most[:, None], jnp.where(exact, bracket.high, bracket.low)))
    edge = jnp.where(nothing, -jnp.inf, edge)
    tied = jnp.where(tie, bracket.below_high - bracket.below_low, 1)
    inside = jnp.where(tie, ranks.below - bracket.below_low, nothing | everything)
    (before, upto), (below, among) = (jnp.split(x, 2, axis=1) for x in (inside, tied))
    share = lambda part, whole: part.astype(jnp.float32) / whole.astype(jnp.float32)  # noqa: E731
    both = share(
        jnp.where(everything[:, 1:], below, upto) - before, jnp.maximum(below, among)
    )  # the edges are one score
    same = edge[:, :1] == edge[:, 1:]
    empty = ranks.below[:, :1] >= ranks.below[:, 1:]
    return Band(
        jnp.where(empty, jnp.inf, edge[:, :1]),
        jnp.where(empty, -jnp.inf, edge[:, 1:]),
        jnp.where(empty, 0.0, jnp.where(same, both, share(below - before, below))),
        jnp.where(empty, 0.0, jnp.where(same, both, share(upto, among))),
    )
