"""What the support holds: whether the objective is a bound on this batch, and whose rows are among the negatives."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.mesh import along_batch, replicated
from mi_contrast.data.readers import Batch
from mi_contrast.methods import scoring
from mi_contrast.training.state import State
from mi_contrast.training.step import Parts, Scalars, Tables, candidates, make_views, progress

ANCHORS = 256  # of the batch, at most: a share of 256 anchors is known to 3 points


def make_support_statistics(parts: Parts) -> Callable[[State, Batch, Tables], Scalars]:
    """A jitted function of the state before a step and its batch, for the first term of the row:

    bound_share: share of anchors for which the mean of e^f over the support is at least its mean over the pool, so
    that the value over the whole support is at most InfoNCE's; bound_gap: mean over anchors of log mean e^f over the
    support minus over the pool (below 0 the batch's mean is not a bound, whatever the share); same_class and
    same_instance: share of the support's weight that has the anchor's label, or belongs to its group.
    """
    row = parts.row
    term = row.terms[0]

    def statistics(state: State, batch: Batch, tables: Tables) -> Scalars:
        t = progress(state.step, parts.total_steps)
        views = make_views(parts, state.step, batch)
        anchors = parts.tower.encode(state.online, views[term.anchor], train=True).embedding[:ANCHORS]
        pool = candidates(state.pools[term.pool])
        own, theirs = batch.index[:ANCHORS, row.source[term.anchor]], jnp.maximum(pool.ids, 0)
        found = mi.contrast_statistics(
            anchors,
            pool.rows,
            scoring.support_at(term, t),
            temperature=schedules.value(term.temperature, t),
            valid=pool.valid,
            anchor_ids=batch.index[:ANCHORS],
            pool_ids=pool.ids,
            labels={
                "same_class": (tables.labels[own], tables.labels[theirs]),
                "same_instance": (tables.groups[own], tables.groups[theirs]),
            },
        )
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
    return jax.jit(statistics, in_shardings=(everywhere, along_batch(parts.mesh), everywhere), out_shardings=everywhere)
