"""Contrastive values of anchors against a pool, and their gradients, one block of anchors at a time.

The similarities of a block and the whole pool are computed once. They determine the weights of the candidates, the sums
of the form, the values in nats and the gradients. No [B, K] array outlives its block. The forward pass also computes
the gradients of the anchors and keeps them as residuals. The backward pass recomputes the similarities only if the pool
receives a gradient.

A similarity is the inner product of an anchor and a candidate. The score f is the similarity divided by the
temperature; f+ is the score of the positive.

If the pool is sharded over devices, the anchors are gathered and the pool stays where it is. Only counts and sums per
anchor are communicated.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from mi_contrast.estimators import forms
from mi_contrast.estimators.blocks import map_blocks, sum_blocks
from mi_contrast.estimators.forms import Column, Sizes, SumSpec
from mi_contrast.estimators.inputs import AnchorInputs, PoolInputs, choose_block_size, inner_products
from mi_contrast.estimators.selection import ScoreRange, decode_scores, summarise_scores
from mi_contrast.estimators.shards import (
    Axis,
    gather_rows,
    max_over_devices,
    sum_and_take_local_rows,
    sum_over_devices,
    take_local_rows,
)
from mi_contrast.estimators.supports import Binary, Drawn, Hard, has_several_positives
from mi_contrast.estimators.weights import REACH, Bands, Weights, compute_weights, find_bands, sum_weights


class StaticArgs(NamedTuple):
    """The arguments that are fixed at compile time.

    Attributes:
      block_size: number of anchors per block, or None for `choose_block_size`.
      pool_gradient: whether the pool receives a gradient.
      axis: the mesh axis over which anchors and pool are sharded, or None.
    """

    block_size: int | None
    pool_gradient: bool
    axis: Axis


class BlockStats(NamedTuple):
    """Statistics of a block of anchors from which the gradients with respect to scores follow.

    Attributes:
      bands: bands of the support.
      offset: `forms.binary_offset`, float32 [B, 1].
      references: for each sum of the form, the score that is subtracted before it is computed, float32 [B, 1].
      totals: the sums, over all devices, float32 [B, 1].
      slopes: derivatives of the nats with respect to `forms.transform_total` of the sums, float32 [B, 1].
    """

    bands: Bands
    offset: Column
    references: tuple[Column, ...]
    totals: tuple[Column, ...]
    slopes: tuple[Column, ...]


class AnchorGradients(NamedTuple):
    """Derivatives of each anchor's nats with respect to its inputs; `positive` is the inner product."""

    anchors: Float[Array, "B D"]
    positive: Float[Array, " B"]
    temperature: Float[Array, " B"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def contrast_in_blocks(static: StaticArgs, anchors: AnchorInputs, pool: PoolInputs) -> Float[Array, " B"]:
    """Returns the nats of this device's anchors, float32 [B]. See `contrast` for the values and the arguments."""
    anchors = gather_rows(anchors, static.axis)
    nats = map_blocks(
        lambda block: _forward_block(block, pool, static.axis)[0], anchors, _block_size(static, anchors, pool)
    )
    return take_local_rows(nats[:, 0], static.axis)


def _forward(static: StaticArgs, anchors: AnchorInputs, pool: PoolInputs) -> tuple[Array, Any]:
    """Returns the nats, and as residuals the anchors' gradients, with what the pool's gradient needs."""
    local_anchors, anchors = anchors, gather_rows(anchors, static.axis)

    def compute_block(block: AnchorInputs) -> tuple[Array, Array, Array, BlockStats | None]:
        nats, positive_slope, stats, scores, weights = _forward_block(block, pool, static.axis)
        gradient, factor = _score_gradients(block, scores, weights, stats)
        dtype = jnp.promote_types(block.anchors.dtype, pool.rows.dtype)
        product = jnp.matmul(gradient.astype(dtype), pool.rows, preferred_element_type=jnp.float32)
        return nats, positive_slope, product * factor, stats if static.pool_gradient else None

    nats, positive_slope, product, stats = map_blocks(compute_block, anchors, _block_size(static, anchors, pool))
    nats, positive_slope = take_local_rows((nats, positive_slope), static.axis)
    gradients = _anchor_gradients(local_anchors, positive_slope, sum_and_take_local_rows(product, static.axis))
    return nats[:, 0], (gradients, (anchors, pool, stats) if static.pool_gradient else None)


def _backward(static: StaticArgs, residuals: Any, cotangent: Array) -> tuple[AnchorInputs, PoolInputs | None]:
    gradients, saved = residuals
    anchors_bar = (cotangent[:, None] * gradients.anchors).astype(gradients.anchors.dtype)
    positive_bar, temperature_bar = cotangent * gradients.positive, cotangent * gradients.temperature
    anchor_cotangents = AnchorInputs(anchors=anchors_bar, positive=positive_bar, temperature=temperature_bar)
    if not static.pool_gradient:
        return anchor_cotangents, None
    anchors, pool, stats = saved

    def compute_block(block: tuple[AnchorInputs, BlockStats, Array], is_new: Bool[Array, " block"]) -> Array:
        anchors, stats, cotangent = block
        # Ties at the edges of a band need bit-equal scores, so this must be the same product as in the forward pass.
        scores = inner_products(anchors, pool)
        weights = compute_weights(scores, anchors, pool, stats.bands, static.axis)
        gradient, factor = _score_gradients(anchors, scores, weights, stats)
        excluded = ~is_new[:, None] | jnp.isneginf(anchors.positive)[:, None]
        factor = jnp.where(excluded, 0.0, cotangent[:, None] * factor / anchors.temperature[:, None])
        return jnp.matmul((factor * gradient).T, anchors.anchors, preferred_element_type=jnp.float32)

    rows = anchors, stats, gather_rows(cotangent, static.axis)
    pool_bar = sum_blocks(compute_block, rows, _block_size(static, anchors, pool))
    return anchor_cotangents, PoolInputs(rows=pool_bar.astype(pool.rows.dtype))


contrast_in_blocks.defvjp(_forward, _backward)
jit_contrast_in_blocks = jax.jit(contrast_in_blocks, static_argnums=0)


def _block_size(static: StaticArgs, anchors: AnchorInputs, pool: PoolInputs) -> int:
    return choose_block_size(static.block_size, len(anchors.anchors), len(pool.rows))


def _forward_block(
    anchors: AnchorInputs, pool: PoolInputs, axis: Axis
) -> tuple[Column, Column, BlockStats, Float[Array, "B K"], Weights]:
    """Returns nats, their derivative with respect to f+, statistics for the gradients, scores and weights."""
    form, has_several = anchors.form, has_several_positives(anchors.support)

    # 1. Score the pool, and find out which candidates belong to the support.
    scores, temperature = inner_products(anchors, pool), anchors.temperature[:, None]
    score_range = summarise_scores(scores, axis)
    bands = find_bands(scores, anchors, score_range, axis)
    weights = compute_weights(scores, anchors, pool, bands, axis)
    sizes = _compute_sizes(anchors, bands, weights, axis)

    # 2. Compute the sums of the form, each relative to a reference score so that no exponential overflows.
    offset = forms.binary_offset(form, sizes)
    specs = forms.required_sums(form, has_several)
    references = tuple(_reference_score(spec, scores, weights, anchors, bands, score_range, axis) for spec in specs)
    terms = [
        forms.compute_terms(spec, _relative(scores, anchors, reference), getattr(weights, spec.over), offset)
        for spec, reference in zip(specs, references, strict=True)
    ]
    totals = tuple(sum_over_devices([jnp.sum(x, axis=1, keepdims=True) for x in terms], axis))

    # 3. Bring all sums to the first reference, and combine them to nats.
    shift_to_first = lambda reference: (reference - references[0]) / temperature  # noqa: E731
    sums = tuple(
        forms.transform_total(spec, total) + (shift_to_first(reference) if spec.function == "exponential" else 0.0)
        for spec, total, reference in zip(specs, totals, references, strict=True)
    )
    positive = (anchors.positive[:, None] - references[0]) / temperature
    combine = lambda positive, sums: forms.combine_sums(  # noqa: E731
        form, has_several, positive, sums, sizes, offset, references[0] / temperature
    )
    nats, vjp = jax.vjp(combine, positive, sums)
    positive_slope, slopes = vjp(jnp.ones_like(nats))

    # 4. An anchor without a positive has 0 nats and no gradient. A NaN score makes its anchor's results NaN.
    missing, nan = jnp.isneginf(positive), jnp.where(score_range.has_nan, jnp.float32(jnp.nan), 0.0)[:, None]
    nats, positive_slope = (jnp.where(missing, 0.0, x) + nan for x in (nats, positive_slope))
    slopes = tuple(jnp.where(missing, 0.0, x) + nan for x in slopes)
    return nats, positive_slope, BlockStats(bands, offset, references, totals, slopes), scores, weights


def _relative(scores: Float[Array, "B K"], anchors: AnchorInputs, reference: Column) -> Float[Array, "B K"]:
    return (scores - reference) / anchors.temperature[:, None]


def _compute_sizes(anchors: AnchorInputs, bands: Bands, weights: Weights, axis: Axis) -> Sizes:
    is_drawn = isinstance(anchors.support, Drawn)
    candidates = sum_weights(weights.candidates, axis) if is_drawn else bands.size
    no_positives = weights.positives is None
    return Sizes(candidates, jnp.zeros_like(candidates) if no_positives else sum_weights(weights.positives, axis))


def _reference_score(
    spec: SumSpec,
    scores: Float[Array, "B K"],
    weights: Weights,
    anchors: AnchorInputs,
    bands: Bands,
    score_range: ScoreRange,
    axis: Axis,
) -> Column:
    """Returns the score to subtract before exponentiating: no term is much above 1, and the largest not far below 1."""
    if isinstance(anchors.form, Binary):
        return jnp.zeros_like(bands.highest)
    # `bands.highest` may be REACH nats above the scores that count. That is too much for `Hard`, which multiplies them
    # by 1 + beta, and for `Drawn`, where the highest scores may not be drawn.
    is_partial = isinstance(anchors.support, Drawn) or isinstance(anchors.form, Hard)
    if spec.function == "score" or (spec.over == "candidates" and not is_partial):
        return bands.highest

    def highest_weighted() -> Column:
        weight = getattr(weights, spec.over)
        valid_scores = scores if weight is None else jnp.where(weight > 0, scores, -jnp.inf)
        return jnp.max(valid_scores, axis=1, keepdims=True, initial=-jnp.inf)

    if isinstance(anchors.support, Drawn) and not isinstance(anchors.form, Hard):
        # Finding the highest drawn score costs a pass over the scores. It is skipped if all scores are close together.
        is_close = bands.highest - decode_scores(score_range.lowest)[:, None] <= REACH * anchors.temperature[:, None]
        highest = lax.cond(jnp.all(is_close), lambda: bands.highest, highest_weighted)
    else:
        highest = highest_weighted()
    highest = max_over_devices(highest, axis)
    return jnp.where(jnp.isfinite(highest), highest, 0.0)


def _score_gradients(
    anchors: AnchorInputs, scores: Float[Array, "B K"], weights: Weights, stats: BlockStats
) -> tuple[Float[Array, "B K"], Column]:
    """Returns (matrix, factor), whose product matrix * factor is the derivative of the nats with respect to each score.

    The factor is [B, 1].
    """
    specs = forms.required_sums(anchors.form, has_several_positives(anchors.support))
    parts = []
    for spec, reference, total, slope in zip(specs, stats.references, stats.totals, stats.slopes, strict=True):
        relative = _relative(scores, anchors, reference)
        matrix, factor = forms.score_gradient(spec, relative, getattr(weights, spec.over), stats.offset, total)
        parts.append((matrix, factor * slope))
    if len(parts) == 1:
        return parts[0]
    return functools.reduce(jnp.add, (matrix * factor for matrix, factor in parts)), jnp.ones_like(stats.offset)


def _anchor_gradients(anchors: AnchorInputs, positive_slope: Column, product: Float[Array, "B D"]) -> AnchorGradients:
    """Returns the gradients with respect to the anchors (through the pool), the positive score and the temperature.

    `product` is the product of the scores' gradients with the rows of the pool.
    """
    positive, temperature = anchors.positive[:, None], anchors.temperature[:, None]
    anchors_slope, positive_slope = product / temperature, positive_slope / temperature
    inner = jnp.sum(anchors_slope * anchors.anchors.astype(jnp.float32), axis=1, keepdims=True)
    temperature_slope = -(positive_slope * jnp.where(jnp.isneginf(positive), 0.0, positive) + inner) / temperature
    return AnchorGradients(anchors_slope.astype(anchors.anchors.dtype), positive_slope[:, 0], temperature_slope[:, 0])
