"""What `contrast` is given, checked and brought to one shape a kind: anchors, pool, and their products."""

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
from mi_contrast.estimators.shards import Axis, Tree, first_row
from mi_contrast.estimators.supports import Close, Drawn, Form, Support, check, resolved

SCORES = 2**22  # scores held at a time where no block is asked for: 16 MiB


class Rows(NamedTuple):
    """What belongs to each anchor; the leaves of support and form are [B] too."""

    anchors: Float[Array, "B D"]
    positive: Float[Array, " B"]  # inner product with the positive
    temperature: Float[Array, " B"]
    support: Any  # a resolved Support: percentiles in millionths
    form: Any  # a Form
    ids: Int[Array, "B A"] | None
    labels: Int[Array, "B R"] | None
    seeds: UInt32[Array, "B 2"] | None  # of the anchor's own draws


class Pool(NamedTuple):
    """What belongs to each candidate."""

    rows: Float[Array, "K D"]
    valid: Bool[Array, " K"] | None
    ids: Int[Array, " K"] | None
    labels: Int[Array, "K R"] | None


class Given(NamedTuple):
    """Optional inputs of `contrast`, under the names they have there."""

    valid: Array | None = None
    anchor_ids: Array | None = None
    pool_ids: Array | None = None
    anchor_labels: Array | None = None
    pool_labels: Array | None = None
    key: Array | None = None


def gather(
    anchors: Array,
    positives: Array,
    pool: Array,
    support: Support,
    form: Form,
    temperature: ArrayLike,
    given: Given,
    axis: Axis = None,
) -> tuple[Rows, Pool]:
    """Checks the inputs of `contrast` and brings them to one shape a kind.

    Raises:
      UserError: as `contrast`.
    """
    anchors, positives, pool = jnp.asarray(anchors), jnp.asarray(positives), jnp.asarray(pool)
    if anchors.ndim != 2 or positives.shape != anchors.shape or pool.ndim != 2 or pool.shape[1] != anchors.shape[1]:
        shapes = f"anchors {anchors.shape}, positives {positives.shape} and pool {pool.shape}"
        raise UserError(f"{shapes} do not fit", fix="give [B, D], [B, D] and [K, D]")
    check(support, form)
    _check_given(given, support, len(anchors), len(pool))
    if not isinstance(temperature, jax.core.Tracer) and not np.all(np.asarray(temperature) > 0):
        raise UserError(f"temperature {temperature} is not above 0", fix="give a positive number")
    each = lambda x: jnp.broadcast_to(x, (len(anchors),))  # noqa: E731
    support, bad = resolved(support)
    temperature = each(jnp.asarray(temperature, jnp.float32) + lax.stop_gradient(bad))
    form = jax.tree.map(lambda x: each(jnp.asarray(x, jnp.float32)), form)
    positive = jnp.sum(anchors.astype(jnp.float32) * positives.astype(jnp.float32), axis=1)
    columns = lambda x: None if x is None else jnp.atleast_2d(jnp.asarray(x).T).T  # noqa: E731
    seeds, key = None, given.key
    if isinstance(support, Drawn) and key is not None:
        places = first_row(len(anchors), axis) + jnp.arange(len(anchors))
        keys = key if key.ndim else jax.vmap(lambda i: jax.random.fold_in(key, i))(places)
        seeds = jax.vmap(lambda own: jax.random.bits(own, (2,)))(keys)
    ids, labels = columns(given.anchor_ids), columns(given.anchor_labels)
    rows = Rows(anchors, positive, temperature, jax.tree.map(each, support), form, ids, labels, seeds)
    return alike((rows, Pool(pool, given.valid, given.pool_ids, columns(given.pool_labels))))


def _check_given(given: Given, support: Support, count: int, size: int) -> None:
    for one, other in (("anchor_ids", "pool_ids"), ("anchor_labels", "pool_labels")):
        own, theirs = getattr(given, one), getattr(given, other)
        if (own is None) != (theirs is None):
            missing = other if theirs is None else one
            raise UserError(f"{one.split('_')[1]} were given on one side only", fix=f"give {missing} too, or neither")
        for name, x, rows in ((one, own, count), (other, theirs, size)):
            if x is not None and x.shape[:1] != (rows,):
                raise UserError(f"{name} {x.shape} does not fit", fix=f"give {rows} of them")
    if given.valid is not None and given.valid.shape != (size,):
        raise UserError(f"valid {given.valid.shape} does not fit", fix=f"give {size} of them")
    if isinstance(support, Close):
        if given.anchor_labels is None or given.pool_labels is None:
            raise UserError("Close() knows no labels", fix="give anchor_labels and pool_labels")
        if given.anchor_labels.shape[1:] != given.pool_labels.shape[1:]:
            shapes = f"anchor_labels {given.anchor_labels.shape} and pool_labels {given.pool_labels.shape}"
            raise UserError(f"{shapes} do not fit", fix="give [B] and [K], or [B, R] and [K, R]")
    if isinstance(support, Drawn) and given.key is None:
        raise UserError("Drawn() has no key to draw by", fix="give key=jax.random.key(...)")
    if given.key is not None and given.key.shape not in ((), (count,)):
        raise UserError(f"key {given.key.shape} does not fit", fix=f"give one, or {count} of them")


def alike(tree: Tree) -> Tree:
    """Inside `shard_map`: every array varies over the mesh axes that any of them varies over, so that they mix freely.

    Told to the tracer by a choice that is never taken, which the compiler drops.
    """
    never = functools.reduce(jnp.logical_or, (jnp.zeros_like(x[:1], bool).any() for x in jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), tree)


def block_size(block: int | None, rows: int, pool: int) -> int:
    """The block asked for, else equal blocks of as many rows as make 2^22 scores or fewer, 16 at least.

    Never more rows than there are. Blocks are equal because rows that two of them share are computed twice.

    Raises:
      UserError: a block below 1.
    """
    if block is not None and block < 1:
        raise UserError(f"block {block} holds no anchors", fix="give at least 1, or None")
    if block is None:
        most = max(16, SCORES // max(1, pool))
        block = -(-rows // max(1, -(-rows // most)))
    return max(1, min(block, rows))


def products(rows: Rows, pool: Pool) -> Float[Array, "B K"]:
    """Inner products of anchors with the pool, -inf where a row of the pool is no candidate."""
    scores = jnp.matmul(rows.anchors, pool.rows.T, preferred_element_type=jnp.float32)
    if pool.valid is not None:
        scores = jnp.where(pool.valid, scores, -jnp.inf)
    if rows.ids is not None:
        for ids in jnp.moveaxis(rows.ids, 1, 0):
            scores = jnp.where((ids[:, None] == pool.ids) & (ids[:, None] >= 0), -jnp.inf, scores)
    return scores
