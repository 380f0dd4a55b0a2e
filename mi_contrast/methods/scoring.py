"""How a term is scored: its support and temperature at this progress, its anchors against its pool, on every device."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.mesh import DATA
from mi_contrast.estimators import supports
from mi_contrast.methods.rows import FORMS, Term


class Candidates(NamedTuple):
    """A pool as a term sees it: rows f32 [K, D], constants; valid bool [K]; ids int32 [K]."""

    rows: Float[Array, "K D"]
    valid: Bool[Array, " K"]
    ids: Int[Array, " K"]


def percentiles_at(term: Term, t: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
    """The percentiles of the term's support at progress t, by name."""
    return {name: schedules.value(s, t) for name, s in term.support.items() if name != "kind"}


def support_at(term: Term, t: Float[Array, ""]) -> Any:
    """The term's support at progress t, its percentiles as traced float32."""
    return {"all": mi.All, "ball": mi.Ball, "ring": mi.Ring}[term.support["kind"]](**percentiles_at(term, t))


def settings_at(term: Term, t: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
    """The values of the term's schedules at progress t, by name, for the log."""
    return percentiles_at(term, t) | {
        "temperature": schedules.value(term.temperature, t),
        "weight": schedules.value(term.weight, t),
    }


def nats(
    term: Term,
    anchors: Float[Array, "B D"],
    positives: Float[Array, "B D"],
    pool: Candidates,
    anchor_ids: Int[Array, "B V"],
    t: Float[Array, ""],
    mesh: Mesh,
) -> Float[Array, " B"]:
    """The term's value for each anchor, in nats (larger means more information), without its weight.

    Anchors are cut over the mesh axis `data`, the pool is the same everywhere; candidates whose id is one of the
    anchor's own, and invalid ones, are left out. Gradients go to anchors and positives; the pool is constant.
    """
    form = FORMS[term.form]()

    def on_shard(anchors, positives, anchor_ids, pool, support, temperature):
        return mi.contrast(
            anchors,
            positives,
            pool.rows,
            support,
            form,
            temperature=temperature,
            valid=pool.valid,
            anchor_ids=anchor_ids,
            pool_ids=pool.ids,
        )

    cut, same = PartitionSpec(DATA), PartitionSpec()
    scored = jax.shard_map(on_shard, mesh=mesh, in_specs=(cut, cut, cut, same, same, same), out_specs=cut)
    pool = jax.lax.stop_gradient(pool)
    return scored(anchors, positives, anchor_ids, pool, support_at(term, t), schedules.value(term.temperature, t))


def ceiling(term: Term, pool: Candidates, t: Float[Array, ""]) -> Float[Array, ""]:
    """log(1 + n), n the support's size among all valid candidates: what no anchor's value can exceed."""
    valid = jnp.sum(pool.valid, dtype=jnp.int32)
    return jnp.log1p(supports.size(support_at(term, t), valid).astype(jnp.float32))
