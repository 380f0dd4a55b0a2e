"""Nats from embeddings: anchors against a pool in blocks, never holding B x K, equal to the dense form throughout."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.estimators.blocks import over_rows, sum_over_rows
from mi_contrast.estimators.percentiles import millionths, not_a_number, rank
from mi_contrast.estimators.selection import Band, census, select, unordered, weigh
from mi_contrast.estimators.supports import SOFTMAX, Softmax, Support, edges

SCORES = 2**22  # scores held at a time where no block is asked for: 16 MiB
REACH = 40.0  # nats from the reference score within which masses are summed at full float32 precision


class Rows(NamedTuple):
    """What belongs to each anchor."""

    anchors: Float[Array, "B D"]
    positive: Float[Array, " B"]  # inner product with the positive
    temperature: Float[Array, " B"]
    edges: tuple[Int[Array, " B"], Int[Array, " B"]] | None  # percentiles in millionths
    ids: Int[Array, "B A"] | None


class Pool(NamedTuple):
    """What belongs to each candidate."""

    rows: Float[Array, "K D"]
    valid: Bool[Array, " K"] | None
    ids: Int[Array, " K"] | None


class Fit(NamedTuple):
    """How a block's scores become masses w e^{(score - top) / temperature}: the band (None = all), and their sum with
    the positive's. Float32 [B, 1].
    """

    band: Band | None
    top: Float[Array, "B 1"]
    total: Float[Array, "B 1"]


class Slopes(NamedTuple):
    """Derivatives of each anchor's nats."""

    anchors: Float[Array, "B D"]
    positive: Float[Array, " B"]
    temperature: Float[Array, " B"]


def contrast(
    anchors: Float[Array, "B D"],
    positives: Float[Array, "B D"],
    pool: Float[Array, "K D"],
    support: Support,
    form: Softmax = SOFTMAX,
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
      valid: bool [K], False for candidates that do not exist (unfilled slots of a queue); their rows are finite too.
      anchor_ids: int32 [B] or [B, A]; pool_ids: int32 [K]. A candidate whose id equals any of an anchor's ids is not a
        candidate of that anchor. The id -1 matches nothing.
      block: how many anchors are scored at a time; memory beyond the inputs is about 2 x block x K float32.
      pool_gradient: also give a gradient to the pool; without it the pool is a constant.
    Returns:
      nats, f32 [B], at most log(n + 1); 0 with zero gradient where the support is empty; NaN where a valid score is.
    Raises:
      UserError: shapes that do not fit, an unknown support or form, concrete percentiles that hold nothing, a concrete
        temperature <= 0, ids on one side only.
    Source: Wu et al. 2020 and 2021; value, ranks and ties as the package defines them.

    >>> from mi_contrast.estimators import Ring
    >>> anchors, pool = jnp.eye(2), jnp.log(jnp.array([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0], [9.0, 9.0]]))
    >>> nats = contrast(anchors, anchors * jnp.log(6.0), pool, Ring(0.25, 0.75), temperature=1.0)
    >>> bool(jnp.allclose(nats, jnp.log(6 * 3 / (6 + 2 + 3))))
    True
    """
    if not isinstance(form, Softmax):
        raise unknown("form", form, ("Softmax()",))
    rows, candidates = gather(anchors, positives, pool, support, temperature, valid, anchor_ids, pool_ids)
    if not pool_gradient:
        candidates = candidates._replace(rows=lax.stop_gradient(candidates.rows))
    return _compiled(block_size(block, rows, candidates), pool_gradient, rows, candidates)


def gather(
    anchors: Array,
    positives: Array,
    pool: Array,
    support: Support,
    temperature: Any,
    valid: Array | None,
    anchor_ids: Array | None,
    pool_ids: Array | None,
) -> tuple[Rows, Pool]:
    """Checks the inputs of `contrast` and brings them to one shape a kind."""
    anchors, positives, pool = jnp.asarray(anchors), jnp.asarray(positives), jnp.asarray(pool)
    if anchors.ndim != 2 or positives.shape != anchors.shape or pool.ndim != 2 or pool.shape[1] != anchors.shape[1]:
        shapes = f"anchors {anchors.shape}, positives {positives.shape} and pool {pool.shape}"
        raise UserError(f"{shapes} do not fit", fix="give [B, D], [B, D] and [K, D]")
    if (anchor_ids is None) != (pool_ids is None):
        raise UserError("ids were given on one side only", fix="give anchor_ids and pool_ids, or neither")
    count, size = len(anchors), len(pool)
    for name, x, rows in (("valid", valid, size), ("pool_ids", pool_ids, size), ("anchor_ids", anchor_ids, count)):
        if x is not None and x.shape[:1] != (rows,):
            raise UserError(f"{name} {x.shape} does not fit", fix=f"give {rows} of them")
    if not isinstance(temperature, jax.core.Tracer) and not np.all(np.asarray(temperature) > 0):
        raise UserError(f"temperature {temperature} is not above 0", fix="give a positive number")
    each = lambda x: jnp.broadcast_to(x, (count,))  # noqa: E731
    temperature, band = jnp.asarray(temperature, jnp.float32), edges(support)
    if band is not None:
        temperature = temperature + lax.stop_gradient(not_a_number(*band))
        band = each(millionths(band[0])), each(millionths(band[1]))
    positive = jnp.sum(anchors.astype(jnp.float32) * positives.astype(jnp.float32), axis=1)
    ids = None if anchor_ids is None else jnp.atleast_2d(jnp.asarray(anchor_ids).T).T
    return alike((Rows(anchors, positive, each(temperature), band, ids), Pool(pool, valid, pool_ids)))


def alike(tree: Any) -> Any:
    """Inside `shard_map`: every array varies over the mesh axes that any of them varies over, so that they mix freely.

    Told to the tracer by a choice that is never taken, which the compiler drops.
    """
    never = functools.reduce(jnp.logical_or, (jnp.zeros_like(x[:1], bool).any() for x in jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), tree)


def block_size(block: int | None, rows: Rows, pool: Pool) -> int:
    """The block asked for, else as many rows as make 2^22 scores, 16 at least; never more than there are."""
    if block is not None and block < 1:
        raise UserError(f"block {block} holds no anchors", fix="give at least 1, or None")
    return max(1, min(block or max(16, SCORES // max(1, len(pool.rows))), len(rows.anchors)))


def products(rows: Rows, pool: Pool) -> Float[Array, "B K"]:
    """Inner products of anchors with the pool, -inf where a row of the pool is no candidate."""
    scores = jnp.matmul(rows.anchors, pool.rows.T, preferred_element_type=jnp.float32)
    if pool.valid is not None:
        scores = jnp.where(pool.valid, scores, -jnp.inf)
    if rows.ids is not None:
        for ids in jnp.moveaxis(rows.ids, 1, 0):
            scores = jnp.where((ids[:, None] == pool.ids) & (ids[:, None] >= 0), -jnp.inf, scores)
    return scores


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
    missing = jnp.isneginf(rows.positive)[:, None]
    pulling = jnp.where(missing, 0.0, -g[:, None] / (fit.total * rows.temperature[:, None]))

    def of_block(part: tuple[Rows, Fit, Array], once: Bool[Array, " block"]) -> Array:
        rows, fit, pulling = part  # the same products as before: an edge is an exact score
        pulls = jnp.where(once[:, None], pulling, 0.0) * _masses(products(rows, pool), rows, fit)
        return jnp.matmul(pulls.T, rows.anchors, preferred_element_type=jnp.float32)

    to_pool = sum_over_rows(of_block, (rows, fit, pulling), block)
    return to_rows, Pool(to_pool.astype(pool.rows.dtype), None, None)


_nats.defvjp(_nats_forward, _nats_backward)
_compiled = jax.jit(_nats, static_argnums=(0, 1))  # one program a shape, outside of jit too


def _fit(rows: Rows, pool: Pool) -> tuple[Float[Array, "B 1"], Fit, Float[Array, "B K"]]:
    """Nats of a block of anchors, the fit that they come from, and the candidates' masses."""
    scores = products(rows, pool)
    positive, temperature = rows.positive[:, None], rows.temperature[:, None]
    found = census(scores)
    if rows.edges is None:
        band, size, highest = None, found.size, unordered(found.most)[:, None]
    else:
        lower, upper = rank(rows.edges[0], found.size), rank(rows.edges[1], found.size)
        upper = jnp.maximum(lower, upper)
        band = select(scores, lower, upper, found, REACH * temperature)
        size, highest = upper - lower, band.upper
    top = jnp.maximum(positive, highest)
    fit = Fit(
        band, jnp.where(jnp.isfinite(top), top, 0.0), jnp.where(found.has_nan, jnp.float32(jnp.nan), 0.0)[:, None]
    )
    masses = _masses(scores, rows, fit)
    fit = fit._replace(total=fit.total + _own(rows, fit) + jnp.sum(masses, axis=1, keepdims=True))
    nats = (positive - fit.top) / temperature - jnp.log(fit.total) + jnp.log1p(size.astype(jnp.float32))[:, None]
    return jnp.where(jnp.isneginf(positive), 0.0, nats), fit, masses


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
    """The softmax over candidates pulls the anchor away from them, the positive's missing share towards it."""
    positive, temperature = rows.positive[:, None], rows.temperature[:, None]
    missing = jnp.isneginf(positive)
    kind = jnp.promote_types(rows.anchors.dtype, pool.rows.dtype)
    pulled = jnp.matmul(masses.astype(kind), pool.rows, preferred_element_type=jnp.float32)
    anchors = jnp.where(missing, 0.0, -pulled / (fit.total * temperature))
    towards = jnp.where(missing, 0.0, (1 - _own(rows, fit) / fit.total) / temperature)
    inner = jnp.sum(anchors * rows.anchors.astype(jnp.float32), axis=1, keepdims=True)
    colder = jnp.where(missing, 0.0, -(towards * jnp.where(missing, 0.0, positive) + inner) / temperature)
    return Slopes(anchors.astype(rows.anchors.dtype), towards[:, 0], colder[:, 0])
