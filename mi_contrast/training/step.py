"""One training step: a pure function from (state, batch, tables) to (state, scalars), read from the row.

Order: views; target by EMA; keys by the target, without gradient; anchors online; terms against the pools as the last
step left them; gradient, clipping, optimiser, all of it undone where a number is not finite; pools take the keys;
the online probe learns on features that carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from mi_contrast import estimators as mi
from mi_contrast.core import rngs as random
from mi_contrast.core import schedules
from mi_contrast.core.mesh import batch_sharding, replicated
from mi_contrast.core.schedules import Progress
from mi_contrast.data.readers import Batch
from mi_contrast.methods import scoring, words
from mi_contrast.methods.rows import HEAD, HEADS, OWN_ROW, TWIN, Row, Term
from mi_contrast.models.towers import Tower, TowerOutput
from mi_contrast.pools import queue
from mi_contrast.training import adaptive
from mi_contrast.training import optimiser as optimisers
from mi_contrast.training import pools as pooling
from mi_contrast.training import probe as probes
from mi_contrast.training.generators import Learning
from mi_contrast.training.microbatches import Microbatches
from mi_contrast.training.pools import Tables
from mi_contrast.training.shuffling import move_rows, shuffled_positions
from mi_contrast.training.state import State, normaliser, placement
from mi_contrast.views.policies import Views

Scalars = dict[str, Array]


@dataclass(frozen=True)
class Parts:
    """What a step is made of; nothing here changes during a run. kept: bool [N], the examples that are trained on;
    generator: the first parameters of the generator that divides images, where one does; learning: how it learns, None
    where it is frozen.
    """

    row: Row
    views: Views
    tower: Tower
    optimiser: optax.GradientTransformationExtraArgs
    probe: probes.Probe | None
    mesh: Mesh
    seed: int
    total_steps: int
    rate: optimisers.Rate
    batch_norm_groups: int
    microbatches: Microbatches | None
    kept: np.ndarray
    generator: Any = None
    learning: Learning | None = None


class Roles(NamedTuple):
    """What the networks made of a batch: online and target passes by view, and the online batch statistics after."""

    online: dict[str, TowerOutput]
    target: dict[str, TowerOutput]
    statistics: Any

    def anchors(self, head: str) -> dict[str, Array]:
        """By view, what anchors are in a head's space: online predictions."""
        return of_head(head, self.online, predicted=True)

    def beside(self, head: str) -> dict[str, Array]:
        """By view, what positives and candidates are: the target's embeddings or, without one, online predictions."""
        return of_head(head, self.target) if self.target else self.anchors(head)

    def to_keep(self, head: str) -> dict[str, Array]:
        """By view, what queues take: the target's embeddings or, without one, the online ones."""
        return of_head(head, self.target or self.online)


def of_head(head: str, passes: Mapping[str, TowerOutput], *, predicted: bool = False) -> dict[str, Array]:
    """By view, the embeddings of one head, or what the predictor makes of them; the second head has none."""
    field = "twin" if head == TWIN else "prediction" if predicted else "embedding"
    return {name: getattr(found, field) for name, found in passes.items()}


def settled(parts: Parts, state: State) -> Parts:
    """The parts with the row as this state has it: adaptive schedules at their levels."""
    return replace(parts, row=adaptive.settled(parts.row, state.carried))


def first_state(parts: Parts, images: Float[Array, "B H W 3"], calibrate: Callable[..., Any]) -> State:
    """The state before the first step: fresh networks whose batch statistics come from one forward pass over `images`
    (so that the untrained network can be judged), the target an exact copy, empty queues, random banks.
    """
    key = random.stream_rng(jax.random.key(parts.seed), "init")
    online = parts.tower.init(key, (images.shape[1], images.shape[2], 3))
    online = calibrate(parts.tower, online, images)
    shape = jax.eval_shape(lambda v: encode_plain(parts, v, images, parts.row.online_views[0]), online)
    dims = {HEAD: shape.embedding.shape[1]} | ({} if shape.twin is None else {TWIN: shape.twin.shape[1]})
    pools = pooling.first(parts.row, parts.kept, dims, parts.seed, parts.mesh)
    carried: dict[str, Any] = pooling.first_clusters(parts.row, pools, parts.mesh)
    carried |= {normaliser(i): jnp.full((), -jnp.inf) for i, term in enumerate(parts.row.terms) if term.binary}
    carried |= adaptive.first(parts.row)
    return State(
        step=jnp.zeros((), jnp.int32),
        online=online,
        target=jax.tree.map(jnp.copy, online) if parts.row.target == "ema" else {},
        optimiser=parts.optimiser.init(online["params"]),
        pools=pools,
        carried=carried,
        guard=jnp.zeros((), jnp.int32),
        probe={} if parts.probe is None else parts.probe.init(shape.features.shape[1] * len(probed(parts.row))),
        generator=first_generator(parts, key, images.shape),
    )


def first_generator(parts: Parts, key: Key[Array, ""], image_shape: tuple[int, ...]) -> dict[str, Any]:
    """The generator's part of the first state: empty where none divides."""
    if parts.generator is None:
        return {}
    params = jax.tree.map(jnp.asarray, parts.generator)
    return {"params": params} if parts.learning is None else parts.learning.init(params, key, image_shape[1:3])


def encode(parts: Parts, variables: Any, view: str, images: Array, *, train: bool) -> TowerOutput:
    """A view's pass through its network, in parts where a step has them; where views are channels each has its own."""
    own = view if parts.row.views == "channels" else None
    if train and parts.microbatches is not None:
        return parts.microbatches.encode(variables, images, own)
    return parts.tower.encode(variables, images, train=train, view=own)


def encode_plain(parts: Parts, variables: Any, images: Float[Array, "B H W 3"], view: str) -> TowerOutput:
    """A view's pass in eval mode over whole images, of which a network of a split sees its own channels."""
    if parts.tower.split is not None:
        images = images[..., parts.tower.split.slices[view]]
    return encode(parts, variables, view, images, train=False)


def probed(row: Row) -> tuple[str, ...]:
    """The views on whose features the online probe learns, side by side: those a representation is made of."""
    return tuple(row.source) if row.views == "channels" else row.online_views[:1]


def make_views(
    parts: Parts, step: Int[Array, ""], batch: Batch, generator: Any = None
) -> Mapping[str, Float[Array, "B H W C"]]:
    """The batch's views at this step; divided by the generator of these parameters, where one divides."""
    return parts.views.divide(make_crops(parts, step, batch), generator)


def make_crops(parts: Parts, step: Int[Array, ""], batch: Batch) -> Mapping[str, Float[Array, "B H W C"]]:
    """What the batch's views at this step are made of, each example from the stream `views` of its own key."""
    positions = jnp.arange(batch.index.shape[0], dtype=jnp.int32)
    example_keys = random.example_rngs(parts.seed, step, positions)
    example_keys = jax.vmap(lambda key: random.stream_rng(key, "views"))(example_keys)
    return parts.views.crops(batch.sources, example_keys)


def encode_keys(parts: Parts, target: dict[str, Any], name: str, images: Array) -> TowerOutput:
    """Keys by the target network, in the order of the batch. Where batch statistics are of groups, the images change
    groups first and their encodings return after: see `shuffling`.
    """
    if parts.batch_norm_groups == 1:
        return encode(parts, target, name, images, train=True)
    positions = shuffled_positions(len(images), parts.batch_norm_groups, parts.seed)
    encoded = encode(parts, target, name, move_rows(images, positions, parts.mesh), train=True)
    back = partial(move_rows, positions=np.argsort(positions), mesh=parts.mesh)
    return jax.tree.map(back, encoded._replace(batch_stats={}))._replace(batch_stats=encoded.batch_stats)


def encode_targets(
    parts: Parts, state: State, target: dict[str, Any], views: Mapping[str, Array]
) -> tuple[dict[str, TowerOutput], Any]:
    """The target's passes, without gradient, its batch statistics threaded through them in the row's order; and those
    statistics. Where the target is the online network itself its own passes alone move them.
    """
    found: dict[str, TowerOutput] = {}
    for name in parts.row.target_views:
        found[name] = encode_keys(parts, target, name, views[name])
        target = {**target, "batch_stats": found[name].batch_stats}
    return jax.lax.stop_gradient(found), jax.lax.stop_gradient(target.get("batch_stats"))


def encode_online(
    parts: Parts, params: Any, statistics: Any, views: Mapping[str, Array], target: dict[str, TowerOutput]
) -> Roles:
    """The online passes, batch statistics threaded through them in the row's order."""
    online: dict[str, TowerOutput] = {}
    for name in parts.row.online_views:
        variables = {"params": params, "batch_stats": statistics}
        online[name] = encode(parts, variables, name, views[name], train=True)
        statistics = online[name].batch_stats
    return Roles(online, target, statistics)


def anchors_of(parts: Parts, term: Term, roles: Roles, state: State, batch: Batch) -> Array:
    """The term's anchors [B, D]: online predictions of its view or, looked up, what the queue has nearest to them."""
    if term.look_up is None:
        return roles.anchors(term.head)[term.anchor]
    looked_at = roles.to_keep(term.head)[term.anchor]
    return pooling.nearest(state.pools[term.look_up], looked_at, pooling.own_ids(parts.row, term, batch.index))


def score(
    parts: Parts, at: int, roles: Roles, state: State, batch: Batch, tables: Tables, t: Progress
) -> tuple[Array, pooling.Seen, Scalars]:
    """Nats of each anchor of term `at`, its pool as seen, and what the term carries on to the next step."""
    row, term, mesh = parts.row, parts.row.terms[at], parts.mesh
    beside = roles.beside(term.head)
    pool = pooling.seen(row, term, state.pools, state.carried, beside, batch.index, tables)
    if term.positive == OWN_ROW:
        positives = pooling.own_rows(term, state.pools, batch.index, mesh)
    else:
        positives = beside[term.positive]
    anchors = anchors_of(parts, term, roles, state, batch)
    own = batch.index[:, 0] if term.positive == OWN_ROW else batch.index[:, row.source[term.anchor]]
    keys = None
    if term.support["kind"] == "drawn":
        of_examples = random.example_rngs(parts.seed, state.step, jnp.arange(len(own), dtype=jnp.int32))
        keys = jax.vmap(lambda key: jax.random.fold_in(random.stream_rng(key, "support"), at))(of_examples)
    labels = pooling.anchor_labels(term, own, state.carried, tables, mesh)
    told = scoring.Anchors(pooling.own_ids(row, term, batch.index), labels, keys)
    nats = partial(
        scoring.nats, term, anchors, positives, pool.candidates, told, t, mesh, cut=pool.cut, gradient=pool.gradient
    )
    if not term.binary:
        return nats(), pool, {}
    examples = jnp.float32(parts.kept.sum())
    temperature = schedules.value(term.temperature, t)
    positive = jnp.sum(anchors * positives, axis=1) / temperature
    fresh = scoring.log_normaliser(positive, nats(form=mi.Softmax()), examples)
    momentum = schedules.value(term.form["momentum"], t)
    log_z = mi.moving_normaliser(state.carried[normaliser(at)], fresh, momentum)
    form = words.form_at(term.form, t, temperature, log_z, examples)
    return nats(form=form), pool, {normaliser(at): log_z}


def averaged(momentum: Float[Array, ""], state: State) -> dict[str, Any]:
    """The target moved towards the online parameters: m slow + (1 - m) fast; its batch statistics are its own."""
    slow, fast = state.target["params"], state.online["params"]
    params = jax.tree.map(lambda s, f: momentum * s + (1.0 - momentum) * f, slow, fast)
    return {"params": params, "batch_stats": state.target["batch_stats"]}


def _select(ok: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)


def make_step(parts: Parts) -> Callable[[State, Batch, Tables], tuple[State, Scalars]]:
    """The step of these parts, jitted, its state donated, for arrays placed over `parts.mesh`."""
    given = parts

    def step(state: State, batch: Batch, tables: Tables) -> tuple[State, Scalars]:
        parts = settled(given, state)
        row, t = parts.row, Progress(state.step, parts.total_steps)
        divided = partial(parts.views.divide, make_crops(parts, state.step, batch))
        momentum = schedules.value(row.momentum, t)
        target = averaged(momentum, state) if row.target == "ema" else state.online
        targets, target_statistics = encode_targets(parts, state, target, divided(state.generator.get("params")))

        def loss_of(params: Any, generator: Any) -> tuple[Array, tuple[Roles, Scalars, Scalars]]:
            roles = encode_online(parts, params, state.online["batch_stats"], divided(generator), targets)
            objective, ceiling, scalars, carried = jnp.zeros(()), jnp.zeros(()), Scalars(), Scalars()
            for i, term in enumerate(row.terms):
                values, pool, on = score(parts, i, roles, state, batch, tables, t)
                value, carried = jnp.mean(values), carried | on
                weight, most = schedules.value(term.weight, t), scoring.ceiling(term, pool.candidates, t, pool.own)
                objective, ceiling = objective + weight * value, ceiling + weight * most
                of_term = scoring.settings_at(term, t)
                if len(row.terms) > 1:
                    of_term = {f"{name}_{i}": v for name, v in (of_term | {"term": value, "ceiling": most}).items()}
                scalars |= of_term
            scalars |= {"objective": objective}
            if all(term.form["kind"] in ("softmax", "hard") for term in row.terms):
                scalars |= {"objective_ceiling": ceiling}
            return -objective, (roles, scalars, carried)

        given_to = (state.online["params"], state.generator.get("params"))
        of_both = (0, 1) if parts.learning is not None else (0,)
        found, (gradient, *of_generator) = jax.value_and_grad(loss_of, of_both, has_aux=True)(*given_to)
        loss, (roles, scalars, carried) = found
        norm = optax.tree.norm(gradient)
        ok = jnp.isfinite(loss) & jnp.isfinite(norm)
        rate = parts.rate(state.step)
        updates, optimiser = parts.optimiser.update(
            gradient, state.optimiser, state.online["params"], learning_rate=rate
        )
        params = optax.apply_updates(state.online["params"], updates)
        new = replace(
            state,
            online={"params": params, "batch_stats": roles.statistics},
            optimiser=optimiser,
            carried=state.carried | carried | adaptive.after_step(given.row, state.carried, state.step, -loss),
        )
        if parts.learning is not None:
            of_nats = jax.tree.map(jnp.negative, of_generator[0])
            labels = parts.learning.labels(tables.labels, batch.index[:, 0])
            learner, of_learner = parts.learning.learn(state.generator, of_nats, divided, labels, state.step)
            new, scalars = replace(new, generator=learner), scalars | of_learner
            ok = ok & jnp.isfinite(sum(of_learner.values(), jnp.zeros(())))
        if row.target == "ema":
            new = replace(new, target={"params": target["params"], "batch_stats": target_statistics})
        if parts.probe is not None:
            looked_at = probed(row)
            features = jnp.concatenate([roles.online[view].features for view in looked_at], axis=1)
            labels = tables.labels[batch.index[:, row.source[looked_at[0]]]]
            learned, probe_loss = parts.probe.learn(state.probe, jax.lax.stop_gradient(features), labels)
            new, scalars = replace(new, probe=learned), scalars | {"probe_loss": probe_loss}
        online = {head: of_head(head, roles.online) for head in HEADS}
        to_keep = {head: roles.to_keep(head) for head in HEADS}
        momenta = {name: schedules.value(row.pools[name]["momentum"], t) for name in row.of_kind("bank")}
        pools = pooling.taken(row, state.pools, online, to_keep, batch.index, momenta, ok, parts.mesh)
        kept = _select(ok, replace(new, pools={}), replace(state, pools={}))
        guard = jnp.where(ok, 0, state.guard + 1)
        scalars |= {"lr": rate, "grad_norm": norm, "bad_steps": guard}
        if row.target == "ema":
            scalars |= {"momentum": momentum}
        if queues := row.of_kind("queue"):
            scalars |= {"queue_fill": jnp.mean(jnp.stack([queue.fill(pools[name]) for name in queues]))}
        return replace(kept, step=state.step + 1, guard=guard, pools=pools), scalars

    everywhere = replicated(parts.mesh)
    placed = placement(parts.row, parts.mesh)
    return jax.jit(
        step,
        in_shardings=(placed, batch_sharding(parts.mesh), everywhere),
        out_shardings=(placed, everywhere),
        donate_argnums=0,
    )
