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
from mi_contrast.estimators.inputs import AnchorInputs, PoolInputs, choose_block_size, compute_similarities
from mi_contrast.estimators.selection import ScoreRange, decode_scores, summarise_scores
from mi_contrast.estimators.shards import (
    Axis,
    gather_rows,
    max_over_devices,
    sum_and_take_local_rows,
    sum_over_devices,
    take_local_rows,
)
from mi_contrast.estimators.supports import Binary, Drawn, Hard, has_further_positives
from mi_contrast.estimators.weights import REACH, Bands, Weights, compute_weights, find_bands, sum_weights


class StaticArgs(NamedTuple):
    """The arguments that are fixed at compile time.

    Attributes:
      block_size: number of anchors per block, or None for `choose_block_size`.
      needs_pool_gradient: whether the pool receives a gradient.
      axis: the mesh axis over which anchors and pool are sharded, or None.
    """

    block_size: int | None
    needs_pool_gradient: bool
    axis: Axis


class BlockStats(NamedTuple):
    """Statistics of a block of anchors from which the derivatives with respect to scores follow.

    Attributes:
      bands: bands of the support.
      offset: `forms.binary_offset`, float32 [B, 1].
      references: for each sum of the form, the similarity that is subtracted before it is computed, float32 [B, 1].
      totals: the sums, over all devices, float32 [B, 1].
      d_sums: derivatives of the nats with respect to `forms.transform_total` of the sums, float32 [B, 1].
    """

    bands: Bands
    offset: Column
    references: tuple[Column, ...]
    totals: tuple[Column, ...]
    d_sums: tuple[Column, ...]


class AnchorGradients(NamedTuple):
    """Derivatives of each anchor's nats with respect to its inputs; `positive` is the similarity of the positive."""

    rows: Float[Array, "B D"]
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
        nats, d_positive, stats, similarities, weights = _forward_block(block, pool, static.axis)
        matrix, factor = _differentiate_scores(block, similarities, weights, stats)
        dtype = jnp.promote_types(block.rows.dtype, pool.rows.dtype)
        product = jnp.matmul(matrix.astype(dtype), pool.rows, preferred_element_type=jnp.float32)
        return nats, d_positive, product * factor, stats if static.needs_pool_gradient else None

    nats, d_positive, product, stats = map_blocks(compute_block, anchors, _block_size(static, anchors, pool))
    nats, d_positive = take_local_rows((nats, d_positive), static.axis)
    gradients = _anchor_gradients(local_anchors, d_positive, sum_and_take_local_rows(product, static.axis))
    return nats[:, 0], (gradients, (anchors, pool, stats) if static.needs_pool_gradient else None)


def _backward(static: StaticArgs, residuals: Any, nats_cotangent: Array) -> tuple[AnchorInputs, PoolInputs | None]:
    gradients, saved = residuals
    anchor_cotangents = AnchorInputs(
        rows=(nats_cotangent[:, None] * gradients.rows).astype(gradients.rows.dtype),
        positive=nats_cotangent * gradients.positive,
        temperature=nats_cotangent * gradients.temperature,
    )
    if not static.needs_pool_gradient:
        return anchor_cotangents, None
    anchors, pool, stats = saved

    def compute_block(block: tuple[AnchorInputs, BlockStats, Array], is_new: Bool[Array, " block"]) -> Array:
        anchors, stats, nats_cotangent = block
        # Ties at the edges of a band need bit-equal similarities, so this must be the same product as in the forward
        # pass.
        similarities = compute_similarities(anchors, pool)
        weights = compute_weights(similarities, anchors, pool, stats.bands, static.axis)
        matrix, factor = _differentiate_scores(anchors, similarities, weights, stats)
        excluded = ~is_new[:, None] | jnp.isneginf(anchors.positive)[:, None]
        factor = jnp.where(excluded, 0.0, nats_cotangent[:, None] * factor / anchors.temperature[:, None])
        return jnp.matmul((factor * matrix).T, anchors.rows, preferred_element_type=jnp.float32)

    rows = anchors, stats, gather_rows(nats_cotangent, static.axis)
    pool_cotangent = sum_blocks(compute_block, rows, _block_size(static, anchors, pool))
    return anchor_cotangents, PoolInputs(rows=pool_cotangent.astype(pool.rows.dtype))


contrast_in_blocks.defvjp(_forward, _backward)
jit_contrast_in_blocks = jax.jit(contrast_in_blocks, static_argnums=0)


def _block_size(static: StaticArgs, anchors: AnchorInputs, pool: PoolInputs) -> int:
    return choose_block_size(static.block_size, len(anchors.rows), len(pool.rows))


def _forward_block(
    anchors: AnchorInputs, pool: PoolInputs, axis: Axis
) -> tuple[Column, Column, BlockStats, Float[Array, "B K"], Weights]:
    """Returns nats, their derivative with respect to f+, statistics for the gradients, similarities and weights."""
    form, has_further = anchors.form, has_further_positives(anchors.support)

    # 1. Compare with the pool, and find out which candidates belong to the support.
    similarities, temperature = compute_similarities(anchors, pool), anchors.temperature[:, None]
    score_range = summarise_scores(similarities, axis)
    bands = find_bands(similarities, anchors, score_range, axis)
    weights = compute_weights(similarities, anchors, pool, bands, axis)
    sizes = _compute_sizes(anchors, bands, weights, axis)

    # 2. Compute the sums of the form, each relative to a reference so that no exponential overflows.
    offset = forms.binary_offset(form, sizes)
    specs = forms.required_sums(form, has_further)
    choose = functools.partial(_choose_reference, similarities, weights, anchors, bands, score_range, axis)
    references = tuple(map(choose, specs))
    terms = [
        forms.compute_terms(
            spec, _relative_scores(similarities, anchors, reference), getattr(weights, spec.score_set), offset
        )
        for spec, reference in zip(specs, references, strict=True)
    ]
    totals = tuple(sum_over_devices([jnp.sum(x, axis=1, keepdims=True) for x in terms], axis))

    # 3. Bring all sums to the first reference, and combine them to nats.
    shift_to_first = lambda reference: (reference - references[0]) / temperature  # noqa: E731
    sums = tuple(
        forms.transform_total(spec, total) + (shift_to_first(reference) if spec.function == "exponential" else 0.0)
        for spec, total, reference in zip(specs, totals, references, strict=True)
    )
    relative_positive = (anchors.positive[:, None] - references[0]) / temperature
    combine = lambda positive, sums: forms.combine_sums(  # noqa: E731
        form, has_further, positive, sums, sizes, offset, references[0] / temperature
    )
    raw_nats, vjp = jax.vjp(combine, relative_positive, sums)
    raw_d_positive, raw_d_sums = vjp(jnp.ones_like(raw_nats))

    # 4. An anchor without a positive has 0 nats and no gradient. A NaN score makes its anchor's results NaN.
    missing = jnp.isneginf(relative_positive)
    nan = jnp.where(score_range.has_nan, jnp.float32(jnp.nan), 0.0)[:, None]
    nats, d_positive = (jnp.where(missing, 0.0, x) + nan for x in (raw_nats, raw_d_positive))
    d_sums = tuple(jnp.where(missing, 0.0, x) + nan for x in raw_d_sums)
    return nats, d_positive, BlockStats(bands, offset, references, totals, d_sums), similarities, weights


def _relative_scores(
    similarities: Float[Array, "B K"], anchors: AnchorInputs, reference: Column
) -> Float[Array, "B K"]:
    """Returns the scores minus the score of the reference."""
    return (similarities - reference) / anchors.temperature[:, None]


def _compute_sizes(anchors: AnchorInputs, bands: Bands, weights: Weights, axis: Axis) -> Sizes:
    is_drawn = isinstance(anchors.support, Drawn)
    candidates = sum_weights(weights.candidates, axis) if is_drawn else bands.size
    no_positives = weights.positives is None
    return Sizes(candidates, jnp.zeros_like(candidates) if no_positives else sum_weights(weights.positives, axis))


def _choose_reference(
    similarities: Float[Array, "B K"],
    weights: Weights,
    anchors: AnchorInputs,
    bands: Bands,
    score_range: ScoreRange,
    axis: Axis,
    spec: SumSpec,
) -> Column:
    """Returns the similarity to subtract before exponentiating.

    No term of the sum is then much above 1, and the largest is not far below 1.
    """
    if isinstance(anchors.form, Binary):
        return jnp.zeros_like(bands.highest)
    # `bands.highest` may be REACH nats above the scores that count. That is too much for `Hard`, which multiplies them
    # by 1 + beta, and for `Drawn`, where the highest scores may not be drawn.
    is_partial = isinstance(anchors.support, Drawn) or isinstance(anchors.form, Hard)
    if spec.function == "score" or (spec.score_set == "candidates" and not is_partial):
        return bands.highest

    def highest_weighted() -> Column:
        weight = getattr(weights, spec.score_set)
        weighted = similarities if weight is None else jnp.where(weight > 0, similarities, -jnp.inf)
        return jnp.max(weighted, axis=1, keepdims=True, initial=-jnp.inf)

    if isinstance(anchors.support, Drawn) and not isinstance(anchors.form, Hard):
        # Finding the highest drawn score costs a pass over the scores. It is skipped if all scores are close together.
        is_close = bands.highest - decode_scores(score_range.lowest)[:, None] <= REACH * anchors.temperature[:, None]
        highest = lax.cond(jnp.all(is_close), lambda: bands.highest, highest_weighted)
    else:
        highest = highest_weighted()
    highest = max_over_devices(highest, axis)
    return jnp.where(jnp.isfinite(highest), highest, 0.0)


def _differentiate_scores(
    anchors: AnchorInputs, similarities: Float[Array, "B K"], weights: Weights, stats: BlockStats
) -> tuple[Float[Array, "B K"], Column]:
    """Returns (matrix, factor), whose product matrix * factor is the derivative of the nats with respect to each score.

    The factor is [B, 1].
    """
    specs = forms.required_sums(anchors.form, has_further_positives(anchors.support))
    parts = []
    for spec, reference, total, d_sum in zip(specs, stats.references, stats.totals, stats.d_sums, strict=True):
        scores = _relative_scores(similarities, anchors, reference)
        weight = getattr(weights, spec.score_set)
        matrix, factor = forms.differentiate_total(spec, scores, weight, stats.offset, total)
        parts.append((matrix, factor * d_sum))
    if len(parts) == 1:
        return parts[0]
    return functools.reduce(jnp.add, (matrix * factor for matrix, factor in parts)), jnp.ones_like(stats.offset)


def _anchor_gradients(anchors: AnchorInputs, d_positive: Column, product: Float[Array, "B D"]) -> AnchorGradients:
    """Returns the gradients of each anchor's nats: through the pool, through the positive and by the temperature.

    Args:
      d_positive: derivative of the nats with respect to f+.
      product: the derivatives with respect to the scores times the rows of the pool.
    """
    positive, temperature = anchors.positive[:, None], anchors.temperature[:, None]
    d_rows, d_similarity = product / temperature, d_positive / temperature
    inner = jnp.sum(d_rows * anchors.rows.astype(jnp.float32), axis=1, keepdims=True)
    d_temperature = -(d_similarity * jnp.where(jnp.isneginf(positive), 0.0, positive) + inner) / temperature
    return AnchorGradients(d_rows.astype(anchors.rows.dtype), d_similarity[:, 0], d_temperature[:, 0])
