"""The pools of a run: how they begin, what a term's candidates and anchors are, and how a step updates them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core import rngs as streams
from mi_contrast.core.schedules import Progress
from mi_contrast.methods.method import OWN_ROW, Method, Term
from mi_contrast.methods.scoring import Anchors
from mi_contrast.pools import bank as banks
from mi_contrast.pools import clusters
from mi_contrast.pools.protocol import BatchEmbeddings, Candidates
from mi_contrast.training.encoding import Encodings
from mi_contrast.training.state import State, clusters_name

Pools = dict[str, Any]


class Tables(NamedTuple):
    """What is known of every training example, by its stable index.

    Attributes:
      labels: int32 [N], the class; -1 where it is unknown.
      groups: int32 [N], the instance: examples of the same group show the same thing.
    """

    labels: Int[Array, " N"]
    groups: Int[Array, " N"]


def init_pools(
    method: Method, train_mask: Bool[np.ndarray, " N"], dims: Mapping[str, int], seed: int, mesh: Mesh
) -> Pools:
    """Returns the states of the method's pools before the first step, by name.

    Args:
      train_mask: bool [N], the examples that are trained on.
      dims: for each head the dimension of its embeddings.
    """
    rng = streams.stream_rng(jax.random.key(seed), "pools")
    states: Pools = {}
    counts: Counter[type] = Counter()  # pools are numbered within their kind, so that another kind changes no draw
    for name, pool in method.stateful_pools.items():
        own_rng = jax.random.fold_in(rng, counts[type(pool)])
        counts[type(pool)] += 1
        states[name] = pool.init(own_rng, jnp.asarray(train_mask), dims[method.heads[name]], mesh)
    return states


def init_clusters(method: Method, pools: Pools, mesh: Mesh) -> dict[str, Array]:
    """Returns the labels of each pool's clusterings before the first of them: no row is close to another."""
    return {
        clusters_name(name): clusters.init_labels(len(pools[name].valid), settings["clusterings"], mesh)
        for name, settings in method.clusterings.items()
    }


def refresh_clusters(method: Method, pools: Pools, carried: dict[str, Any], epoch: int, mesh: Mesh) -> dict[str, Any]:
    """Returns `carried` with new labels for the clusterings that are due in this epoch, 0 being the first."""
    for name, settings in method.clusterings.items():
        if epoch % settings["every_epochs"] == 0:
            seeds = [1000 * epoch + j for j in range(settings["clusterings"])]
            labels = clusters.refresh(pools[name], settings["number"], seeds, mesh)
            carried = carried | {clusters_name(name): labels}
    return carried


def find_candidates(
    method: Method,
    term: Term,
    pools: Pools,
    carried: Mapping[str, Any],
    embeddings: Mapping[str, Float[Array, "B D"]],
    index: Int[Array, "B V"],
    tables: Tables,
) -> Candidates:
    """Returns what the term's anchors are scored against: its pool as the step before left it, or this batch.

    Args:
      embeddings: this step's keys in the term's space, by view.
      index: int32 [B, V], the examples of the batch.
    """
    ids = {view: index[:, source] for view, source in method.source.items()}
    batch = BatchEmbeddings(embeddings, ids, gradient=method.target == "none")
    labels = None
    if term.closeness == "label":
        labels = tables.labels[:, None]
    elif term.closeness == "clusters":
        labels = carried[clusters_name(term.pool)]
    return method.pools[term.pool].candidates(pools.get(term.pool), batch, labels)


def find_anchors(
    method: Method, term: Term, encodings: Encodings, state: State, index: Int[Array, "B V"], tables: Tables, mesh: Mesh
) -> Anchors:
    """Returns the term's anchors with their positives, own ids and labels. `score_term` adds the rngs for draws."""
    ids = find_own_ids(method, term, index)
    keys = encodings.keys(term.head)
    if term.positive == OWN_ROW:
        own = index[:, 0]
        positives = jax.lax.stop_gradient(banks.read(state.pools[term.pool].rows, own, mesh))
    else:
        own = index[:, method.source[term.anchor]]
        positives = keys[term.positive]
    if term.look_up is None:
        rows = encodings.anchors(term.head)[term.anchor]
    else:
        queries = encodings.taken_from("target", term.head)[term.anchor]
        batch = BatchEmbeddings(keys, {}, gradient=False)
        rows = look_up_nearest(
            method.pools[term.look_up].candidates(state.pools[term.look_up], batch, None), queries, ids
        )
    labels = None
    if term.closeness == "label":
        labels = tables.labels[own][:, None]
    elif term.closeness == "clusters":
        labels = clusters.read_labels(state.carried[clusters_name(term.pool)], own, mesh)
    return Anchors(rows, positives, ids, labels)


def find_own_ids(method: Method, term: Term, index: Int[Array, "B V"]) -> Int[Array, "B O"]:
    """Returns the examples whose rows are no candidates of an anchor in the term's space."""
    own = method.own_sources(term.head, index.shape[1])
    return index if len(own) == index.shape[1] else index[:, jnp.asarray(own)]


def look_up_nearest(
    candidates: Candidates, embeddings: Float[Array, "B D"], ids: Int[Array, "B V"]
) -> Float[Array, "B D"]:
    """Returns the row nearest to each embedding, without gradient; the embedding itself while no row is valid.

    Args:
      ids: int32 [B, V], the examples whose rows are left out.
    Source: Dwibedi et al. 2021 (NNCLR), which does not leave out an example's own rows.
    """
    embeddings = jax.lax.stop_gradient(embeddings)
    scores = jnp.where(candidates.valid, embeddings @ candidates.rows.T, -jnp.inf)
    for column in ids.T:
        scores = jnp.where(column[:, None] == candidates.ids, -jnp.inf, scores)
    nearest = candidates.rows[jnp.argmax(scores, axis=1)]
    return jnp.where(jnp.isfinite(jnp.max(scores, axis=1))[:, None], nearest, embeddings)


def update_pools(
    method: Method,
    pools: Pools,
    encodings: Encodings,
    index: Int[Array, "B V"],
    t: Progress,
    accept: Bool[Array, ""],
    mesh: Mesh,
) -> Pools:
    """Returns the pools after a step: each takes its view's embeddings. If `accept` is False, nothing changes."""
    updated: Pools = {}
    for name, pool in method.stateful_pools.items():
        view = str(pool.takes)
        embeddings = encodings.taken_from(str(pool.network), method.heads[name])[view]
        ids = index[:, 0] if pool.per_example else index[:, method.source[view]]
        updated[name] = pool.update(pools[name], embeddings, ids, t, accept, mesh)
    return updated
