"""Anchors against a pool in blocks: sums of functions of f over rank bands, the nats that follow, and their slopes.

Forward and backward are one pass over the scores. With the pool cut over devices, anchors travel and the pool does not:
only counts and sums per anchor cross.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from mi_contrast.estimators import forms
from mi_contrast.estimators.blocks import over_rows, sum_over_rows
from mi_contrast.estimators.forms import Column, Sizes
from mi_contrast.estimators.inputs import Pool, Rows, block_size, products
from mi_contrast.estimators.roles import REACH, Roles, Weights, assign, size_of, weights
from mi_contrast.estimators.selection import Census, census, unordered
from mi_contrast.estimators.shards import Axis, everyone, greatest, own, own_of_total, total
from mi_contrast.estimators.supports import Binary, Drawn, Hard, several


class Plan(NamedTuple):
    """What is fixed when a program is compiled: how many anchors at a time, whether the pool is given a gradient, and
    the mesh axis that the pool is cut over.
    """

    block: int | None
    pool_gradient: bool
    axis: Axis


class Fit(NamedTuple):
    """Of a block of anchors: who is who, and of each sum of the form the score it is measured from, its total and the
    slope of the nats to its reading; float32 [B, 1].
    """

    roles: Roles
    offset: Column
    tops: tuple[Column, ...]
    totals: tuple[Column, ...]
    slopes: tuple[Column, ...]


class Slopes(NamedTuple):
    """Derivatives of each anchor's nats."""

    anchors: Float[Array, "B D"]
    positive: Float[Array, " B"]
    temperature: Float[Array, " B"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def nats(plan: Plan, rows: Rows, pool: Pool) -> Float[Array, " B"]:
    """Nats of each anchor, float32 [B], of this device's anchors where the pool is cut over devices."""
    rows = everyone(rows, plan.axis)
    found = over_rows(lambda part: _fit(part, pool, plan.axis)[0], rows, _block(plan, rows, pool))
    return own(found[:, 0], plan.axis)


def _forward(plan: Plan, rows: Rows, pool: Pool) -> tuple[Array, Any]:
    mine, rows = rows, everyone(rows, plan.axis)

    def of_block(part: Rows) -> tuple[Array, Array, Array, Fit | None]:
        nats, towards, fit, scores, weights = _fit(part, pool, plan.axis)
        pulls, scale = _pulls(part, scores, weights, fit)
        kind = jnp.promote_types(part.anchors.dtype, pool.rows.dtype)
        pulled = jnp.matmul(pulls.astype(kind), pool.rows, preferred_element_type=jnp.float32)
        return nats, towards, pulled * scale, fit if plan.pool_gradient else None

    nats, towards, pulled, fit = over_rows(of_block, rows, _block(plan, rows, pool))
    nats, towards = own((nats, towards), plan.axis)
    slopes = _slopes(mine, towards, own_of_total(pulled, plan.axis))
    return nats[:, 0], (slopes, (rows, pool, fit) if plan.pool_gradient else None)


def _backward(plan: Plan, residuals: Any, g: Array) -> tuple[Rows, Pool | None]:
    slopes, again = residuals
    anchors = (g[:, None] * slopes.anchors).astype(slopes.anchors.dtype)
    to_rows = Rows(anchors, g * slopes.positive, g * slopes.temperature, None, None, None, None, None)
    if not plan.pool_gradient:
        return to_rows, None
    rows, pool, fit = again

    def of_block(part: tuple[Rows, Fit, Array], once: Bool[Array, " block"]) -> Array:
        rows, fit, g = part
        scores = products(rows, pool)  # the same products as before: an edge is an exact score
        pulls, scale = _pulls(rows, scores, weights(scores, rows, pool, fit.roles, plan.axis), fit)
        missing = ~once[:, None] | jnp.isneginf(rows.positive)[:, None]
        pulls = jnp.where(missing, 0.0, g[:, None] * scale / rows.temperature[:, None]) * pulls
        return jnp.matmul(pulls.T, rows.anchors, preferred_element_type=jnp.float32)

    to_pool = sum_over_rows(of_block, (rows, fit, everyone(g, plan.axis)), _block(plan, rows, pool))
    return to_rows, Pool(to_pool.astype(pool.rows.dtype), None, None, None)


nats.defvjp(_forward, _backward)
compiled = jax.jit(nats, static_argnums=0)  # one program a shape, outside of jit too


def _block(plan: Plan, rows: Rows, pool: Pool) -> int:
    return block_size(plan.block, len(rows.anchors), len(pool.rows))


def _relative(scores: Float[Array, "B K"], rows: Rows, top: Column) -> Float[Array, "B K"]:
    return (scores - top) / rows.temperature[:, None]


def _fit(rows: Rows, pool: Pool, axis: Axis) -> tuple[Column, Column, Fit, Array, Weights]:
    """Nats of a block of anchors, their slope to f+, and what the slopes to the pool's scores are made of."""
    scores, temperature, many = products(rows, pool), rows.temperature[:, None], several(rows.support)
    found = census(scores, axis)
    roles = assign(scores, rows, found, axis)
    counted = weights(scores, rows, pool, roles, axis)
    size = size_of(counted.candidates, axis) if isinstance(rows.support, Drawn) else roles.size
    more = jnp.zeros_like(size) if counted.positives is None else size_of(counted.positives, axis)
    sizes = Sizes(size, more)
    offset = forms.offset(rows.form, sizes)
    asked = forms.sums(rows.form, many)
    tops = tuple(_top(sum, scores, getattr(counted, sum.over), rows, roles, found, axis) for sum in asked)
    each = [
        forms.summand(sum, _relative(scores, rows, top), getattr(counted, sum.over), offset)
        for sum, top in zip(asked, tops, strict=True)
    ]
    totals = tuple(total([jnp.sum(x, axis=1, keepdims=True) for x in each], axis))

    from_top = lambda top: (top - tops[0]) / temperature  # noqa: E731
    readings = tuple(
        forms.reading(sum, x) + (from_top(top) if sum.of == "exponential" else 0.0)
        for sum, x, top in zip(asked, totals, tops, strict=True)
    )
    positive = (rows.positive[:, None] - tops[0]) / temperature
    value = lambda f, readings: forms.nats(  # noqa: E731
        rows.form, many, f, readings, sizes, offset, tops[0] / temperature
    )
    answer, back = jax.vjp(value, positive, readings)
    towards, slopes = back(jnp.ones_like(answer))
    missing, bad = jnp.isneginf(positive), jnp.where(found.has_nan, jnp.float32(jnp.nan), 0.0)[:, None]
    answer, towards = (jnp.where(missing, 0.0, x) + bad for x in (answer, towards))
    slopes = tuple(jnp.where(missing, 0.0, x) + bad for x in slopes)
    return answer, towards, Fit(roles, offset, tops, totals, slopes), scores, counted


def _top(
    sum: forms.Sum, scores: Array, weight: Array | None, rows: Rows, roles: Roles, found: Census, axis: Axis
) -> Column:
    """The score from which a sum is measured: no term of it is much above 1, and the largest is not far below."""
    if isinstance(rows.form, Binary):
        return jnp.zeros_like(roles.highest)
    picked = isinstance(rows.support, Drawn) or isinstance(rows.form, Hard)  # the highest among may be far above these
    if sum.of == "score" or (sum.over == "candidates" and not picked):
        return roles.highest

    def counted() -> Column:
        kept = scores if weight is None else jnp.where(weight > 0, scores, -jnp.inf)
        return jnp.max(kept, axis=1, keepdims=True, initial=-jnp.inf)

    if isinstance(rows.support, Drawn) and not isinstance(rows.form, Hard):
        # Looking for the highest drawn score is a pass over the scores, which is spared where all of them are close.
        near = roles.highest - unordered(found.least)[:, None] <= REACH * rows.temperature[:, None]
        top = lax.cond(jnp.all(near), lambda: roles.highest, counted)
    else:
        top = counted()
    top = greatest(top, axis)
    return jnp.where(jnp.isfinite(top), top, 0.0)


def _pulls(rows: Rows, scores: Array, counted: Weights, fit: Fit) -> tuple[Float[Array, "B K"], Column]:
    """The nats' slope to each candidate's f, as a matrix and what its rows are to be multiplied by."""
    parts = []
    for sum, top, whole, slope in zip(
        forms.sums(rows.form, several(rows.support)), fit.tops, fit.totals, fit.slopes, strict=True
    ):
        f = _relative(scores, rows, top)
        matrix, scale = forms.pull(sum, f, getattr(counted, sum.over), fit.offset, whole)
        parts.append((matrix, scale * slope))
    if len(parts) == 1:
        return parts[0]
    return functools.reduce(jnp.add, (matrix * scale for matrix, scale in parts)), jnp.ones_like(fit.offset)


def _slopes(rows: Rows, towards: Column, pulled: Float[Array, "B D"]) -> Slopes:
    """To anchors by way of the pool, to the inner product with the positive, and to the temperature."""
    positive, temperature = rows.positive[:, None], rows.temperature[:, None]
    anchors, towards = pulled / temperature, towards / temperature
    inner = jnp.sum(anchors * rows.anchors.astype(jnp.float32), axis=1, keepdims=True)
    colder = -(towards * jnp.where(jnp.isneginf(positive), 0.0, positive) + inner) / temperature
    return Slopes(anchors.astype(rows.anchors.dtype), towards[:, 0], colder[:, 0])
