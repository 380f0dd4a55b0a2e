"""Nats from embeddings: anchors against a pool in blocks, never holding B x K, in value and gradient equal to the dense form."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.blocks import over_rows
from mi_contrast.estimators.percentiles import millionths, rank
from mi_contrast.estimators.selection import Band, census, select, unordered, weigh
from mi_contrast.estimators.supports import Softmax, Support, edges

SCORES = 2**22  # of a block: 16 MiB
REACH = 40.0  # nats: e^-40 of the greatest term is still summed to full float32 precision


class Rows(NamedTuple):
    """What belongs to each anchor, cut into blocks along axis 0."""

    anchors: Float[Array, "B D"]
    positive: Float[Array, " B"]  # inner product with the positive
    temperature: Float[Array, " B"]
    edges: tuple[Int[Array, " B"], Int[Array, " B"]] | None  # percentiles in millionths
    ids: Int[Array, "B A"] | None


class Pool(NamedTuple):
    """What belongs to each candidate; every block sees all of it."""

    rows: Float[Array, "K D"]
    valid: Bool[Array, " K"] | None
    ids: Int[Array, " K"] | None


def contrast(
    anchors: Float[Array, "B D"],
    positives: Float[Array, "B D"],
    pool: Float[Array, "K D"],
    support: Support,
    form: Softmax | None = None,
    *,
    temperature: Float[Array, "..."] | float,
    valid: Bool[Array, " K"] | None = None,
    anchor_ids: Int[Array, "B ..."] | None = None,
    pool_ids: Int[Array, " K"] | None = None,
    block: int | None = None,
    pool_gradient: bool = False,
) -> Float[Array, " B"]:
    """Nats of each anchor with its positive against a support of the pool.

    value = f+ - log((e^{f+} + sum_{j in S} e^{f_j}) / (n + 1)), f = inner product / temperature, n = |S|: the values of
    `info_nce`, `ball` and `ring`, and their gradients to anchors, positives and temperature, from blocks of anchors.

    Args:
      anchors, positives: f32 or bf16 [B, D], row i of one being the positive of row i of the other.
      pool: f32 or bf16 [K, D], candidates; the positive is not among them unless excluded by id.
      support: All(), Ball(lower) or Ring(lower, upper); percentiles may be traced, one for all or [B].
      form: Softmax().
      temperature: > 0, may be traced, one for all or [B].
      valid: bool [K], False for candidates that do not exist (unfilled slots of a queue).
      anchor_ids: int32 [B] or [B, A]; pool_ids: int32 [K]. A candidate whose id equals any of an anchor's ids is not a
        candidate of that anchor. The id -1 matches nothing.
      block: how many anchors are scored at a time; memory beyond the inputs is a few block x K float32.
      pool_gradient: also give a gradient to the pool; without it the pool is a constant.
    Returns:
      nats, f32 [B], at most log(n + 1); 0 with zero gradient where the support is empty; NaN where a valid score is NaN.
    Raises:
      UserError: shapes that do not fit, concrete percentiles that hold nothing, a concrete temperature <= 0, ids on one side only.
    Source: Wu et al. 2020 and 2021; value, ranks and ties as the package defines them.

    >>> from mi_contrast.estimators import Ring
    >>> anchors, pool = jnp.eye(2), jnp.log(jnp.array([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0], [9.0, 9.0]]))
    >>> nats = contrast(anchors, anchors * jnp.log(6.0), pool, Ring(0.25, 0.75), temperature=1.0)
    >>> bool(jnp.allclose(nats, jnp.log(6 * 3 / (6 + 2 + 3))))
    True
    """
    rows, candidates = _gather(anchors, positives, pool, support, temperature, valid, anchor_ids, pool_ids)
    if not pool_gradient:
        candidates = candidates._replace(rows=lax.stop_gradient(candidates.rows))
    return _nats(_block_size(block, rows, candidates), pool_gradient, rows, candidates)


def _gather(
    anchors: Array,
    positives: Array,
    pool: Array,
    support: Support,
    temperature: Any,
    valid: Array | None,
    anchor_ids: Array | None,
    pool_ids: Array | None,
) -> tuple[Rows, Pool]:
    """Checks the inputs and brings them to one shape a kind."""
    anchors, positives, pool = jnp.asarray(anchors), jnp.asarray(positives), jnp.asarray(pool)
    count = anchors.shape[0]
    if anchors.ndim != 2 or positives.shape != anchors.shape or pool.ndim != 2 or pool.shape[1] != anchors.shape[1]:
        raise UserError(
            f"anchors {anchors.shape}, positives {positives.shape} and pool {pool.shape} do not fit", fix="[B, D], [B, D], [K, D]"
        )
    if (anchor_ids is None) != (pool_ids is None):
        raise UserError("ids were given on one side only", fix="give anchor_ids and pool_ids, or neither")
    if not isinstance(temperature, jax.core.Tracer) and not np.all(np.asarray(temperature) > 0):
        raise UserError(f"temperature {temperature} is not positive", fix="give a temperature > 0")
    band = edges(support)
    each = lambda x: jnp.broadcast_to(jnp.asarray(x), (count,))  # noqa: E731
    band = band and (each(millionths(band[0])), each(millionths(band[1])))
    positive = jnp.sum(anchors.astype(jnp.float32) * positives.astype(jnp.float32), axis=1)
    ids = None if anchor_ids is None else jnp.asarray(anchor_ids).reshape(count, -1)
    rows = Rows(anchors, positive, each(jnp.asarray(temperature, jnp.float32)), band, ids)
    return _alike((rows, Pool(pool, valid, pool_ids)))


def _alike(tree: Any) -> Any:
    """Inside `shard_map`: every array varies over the mesh axes that any of them varies over, so that they mix freely.

    Told to the tracer by a choice that is never taken, which the compiler drops.
    """
    never = functools.reduce(jnp.logical_or, (jnp.zeros_like(x[:1], bool).any() for x in jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), tree)


def _block_size(block: int | None, rows: Rows, pool: Pool) -> int:
    """The block asked for, else as many rows as make 2^22 scores, 16 at least."""
    if block is not None and block < 1:
        raise UserError(f"block {block} holds no anchors", fix="give at least 1, or None")
    return min(block or max(16, SCORES // len(pool.rows)), len(rows.anchors))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _nats(block: int, pool_gradient: bool, rows: Rows, pool: Pool) -> Float[Array, " B"]:
    return over_rows(lambda part: _fit(part, pool)[0], rows, block)[:, 0]


def _nats_forward(block: int, pool_gradient: bool, rows: Rows, pool: Pool) -> tuple[Array, Any]:
    def of_block(part: Rows) -> tuple[Array, Slopes, Fit | None]:
        nats, fit, masses = _fit(part, pool)
        return nats, _slopes(part, pool, fit, masses), fit if pool_gradient else None

    nats, slopes, fit = over_rows(of_block, rows, block)
    return nats[:, 0], (slopes, (rows, pool, fit) if pool_gradient else None)


def _nats_backward(block: int, pool_gradient: bool, residuals: Any, g: Array) -> tuple[Rows, Pool | None]:
    slopes, again = residuals
    anchors = (g[:, None] * slopes.anchors).astype(slopes.anchors.dtype)
    to_rows = Rows(anchors, g * slopes.positive, g * slopes.temperature, None, None)
    if not pool_gradient:
        return to_rows, None
    rows, pool, fit = again
    scale = -g[:, None] / (fit.total * rows.temperature[:, None])
    scale = jnp.where(jnp.isneginf(rows.positive)[:, None], 0.0, scale)

    def of_part(part: Pool) -> Array:
        masses = scale * _masses(_products(rows, part), rows, fit)
        pull = lax.dot_general(masses, rows.anchors.astype(jnp.float32), (((0,), (0,)), ((), ())))
        return pull.astype(pool.rows.dtype)

    width = max(1, block * len(pool.rows) // len(rows.anchors))  # the same number of scores at a time
    return to_rows, Pool(over_rows(of_part, pool, min(width, len(pool.rows))), None, None)


_nats.defvjp(_nats_forward, _nats_backward)


class Fit(NamedTuple):
    """What makes masses from scores: weights (None = 1), the reference score `top`, and the sum of masses. [B, 1]."""

    band: Band | None
    top: Float[Array, "B 1"]
    total: Float[Array, "B 1"]


class Slopes(NamedTuple):
    """Derivatives of each anchor's nats."""

    anchors: Float[Array, "B D"]
    positive: Float[Array, " B"]
    temperature: Float[Array, " B"]


def _fit(rows: Rows, pool: Pool) -> tuple[Float[Array, "B 1"], Fit, Float[Array, "B K"]]:
    """Nats of a block of anchors, the fit they come from, and each candidate's mass w e^{(score - top) / temperature}."""
    scores = _products(rows, pool)
    positive, temperature = rows.positive[:, None], rows.temperature[:, None]
    found = census(scores)
    if rows.edges is None:
        band, size, highest = None, found.count, unordered(found.most)[:, None]
    else:
        lower, upper = rank(rows.edges[0], found.count), rank(rows.edges[1], found.count)
        upper = jnp.maximum(lower, upper)
        band = select(scores, lower, upper, found, REACH * temperature)
        size, highest = upper - lower, band.upper
    top = jnp.maximum(positive, highest)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    fit = Fit(band, top, jnp.where(found.unordered, jnp.nan, 0.0)[:, None])
    masses = _masses(scores, rows, fit)
    total = fit.total + _own(rows, fit) + jnp.sum(masses, axis=1, keepdims=True)
    nats = (positive - top) / temperature - jnp.log(total) + jnp.log1p(size.astype(jnp.float32))[:, None]
    return jnp.where(jnp.isneginf(positive), 0.0, nats), fit._replace(total=total), masses


def _masses(scores: Float[Array, "B K"], rows: Rows, fit: Fit) -> Float[Array, "B K"]:
    masses = jnp.exp((scores - fit.top) / rows.temperature[:, None])
    if fit.band is None:
        return masses
    weights = weigh(scores, fit.band)
    return jnp.where(weights > 0, weights * masses, 0.0)


def _own(rows: Rows, fit: Fit) -> Float[Array, "B 1"]:
    """The positive's mass."""
    return jnp.exp((rows.positive[:, None] - fit.top) / rows.temperature[:, None])


def _slopes(rows: Rows, pool: Pool, fit: Fit, masses: Float[Array, "B K"]) -> Slopes:
    """d nats: softmax of the candidates against the anchor's score of each, and one minus the positive's share."""
    positive, temperature = rows.positive[:, None], rows.temperature[:, None]
    missing = jnp.isneginf(positive)
    pulled = lax.dot(masses.astype(pool.rows.dtype), pool.rows, preferred_element_type=jnp.float32)
    to_anchors = jnp.where(missing, 0.0, -pulled / (fit.total * temperature))
    to_positive = jnp.where(missing, 0.0, (1 - _own(rows, fit) / fit.total) / temperature)
    inner = jnp.sum(to_anchors * rows.anchors.astype(jnp.float32), axis=1, keepdims=True)
    to_temperature = jnp.where(missing, 0.0, -(to_positive * jnp.where(missing, 0.0, positive) + inner) / temperature)
    return Slopes(to_anchors.astype(rows.anchors.dtype), to_positive[:, 0], to_temperature[:, 0])


def _products(rows: Rows, pool: Pool) -> Float[Array, "B K"]:
    """Inner products of a block's anchors with the pool, -inf where a row of the pool is no candidate."""
    scores = lax.dot_general(rows.anchors, pool.rows, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    if pool.valid is not None:
        scores = jnp.where(pool.valid, scores, -jnp.inf)
    if rows.ids is not None:
        for ids in jnp.moveaxis(rows.ids, 1, 0):
            scores = jnp.where((ids[:, None] == pool.ids) & (ids[:, None] >= 0), -jnp.inf, scores)
    return scores
