"""Fine-tuning: the whole network, what its training held included, and a linear head on labels. The one task that moves
weights and batch statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from mi_contrast.core import schedules
from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.core.mesh import make_mesh, replicated
from mi_contrast.core.progress import Progress
from mi_contrast.core.rngs import example_rngs, stream_rng
from mi_contrast.data.readers import make_reader
from mi_contrast.evaluation import on_features
from mi_contrast.evaluation.asked import Judgement
from mi_contrast.evaluation.augmented import policy_named, view
from mi_contrast.evaluation.features import Features, encode_all
from mi_contrast.evaluation.tasks import Outcome, fill
from mi_contrast.interchange import Loaded, write_export
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation
from mi_contrast.readout import linear

OPTIMISERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Finetune:
    """How a network is fine-tuned.

    optimiser: 'sgd' (torch's, with momentum) or 'adamw'; lr: a number or a schedule of progress; head_factor: the
    head's learning rate over the backbone's; views: of each image anew at each step ('crops', a policy's name, or None:
    as they are); statistics: 'batch', moving as in training, or 'frozen', those of the backbone throughout.
    """

    optimiser: str = "sgd"
    lr: schedules.Schedule = 0.01
    head_factor: float = 10.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    epochs: int = 30
    batch_size: int = 128
    views: str | None = "crops"
    statistics: str = "batch"

    def __post_init__(self):
        """Raises UserError on a value that can't be."""
        schedules.check(self.lr, "lr")
        if self.optimiser not in OPTIMISERS:
            raise unknown("optimiser", self.optimiser, OPTIMISERS)
        if self.statistics not in ("batch", "frozen"):
            raise unknown("statistics", self.statistics, ("batch", "frozen"))
        for name, least in (("epochs", 1), ("batch_size", 2), ("momentum", 0), ("weight_decay", 0), ("head_factor", 0)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")


class Tuned(NamedTuple):
    """What fine-tuning moves: the backbone's parameters and batch statistics, the head's weights and bias, and the
    optimiser's state.
    """

    params: towers.Variables
    batch_stats: towers.Variables
    head: tuple[Float[Array, "F C"], Float[Array, " C"]]
    optimiser: Any


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """Fine-tunes on the fitting split and scores the test split after the last epoch, not the best.

    Beside results/finetune-<set>.json lie the head (.safetensors) and the network, an export in a folder of that name.
    The backbone given is left as it is. Raises as `evaluation.judge` does; BadNumbersError where the loss went bad.
    """
    settings: Finetune = fill(Finetune, {name: value for name, value in config["task"].items() if name != "kind"})
    begun = on_features.ready(config, backbone, workdir, twin=twin)
    (labels, classes), (truth, _) = on_features.truths(begun)
    tuned, steps = tune(begun, settings, labels, len(classes), config["seed"])
    given = begun.backbone.representation
    variables = given.variables | {"params": tuned.params, "batch_stats": tuned.batch_stats}
    network = Representation(variables, given.spec)
    values = encode_all(network, begun.test, batch_size=config["batch_size"])
    features = values.shape[1]
    head = linear.Linear(*tuned.head, jnp.zeros(features, jnp.float32), jnp.ones(features, jnp.float32))
    outcome = Outcome(linear.scores(head, values), how={"steps": steps}, head=head)
    test = Features(values, truth, classes, begun.test.groups)
    found = on_features.written(begun, config, outcome, test, {"features": features})
    place = found.path.with_suffix("")
    write_export(place, network, config=backbone.config, commit=None, step=begun.backbone.step)
    return replace(found, said=f"{found.said}, the network in {place}")


def tune(
    begun: on_features.Ready, settings: Finetune, labels: Int[np.ndarray, " N"], classes: int, seed: int
) -> tuple[Tuned, int]:
    """The network after the last epoch, and how many steps that took; an epoch's last images, fewer than a batch, wait
    for the next one's order.
    """
    start, mesh = begun.backbone.representation, make_mesh()
    count = len(begun.fit)
    policy = None
    if settings.views is not None:
        policy = policy_named(settings.views, start.spec["size"], begun.backbone.config)
    batch_size = min(settings.batch_size, count) // mesh.size * mesh.size
    key = jax.random.key(seed)
    weights = 0.01 * jax.random.normal(stream_rng(key, "init"), (start.dim, classes), jnp.float32)
    members = np.arange(count, dtype=np.int32)
    with make_reader(begun.fit, members, batch_size=batch_size, seed=seed, mesh=mesh) as reader:
        total = settings.epochs * reader.steps_per_epoch
        optimiser = make_optimiser(settings, total)
        head = weights, jnp.zeros(classes, jnp.float32)
        copied = jax.tree.map(jnp.array, start.variables)  # steps overwrite what they are given
        first = Tuned(copied["params"], copied["batch_stats"], head, optimiser.init((copied["params"], head)))
        tuned = jax.device_put(first, replicated(mesh))
        table = jax.device_put(jnp.asarray(labels), replicated(mesh))

        @partial(jax.jit, donate_argnums=0)
        def step(tuned: Tuned, images: UInt8[Array, "B H W 3"], index: Int[Array, " B"], keys: Key[Array, " B"]) -> Any:
            pixels = images if policy is None else view(policy, images, keys, 0)
            x = start.prepare(pixels)

            def loss(parameters: Any) -> tuple[Array, towers.Variables]:
                params, (weights, bias) = parameters
                variables = {"params": params, "batch_stats": tuned.batch_stats}
                features, moved = forward(start, variables, x, settings.statistics == "batch")
                each = optax.softmax_cross_entropy_with_integer_labels(features @ weights + bias, table[index])
                return jnp.mean(each), moved

            parameters = tuned.params, tuned.head
            (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
            updates, state = optimiser.update(gradient, tuned.optimiser, parameters)
            params, head = optax.apply_updates(parameters, updates)
            return Tuned(params, moved, head, state), value

        progress, note = Progress("finetune", total, unit="step", each=batch_size), ""
        try:
            for number in range(total):
                batch = reader.batch(number)
                keys = example_rngs(seed, number, jnp.arange(batch_size))
                tuned, value = step(tuned, batch.sources[:, 0], batch.index[:, 0], keys)
                if number % 10 == 9 or number + 1 == total:  # seldom: it waits for the step
                    if not np.isfinite(loss := float(value)):
                        raise BadNumbersError(f"the loss of finetune is {loss} at step {number + 1}; lower task.lr")
                    note = f"loss {loss:.3f}"
                progress.advance(note=note)
        finally:
            progress.close()
    return tuned, total


def make_optimiser(settings: Finetune, total: int) -> optax.GradientTransformation:
    """The optimiser of (backbone, head), the head's updates `head_factor` times as large."""

    def rate(step: Array) -> Array:
        return schedules.value(settings.lr, schedules.Progress(step, total))

    if settings.optimiser == "sgd":
        decay, momentum = optax.add_decayed_weights(settings.weight_decay), optax.trace(settings.momentum)
        chain = optax.chain(decay, momentum, optax.scale_by_learning_rate(rate))
    else:
        chain = optax.adamw(rate, weight_decay=settings.weight_decay)

    def widen(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        backbone, head = updates
        return (backbone, jax.tree.map(lambda u: settings.head_factor * u, head)), state

    return optax.chain(chain, optax.GradientTransformation(lambda params: optax.EmptyState(), widen))


def forward(
    start: Representation, variables: towers.Variables, x: Float[Array, "B H W 3"], moving: bool
) -> tuple[Float[Array, "B F"], towers.Variables]:
    """Features in training mode and the batch statistics after them; of a split those of both networks."""

    def through(own: towers.Variables, seen: Array) -> tuple[Array, towers.Variables]:
        found, moved = start.backbone.apply(own, seen, moving, mutable=["batch_stats"])
        return cast(Array, found), moved.get("batch_stats", {})

    if start.split is None:
        return through(variables, x)
    parts = {
        name: through({part: variables[part][name] for part in towers.COLLECTIONS}, seen)
        for name, seen in start.split.views(x).items()
    }
    features = jnp.concatenate([of_view for of_view, _ in parts.values()], axis=-1)
    return features, {name: moved for name, (_, moved) in parts.items()}
