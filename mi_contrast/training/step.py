"""One training step: a pure function from (state, batch, tables) to (state, scalars), read from the row.

Order: views; target by EMA; keys by the target, without gradient; anchors online; terms against the pools as the last
step left them; gradient, clipping, optimiser, all of it undone where a number is not finite; pools take the keys;
the online probe learns on features that carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mi_contrast.core import keys as random
from mi_contrast.core import schedules
from mi_contrast.core.mesh import along_batch, replicated
from mi_contrast.data.readers import Batch
from mi_contrast.methods import scoring
from mi_contrast.methods.rows import Row
from mi_contrast.models.towers import Tower
from mi_contrast.pools import queue as queues
from mi_contrast.training import probe as probes
from mi_contrast.training.state import State
from mi_contrast.views.policies import Views

Scalars = dict[str, Array]


class Tables(NamedTuple):
    """What is known of every training example by its stable index: labels int32 [N], -1 unknown; groups int32 [N]."""

    labels: Int[Array, " N"]
    groups: Int[Array, " N"]


@dataclass(frozen=True)
class Parts:
    """What a step is made of; nothing here changes during a run."""

    row: Row
    views: Views
    tower: Tower
    optimiser: optax.GradientTransformation
    probe: probes.Probe | None
    mesh: Mesh
    seed: int
    total_steps: int
    rate: optax.Schedule
    batch_norm_groups: int


def progress(step: Int[Array, ""], total_steps: int) -> Float[Array, ""]:
    """Step / total_steps, clipped to [0, 1]."""
    return jnp.clip(step / total_steps, 0.0, 1.0).astype(jnp.float32)


def first_state(parts: Parts, images: Float[Array, "B H W 3"], calibrate: Callable[..., Any]) -> State:
    """The state before the first step: fresh networks whose batch statistics come from one forward pass over `images`
    (so that the untrained network can be judged), the target an exact copy, empty pools.
    """
    key = random.stream(jax.random.key(parts.seed), "init")
    online = parts.tower.init(key, (images.shape[1], images.shape[2], 3))
    online = calibrate(parts.tower, online, images)
    encoded = jax.eval_shape(lambda v, x: parts.tower.encode(v, x, train=False), online, images)
    return State(
        step=jnp.zeros((), jnp.int32),
        online=online,
        target=jax.tree.map(jnp.copy, online),
        optimiser=parts.optimiser.init(online["params"]),
        pools={name: queues.empty(p["size"], encoded.embedding.shape[1]) for name, p in parts.row.pools.items()},
        carried={},
        guard=jnp.zeros((), jnp.int32),
        probe={} if parts.probe is None else parts.probe.init(encoded.features.shape[1]),
    )


def make_views(parts: Parts, step: Int[Array, ""], batch: Batch) -> Mapping[str, Float[Array, "B H W 3"]]:
    """The batch's views at this step, each example from the stream `views` of its own key."""
    positions = jnp.arange(batch.index.shape[0], dtype=jnp.int32)
    example_keys = random.example_keys(parts.seed, step, positions)
    example_keys = jax.vmap(lambda key: random.stream(key, "views"))(example_keys)
    return parts.views(batch.sources, example_keys)


def encode_keys(parts: Parts, step: Int[Array, ""], target: dict[str, Any], images: Array) -> Any:
    """Keys by the target network. Where batch statistics are of groups, the keys are permuted over the groups first,
    so that a group's statistics can't tell which key belongs to which anchor: the answer to shuffled batch
    normalisation that needs no second device.
    """
    if parts.batch_norm_groups == 1:
        return parts.tower.encode(target, images, train=True)
    key = random.stream(random.step_key(parts.seed, step), "batch_norm")
    order = jax.random.permutation(key, images.shape[0])
    encoded = parts.tower.encode(target, images[order], train=True)
    back = jnp.argsort(order)
    return encoded._replace(features=encoded.features[back], embedding=encoded.embedding[back])


def averaged(momentum: Float[Array, ""], state: State) -> dict[str, Any]:
    """The target moved towards the online parameters: m slow + (1 - m) fast; its batch statistics are its own."""
    slow, fast = state.target["params"], state.online["params"]
    params = jax.tree.map(lambda s, f: momentum * s + (1.0 - momentum) * f, slow, fast)
    return {"params": params, "batch_stats": state.target["batch_stats"]}


def candidates(pool: queues.Queue) -> scoring.Candidates:
    """The pool as terms see it."""
    return scoring.Candidates(pool.rows, queues.valid(pool), pool.ids)


def _select(ok: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)


def make_step(parts: Parts) -> Callable[[State, Batch, Tables], tuple[State, Scalars]]:
    """The step of these parts, jitted, its state donated, for arrays placed over `parts.mesh`."""
    row, tower = parts.row, parts.tower

    def step(state: State, batch: Batch, tables: Tables) -> tuple[State, Scalars]:
        t = progress(state.step, parts.total_steps)
        views = make_views(parts, state.step, batch)
        momentum = schedules.value(row.momentum, t)
        target = averaged(momentum, state)
        positives = {term.positive for term in row.terms}
        targets = {name: encode_keys(parts, state.step, target, views[name]) for name in positives}
        targets = jax.lax.stop_gradient(targets)

        def loss_of(params: Any) -> tuple[Array, tuple[Any, Any, Scalars]]:
            statistics, online = state.online["batch_stats"], {}
            for name in dict.fromkeys(term.anchor for term in row.terms):
                online[name] = tower.encode({"params": params, "batch_stats": statistics}, views[name], train=True)
                statistics = online[name].batch_stats
            objective, ceiling, scalars = jnp.zeros(()), jnp.zeros(()), Scalars()
            for i, term in enumerate(row.terms):
                anchors, keys = online[term.anchor].embedding, targets[term.positive].embedding
                pool = candidates(state.pools[term.pool])
                value = jnp.mean(scoring.nats(term, anchors, keys, pool, batch.index, t, parts.mesh))
                weight, most = schedules.value(term.weight, t), scoring.ceiling(term, pool, t)
                objective, ceiling = objective + weight * value, ceiling + weight * most
                of_term = scoring.settings_at(term, t)
                if len(row.terms) > 1:
                    of_term = {f"{name}_{i}": v for name, v in (of_term | {"term": value, "ceiling": most}).items()}
                scalars |= of_term
            scalars |= {"objective": objective, "objective_ceiling": ceiling}
            return -objective, (statistics, online, scalars)

        (loss, (statistics, online, scalars)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state.online["params"]
        )
        norm = optax.tree.norm(gradient)
        ok = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, optimiser = parts.optimiser.update(gradient, state.optimiser, state.online["params"])
        params = optax.apply_updates(state.online["params"], updates)
        new = replace(
            state,
            online={"params": params, "batch_stats": statistics},
            target={"params": target["params"], "batch_stats": targets[row.terms[-1].positive].batch_stats},
            optimiser=optimiser,
        )
        if parts.probe is not None:
            features = online[row.terms[0].anchor].features
            labels = tables.labels[batch.index[:, row.source[row.terms[0].anchor]]]
            learned, probe_loss = parts.probe.learn(state.probe, jax.lax.stop_gradient(features), labels)
            new, scalars = replace(new, probe=learned), scalars | {"probe_loss": probe_loss}
        pools = state.pools
        for name in dict.fromkeys(term.pool for term in row.terms):
            term = next(term for term in row.terms if term.pool == name)
            made_from = batch.index[:, row.source[term.positive]]
            pools = {**pools, name: queues.push(pools[name], targets[term.positive].embedding, made_from, ok)}
        kept = _select(ok, replace(new, pools={}), replace(state, pools={}))
        guard = jnp.where(ok, 0, state.guard + 1)
        scalars |= {
            "lr": parts.rate(state.step),
            "momentum": momentum,
            "grad_norm": norm,
            "bad_steps": guard,
            "queue_fill": jnp.mean(jnp.stack([queues.fill(pool) for pool in pools.values()])),
        }
        return replace(kept, step=state.step + 1, guard=guard, pools=pools), scalars

    everywhere = replicated(parts.mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, along_batch(parts.mesh), everywhere),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )
