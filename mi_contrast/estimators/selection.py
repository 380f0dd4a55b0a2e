"""Selection by counting: the band of ranks [r_lower, r_upper) of every row, without sorting.

Whether a candidate is inside needs only two edges a row: scores between them weigh 1, scores equal to an edge share.
Counts of scores below a pivot are all that is asked of the scores, and counts add across blocks and devices.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

LEAST = jnp.iinfo(jnp.int32).min


class Band(NamedTuple):
    """Scores f of a row weigh 1 if lower < f < upper, `lower_share` at lower, `upper_share` at upper, else 0.

    Where lower = upper both shares are the same; an empty band has lower > upper. All float32 [R, 1].
    """

    lower: Float[Array, "R 1"]
    upper: Float[Array, "R 1"]
    lower_share: Float[Array, "R 1"]
    upper_share: Float[Array, "R 1"]


def weigh(scores: Float[Array, "R K"], band: Band) -> Float[Array, "R K"]:
    """Each score's weight in its row's band, in [0, 1]."""
    edge = jnp.where(scores == band.lower, band.lower_share, 0.0)
    edge = jnp.where(scores == band.upper, band.upper_share, edge)
    return jnp.where((scores > band.lower) & (scores < band.upper), 1.0, edge)


def ordered(scores: Float[Array, "..."]) -> Int[Array, "..."]:
    """An int32 image that keeps the order of float32 scores; -0 and +0 share one image."""
    bits = lax.bitcast_convert_type(scores, jnp.int32)
    bits = jnp.where(bits == LEAST, 0, bits)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def unordered(image: Int[Array, "..."]) -> Float[Array, "..."]:
    """The score of an image; inverse of `ordered`."""
    return lax.bitcast_convert_type(image ^ ((image >> 31) & 0x7FFFFFFF), jnp.float32)


def select(scores: Float[Array, "R K"], lower: Int[Array, " R"], upper: Int[Array, " R"]) -> Band:
    """The band of ranks [lower, upper) among the candidates of each row, ties at an edge sharing.

    Args:
      scores: float32 [R, K]; -inf is no candidate.
      lower, upper: int32 [R], 0 <= lower <= upper <= number of candidates.
    Returns:
      Band, whose weights sum to upper - lower in every row.
    """
    image = ordered(scores)
    removed = jnp.sum(scores == -jnp.inf, axis=1, dtype=jnp.int32)
    first, last = lower + removed, upper + removed

    def order_statistic(index: Int[Array, " R"]) -> Int[Array, " R"]:
        def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket  # low <= the statistic's image <= high
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            above = jnp.sum(image <= middle[:, None], axis=1, dtype=jnp.int32) <= index
            return jnp.where(above, middle + 1, low), jnp.where(above, high, middle)

        return lax.fori_loop(0, 32, halve, (jnp.min(image, axis=1), jnp.max(image, axis=1)))[0]

    def counts(edge: Int[Array, " R"]) -> tuple[Int[Array, " R"], Int[Array, " R"]]:
        below = jnp.sum(image < edge[:, None], axis=1, dtype=jnp.int32)
        return below, jnp.sum(image <= edge[:, None], axis=1, dtype=jnp.int32)

    low, high = order_statistic(first), order_statistic(last - 1)
    (low_below, low_end), (high_below, high_end) = counts(low), counts(high)
    lower_share = (jnp.minimum(low_end, last) - first) / (low_end - low_below)
    upper_share = (last - jnp.maximum(high_below, first)) / (high_end - high_below)
    empty = first >= last
    return Band(
        jnp.where(empty, jnp.inf, unordered(low))[:, None],
        jnp.where(empty, -jnp.inf, unordered(high))[:, None],
        jnp.where(empty, 0.0, lower_share)[:, None],
        jnp.where(empty, 0.0, upper_share)[:, None],
    )
