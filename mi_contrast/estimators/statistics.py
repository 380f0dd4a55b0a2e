"""What a support holds, anchor by anchor: sizes, means and labels, for diagnostics rather than for training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators import embeddings
from mi_contrast.estimators.blocks import over_rows
from mi_contrast.estimators.percentiles import rank
from mi_contrast.estimators.scores import _log_mean, _mass
from mi_contrast.estimators.selection import census, select, weigh
from mi_contrast.estimators.supports import Support


class Match(NamedTuple):
    """Weights inside the support, float32 [B]: of candidates whose label equals the anchor's, and of those both labels known.

    A fraction over anchors is sum(same) / sum(known).
    """

    same: Float[Array, " B"]
    known: Float[Array, " B"]


class Statistics(NamedTuple):
    """Of each anchor, float32 [B]: size of the support and of the valid pool, log mean e^f over each (0 where empty),
    whether the weak bound condition holds, and the labels' matches by name.
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
) -> Statistics:
    """What the support of `contrast` holds, on the same inputs; the positive is in neither support nor pool. No gradient.

    Args:
      anchors, pool, support, temperature, valid, anchor_ids, pool_ids, block: as for `contrast`.
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
    for name, (own, theirs) in (labels or {}).items():
        if own.shape != anchors.shape[:1] or theirs.shape != pool.shape[:1]:
            raise UserError(f"labels {name!r} {own.shape} and {theirs.shape} do not fit", fix="give [B] and [K]")
    rows, candidates = embeddings._gather(anchors, anchors, pool, support, temperature, valid, anchor_ids, pool_ids)
    own = {name: pair[0] for name, pair in (labels or {}).items()}
    theirs = {name: pair[1] for name, pair in (labels or {}).items()}
    rows, own, candidates, theirs = embeddings._alike((rows, own, candidates, theirs))
    function = functools.partial(_block, pool=candidates, theirs=theirs)
    return over_rows(function, (rows, own), embeddings._block_size(block, rows, candidates))


def _block(rows: Any, *, pool: embeddings.Pool, theirs: dict[str, Array]) -> Statistics:
    rows, own = rows
    products = embeddings._products(rows, pool)
    scores = products / rows.temperature[:, None]
    found = census(products)
    whole = _mass(scores, None)
    weights = (products != -jnp.inf).astype(jnp.float32)
    if rows.edges is not None:
        lower, upper = rank(rows.edges[0], found.count), rank(rows.edges[1], found.count)
        weights = weigh(products, select(products, lower, jnp.maximum(lower, upper), found))
    inside = _mass(scores, weights)
    matches = {}
    for name, label in own.items():
        known = (label[:, None] >= 0) & (theirs[name] >= 0)
        same = known & (label[:, None] == theirs[name])
        matches[name] = Match(jnp.sum(weights * same, axis=1), jnp.sum(weights * known, axis=1))
    gap = _log_mean(inside) - _log_mean(whole)
    holds = (gap >= 0) | (inside.size == 0)
    return Statistics(inside.size, whole.size, _log_mean(inside), _log_mean(whole), holds, matches)
