"""One training step, in the order of the algorithm boxes of the papers.

`train_step` is a pure function of state, batch and tables. It calls, in this order,

  make_crops                   random operations on the images
  Views.divide                 the views of the crops
  update_target                the network that encodes positives and keys
  Encoder.encode_views         embeddings of the target, shuffled and without gradient
  compute_loss                 and its gradient
    Views.divide               the views again, here with a gradient of the generator
    Encoder.encode_views       embeddings of the online network
    score_term                 the nats of one term of the method
      find_candidates          the rows of its pool, or the batch's embeddings
      find_anchors             its anchors, their positives, excluded ids and labels
      scoring.score_anchors    anchors against candidates, by `estimators.contrast`
  the optimiser                new parameters
  adaptive.update_levels       the levels of adaptive schedules
  update_generator             the generator of the views, if it learns
  update_probe                 the online probe, if the data have labels
  update_pool_states           the pools take this step's embeddings
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
from mi_contrast.training.candidates import StepContext, Tables, find_anchors, find_candidates, update_pool_states
from mi_contrast.training.encoding import Encodings, make_crops
from mi_contrast.training.parts import Parts
from mi_contrast.training.state import State, normaliser_name, placement

Scalars = dict[str, Array]


class Outputs(NamedTuple):
    """What `compute_loss` returns beside the loss.

    Attributes:
      encodings: the embeddings of the batch.
      batch_stats: the batch statistics of the online network, after this batch.
      auxiliary: new log normalisers of binary terms, by their names in `State.carried`.
      scalars: for the log.
    """

    encodings: Encodings
    batch_stats: Any
    auxiliary: dict[str, Array]
    scalars: Scalars


def make_step(parts: Parts) -> Callable[[State, Batch, Tables], tuple[State, Scalars]]:
    """Returns `train_step` of these parts, jitted over their mesh. The state is donated."""
    everywhere, state_sharding = replicated(parts.mesh), placement(parts.method, parts.mesh)

    def step(state: State, batch: Batch, tables: Tables) -> tuple[State, Scalars]:
        return train_step(parts, state, batch, tables)

    return jax.jit(
        step,
        in_shardings=(state_sharding, batch_sharding(parts.mesh), everywhere),
        out_shardings=(state_sharding, everywhere),
        donate_argnums=0,
    )


def train_step(parts: Parts, state: State, batch: Batch, tables: Tables) -> tuple[State, Scalars]:
    """Returns the state after one step, and scalars for the log.

    Terms are scored against the pools from before this step's update. Where loss or gradient is not finite, only `step`
    and `guard` advance; everything else stays as it was.
    """
    method, t = adaptive.resolve(parts.method, state.carried), Progress(state.step, parts.total_steps)
    context = StepContext(method, t, state, batch, tables, parts.mesh)
    params, generator = state.online["params"], state.generator.get("params")

    # Views. The target follows the online network and encodes positives and keys.
    crops = make_crops(parts.augmentation, parts.seed, state.step, batch)
    views = parts.augmentation.divide(crops, generator)
    target = update_target(method, state, t)
    encoded = parts.encoder.encode_views(target, views, method.target_views, shuffle=True)
    target_outputs, target_statistics = jax.lax.stop_gradient(encoded)

    # Anchors, terms and loss, with the gradient by the online network and by a generator that learns.
    argnums = (0,) if parts.generator_training is None else (0, 1)
    differentiate = jax.value_and_grad(compute_loss, argnums, has_aux=True)
    (loss, outputs), gradients = differentiate(params, generator, parts, context, crops, target_outputs)
    scalars = outputs.scalars | {"lr": parts.learning_rate(state.step), "grad_norm": optax.tree.norm(gradients[0])}

    # The update of every part of the state but the pools.
    updates, optimiser = parts.optimiser.update(gradients[0], state.optimiser, params, learning_rate=scalars["lr"])
    levels = adaptive.update_levels(parts.method, state.carried, state.step, outputs.scalars["objective"])
    # With target='same' the batch statistics of the keys are dropped.
    new = replace(
        state,
        online={"params": optax.apply_updates(params, updates), "batch_stats": outputs.batch_stats},
        target={"params": target["params"], "batch_stats": target_statistics} if method.target == "ema" else {},
        optimiser=optimiser,
        carried=state.carried | outputs.auxiliary | levels,
    )
    new, generator_scalars = update_generator(parts, new, gradients[1:], batch, tables, crops)
    new, probe_scalars = update_probe(parts, new, outputs.encodings, batch, tables)

    # A step that is not finite is undone. Pools take this step's embeddings.
    checked_values = (loss, scalars["grad_norm"], *generator_scalars.values())
    finite = reduce(jnp.logical_and, map(jnp.isfinite, checked_values))
    new = jax.tree.map(lambda n, o: jnp.where(finite, n, o), replace(new, pools={}), replace(state, pools={}))
    pool_states = update_pool_states(context, outputs.encodings, finite)
    new = replace(new, step=state.step + 1, guard=jnp.where(finite, 0, state.guard + 1), pools=pool_states)
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
    context: StepContext,
    crops: Mapping[str, Array],
    target_outputs: Mapping[str, TowerOutput],
) -> tuple[Float[Array, ""], Outputs]:
    """Returns the loss and the other outputs.

    The loss is minus the objective, which is the sum over terms of weight times the mean value of the anchors, in nats.

    Args:
      params, generator: the parameters that the loss is differentiated by.
      crops: what the views are made of.
      target_outputs: the target's encodings of its views, without gradient.
    """
    method, t = context.method, context.t
    # Divide again: here the generator's parameters must receive a gradient.
    views = parts.augmentation.divide(crops, generator)
    online = {"params": params, "batch_stats": context.state.online["batch_stats"]}
    online_outputs, statistics = parts.encoder.encode_views(online, views, method.online_views)
    encodings = Encodings(online_outputs, target_outputs)
    objective, ceiling, auxiliary, scalars = jnp.zeros(()), jnp.zeros(()), Scalars(), Scalars()
    for i, term in enumerate(method.terms):
        nats, candidates, log_normaliser = score_term(i, parts, context, encodings)
        value, term_ceiling = jnp.mean(nats), scoring.compute_ceiling(term, candidates, t)
        term_scalars = scoring.read_settings(term, t)
        weight = term_scalars["weight"]
        objective, ceiling = objective + weight * value, ceiling + weight * term_ceiling
        if len(method.terms) > 1:
            term_scalars |= {"term": value, "ceiling": term_ceiling}
            term_scalars = {f"{name}_{i}": scalar for name, scalar in term_scalars.items()}
        auxiliary, scalars = auxiliary | log_normaliser, scalars | term_scalars
    scalars["objective"] = objective
    if all(term.form["kind"] in ("softmax", "hard") for term in method.terms):
        scalars["objective_ceiling"] = ceiling
    return -objective, Outputs(encodings, statistics, auxiliary, scalars)


def score_term(
    term_index: int, parts: Parts, context: StepContext, encodings: Encodings
) -> tuple[Float[Array, " B"], Candidates, Scalars]:
    """Returns the nats of each anchor of a term, its candidates, and its new log normaliser by name if it is binary.

    Args:
      term_index: the term's index in `context.method.terms`.
    """
    term, t, state = context.method.terms[term_index], context.t, context.state
    candidates = find_candidates(context, term, encodings.select_keys(term.head))
    anchors = find_anchors(context, term, encodings)
    if term.support["kind"] == "drawn":
        rngs = streams.example_rngs(parts.seed, state.step, jnp.arange(len(anchors.rows), dtype=jnp.int32))
        rngs = jax.vmap(lambda rng: jax.random.fold_in(streams.stream_rng(rng, "support"), term_index))(rngs)
        anchors = anchors._replace(rngs=rngs)
    if not term.binary:
        return scoring.score_anchors(term, anchors, candidates, t, parts.mesh), candidates, {}

    name, data_size = normaliser_name(term_index), jnp.float32(parts.train_mask.sum())
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
    generator, scalars = training.learn(state.generator, nats_gradient, parts.augmentation, crops, labels, state.step)
    return replace(state, generator=generator), scalars


def update_probe(
    parts: Parts, state: State, encodings: Encodings, batch: Batch, tables: Tables
) -> tuple[State, Scalars]:
    """Returns the state with the online probe updated on features that carry no gradient, and the probe's loss."""
    if parts.probe is None:
        return state, {}
    views = parts.probed_views
    features = jnp.concatenate([encodings.online[view].features for view in views], axis=1)
    labels = tables.labels[batch.index[:, parts.method.source_index[views[0]]]]
    probe, loss = parts.probe.learn(state.probe, jax.lax.stop_gradient(features), labels)
    return replace(state, probe=probe), {"probe_loss": loss}


def read_scalars(method: Method, state: State, t: Progress) -> Scalars:
    """Returns the target's momentum and the mean fill of the queues, where there are any."""
    scalars: Scalars = {"momentum": schedules.value(method.momentum, t)} if method.target == "ema" else {}
    fractions = [queue.fill_fraction(pool) for pool in state.pools.values() if isinstance(pool, queue.Queue)]
    return scalars | ({"queue_fill": jnp.mean(jnp.stack(fractions))} if fractions else {})
