"""Checks the arguments of `contrast` and converts them to arrays with one row per anchor or per candidate."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32
from numpy.typing import ArrayLike

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.shards import Axis, Tree, first_row_index
from mi_contrast.estimators.supports import Close, Drawn, Form, Support, check, convert_percentiles

MAX_SCORES = 2**22  # scores of a block of anchors if the caller gives no block size: 16 MiB


class AnchorInputs(NamedTuple):
    """Everything that belongs to each anchor. The leaves of `support` and `form` are [B] too.

    Cotangents have the same form; they are None for what has no gradient.
    """

    rows: Float[Array, "B D"]
    positive: Float[Array, " B"]  # similarity of the positive
    temperature: Float[Array, " B"]
    support: Any = None  # a Support with percentiles in millionths
    form: Any = None  # a Form
    excluded_ids: Int[Array, "B E"] | None = None
    labels: Int[Array, "B R"] | None = None
    seeds: UInt32[Array, "B 2"] | None = None  # for the draws of `Drawn`


class PoolInputs(NamedTuple):
    """Everything that belongs to each candidate."""

    rows: Float[Array, "K D"]
    valid: Bool[Array, " K"] | None = None
    ids: Int[Array, " K"] | None = None
    labels: Int[Array, "K R"] | None = None


class OptionalInputs(NamedTuple):
    """The optional arrays of `contrast`, by the names of its keywords; `rng` is its `key`."""

    valid: Array | None = None
    anchor_ids: Array | None = None
    pool_ids: Array | None = None
    anchor_labels: Array | None = None
    pool_labels: Array | None = None
    rng: Array | None = None


def prepare_inputs(
    anchors: Array,
    positives: Array,
    pool: Array,
    support: Support,
    form: Form,
    temperature: ArrayLike,
    optional: OptionalInputs,
    axis: Axis = None,
) -> tuple[AnchorInputs, PoolInputs]:
    """Returns the checked arguments of `contrast`, broadcast to one row per anchor and per candidate.

    Raises:
      UserError: see `contrast`.
    """
    anchors, positives, pool = jnp.asarray(anchors), jnp.asarray(positives), jnp.asarray(pool)
    if anchors.ndim != 2 or positives.shape != anchors.shape or pool.ndim != 2 or pool.shape[1] != anchors.shape[1]:
        shapes = f"anchors {anchors.shape}, positives {positives.shape} and pool {pool.shape}"
        raise UserError(f"{shapes} do not fit", fix="give [B, D], [B, D] and [K, D]")
    check(support, form)
    _check_optional(optional, support, len(anchors), len(pool))
    if not isinstance(temperature, jax.core.Tracer) and not np.all(np.asarray(temperature) > 0):
        raise UserError(f"temperature {temperature} is not above 0", fix="give a positive number")
    repeat_for_anchors = lambda x: jnp.broadcast_to(x, (len(anchors),))  # noqa: E731
    support, nan_or_zero = convert_percentiles(support)
    temperature = repeat_for_anchors(jnp.asarray(temperature, jnp.float32) + lax.stop_gradient(nan_or_zero))
    form = jax.tree.map(lambda x: repeat_for_anchors(jnp.asarray(x, jnp.float32)), form)
    positive = jnp.sum(anchors.astype(jnp.float32) * positives.astype(jnp.float32), axis=1)
    make_columns = lambda x: None if x is None else jnp.atleast_2d(jnp.asarray(x).T).T  # noqa: E731
    seeds, rng = None, optional.rng
    if isinstance(support, Drawn) and rng is not None:
        indices = first_row_index(len(anchors), axis) + jnp.arange(len(anchors))
        rngs = rng if rng.ndim else jax.vmap(lambda i: jax.random.fold_in(rng, i))(indices)
        seeds = jax.vmap(lambda anchor_rng: jax.random.bits(anchor_rng, (2,)))(rngs)
    anchor_inputs = AnchorInputs(
        rows=anchors,
        positive=positive,
        temperature=temperature,
        support=jax.tree.map(repeat_for_anchors, support),
        form=form,
        excluded_ids=make_columns(optional.anchor_ids),
        labels=make_columns(optional.anchor_labels),
        seeds=seeds,
    )
    pool_inputs = PoolInputs(
        rows=pool, valid=optional.valid, ids=optional.pool_ids, labels=make_columns(optional.pool_labels)
    )
    return match_varying_axes((anchor_inputs, pool_inputs))


def _check_optional(optional: OptionalInputs, support: Support, num_anchors: int, num_candidates: int) -> None:
    for anchor_name, pool_name in (("anchor_ids", "pool_ids"), ("anchor_labels", "pool_labels")):
        anchor_value, pool_value = getattr(optional, anchor_name), getattr(optional, pool_name)
        if (anchor_value is None) != (pool_value is None):
            missing = pool_name if pool_value is None else anchor_name
            kind = anchor_name.split("_")[1]
            raise UserError(f"{kind} were given on one side only", fix=f"give {missing} too, or neither")
        for name, x, length in ((anchor_name, anchor_value, num_anchors), (pool_name, pool_value, num_candidates)):
            if x is not None and x.shape[:1] != (length,):
                raise UserError(f"{name} {x.shape} does not fit", fix=f"give {length} of them")
    if optional.valid is not None and optional.valid.shape != (num_candidates,):
        raise UserError(f"valid {optional.valid.shape} does not fit", fix=f"give {num_candidates} of them")
    if isinstance(support, Close):
        if optional.anchor_labels is None or optional.pool_labels is None:
            raise UserError("Close() needs labels", fix="give anchor_labels and pool_labels")
        if optional.anchor_labels.shape[1:] != optional.pool_labels.shape[1:]:
            shapes = f"anchor_labels {optional.anchor_labels.shape} and pool_labels {optional.pool_labels.shape}"
            raise UserError(f"{shapes} do not fit", fix="give [B] and [K], or [B, R] and [K, R]")
    if isinstance(support, Drawn) and optional.rng is None:
        raise UserError("Drawn() needs a random key", fix="give key=jax.random.key(...)")
    if optional.rng is not None and optional.rng.shape not in ((), (num_anchors,)):
        raise UserError(f"key {optional.rng.shape} does not fit", fix=f"give one, or {num_anchors} of them")


def match_varying_axes(tree: Tree) -> Tree:
    """Marks every array as varying over all mesh axes that any array of the tree varies over.

    Inside `shard_map`, operations on arrays that vary over different axes are type errors. Each array passes through a
    `where` on a condition that is always False and depends on all arrays. The compiler removes it.
    """
    never = functools.reduce(jnp.logical_or, (jnp.zeros_like(x[:1], bool).any() for x in jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), tree)


def choose_block_size(block_size: int | None, num_anchors: int, num_candidates: int) -> int:
    """Returns how many anchors are scored at a time, at most `num_anchors`.

    By default blocks have at most 2^22 scores, but at least 16 anchors, and equal sizes: the rows that two blocks share
    would be computed twice.

    Raises:
      UserError: a block size below 1.
    """
    if block_size is not None and block_size < 1:
        raise UserError(f"block {block_size} holds no anchors", fix="give at least 1, or None")
    if block_size is None:
        max_size = max(16, MAX_SCORES // max(1, num_candidates))
        block_size = -(-num_anchors // max(1, -(-num_anchors // max_size)))
    return max(1, min(block_size, num_anchors))


def compute_similarities(anchors: AnchorInputs, pool: PoolInputs) -> Float[Array, "B K"]:
    """Returns the inner products of anchors with the pool; -inf for rows that are not candidates of the anchor."""
    similarities = jnp.matmul(anchors.rows, pool.rows.T, preferred_element_type=jnp.float32)
    if pool.valid is not None:
        similarities = jnp.where(pool.valid, similarities, -jnp.inf)
    if anchors.excluded_ids is not None:
        for ids in jnp.moveaxis(anchors.excluded_ids, 1, 0):
            similarities = jnp.where((ids[:, None] == pool.ids) & (ids[:, None] >= 0), -jnp.inf, similarities)
    return similarities
