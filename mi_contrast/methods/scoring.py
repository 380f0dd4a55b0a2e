"""How a term is scored: its support and temperature at this progress, its anchors against its pool, on every device."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.mesh import DATA
from mi_contrast.core.schedules import Progress
from mi_contrast.estimators import supports
from mi_contrast.methods import words
from mi_contrast.methods.rows import Term


class Candidates(NamedTuple):
    """A pool as a term sees it: rows f32 [K, D]; valid bool [K]; ids int32 [K], None where an anchor's own rows are
    candidates too; labels int32 [K, R], None where nothing is close.
    """

    rows: Float[Array, "K D"]
    valid: Bool[Array, " K"]
    ids: Int[Array, " K"] | None
    labels: Int[Array, "K R"] | None = None


class Anchors(NamedTuple):
    """What a term is told of its anchors: ids int32 [B, V] of the example's own rows; labels int32 [B, R]; keys [B] for
    their draws.
    """

    ids: Int[Array, "B V"]
    labels: Int[Array, "B R"] | None = None
    keys: Key[Array, " B"] | None = None


def settings_at(term: Term, t: Progress) -> dict[str, Float[Array, ""]]:
    """The values of the term's schedules at progress t, by name, for the log."""
    return words.percentiles_at(term.support, t) | {
        "temperature": schedules.value(term.temperature, t),
        "weight": schedules.value(term.weight, t),
    }


def nats(
    term: Term,
    anchors: Float[Array, "B D"],
    positives: Float[Array, "B D"],
    pool: Candidates,
    told: Anchors,
    t: Progress,
    mesh: Mesh,
    *,
    cut: bool = False,
    gradient: bool = False,
    form: Any = None,
) -> Float[Array, " B"]:
    """The term's value for each anchor, in nats (larger means more information), without its weight.

    Anchors are cut over the mesh axis `data`; the pool is the same everywhere or, with `cut`, cut as well, and then
    anchors travel to it. Candidates whose id is one of the anchor's own, and invalid ones, are left out. Gradients go
    to anchors and positives and, with `gradient`, to the pool. `form` stands in for the term's own.
    """
    temperature = schedules.value(term.temperature, t)
    form = words.form_at(term.form, t, temperature) if form is None else form
    own = told.ids if pool.ids is not None else None
    labels = told.labels if pool.labels is not None else None
    keys = told.keys if term.support["kind"] == "drawn" else None

    def on_shard(
        anchors: Array, positives: Array, told: tuple[Any, ...], pool: Candidates, given: tuple[Any, ...]
    ) -> Array:
        (ids, labels, keys), (support, form, temperature) = told, given
        return mi.contrast(
            anchors,
            positives,
            pool.rows,
            support,
            form,
            temperature=temperature,
            valid=pool.valid,
            anchor_ids=ids,
            pool_ids=pool.ids,
            anchor_labels=labels,
            pool_labels=pool.labels,
            key=keys,
            axis_name=DATA if cut else None,
            pool_gradient=gradient,
        )

    whole, parts = PartitionSpec(), PartitionSpec(DATA)
    specs = (parts, parts, parts, parts if cut else whole, whole)
    scored = jax.shard_map(on_shard, mesh=mesh, in_specs=specs, out_specs=parts)
    pool = pool if gradient else jax.lax.stop_gradient(pool)
    given = words.support_at(term.support, t), form, temperature
    return scored(anchors, positives, (own, labels, keys), pool, given)


def ceiling(term: Term, pool: Candidates, t: Progress, own: int = 0) -> Float[Array, ""]:
    """log(1 + n), n the support's size among all valid candidates: what no anchor's value can exceed, where the form is
    softmax or hard; of drawn candidates n is the mean number, and this bounds the expected value. Binary and decoupled
    have no such ceiling. `own` of the pool are no anchor's candidates.
    """
    valid = jnp.maximum(jnp.sum(pool.valid, dtype=jnp.int32) - own, 0)
    return jnp.log1p(supports.size(words.support_at(term.support, t), valid).astype(jnp.float32))


def log_normaliser(
    positive: Float[Array, " B"], value: Float[Array, " B"], data_size: Float[Array, ""]
) -> Float[Array, ""]:
    """Log Z of this batch for the binary form, from the softmax form's value over the same candidates: log of the mean
    e^f over candidates and positives, + log N, since f+ - value is the log of each anchor's own mean.

    Args:
      positive: f32 [B], critic value of each anchor with its positive.
      value: f32 [B], nats of the softmax form.
      data_size: N.
    Source: Wu et al. 2018, as released.
    """
    means = jax.lax.stop_gradient(positive - value)
    return jax.nn.logsumexp(means) - jnp.log(jnp.float32(len(means))) + jnp.log(data_size)
