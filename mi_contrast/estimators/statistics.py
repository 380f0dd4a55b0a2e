"""What a support holds, anchor by anchor: sizes, means and labels, for diagnostics rather than for training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.blocks import over_rows
from mi_contrast.estimators.inputs import Given, Pool, Rows, alike, block_size, gather, products
from mi_contrast.estimators.mass import Mass, log_mean, mass
from mi_contrast.estimators.roles import assign
from mi_contrast.estimators.selection import census, weigh
from mi_contrast.estimators.shards import Axis, everyone, greatest, own, total
from mi_contrast.estimators.supports import SOFTMAX, Close, Drawn, Support, check

Labels = dict[str, Int[Array, "..."]]


class Match(NamedTuple):
    """Weight inside the support, float32 [B], of candidates whose label is known as the anchor's is, and of those whose
    label is the same. Over anchors a share is sum(same) / sum(known).
    """

    same: Float[Array, " B"]
    known: Float[Array, " B"]


class Statistics(NamedTuple):
    """Of each anchor, float32 [B]: size of the support and of the valid pool, log mean e^f over each (0 where empty),
    whether the weak bound condition holds (`bound_holds`), and the labels' matches by name.
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
    """What the support of `contrast` holds, on the same inputs; the positive is in neither support nor pool.

    Of `Cave` and `Close` all candidates are looked at, further positives among them; of `Drawn`, what is drawn from.

    Args:
      anchors, pool, support, temperature, valid, anchor_ids, pool_ids, block, axis_name: as for `contrast`; no
        gradient.
      labels: by name, int32 labels of the anchors [B] and of the pool [K]; -1 is unknown and counts nowhere.
    Returns:
      Statistics.
    Raises:
      UserError: as `contrast`; labels that do not fit.

    >>> from mi_contrast.estimators import Ball
    >>> pool = jnp.log(jnp.array([[1.0], [2.0], [3.0], [4.0]]))
    >>> labels = {"class": (jnp.array([7]), jnp.array([7, 7, -1, 7]))}
    >>> found = contrast_statistics(jnp.ones((1, 1)), pool, Ball(0.25), temperature=1.0, labels=labels)
    >>> found.size, found.matches["class"]
    (Array([3.], dtype=float32), Match(same=Array([2.], dtype=float32), known=Array([2.], dtype=float32)))
    """
    for name, (of_anchor, theirs) in (labels or {}).items():
        if of_anchor.shape != anchors.shape[:1] or theirs.shape != pool.shape[:1]:
            raise UserError(f"labels {name!r} {of_anchor.shape} and {theirs.shape} do not fit", fix="give [B] and [K]")
    check(support, SOFTMAX)
    support = support.of if isinstance(support, (Close, Drawn)) else support
    anchors, pool = lax.stop_gradient((anchors, pool))
    given = Given(valid, anchor_ids, pool_ids)
    rows, candidates = gather(anchors, anchors, pool, support, SOFTMAX, temperature, given, axis_name)
    of_anchors = {name: jnp.asarray(of_anchor) for name, (of_anchor, _) in (labels or {}).items()}
    of_pool = {name: jnp.asarray(theirs) for name, (_, theirs) in (labels or {}).items()}
    rows, of_anchors, candidates, of_pool = alike((rows, of_anchors, candidates, of_pool))
    return _compiled(block, axis_name, rows, of_anchors, candidates, of_pool)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(block: int | None, axis: Axis, rows: Rows, of_anchors: Labels, pool: Pool, of_pool: Labels) -> Statistics:
    def of_block(part: tuple[Rows, Labels]) -> Statistics:
        rows, labels = part
        inner = products(rows, pool)
        scores, weights = inner / rows.temperature[:, None], (inner != -jnp.inf).astype(jnp.float32)
        band = assign(inner, rows, census(inner, axis), axis).among
        if band is not None:
            weights = weigh(inner, band)
        inside, whole = _of_all(mass(scores, weights), axis), _of_all(mass(scores, None), axis)
        holds = (log_mean(inside) >= log_mean(whole)) | (inside.size == 0)
        matches = {name: total(_match(weights, label, of_pool[name]), axis) for name, label in labels.items()}
        return Statistics(inside.size, whole.size, log_mean(inside), log_mean(whole), holds, matches)

    rows, of_anchors = everyone((rows, of_anchors), axis)
    return own(over_rows(of_block, (rows, of_anchors), block_size(block, len(rows.anchors), len(pool.rows))), axis)


def _of_all(part: Mass, axis: Axis) -> Mass:
    """The mass of every device's part together."""
    top = greatest(part.log_sum, axis)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    among = jnp.log(total(jnp.exp(part.log_sum - top), axis)) + top
    return Mass(part.log_sum if axis is None else among, total(part.size, axis))


def _match(weights: Float[Array, "B K"], own: Int[Array, " B"], theirs: Int[Array, " K"]) -> Match:
    known = (own[:, None] >= 0) & (theirs >= 0)
    same = known & (own[:, None] == theirs)
    return Match(*(jnp.sum(jnp.where(counted, weights, 0.0), axis=1) for counted in (same, known)))
