"""The parts of a training step, and the state before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from mi_contrast.core import rngs as streams
from mi_contrast.methods.method import HEAD, TWIN_HEAD, Method
from mi_contrast.models.towers import Tower
from mi_contrast.training import adaptive
from mi_contrast.training.candidates import init_clusters, init_pool_states
from mi_contrast.training.encoding import Encoder, encode_plain
from mi_contrast.training.generators import GeneratorTraining
from mi_contrast.training.optimiser import Rate
from mi_contrast.training.probe import Probe
from mi_contrast.training.state import State, normaliser_name
from mi_contrast.views.policies import Views


@dataclass(frozen=True)
class Parts:
    """The fixed components of a run: networks, views, optimiser, mesh and sizes. State holds the changing ones.

    Attributes:
      method: a template: its adaptive schedules are resolved anew in every step (`adaptive.resolve`).
      augmentation: makes the views of a batch.
      learning_rate: a function of the step.
      train_mask: bool [N], the examples that are trained on.
      generator: initial parameters of the generator that splits images into views; None if the run has none.
      generator_training: how that generator learns; None where it is frozen.
    """

    method: Method
    augmentation: Views
    encoder: Encoder
    optimiser: optax.GradientTransformationExtraArgs
    probe: Probe | None
    mesh: Mesh
    seed: int
    total_steps: int
    learning_rate: Rate
    train_mask: np.ndarray
    generator: Any = None
    generator_training: GeneratorTraining | None = None

    @property
    def tower(self) -> Tower:
        """The networks, which hold no arrays."""
        return self.encoder.tower

    @property
    def probed_views(self) -> tuple[str, ...]:
        """Names of the views whose features are concatenated to the representation, the input of the online probe."""
        return tuple(self.method.source_index) if self.method.view_kind == "channels" else self.method.online_views[:1]


def init_state(parts: Parts, images: Float[Array, "B H W 3"], calibrate: Callable[..., Any]) -> State:
    """Returns the state before the first step: fresh networks, a target equal to them, empty queues, random banks.

    Args:
      images: normalised, whole. Their batch statistics become the running ones, so that the untrained network can be
        judged.
      calibrate: a function of (tower, variables, images) that returns the variables with those statistics.
    """
    template = parts.method
    rng = streams.stream_rng(jax.random.key(parts.seed), "init")
    online = parts.tower.init(rng, (images.shape[1], images.shape[2], 3))
    online = calibrate(parts.tower, online, images)
    shapes = jax.eval_shape(lambda v: encode_plain(parts.tower, v, images, template.online_views[0]), online)
    dims = {HEAD: shapes.embedding.shape[1]} | ({} if shapes.twin is None else {TWIN_HEAD: shapes.twin.shape[1]})
    pool_states = init_pool_states(template, parts.train_mask, dims, parts.seed, parts.mesh)
    auxiliary: dict[str, Any] = init_clusters(template, pool_states, parts.mesh)
    auxiliary |= {normaliser_name(i): jnp.full((), -jnp.inf) for i, term in enumerate(template.terms) if term.binary}
    auxiliary |= adaptive.init_levels(template)
    return State(
        step=jnp.zeros((), jnp.int32),
        online=online,
        target=jax.tree.map(jnp.copy, online) if template.target == "ema" else {},
        optimiser=parts.optimiser.init(online["params"]),
        pools=pool_states,
        carried=auxiliary,
        guard=jnp.zeros((), jnp.int32),
        probe={} if parts.probe is None else parts.probe.init(shapes.features.shape[1] * len(parts.probed_views)),
        generator=init_generator(parts, rng, images.shape[1:3]),
    )


def init_generator(parts: Parts, rng: Key[Array, ""], image_size: tuple[int, ...]) -> dict[str, Any]:
    """Returns the generator's initial state, or {} if the run has no generator."""
    if parts.generator is None:
        return {}
    params = jax.tree.map(jnp.asarray, parts.generator)
    training = parts.generator_training
    return {"params": params} if training is None else training.init(params, rng, image_size)
