"""What the support holds: whether the objective is a bound on this batch, and whose rows are among the negatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.mesh import DATA, batch_sharding, replicated
from mi_contrast.core.schedules import Progress
from mi_contrast.data.readers import Batch
from mi_contrast.methods import words
from mi_contrast.methods.rows import Term
from mi_contrast.methods.scoring import Candidates
from mi_contrast.training import pools as pooling
from mi_contrast.training.pools import Tables
from mi_contrast.training.state import State, placement
from mi_contrast.training.step import (
    Parts,
    Scalars,
    anchors_of,
    encode_online,
    encode_targets,
    make_views,
    settled,
)

ANCHORS = 256  # of the batch, at most: a share of 256 anchors is known to 3 points


def make_support_statistics(parts: Parts) -> Callable[[State, Batch, Tables], Scalars]:
    """A jitted function of the state before a step and its batch, for the first term of the row:

    bound_share: share of anchors for which the mean of e^f over the support is at least its mean over the pool, so
    that the value over the whole support is at most InfoNCE's; bound_gap: mean over anchors of log mean e^f over the
    support minus over the pool (below 0 the batch's mean is not a bound, whatever the share); same_class and
    same_instance: share of the support's weight that has the anchor's label, or belongs to its group.
    """
    given = parts

    def statistics(state: State, batch: Batch, tables: Tables) -> Scalars:
        parts = settled(given, state)
        row, term = parts.row, parts.row.terms[0]
        t = Progress(state.step, parts.total_steps)
        views = make_views(parts, state.step, batch, state.generator.get("params"))
        targets, _ = encode_targets(parts, state, state.target or state.online, views)
        roles = encode_online(parts, state.online["params"], state.online["batch_stats"], views, targets)
        pool, cut, *_ = pooling.seen(
            row, term, state.pools, state.carried, roles.beside(term.head), batch.index, tables
        )
        anchors, index = anchors_of(parts, term, roles, state, batch), batch.index
        if not cut:  # a pool that lies whole is looked at by some; anchors travel to one that is cut
            anchors, index = anchors[:ANCHORS], index[:ANCHORS]
        own, theirs = index[:, row.source[term.anchor]], jnp.maximum(_examples(pool), 0)
        labels = {
            "same_class": (tables.labels[own], tables.labels[theirs]),
            "same_instance": (tables.groups[own], tables.groups[theirs]),
        }
        own_ids = pooling.own_ids(row, term, index) if pool.ids is not None else None
        found = _looked_at(parts, term, anchors, pool, own_ids, labels, t, cut)
        some = found.size > 0
        count = jnp.maximum(jnp.sum(some), 1)

        def over_anchors(value: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(some, value, 0.0)) / count

        shares = {n: jnp.sum(m.same) / jnp.maximum(jnp.sum(m.known), 1e-9) for n, m in found.matches.items()}
        return shares | {
            "bound_share": over_anchors(found.bound_holds.astype(jnp.float32)),
            "bound_gap": over_anchors(found.log_mean_support - found.log_mean_pool),
            "support_size": over_anchors(found.size),
        }

    everywhere = replicated(parts.mesh)
    placed = placement(parts.row, parts.mesh)
    return jax.jit(statistics, in_shardings=(placed, batch_sharding(parts.mesh), everywhere), out_shardings=everywhere)


def _examples(pool: Candidates) -> jax.Array:
    """The example of each candidate; of a bank, its row."""
    return jnp.arange(len(pool.rows), dtype=jnp.int32) if pool.ids is None else pool.ids


def _looked_at(
    parts: Parts, term: Term, anchors: jax.Array, pool: Candidates, index: Any, labels: Any, t: Progress, cut: bool
) -> mi.Statistics:
    """`contrast_statistics` of the term, over the devices where the pool is cut."""
    own = {name: mine for name, (mine, _) in labels.items()}
    theirs = {name: others for name, (_, others) in labels.items()}

    def on_shard(anchors: Any, index: Any, own: Any, pool: Any, theirs: Any, given: Any) -> mi.Statistics:
        support, temperature = given
        return mi.contrast_statistics(
            anchors,
            pool.rows,
            support,
            temperature=temperature,
            valid=pool.valid,
            anchor_ids=index,
            pool_ids=pool.ids,
            labels={name: (own[name], theirs[name]) for name in own},
            axis_name=DATA if cut else None,
        )

    given = words.support_at(term.support, t), schedules.value(term.temperature, t)
    arguments = anchors, index, own, pool._replace(labels=None), theirs, given
    if not cut:
        return on_shard(*arguments)
    whole, part = PartitionSpec(), PartitionSpec(DATA)
    specs = (part, part, part, part, part, whole)
    return jax.shard_map(on_shard, mesh=parts.mesh, in_specs=specs, out_specs=part)(*arguments)
