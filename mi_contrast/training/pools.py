"""The pools of a run: how they begin, how a term sees them, and what they take from a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mi_contrast.core import rngs as random
from mi_contrast.methods.rows import OWN_ROW, Row, Term
from mi_contrast.methods.scoring import Candidates
from mi_contrast.pools import bank as banks
from mi_contrast.pools import clusters, queue
from mi_contrast.pools.bank import Bank
from mi_contrast.pools.queue import Queue
from mi_contrast.training.state import of_clusters

Pools = dict[str, Any]


class Seen(NamedTuple):
    """A pool as a term sees it; whether its rows are cut over the mesh, whether they carry gradient, and how many of
    them are left out of an anchor's candidates for being its own; of a queue that is unknown, and 0.
    """

    candidates: Candidates
    cut: bool
    gradient: bool
    own: int


class Tables(NamedTuple):
    """What is known of every training example by its stable index: labels int32 [N], -1 unknown; groups int32 [N]."""

    labels: Int[Array, " N"]
    groups: Int[Array, " N"]


def first(row: Row, kept: Bool[np.ndarray, " N"], dims: Mapping[str, int], seed: int, mesh: Mesh) -> Pools:
    """Empty queues and random banks, one row for each of the N examples, those not kept never valid. `dims`: of each
    head's embeddings.
    """
    of = {name: dims[pool["head"]] for name, pool in row.pools.items()}
    pools: Pools = {name: queue.empty(row.pools[name]["size"], of[name]) for name in row.of_kind("queue")}
    key = random.stream_rng(jax.random.key(seed), "pools")
    for at, name in enumerate(row.of_kind("bank")):
        pools[name] = banks.random(jax.random.fold_in(key, at), jnp.asarray(kept), of[name], mesh)
    return pools


def first_clusters(row: Row, pools: Pools, mesh: Mesh) -> dict[str, Array]:
    """Labels of the clusterings of each bank that has them, before the first of them: nothing is close."""
    found = {}
    for name in row.clustered:
        asked = row.pools[name]["clusters"]
        found[of_clusters(name)] = clusters.unassigned(len(pools[name].valid), asked["clusterings"], mesh)
    return found


def refreshed(row: Row, pools: Pools, carried: dict[str, Any], epoch: int, mesh: Mesh) -> dict[str, Any]:
    """The carried state with fresh clusterings of the banks that are due in this epoch, 0 being the first."""
    for name in row.clustered:
        asked = row.pools[name]["clusters"]
        if epoch % asked["every_epochs"] == 0:
            seeds = [1000 * epoch + j for j in range(asked["clusterings"])]
            carried = carried | {of_clusters(name): clusters.refresh(pools[name], asked["number"], seeds, mesh)}
    return carried


def seen(
    row: Row,
    term: Term,
    pools: Pools,
    carried: Mapping[str, Any],
    embeddings: Mapping[str, Float[Array, "B D"]],
    index: Int[Array, "B V"],
    tables: Tables,
) -> Seen:
    """The term's pool as the last step left it, or this step's embeddings, by its head."""
    settings, by = row.pools[term.pool], term.support.get("by")
    if settings["kind"] == "in_batch":
        views = settings["views"]
        # Side by side, not end to end: each device's rows stay where they are.
        rows = jnp.stack([embeddings[view] for view in views], axis=1).reshape(len(index) * len(views), -1)
        ids = jnp.stack([index[:, row.source[view]] for view in views], axis=1).reshape(-1)
        classes = None if by is None else tables.labels[ids][:, None]
        return Seen(Candidates(rows, jnp.ones(len(ids), bool), ids, classes), True, row.target == "none", len(views))
    pool = pools[term.pool]
    if isinstance(pool, Queue):
        classes = None if by is None else tables.labels[jnp.maximum(pool.ids, 0)][:, None]
        return Seen(Candidates(pool.rows, queue.valid(pool), pool.ids, classes), False, False, 0)
    labels: Array | None = None
    if by == "clusters":
        labels = carried[of_clusters(term.pool)]
    elif by == "label":
        labels = jnp.pad(tables.labels, (0, len(pool.valid) - len(tables.labels)), constant_values=-1)[:, None]
    own = None if settings["self_row"] else banks.ids(pool)
    return Seen(Candidates(pool.rows, pool.valid, own, labels), True, False, int(own is not None))


def anchor_labels(
    term: Term, own: Int[Array, " B"], carried: Mapping[str, Any], tables: Tables, mesh: Mesh
) -> Int[Array, "B R"] | None:
    """What close candidates share with the anchors: their labels, or their clusters; None where nothing is close."""
    by = term.support.get("by")
    if by is None:
        return None
    return tables.labels[own][:, None] if by == "label" else clusters.of(carried[of_clusters(term.pool)], own, mesh)


def own_ids(row: Row, term: Term, index: Int[Array, "B V"]) -> Int[Array, "B O"]:
    """The examples whose rows are not an anchor's candidates in the term's space."""
    own = row.own(term.head, index.shape[1])
    return index if len(own) == index.shape[1] else index[:, jnp.asarray(own)]


def own_rows(term: Term, pools: Pools, index: Int[Array, "B V"], mesh: Mesh) -> Float[Array, "B D"]:
    """The examples' own rows of the term's bank, without gradient."""
    assert term.positive == OWN_ROW
    return jax.lax.stop_gradient(banks.read(pools[term.pool].rows, index[:, 0], mesh))


def nearest(pool: Queue, embeddings: Float[Array, "B D"], ids: Int[Array, "B V"]) -> Float[Array, "B D"]:
    """The row of the queue nearest to each embedding, its own example's rows left out; the embedding itself while the
    queue is empty. No gradient.

    Source: Dwibedi et al. 2021 (NNCLR), which does not leave the own rows out.
    """
    embeddings = jax.lax.stop_gradient(embeddings)
    scores = jnp.where(queue.valid(pool), embeddings @ pool.rows.T, -jnp.inf)
    for column in ids.T:
        scores = jnp.where(column[:, None] == pool.ids, -jnp.inf, scores)
    found = pool.rows[jnp.argmax(scores, axis=1)]
    return jnp.where(jnp.isfinite(jnp.max(scores, axis=1))[:, None], found, embeddings)


def taken(
    row: Row,
    pools: Pools,
    online: Mapping[str, Mapping[str, Float[Array, "B D"]]],
    beside: Mapping[str, Mapping[str, Float[Array, "B D"]]],
    index: Int[Array, "B V"],
    momenta: Mapping[str, Array],
    keep: Bool[Array, ""],
    mesh: Mesh,
) -> Pools:
    """The pools after a step: banks take the online embeddings of their view, queues those beside (the target's, where
    there is one), each by its head. Where `keep` is False nothing is taken.
    """
    found: Pools = {}
    for name, pool in pools.items():
        view, head = row.pools[name]["takes"], row.pools[name]["head"]
        if isinstance(pool, Bank):
            found[name] = banks.update(pool, index[:, 0], online[head][view], momenta[name], mesh, keep)
        else:
            found[name] = queue.push(pool, beside[head][view], index[:, row.source[view]], keep)
    return found
