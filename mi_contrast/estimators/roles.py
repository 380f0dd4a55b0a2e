"""Who is a candidate of an anchor and who a further positive: weights of a block of scores, from bands of ranks."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from mi_contrast.estimators.draws import LOW_RATE, draw_exactly, draw_on_average
from mi_contrast.estimators.inputs import Pool, Rows
from mi_contrast.estimators.percentiles import rank
from mi_contrast.estimators.selection import Band, Census, select, unordered, weigh
from mi_contrast.estimators.shards import Axis, first_row, total
from mi_contrast.estimators.supports import Cave, Close, Drawn, ranks

REACH = 40.0  # nats from the reference score within which masses are summed at full float32 precision


class Roles(NamedTuple):
    """What tells an anchor's candidates from the rest.

    among: the band that holds them, None where every valid one counts. above: the band of further positives of `Cave`.
    size: how many are among. highest: the greatest score among them, or little more; 0 where there is none. All [B, 1].
    """

    among: Band | None
    above: Band | None
    size: Float[Array, "B 1"]
    highest: Float[Array, "B 1"]


class Weights(NamedTuple):
    """Weights >= 0 of a block of scores: candidates (None = every score that is not -inf), and further positives."""

    candidates: Float[Array, "B K"] | None
    positives: Float[Array, "B K"] | None


def assign(scores: Float[Array, "B K"], rows: Rows, found: Census, axis: Axis) -> Roles:
    """Finds the bands of the rows' support among the candidates that `found` has counted."""
    among, above, size, highest = None, None, found.size, unordered(found.most)[:, None]
    inside = ranks(rows.support, found.size)
    if inside is not None:
        lower, upper = inside
        among = select(scores, lower, upper, found, REACH * rows.temperature[:, None], axis=axis)
        size, highest = upper - lower, among.upper
    if isinstance(rows.support, Cave):
        start = jnp.maximum(lower, rank(jnp.asarray(rows.support.upper), found.size))
        above = select(scores, start, upper, found, axis=axis)
    return Roles(among, above, size.astype(jnp.float32)[:, None], jnp.where(jnp.isfinite(highest), highest, 0.0))


def weights(scores: Float[Array, "B K"], rows: Rows, pool: Pool, roles: Roles, axis: Axis) -> Weights:
    """Each score's weight as a candidate and as a further positive."""
    if isinstance(rows.support, Drawn):
        return Weights(_draw(scores, rows, pool, roles, axis), None)
    candidates = None if roles.among is None else weigh(scores, roles.among)
    if roles.above is not None:
        return Weights(candidates, weigh(scores, roles.above))
    if not isinstance(rows.support, Close):
        return Weights(candidates, None)
    here = (scores != -jnp.inf).astype(jnp.float32) if candidates is None else candidates
    return Weights(candidates, jnp.where(share_a_label(rows, pool), here, 0.0))


def _draw(scores: Float[Array, "B K"], rows: Rows, pool: Pool, roles: Roles, axis: Axis) -> Float[Array, "B K"]:
    """How often each candidate is drawn: exactly k draws a row where the pool is whole, else k in the mean."""
    k, seeds, band = rows.support.k, rows.seeds, roles.among
    assert seeds is not None
    size = jnp.where(roles.size == 0, 1.0, roles.size)[:, 0]
    ids = first_row(len(pool.rows), axis) + jnp.arange(len(pool.rows))

    def draw(weights: Array, low: bool = False) -> Float[Array, "B K"]:
        if axis is None:
            return draw_exactly(seeds, weights, k)
        return draw_on_average(seeds, weights, k / size, ids, low=low)

    inside = lambda: scores != -jnp.inf if band is None else weigh(scores, band) == 1  # noqa: E731
    ways, way = [lambda: draw(inside())], jnp.int32(0)
    if axis is not None:
        ways.append(lambda: draw(inside(), low=True))
        way = jnp.where(jnp.all(k / size <= LOW_RATE), 1, way)
    if band is not None:
        # Weights other than 0 and 1 occur where scores at an edge are tied. They cost three times as much.
        ways.append(lambda: draw(weigh(scores, band)))
        shares = jnp.concatenate([band.lower_share, band.upper_share], axis=1)
        way = jnp.where(jnp.all((shares == 0) | (shares == 1)), way, len(ways) - 1)
    return lax.switch(way, ways)


def share_a_label(rows: Rows, pool: Pool) -> Bool[Array, "B K"]:
    """Whether anchor and candidate have a label in common, in any column; -1 is unknown and matches nothing."""
    assert rows.labels is not None and pool.labels is not None
    columns = zip(jnp.moveaxis(rows.labels, 1, 0), jnp.moveaxis(pool.labels, 1, 0), strict=True)
    same = [(own[:, None] == theirs) & (own[:, None] >= 0) for own, theirs in columns]
    return jnp.stack(same).any(axis=0)


def size_of(weight: Array | None, axis: Axis) -> Float[Array, "B 1"]:
    """The sum of weights of each row, over devices."""
    assert weight is not None
    return total(jnp.sum(weight, axis=1, keepdims=True), axis)
