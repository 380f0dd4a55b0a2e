"""One training step, in the order of the algorithm boxes of the papers.

`train_step` is a pure function of state, batch and tables. From batch to loss it calls

  make_crops                   random operations on the images
  Encoder.encode_keys          embeddings of the target, without gradient
  compute_loss
    Encoder.encode_views       embeddings of the online network
    score_term                 the nats of one term of the method
      find_candidates          what its pool holds
      scoring.score_anchors    anchors against candidates, by `estimators.contrast`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mi_contrast import estimators as mi
from mi_contrast.core import rngs as streams
from mi_contrast.core import schedules
from mi_contrast.core.mesh import batch_sharding, replicated
from mi_contrast.core.schedules import Progress
from mi_contrast.data.readers import Batch
from mi_contrast.methods import scoring, words
from mi_contrast.methods.method import Method
from mi_contrast.models.towers import TowerOutput
from mi_contrast.pools import queue
from mi_contrast.pools.protocol import Candidates
from mi_contrast.training import adaptive
from mi_contrast.training.encoding import Encodings, make_crops
from mi_contrast.training.parts import Parts
from mi_contrast.training.pools import Tables, find_anchors, find_candidates, update_pools
from mi_contrast.training.state import State, normaliser_name, placement

Scalars = dict[str, Array]


class Outputs(NamedTuple):
    """What `compute_loss` returns beside the loss.

    Attributes:
      encodings: the embeddings of the batch.
      batch_stats: the batch statistics of the online network, after this batch.
      carried: what terms carry to the next step, by its name in the state.
      scalars: for the log.
    """

    encodings: Encodings
    batch_stats: Any
    carried: dict[str, Array]
    scalars: Scalars


def make_step(parts: Parts) -> Callable[[State, Batch, Tables], tuple[State, Scalars]]:
    """Returns `train_step` of these parts, jitted over their mesh. The state is donated."""
    everywhere, placed = replicated(parts.mesh), placement(parts.method, parts.mesh)

    def step(state: State, batch: Batch, tables: Tables) -> tuple[State, Scalars]:
        return train_step(parts, state, batch, tables)

    return jax.jit(
        step,
        in_shardings=(placed, batch_sharding(parts.mesh), everywhere),
        out_shardings=(placed, everywhere),
        donate_argnums=0,
    )


def train_step(parts: Parts, state: State, batch: Batch, tables: Tables) -> tuple[State, Scalars]:
    """Returns the state after one step, and scalars for the log.

    Terms see the pools as the step before left them. Where loss or gradient is not finite, only `step` and `guard`
    advance; everything else stays as it was.
    """
    method, t = adaptive.resolve(parts.method, state.carried), Progress(state.step, parts.total_steps)
    params, generator = state.online["params"], state.generator.get("params")

    # Views. The target follows the online network and encodes the keys.
    crops = make_crops(parts.views, parts.seed, state.step, batch)
    views = parts.views.divide(crops, generator)
    target = update_target(method, state, t)
    keys, key_statistics = parts.encoder.encode_views(target, views, method.target_views, keys=True)
    keys, key_statistics = jax.lax.stop_gradient((keys, key_statistics))

    # Anchors, terms and loss, with the gradient by the online network and by a generator that learns.
    argnums = (0,) if parts.generator_training is None else (0, 1)
    differentiate = jax.value_and_grad(compute_loss, argnums, has_aux=True)
    (loss, outputs), gradients = differentiate(params, generator, parts, method, t, state, batch, tables, crops, keys)
    scalars = outputs.scalars | {"lr": parts.learning_rate(state.step), "grad_norm": optax.tree.norm(gradients[0])}

    # The update of every part of the state but the pools.
    updates, optimiser = parts.optimiser.update(gradients[0], state.optimiser, params, learning_rate=scalars["lr"])
    levels = adaptive.update_levels(parts.method, state.carried, state.step, outputs.scalars["objective"])
    new = replace(
        state,
        online={"params": optax.apply_updates(params, updates), "batch_stats": outputs.batch_stats},
        target={"params": target["params"], "batch_stats": key_statistics} if method.target == "ema" else {},
        optimiser=optimiser,
        carried=state.carried | outputs.carried | levels,
    )
    new, generator_scalars = update_generator(parts, new, gradients[1:], batch, tables, crops)
    new, probe_scalars = update_probe(parts, new, outputs.encodings, batch, tables)

    # A step that is not finite is undone. Pools take this step's embeddings.
    watched = (loss, scalars["grad_norm"], *generator_scalars.values())
    finite = reduce(jnp.logical_and, map(jnp.isfinite, watched))
    new = jax.tree.map(lambda n, o: jnp.where(finite, n, o), replace(new, pools={}), replace(state, pools={}))
    pools = update_pools(method, state.pools, outputs.encodings, batch.index, t, finite, parts.mesh)
    new = replace(new, step=state.step + 1, guard=jnp.where(finite, 0, state.guard + 1), pools=pools)
    scalars |= generator_scalars | probe_scalars | {"bad_steps": new.guard}
    return new, scalars | read_scalars(method, new, t)


def update_target(method: Method, state: State, t: Progress) -> dict[str, Any]:
    """Returns the network that encodes keys: m target + (1 - m) online if `target` is 'ema', else the online network.

    The batch statistics of a moving average are its own and are not averaged.
    """
    if method.target != "ema":
        return state.online
    momentum = schedules.value(method.momentum, t)
    # The target stands for "new" here. The sum is the same, and this order rounds as m target + (1 - m) online does.
    params = optax.incremental_update(state.target["params"], state.online["params"], momentum)
    return {"params": params, "batch_stats": state.target["batch_stats"]}


def compute_loss(
    params: Any,
    generator: Any,
    parts: Parts,
    method: Method,
    t: Progress,
    state: State,
    batch: Batch,
    tables: Tables,
    crops: Mapping[str, Array],
    keys: Mapping[str, TowerOutput],
) -> tuple[Float[Array, ""], Outputs]:
    """Returns minus the objective, the sum over terms of weight x mean nats over anchors, and what else was computed.

    Args:
      params, generator: the parameters that the loss is differentiated by.
      method: with its adaptive schedules resolved.
      crops: what the views are made of.
      keys: encodings by the target.
    """
    views = parts.views.divide(crops, generator)
    online = {"params": params, "batch_stats": state.online["batch_stats"]}
    anchors, statistics = parts.encoder.encode_views(online, views, method.online_views)
    encodings = Encodings(anchors, keys)
    objective, ceiling, carried, scalars = jnp.zeros(()), jnp.zeros(()), Scalars(), Scalars()
    for i, term in enumerate(method.terms):
        nats, candidates, term_carried = score_term(i, parts, method, t, encodings, state, batch, tables)
        value, term_ceiling = jnp.mean(nats), scoring.compute_ceiling(term, candidates, t)
        settings = scoring.read_settings(term, t)
        objective, ceiling = objective + settings["weight"] * value, ceiling + settings["weight"] * term_ceiling
        if len(method.terms) > 1:
            settings = {f"{name}_{i}": v for name, v in (settings | {"term": value, "ceiling": term_ceiling}).items()}
        carried, scalars = carried | term_carried, scalars | settings
    scalars["objective"] = objective
    if all(term.form["kind"] in ("softmax", "hard") for term in method.terms):
        scalars["objective_ceiling"] = ceiling
    return -objective, Outputs(encodings, statistics, carried, scalars)


def score_term(
    index: int,
    parts: Parts,
    method: Method,
    t: Progress,
    encodings: Encodings,
    state: State,
    batch: Batch,
    tables: Tables,
) -> tuple[Float[Array, " B"], Candidates, Scalars]:
    """Returns the nats of each anchor of a term, its candidates, and what the term carries to the next step.

    Args:
      index: the term's index in `method.terms`.
    """
    term, keys = method.terms[index], encodings.keys(method.terms[index].head)
    candidates = find_candidates(method, term, state.pools, state.carried, keys, batch.index, tables)
    anchors = find_anchors(method, term, encodings, state, batch.index, tables, parts.mesh)
    if term.support["kind"] == "drawn":
        rngs = streams.example_rngs(parts.seed, state.step, jnp.arange(len(anchors.rows), dtype=jnp.int32))
        rngs = jax.vmap(lambda rng: jax.random.fold_in(streams.stream_rng(rng, "support"), index))(rngs)
        anchors = anchors._replace(rngs=rngs)
    if not term.binary:
        return scoring.score_anchors(term, anchors, candidates, t, parts.mesh), candidates, {}

    name, data_size = normaliser_name(index), jnp.float32(parts.train_mask.sum())
    temperature = schedules.value(term.temperature, t)
    positive = jnp.sum(anchors.rows * anchors.positives, axis=1) / temperature
    softmax = scoring.score_anchors(term, anchors, candidates, t, parts.mesh, form=mi.Softmax())
    estimate = scoring.estimate_log_normaliser(positive, softmax, data_size)
    log_z = mi.moving_normaliser(state.carried[name], estimate, schedules.value(term.form["momentum"], t))
    form = words.make_form(term.form, t, temperature, log_z, data_size)
    return scoring.score_anchors(term, anchors, candidates, t, parts.mesh, form=form), candidates, {name: log_z}


def update_generator(
    parts: Parts,
    state: State,
    gradients: tuple[Any, ...],
    batch: Batch,
    tables: Tables,
    crops: Mapping[str, Array],
) -> tuple[State, Scalars]:
    """Returns the state with the generator's part updated, where it learns, and its scalars.

    Args:
      gradients: of the loss by the generator's parameters; empty where it doesn't learn.
    """
    training = parts.generator_training
    if training is None:
        return state, {}
    nats_gradient = jax.tree.map(jnp.negative, gradients[0])
    labels = training.find_labels(tables.labels, batch.index[:, 0])
    generator, scalars = training.learn(state.generator, nats_gradient, parts.views, crops, labels, state.step)
    return replace(state, generator=generator), scalars


def update_probe(
    parts: Parts, state: State, encodings: Encodings, batch: Batch, tables: Tables
) -> tuple[State, Scalars]:
    """Returns the state with the online probe updated on features that carry no gradient, and the probe's loss."""
    if parts.probe is None:
        return state, {}
    views = parts.probed_views
    features = jnp.concatenate([encodings.online[view].features for view in views], axis=1)
    labels = tables.labels[batch.index[:, parts.method.source[views[0]]]]
    probe, loss = parts.probe.learn(state.probe, jax.lax.stop_gradient(features), labels)
    return replace(state, probe=probe), {"probe_loss": loss}


def read_scalars(method: Method, state: State, t: Progress) -> Scalars:
    """Returns the target's momentum and the mean fill of the queues, where there are any."""
    scalars: Scalars = {"momentum": schedules.value(method.momentum, t)} if method.target == "ema" else {}
    queues = [pool for pool in state.pools.values() if isinstance(pool, queue.Queue)]
    return scalars | ({"queue_fill": jnp.mean(jnp.stack([queue.fill(pool) for pool in queues]))} if queues else {})
