"""Fine-tunes the whole network, including layers that its training kept frozen, with a linear head on labels.

This is the only task that changes weights and batch statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from mi_contrast.core.mesh import local_mesh, replicated
from mi_contrast.core.progress import ProgressBar
from mi_contrast.core.rngs import example_rngs, stream_rng
from mi_contrast.data.readers import make_reader
from mi_contrast.evaluation import feature_tasks
from mi_contrast.evaluation.augmentation import make_policy, make_view
from mi_contrast.evaluation.features import Features, encode_all
from mi_contrast.evaluation.task_config import Judgement
from mi_contrast.evaluation.tasks import Outcome, make_settings
from mi_contrast.interchange import LoadedBackbone, write_export
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation
from mi_contrast.readout import linear

OPTIMISERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Finetune:
    """Settings of fine-tuning.

    optimiser: 'sgd' (with momentum, as torch defines it) or 'adamw'.
    lr: learning rate of the backbone, a number or a schedule of progress.
    head_factor: learning rate of the head, divided by that of the backbone.
    momentum: of SGD.
    weight_decay: of backbone and head.
    epochs, batch_size: length of the training, and images in a step.
    views: 'crops' or a policy's name augments the images at every step; None leaves them as they are.
    statistics: 'batch' updates batch statistics as in training; 'frozen' keeps those of the backbone.
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
        """Raises UserError on an invalid value."""
        schedules.check(self.lr, "lr")
        if self.optimiser not in OPTIMISERS:
            raise unknown("optimiser", self.optimiser, OPTIMISERS)
        if self.statistics not in ("batch", "frozen"):
            raise unknown("statistics", self.statistics, ("batch", "frozen"))
        for name, least in (("epochs", 1), ("batch_size", 2), ("momentum", 0), ("weight_decay", 0), ("head_factor", 0)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")


class TuningState(NamedTuple):
    """The state of fine-tuning.

    params, batch_stats: of the backbone. head: its weights and bias. opt_state: of the optimiser.
    """

    params: towers.Variables
    batch_stats: towers.Variables
    head: tuple[Float[Array, "F C"], Float[Array, " C"]]
    opt_state: Any


def judge(
    config: Mapping[str, Any], backbone: LoadedBackbone, workdir: Path | None = None, *, untrained: bool = False
) -> Judgement:
    """Fine-tunes on the fitting split and scores the test split once, after the last epoch.

    Writes results/finetune-<set>.json, with the head next to it (.safetensors) and the network in a folder of the same
    name, as an export. The given backbone is not changed.

    Raises what `evaluation.judge` raises, and BadNumbersError where the loss is not finite.
    """
    task = {name: value for name, value in config["task"].items() if name != "kind"}
    settings: Finetune = make_settings(Finetune, task)
    setup = feature_tasks.prepare(config, backbone, workdir, untrained=untrained)
    (labels, classes), (test_labels, _) = feature_tasks.read_labels(setup)
    state, steps = tune(setup, settings, labels, len(classes), config["seed"])
    initial = setup.backbone.representation
    variables = initial.variables | {"params": state.params, "batch_stats": state.batch_stats}
    network = Representation(variables, initial.spec)
    values = encode_all(network, setup.test, batch_size=config["batch_size"])
    features = values.shape[1]
    head = linear.LinearModel(*state.head, jnp.zeros(features, jnp.float32), jnp.ones(features, jnp.float32))
    outcome = Outcome(linear.scores(head, values), details={"steps": steps}, head=head)
    test = Features(values, test_labels, classes, setup.test.groups)
    judgement = feature_tasks.write_judgement(setup, config, outcome, test, {"features": features})
    folder = judgement.path.with_suffix("")
    write_export(folder, network, config=backbone.config, commit=None, step=setup.backbone.step)
    return replace(judgement, summary=f"{judgement.summary}, the network in {folder}")


def tune(
    setup: feature_tasks.Setup, settings: Finetune, labels: Int[np.ndarray, " N"], classes: int, seed: int
) -> tuple[TuningState, int]:
    """Returns the state after the last epoch and the number of steps.

    An epoch drops its last images where they are fewer than a batch; the next epoch is shuffled anew.
    """
    start, mesh = setup.backbone.representation, local_mesh()
    count = len(setup.fit)
    policy = None
    if settings.views is not None:
        policy = make_policy(settings.views, start.spec["size"], setup.backbone.config)
    batch_size = min(settings.batch_size, count) // mesh.size * mesh.size
    init_rng = stream_rng(jax.random.key(seed), "init")
    weights = 0.01 * jax.random.normal(init_rng, (start.dim, classes), jnp.float32)
    members = np.arange(count, dtype=np.int32)
    with make_reader(setup.fit, members, batch_size=batch_size, seed=seed, mesh=mesh) as reader:
        total = settings.epochs * reader.steps_per_epoch
        optimiser = make_optimiser(settings, total)
        head = weights, jnp.zeros(classes, jnp.float32)
        variables = jax.tree.map(jnp.array, start.variables)  # a copy, because a step donates its input
        opt_state = optimiser.init((variables["params"], head))
        state = TuningState(variables["params"], variables["batch_stats"], head, opt_state)
        state = jax.device_put(state, replicated(mesh))
        all_labels = jax.device_put(jnp.asarray(labels), replicated(mesh))
        step = make_step(start, policy, optimiser, batch_statistics=settings.statistics == "batch")
        progress, note = ProgressBar("finetune", total, unit="step", each=batch_size, compiles=True), ""
        try:
            for number in range(total):
                batch = reader.batch(number)
                rngs = example_rngs(seed, number, jnp.arange(batch_size))
                state, value = step(state, batch.sources[:, 0], all_labels[batch.index[:, 0]], rngs)
                if number % 10 == 9 or number + 1 == total:  # reading the loss waits for the step
                    if not np.isfinite(loss := float(value)):
                        raise BadNumbersError(f"the loss of finetune is {loss} at step {number + 1}; lower task.lr")
                    note = f"loss {loss:.3f}"
                progress.advance(note=note)
        finally:
            progress.close()
    return state, total


def make_step(
    network: Representation,
    policy: Mapping[str, Any] | None,
    optimiser: optax.GradientTransformation,
    *,
    batch_statistics: bool,
) -> Callable[..., tuple[TuningState, Float[Array, ""]]]:
    """Returns the compiled step: (state, images, labels, rngs) to (next state, mean cross-entropy before the step).

    Args:
      network: the one before fine-tuning; only its structure and its preprocessing are used.
      policy: augments the images; None leaves them as they are.
      optimiser: of the parameters (backbone, head).
      batch_statistics: whether batch statistics are updated, rather than frozen.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(
        state: TuningState, images: UInt8[Array, "B H W 3"], labels: Int[Array, " B"], rngs: Key[Array, " B"]
    ) -> tuple[TuningState, Array]:
        x = network.prepare(images if policy is None else make_view(policy, images, rngs, 0))

        def compute_loss(parameters: Any) -> tuple[Array, towers.Variables]:
            params, (weights, bias) = parameters
            variables = {"params": params, "batch_stats": state.batch_stats}
            features, batch_stats = forward(network, variables, x, batch_statistics)
            losses = optax.softmax_cross_entropy_with_integer_labels(features @ weights + bias, labels)
            return jnp.mean(losses), batch_stats

        parameters = state.params, state.head
        (loss, batch_stats), gradient = jax.value_and_grad(compute_loss, has_aux=True)(parameters)
        updates, opt_state = optimiser.update(gradient, state.opt_state, parameters)
        params, head = optax.apply_updates(parameters, updates)
        return TuningState(params, batch_stats, head, opt_state), loss

    return step


def make_optimiser(settings: Finetune, total: int) -> optax.GradientTransformation:
    """Returns the optimiser of (backbone, head); the head's updates are multiplied by `head_factor`."""

    def learning_rate(step: Array) -> Array:
        return schedules.value(settings.lr, schedules.Progress(step, total))

    if settings.optimiser == "sgd":
        decay, momentum = optax.add_decayed_weights(settings.weight_decay), optax.trace(settings.momentum)
        chain = optax.chain(decay, momentum, optax.scale_by_learning_rate(learning_rate))
    else:
        chain = optax.adamw(learning_rate, weight_decay=settings.weight_decay)

    def scale_head(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        backbone, head = updates
        return (backbone, jax.tree.map(lambda u: settings.head_factor * u, head)), state

    return optax.chain(chain, optax.GradientTransformation(lambda params: optax.EmptyState(), scale_head))


def forward(
    start: Representation, variables: towers.Variables, x: Float[Array, "B H W 3"], train: bool
) -> tuple[Float[Array, "B F"], towers.Variables]:
    """Returns the features and the batch statistics after this batch.

    If the representation splits its input between two networks, their features are concatenated.

    Args:
      start: structure of the network.
      variables: its parameters and batch statistics.
      x: normalised images.
      train: whether the layers normalise by this batch and update their statistics.
    """

    def apply(part: towers.Variables, inputs: Array) -> tuple[Array, towers.Variables]:
        features, updates = start.backbone.apply(part, inputs, train, mutable=["batch_stats"])
        return cast(Array, features), updates.get("batch_stats", {})

    if start.split is None:
        return apply(variables, x)
    outputs = {
        name: apply({collection: variables[collection][name] for collection in towers.COLLECTIONS}, view)
        for name, view in start.split.views(x).items()
    }
    features = jnp.concatenate([view_features for view_features, _ in outputs.values()], axis=-1)
    return features, {name: batch_stats for name, (_, batch_stats) in outputs.items()}
