"""How a term is scored: its anchors against its candidates, with its support and form at this progress."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.mesh import DATA
from mi_contrast.core.schedules import Progress
from mi_contrast.estimators import supports
from mi_contrast.methods import words
from mi_contrast.methods.method import Term
from mi_contrast.pools.protocol import Candidates


class Anchors(NamedTuple):
    """The anchors of a term and what is known of them, sharded over the mesh axis `data`.

    Attributes:
      rows: f32 [B, D], embeddings of unit norm.
      positives: f32 [B, D], the positive of each anchor.
      excluded_ids: int32 [B, E], the examples whose rows are no candidates of the anchor.
      labels: int32 [B, R], what the support `close` compares with the candidates' labels; None for other supports.
      rngs: [B], a random key for the draws of each anchor; None where the support draws nothing.
    """

    rows: Float[Array, "B D"]
    positives: Float[Array, "B D"]
    excluded_ids: Int[Array, "B E"] | None
    labels: Int[Array, "B R"] | None = None
    rngs: Key[Array, " B"] | None = None


def score_anchors(
    term: Term, anchors: Anchors, candidates: Candidates, t: Progress, mesh: Mesh, *, form: Any = None
) -> Float[Array, " B"]:
    """Returns the term's value for each anchor, in nats, without its weight. Larger means more information.

    Candidates with one of the anchor's excluded ids, and invalid ones, are left out. Gradients reach anchors and
    positives and, with `candidates.has_gradient`, the candidates. If the candidates are sharded, the anchors are
    gathered on every device.

    Args:
      form: replaces the term's own form.
    """
    temperature = schedules.value(term.temperature, t)
    form = words.make_form(term.form, t, temperature) if form is None else form
    support = words.make_support(term.support, t)
    if candidates.ids is None:
        anchors = anchors._replace(excluded_ids=None)
    if candidates.labels is None:
        anchors = anchors._replace(labels=None)
    if not candidates.has_gradient:
        candidates = jax.lax.stop_gradient(candidates)

    def on_shard(anchors: Anchors, candidates: Candidates, support: Any, form: Any, temperature: Array) -> Array:
        return mi.contrast(
            anchors.rows,
            anchors.positives,
            candidates.rows,
            support,
            form,
            temperature=temperature,
            valid=candidates.valid,
            anchor_ids=anchors.excluded_ids,
            pool_ids=candidates.ids,
            anchor_labels=anchors.labels,
            pool_labels=candidates.labels,
            key=anchors.rngs,
            axis_name=DATA if candidates.sharded else None,
            pool_gradient=candidates.has_gradient,
        )

    replicated, sharded = PartitionSpec(), PartitionSpec(DATA)
    in_specs = (sharded, sharded if candidates.sharded else replicated, replicated, replicated, replicated)
    score = jax.shard_map(on_shard, mesh=mesh, in_specs=in_specs, out_specs=sharded)
    return score(anchors, candidates, support, form, temperature)


def compute_ceiling(term: Term, candidates: Candidates, t: Progress) -> Float[Array, ""]:
    """Returns log(1 + n), the largest possible value of an anchor, where n is the number of candidates in its support.

    This holds for the forms softmax and hard; binary and decoupled have no such ceiling. Where candidates are drawn, n
    is their mean number and the ceiling bounds the expected value.
    """
    valid = jnp.maximum(jnp.sum(candidates.valid, dtype=jnp.int32) - candidates.own_rows, 0)
    size = supports.size(words.make_support(term.support, t), valid)
    return jnp.log1p(size.astype(jnp.float32))


def read_settings(term: Term, t: Progress) -> dict[str, Float[Array, ""]]:
    """Returns the values of the term's schedules at progress t by name, for the log."""
    return words.read_percentiles(term.support, t) | {
        "temperature": schedules.value(term.temperature, t),
        "weight": schedules.value(term.weight, t),
    }


def estimate_log_normaliser(
    positive: Float[Array, " B"], value: Float[Array, " B"], data_size: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns this batch's estimate of log Z for the binary form: log(N x mean e^f over candidates and positives).

    The mean follows from the value of the softmax form over the same candidates, since positive - value is the log of
    each anchor's own mean.

    Args:
      positive: f32 [B], critic value of each anchor with its positive.
      value: f32 [B], nats of the softmax form.
      data_size: N.
    Source: Wu et al. 2018, as released.
    """
    log_means = jax.lax.stop_gradient(positive - value)
    return jax.nn.logsumexp(log_means) - jnp.log(jnp.float32(len(log_means))) + jnp.log(data_size)
