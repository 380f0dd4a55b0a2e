"""Weights of candidates as negatives and as further positives, for a block of anchors and the whole pool."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from mi_contrast.estimators.draws import LOW_RATE, draw_multinomial, draw_poisson
from mi_contrast.estimators.inputs import AnchorInputs, PoolInputs
from mi_contrast.estimators.percentiles import rank
from mi_contrast.estimators.selection import Band, ScoreRange, decode_scores, select_band, weigh
from mi_contrast.estimators.shards import Axis, first_row_index, sum_over_devices
from mi_contrast.estimators.supports import Cave, Close, Drawn, ranks

REACH = 40.0  # nats below the reference score within which sums of exponentials keep full float32 precision


class Bands(NamedTuple):
    """The bands of similarities that a support selects for each anchor.

    Attributes:
      candidates: band of the candidates in the support, or None if the support holds every valid candidate.
      positives: band of the further positives of `Cave`, or None for other supports.
      size: number of candidates in the support, float32 [B, 1].
      highest: an upper bound of the similarities in the support that is close to the highest of them, float32 [B, 1];
        0 for an empty support.
    """

    candidates: Band | None
    positives: Band | None
    size: Float[Array, "B 1"]
    highest: Float[Array, "B 1"]


class Weights(NamedTuple):
    """Weights >= 0 of a block of similarities.

    Attributes:
      candidates: float32 [B, K], or None for a weight of 1 for every similarity that is not -inf.
      positives: weights of further positives, float32 [B, K], or None if there are none.
    """

    candidates: Float[Array, "B K"] | None
    positives: Float[Array, "B K"] | None


def find_bands(similarities: Float[Array, "B K"], anchors: AnchorInputs, score_range: ScoreRange, axis: Axis) -> Bands:
    """Returns the bands of the anchors' support. `score_range` is that of the similarities, over all devices."""
    candidates, positives, size, highest = None, None, score_range.size, decode_scores(score_range.highest)[:, None]
    support_ranks = ranks(anchors.support, score_range.size)
    if support_ranks is not None:
        lower, upper = support_ranks
        reach = REACH * anchors.temperature[:, None]
        candidates = select_band(similarities, lower, upper, score_range, reach, axis=axis)
        size, highest = upper - lower, candidates.upper
    if isinstance(anchors.support, Cave):
        start = jnp.maximum(lower, rank(jnp.asarray(anchors.support.upper), score_range.size))
        positives = select_band(similarities, start, upper, score_range, axis=axis)
    size = size.astype(jnp.float32)[:, None]
    return Bands(candidates, positives, size, jnp.where(jnp.isfinite(highest), highest, 0.0))


def compute_weights(
    similarities: Float[Array, "B K"], anchors: AnchorInputs, pool: PoolInputs, bands: Bands, axis: Axis
) -> Weights:
    """Returns the weight of each similarity as a candidate and as a further positive."""
    if isinstance(anchors.support, Drawn):
        return Weights(_draw_candidates(similarities, anchors, pool, bands, axis), None)
    candidates = None if bands.candidates is None else weigh(similarities, bands.candidates)
    if bands.positives is not None:
        return Weights(candidates, weigh(similarities, bands.positives))
    if not isinstance(anchors.support, Close):
        return Weights(candidates, None)
    valid = (similarities != -jnp.inf).astype(jnp.float32) if candidates is None else candidates
    return Weights(candidates, jnp.where(match_labels(anchors, pool), valid, 0.0))


def _draw_candidates(
    similarities: Float[Array, "B K"], anchors: AnchorInputs, pool: PoolInputs, bands: Bands, axis: Axis
) -> Float[Array, "B K"]:
    """Returns how often each candidate is drawn: k draws in all, or k in expectation if the pool is sharded."""
    k, seeds, band = anchors.support.k, anchors.seeds, bands.candidates
    assert seeds is not None
    size = jnp.where(bands.size == 0, 1.0, bands.size)[:, 0]
    ids = first_row_index(len(pool.rows), axis) + jnp.arange(len(pool.rows))

    def draw(weights: Array, is_low_rate: bool = False) -> Float[Array, "B K"]:
        if axis is None:
            return draw_multinomial(seeds, weights, k)
        return draw_poisson(seeds, weights, k / size, ids, is_low_rate=is_low_rate)

    mask = lambda: similarities != -jnp.inf if band is None else weigh(similarities, band) == 1  # noqa: E731
    branches, branch = [lambda: draw(mask())], jnp.int32(0)
    if axis is not None:
        branches.append(lambda: draw(mask(), is_low_rate=True))
        branch = jnp.where(jnp.all(k / size <= LOW_RATE), 1, branch)
    if band is not None:
        # Similarities tied at an edge have fractional weights. Drawing by those takes three times as long as by a mask.
        branches.append(lambda: draw(weigh(similarities, band)))
        shares = jnp.concatenate([band.lower_share, band.upper_share], axis=1)
        branch = jnp.where(jnp.all((shares == 0) | (shares == 1)), branch, len(branches) - 1)
    return lax.switch(branch, branches)


def match_labels(anchors: AnchorInputs, pool: PoolInputs) -> Bool[Array, "B K"]:
    """Returns whether anchor and candidate have the same label in any column. The label -1 matches nothing."""
    assert anchors.labels is not None and pool.labels is not None
    columns = zip(jnp.moveaxis(anchors.labels, 1, 0), jnp.moveaxis(pool.labels, 1, 0), strict=True)
    matches = [(label[:, None] == pool_label) & (label[:, None] >= 0) for label, pool_label in columns]
    return jnp.stack(matches).any(axis=0)


def sum_weights(weights: Array | None, axis: Axis) -> Float[Array, "B 1"]:
    """Returns the sum of each row's weights over all devices."""
    assert weights is not None
    return sum_over_devices(jnp.sum(weights, axis=1, keepdims=True), axis)
