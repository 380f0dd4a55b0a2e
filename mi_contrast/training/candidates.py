"""The pools of a run: how their states begin, what a term's candidates and anchors are, and how a step updates them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core import rngs as streams
from mi_contrast.core.schedules import Progress
from mi_contrast.data.readers import Batch
from mi_contrast.methods.method import OWN_ROW, Method, Term
from mi_contrast.methods.scoring import Anchors
from mi_contrast.pools import bank as banks
from mi_contrast.pools import clusters
from mi_contrast.pools.protocol import BatchEmbeddings, Candidates
from mi_contrast.training.encoding import Encodings
from mi_contrast.training.state import State, clusters_name

PoolStates = dict[str, Any]  # by the name of the pool


class Tables(NamedTuple):
    """What is known of every training example, by its stable index.

    Attributes:
      labels: int32 [N], the class; -1 where it is unknown.
      groups: int32 [N], the instance: examples of the same group show the same thing.
    """

    labels: Int[Array, " N"]
    groups: Int[Array, " N"]


@dataclass(frozen=True)
class StepContext:
    """What the functions of one step read.

    Attributes:
      method: with its adaptive schedules resolved for this step.
      t: the progress at which schedules are read.
      state: the state before this step.
      batch: the images of this step, and the examples that they belong to.
    """

    method: Method
    t: Progress
    state: State
    batch: Batch
    tables: Tables
    mesh: Mesh


def init_pool_states(
    method: Method, train_mask: Bool[np.ndarray, " N"], dims: Mapping[str, int], seed: int, mesh: Mesh
) -> PoolStates:
    """Returns the states of the method's pools before the first step, by name.

    Args:
      train_mask: bool [N], the examples that are trained on.
      dims: for each head the dimension of its embeddings.
    """
    rng = streams.stream_rng(jax.random.key(seed), "pools")
    pool_states: PoolStates = {}
    counts: Counter[type] = Counter()  # pools are numbered within their kind, so that another kind changes no draw
    for name, pool in method.stateful_pools.items():
        own_rng = jax.random.fold_in(rng, counts[type(pool)])
        counts[type(pool)] += 1
        pool_states[name] = pool.init(own_rng, jnp.asarray(train_mask), dims[method.heads[name]], mesh)
    return pool_states


def init_clusters(method: Method, pool_states: PoolStates, mesh: Mesh) -> dict[str, Array]:
    """Returns the labels of each pool's clusterings before the first of them: no row is close to another."""
    return {
        clusters_name(name): clusters.init_labels(len(pool_states[name].valid), settings["clusterings"], mesh)
        for name, settings in method.clusterings.items()
    }


def refresh_clusters(
    method: Method, pool_states: PoolStates, auxiliary: dict[str, Any], epoch: int, mesh: Mesh
) -> dict[str, Any]:
    """Returns the auxiliary state with new labels for the clusterings that are due in this epoch.

    Args:
      auxiliary: `State.carried`.
      epoch: the number of the epoch, from 0.
    """
    for name, settings in method.clusterings.items():
        if epoch % settings["every_epochs"] == 0:
            seeds = [1000 * epoch + j for j in range(settings["clusterings"])]
            labels = clusters.refresh(pool_states[name], settings["number"], seeds, mesh)
            auxiliary = auxiliary | {clusters_name(name): labels}
    return auxiliary


def find_candidates(context: StepContext, term: Term, keys: Mapping[str, Float[Array, "B D"]]) -> Candidates:
    """Returns what the term's anchors are scored against.

    They are the rows of the term's pool before this step's update, or this batch's embeddings.

    Args:
      keys: the embeddings of this step that are candidates in the term's space, by view.
    """
    method, index = context.method, context.batch.index
    ids = {view: index[:, source] for view, source in method.source_index.items()}
    batch = BatchEmbeddings(keys, ids, has_gradient=method.target == "none")
    labels = None
    if term.closeness == "label":
        labels = context.tables.labels[:, None]
    elif term.closeness == "clusters":
        labels = context.state.carried[clusters_name(term.pool)]
    return method.pools[term.pool].candidates(context.state.pools.get(term.pool), batch, labels)


def find_anchors(context: StepContext, term: Term, encodings: Encodings) -> Anchors:
    """Returns the term's anchors, their positives, excluded ids and labels. `score_term` adds the rngs for draws."""
    method, pool_states, index = context.method, context.state.pools, context.batch.index
    excluded_ids, keys = find_excluded_ids(method, term, index), encodings.select_keys(term.head)
    if term.positive == OWN_ROW:
        anchor_ids = index[:, 0]
        positives = jax.lax.stop_gradient(banks.read(pool_states[term.pool].rows, anchor_ids, context.mesh))
    else:
        anchor_ids = index[:, method.source_index[term.anchor]]
        positives = keys[term.positive]
    if term.look_up is None:
        rows = encodings.select_anchors(term.head)[term.anchor]
    else:
        batch = BatchEmbeddings(keys, {}, has_gradient=False)
        rows = look_up_nearest(
            method.pools[term.look_up].candidates(pool_states[term.look_up], batch, None),
            encodings.embeddings_of("target", term.head)[term.anchor],
            excluded_ids,
        )
    labels = None
    if term.closeness == "label":
        labels = context.tables.labels[anchor_ids][:, None]
    elif term.closeness == "clusters":
        labels = clusters.read_labels(context.state.carried[clusters_name(term.pool)], anchor_ids, context.mesh)
    return Anchors(rows, positives, excluded_ids, labels)


def find_excluded_ids(method: Method, term: Term, index: Int[Array, "B I"]) -> Int[Array, "B E"]:
    """Returns the ids of the examples that must not serve as negatives of each anchor, int32 [B, E].

    Args:
      index: int32 [B, I], the examples of the batch.
    """
    sources = method.own_sources(term.head, index.shape[1])
    return index if len(sources) == index.shape[1] else index[:, jnp.asarray(sources)]


def look_up_nearest(
    candidates: Candidates, embeddings: Float[Array, "B D"], excluded_ids: Int[Array, "B E"]
) -> Float[Array, "B D"]:
    """Returns the row nearest to each embedding, without gradient; the embedding itself while no row is valid.

    Args:
      excluded_ids: int32 [B, E], the examples whose rows are left out.
    Source: Dwibedi et al. 2021 (NNCLR), which does not leave out an example's own rows.
    """
    embeddings = jax.lax.stop_gradient(embeddings)
    similarities = jnp.where(candidates.valid, embeddings @ candidates.rows.T, -jnp.inf)
    for column in excluded_ids.T:
        similarities = jnp.where(column[:, None] == candidates.ids, -jnp.inf, similarities)
    nearest = candidates.rows[jnp.argmax(similarities, axis=1)]
    return jnp.where(jnp.isfinite(jnp.max(similarities, axis=1))[:, None], nearest, embeddings)


def update_pool_states(context: StepContext, encodings: Encodings, accept: Bool[Array, ""]) -> PoolStates:
    """Returns the states of the pools after a step: each takes its view's embeddings.

    Args:
      accept: if False, nothing changes.
    """
    method, index = context.method, context.batch.index
    updated: PoolStates = {}
    for name, pool in method.stateful_pools.items():
        view = str(pool.takes)
        embeddings = encodings.embeddings_of(str(pool.network), method.heads[name])[view]
        ids = index[:, 0] if pool.per_example else index[:, method.source_index[view]]
        updated[name] = pool.update(context.state.pools[name], embeddings, ids, context.t, accept, context.mesh)
    return updated
