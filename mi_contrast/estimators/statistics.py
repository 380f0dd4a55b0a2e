"""Diagnostics of a support: its size, its mean scores and the labels of its candidates, for each anchor."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.blocks import map_blocks
from mi_contrast.estimators.inputs import (
    AnchorInputs,
    OptionalInputs,
    PoolInputs,
    choose_block_size,
    compute_similarities,
    match_varying_axes,
    prepare_inputs,
)
from mi_contrast.estimators.mass import Mass, log_mean, mass
from mi_contrast.estimators.selection import summarise_scores, weigh
from mi_contrast.estimators.shards import Axis, gather_rows, max_over_devices, sum_over_devices, take_local_rows
from mi_contrast.estimators.supports import SOFTMAX, Close, Drawn, Support, check
from mi_contrast.estimators.weights import find_bands

Labels = dict[str, Int[Array, "..."]]


class Match(NamedTuple):
    """How many candidates of the support have the anchor's label, as sums of weights, float32 [B].

    The share of equal labels over several anchors is sum(same) / sum(known).

    Attributes:
      same: candidates with the label of the anchor.
      known: candidates whose label is known; 0 where the label of the anchor is unknown.
    """

    same: Float[Array, " B"]
    known: Float[Array, " B"]


class Statistics(NamedTuple):
    """Diagnostics of the support of each anchor, float32 [B] where not said otherwise.

    Attributes:
      size: number of candidates in the support.
      pool_size: number of valid candidates in the pool.
      log_mean_support: log of the mean of e^f over the support; 0 if it is empty.
      log_mean_pool: the same over the valid pool.
      bound_holds: whether the weak condition of `bound_holds` is met, bool [B].
      matches: a `Match` for each name of the labels.
    """

    size: Float[Array, " B"]
    pool_size: Float[Array, " B"]
    log_mean_support: Float[Array, " B"]
    log_mean_pool: Float[Array, " B"]
    bound_holds: Bool[Array, " B"]
    matches: dict[str, Match]


def contrast_statistics(
    anchors: Float[Array, "B D"],
    pool: Float[Array, "K D"],
    support: Support,
    *,
    temperature: Float[Array, "..."] | float,
    valid: Bool[Array, " K"] | None = None,
    anchor_ids: Int[Array, "B ..."] | None = None,
    pool_ids: Int[Array, " K"] | None = None,
    labels: Mapping[str, tuple[Int[Array, " B"], Int[Array, " K"]]] | None = None,
    block: int | None = None,
    axis_name: Axis = None,
) -> Statistics:
    """Returns diagnostics of the support that `contrast` uses for the same inputs. The positive is not counted.

    For `Cave` and `Close` the support includes the further positives; for `Drawn` it is what is drawn from.

    Args:
      anchors, pool, support, temperature, valid, anchor_ids, pool_ids, block, axis_name: see `contrast`. They receive
        no gradient.
      labels: int32 labels of the anchors [B] and of the pool [K], by name. The label -1 is unknown.
    Returns:
      Statistics.
    Raises:
      UserError: see `contrast`; labels that do not fit.

    >>> from mi_contrast.estimators import Ball
    >>> pool = jnp.log(jnp.array([[1.0], [2.0], [3.0], [4.0]]))
    >>> labels = {"class": (jnp.array([7]), jnp.array([7, 7, -1, 7]))}
    >>> statistics = contrast_statistics(jnp.ones((1, 1)), pool, Ball(0.25), temperature=1.0, labels=labels)
    >>> statistics.size, statistics.matches["class"]
    (Array([3.], dtype=float32), Match(same=Array([2.], dtype=float32), known=Array([2.], dtype=float32)))
    """
    labels = labels or {}
    for name, (anchor_label, pool_label) in labels.items():
        if anchor_label.shape != anchors.shape[:1] or pool_label.shape != pool.shape[:1]:
            shapes = f"{anchor_label.shape} and {pool_label.shape}"
            raise UserError(f"labels {name!r} {shapes} do not fit", fix="give [B] and [K]")
    check(support, SOFTMAX)
    support = support.of if isinstance(support, (Close, Drawn)) else support
    anchors, pool = lax.stop_gradient((anchors, pool))
    optional = OptionalInputs(valid, anchor_ids, pool_ids)
    anchor_inputs, pool_inputs = prepare_inputs(
        anchors, anchors, pool, support, SOFTMAX, temperature, optional, axis_name
    )
    anchor_labels = {name: jnp.asarray(label) for name, (label, _) in labels.items()}
    pool_labels = {name: jnp.asarray(label) for name, (_, label) in labels.items()}
    inputs = match_varying_axes((anchor_inputs, anchor_labels, pool_inputs, pool_labels))
    return _compute_statistics(block, axis_name, *inputs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compute_statistics(
    block_size: int | None,
    axis: Axis,
    anchors: AnchorInputs,
    anchor_labels: Labels,
    pool: PoolInputs,
    pool_labels: Labels,
) -> Statistics:
    def compute_block(block: tuple[AnchorInputs, Labels]) -> Statistics:
        anchors, labels = block
        similarities = compute_similarities(anchors, pool)
        scores = similarities / anchors.temperature[:, None]
        weights = (similarities != -jnp.inf).astype(jnp.float32)
        band = find_bands(similarities, anchors, summarise_scores(similarities, axis), axis).candidates
        if band is not None:
            weights = weigh(similarities, band)
        support_mass, pool_mass = _sum_masses(mass(scores, weights), axis), _sum_masses(mass(scores, None), axis)
        holds = (log_mean(support_mass) >= log_mean(pool_mass)) | (support_mass.size == 0)
        matches = {
            name: sum_over_devices(_count_matches(weights, label, pool_labels[name]), axis)
            for name, label in labels.items()
        }
        return Statistics(
            support_mass.size, pool_mass.size, log_mean(support_mass), log_mean(pool_mass), holds, matches
        )

    rows = gather_rows((anchors, anchor_labels), axis)
    block_size = choose_block_size(block_size, len(rows[0].rows), len(pool.rows))
    return take_local_rows(map_blocks(compute_block, rows, block_size), axis)


def _sum_masses(local: Mass, axis: Axis) -> Mass:
    """Returns the mass of the union over devices."""
    top = max_over_devices(local.log_sum, axis)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    log_sum = jnp.log(sum_over_devices(jnp.exp(local.log_sum - top), axis)) + top
    return Mass(local.log_sum if axis is None else log_sum, sum_over_devices(local.size, axis))


def _count_matches(weights: Float[Array, "B K"], labels: Int[Array, " B"], pool_labels: Int[Array, " K"]) -> Match:
    known = (labels[:, None] >= 0) & (pool_labels >= 0)
    same = known & (labels[:, None] == pool_labels)
    return Match(*(jnp.sum(jnp.where(mask, weights, 0.0), axis=1) for mask in (same, known)))
