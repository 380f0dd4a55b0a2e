"""What the support of the first term holds: whether its value is a bound on this batch, and whose rows are in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.mesh import DATA, batch_sharding, replicated
from mi_contrast.core.schedules import Progress
from mi_contrast.data.readers import Batch
from mi_contrast.methods import words
from mi_contrast.methods.method import Term
from mi_contrast.methods.scoring import Anchors
from mi_contrast.pools.protocol import Candidates
from mi_contrast.training import adaptive
from mi_contrast.training.candidates import StepContext, Tables, find_anchors, find_candidates
from mi_contrast.training.encoding import Encodings, make_crops
from mi_contrast.training.parts import Parts
from mi_contrast.training.state import State, placement
from mi_contrast.training.step import Scalars

MAX_ANCHORS = 256  # of a batch: the standard error of a share over 256 anchors is at most 3 points

Labels = Mapping[str, tuple[Int[Array, " B"], Int[Array, " K"]]]  # of anchors and of candidates


def make_support_statistics(parts: Parts) -> Callable[[State, Batch, Tables], Scalars]:
    """Returns a jitted function of the state before a step and its batch, which describes the first term's support.

    bound_share: share of anchors for which the mean of e^f over the support is at least its mean over the pool, so that
    the value over the support is at most InfoNCE's. bound_gap: mean over anchors of log mean e^f over the support minus
    that over the pool; below 0 the batch's mean is no bound, whatever the share. same_class and same_instance: share of
    the support's weight that has the anchor's label, or belongs to its group. support_size: mean over anchors.
    """
    everywhere, state_sharding = replicated(parts.mesh), placement(parts.method, parts.mesh)

    def statistics(state: State, batch: Batch, tables: Tables) -> Scalars:
        return describe_support(parts, state, batch, tables)

    in_shardings = state_sharding, batch_sharding(parts.mesh), everywhere
    return jax.jit(statistics, in_shardings=in_shardings, out_shardings=everywhere)


def describe_support(parts: Parts, state: State, batch: Batch, tables: Tables) -> Scalars:
    """Returns the statistics that `make_support_statistics` lists."""
    method, t = adaptive.resolve(parts.method, state.carried), Progress(state.step, parts.total_steps)
    crops = make_crops(parts.augmentation, parts.seed, state.step, batch)
    views = parts.augmentation.divide(crops, state.generator.get("params"))
    target = state.target or state.online
    target_outputs, _ = parts.encoder.encode_views(target, views, method.target_views, shuffle=True)
    online_outputs, _ = parts.encoder.encode_views(state.online, views, method.online_views)
    encodings, term, index = Encodings(online_outputs, target_outputs), method.terms[0], batch.index

    context = StepContext(method, t, state, batch, tables, parts.mesh)
    candidates = find_candidates(context, term, encodings.select_keys(term.head))
    anchors = find_anchors(context, term, encodings)
    if not candidates.sharded:  # some anchors are enough; those of sharded candidates have to stay on their devices
        anchors, index = jax.tree.map(lambda x: x[:MAX_ANCHORS], (anchors, index))
    own, theirs = index[:, method.source_index[term.anchor]], jnp.maximum(find_examples(candidates), 0)
    labels = {
        "same_class": (tables.labels[own], tables.labels[theirs]),
        "same_instance": (tables.groups[own], tables.groups[theirs]),
    }
    statistics = compute_statistics(term, anchors, candidates, labels, t, parts.mesh)
    nonempty = statistics.size > 0
    count = jnp.maximum(jnp.sum(nonempty), 1)

    def average(value: Array) -> Array:
        return jnp.sum(jnp.where(nonempty, value, 0.0)) / count

    shares = {
        name: jnp.sum(match.same) / jnp.maximum(jnp.sum(match.known), 1e-9)
        for name, match in statistics.matches.items()
    }
    return shares | {
        "bound_share": average(statistics.bound_holds.astype(jnp.float32)),
        "bound_gap": average(statistics.log_mean_support - statistics.log_mean_pool),
        "support_size": average(statistics.size),
    }


def find_examples(candidates: Candidates) -> Int[Array, " K"]:
    """Returns the example of each candidate. Without ids they are a bank's rows, and row i belongs to example i."""
    return jnp.arange(len(candidates.rows), dtype=jnp.int32) if candidates.ids is None else candidates.ids


def compute_statistics(
    term: Term, anchors: Anchors, candidates: Candidates, labels: Labels, t: Progress, mesh: Mesh
) -> mi.Statistics:
    """Returns `contrast_statistics` of the term, computed over the devices where the candidates are sharded."""
    support, temperature = words.make_support(term.support, t), schedules.value(term.temperature, t)
    own = {name: of_anchors for name, (of_anchors, _) in labels.items()}
    theirs = {name: of_candidates for name, (_, of_candidates) in labels.items()}
    ids = None if candidates.ids is None else anchors.excluded_ids

    def on_shard(anchors, ids, own, rows, valid, pool_ids, theirs, support, temperature):  # type: ignore[no-untyped-def]
        return mi.contrast_statistics(
            anchors,
            rows,
            support,
            temperature=temperature,
            valid=valid,
            anchor_ids=ids,
            pool_ids=pool_ids,
            labels={name: (own[name], theirs[name]) for name in own},
            axis_name=DATA if candidates.sharded else None,
        )

    arguments = (anchors.rows, ids, own, candidates.rows, candidates.valid, candidates.ids, theirs)
    if not candidates.sharded:
        return on_shard(*arguments, support, temperature)
    sharded = PartitionSpec(DATA)
    in_specs = (*[sharded] * len(arguments), PartitionSpec(), PartitionSpec())
    return jax.shard_map(on_shard, mesh=mesh, in_specs=in_specs, out_specs=sharded)(*arguments, support, temperature)
