"""Makes the training step of a recipe, to compile it or to run it on random images; no data set is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mi_contrast.core.config import change, load_config, to_plain_data
from mi_contrast.core.mesh import batch_sharding, make_mesh, replicated
from mi_contrast.data.readers import Batch
from mi_contrast.models.towers import calibrate_statistics
from mi_contrast.training import assemble
from mi_contrast.training.candidates import Tables
from mi_contrast.training.parts import Parts, init_state
from mi_contrast.training.state import State, abstract, placement
from mi_contrast.training.step import make_step

EXAMPLES, CLASSES = 50_000, 10
Arguments = tuple[State, Batch, Tables]


class Step(NamedTuple):
    """A jitted training step and its parts.

    call: the step, of (state, batch, tables); the state is donated.
    source_size: side, in pixels, of the images that views are made from.
    num_sources: how many images an example has, 1 or 2.
    examples: number of examples of the training split.
    dtype: of the networks.
    """

    parts: Parts
    call: Any
    batch_size: int
    source_size: int
    num_sources: int = 1
    examples: int = EXAMPLES
    dtype: str = "float32"


def make_recipe_step(recipe: str, changes: Mapping[str, Any], mesh: Mesh | None = None) -> Step:
    """Returns the training step of a config.

    Args:
      recipe: a config file and variant, such as 'configs/ring_moco.py:cifar10'.
      changes: values of fields by their dotted names, such as {'model.dtype': 'bfloat16', 'data.batch': 512}.
      mesh: the devices to compile for, which need not exist here; by default those of this process.
    Raises:
      UserError if the config has no such field.
    """
    changed = load_config(recipe)[0]
    for name, value in changes.items():
        changed = change(changed, name, str(value))
    return make_config_step(changed, make_mesh() if mesh is None else mesh)


def make_config_step(config: Mapping[str, Any], mesh: Mesh, examples: int = EXAMPLES, classes: int = CLASSES) -> Step:
    """Returns the training step of a config on the devices of a mesh, which need not exist here.

    Args:
      examples: number of examples of the training split; a bank has a row for each.
      classes: number of classes of the label; 0 if there is none.
    Raises:
      UserError: a mistake in the config.
    """
    config = assemble.check(to_plain_data(config))
    parts, data = assemble.make_parts(config, classes, mesh, np.ones(examples, bool)), config["data"]
    num_sources = 2 if data["shared"] or data["partner"] is not None else 1
    size = data["size"] or config["views"]["size"]
    call, dtype = make_step(parts), config["model"]["dtype"]
    return Step(parts, call, data["batch"], size, num_sources, examples, dtype)


def abstract_arguments(step: Step) -> Arguments:
    """Returns the shapes, dtypes and shardings of the step's arguments."""
    parts, size = step.parts, step.parts.augmentation.size
    images = jax.ShapeDtypeStruct((step.batch_size, size, size, 3), jnp.float32)
    state = jax.eval_shape(lambda x: init_state(parts, x, calibrate_statistics), images)
    whole, cut = replicated(parts.mesh), batch_sharding(parts.mesh)
    sources: Any = jax.ShapeDtypeStruct(source_shape(step), jnp.uint8, sharding=cut)
    index: Any = jax.ShapeDtypeStruct((step.batch_size, step.num_sources), jnp.int32, sharding=cut)
    table: Any = jax.ShapeDtypeStruct((step.examples,), jnp.int32, sharding=whole)
    return abstract(state, placement(parts.method, parts.mesh)), Batch(sources, index), Tables(table, table)


def random_arguments(step: Step) -> Arguments:
    """Returns an initial state, a batch of random images and tables of random labels, on the devices of the mesh."""
    parts, size, random = step.parts, step.parts.augmentation.size, np.random.default_rng(0)
    whole, cut = replicated(parts.mesh), batch_sharding(parts.mesh)
    images = jnp.asarray(random.random((step.batch_size, size, size, 3), np.float32))
    state = jax.jit(lambda x: init_state(parts, x, calibrate_statistics))(images)
    sources = random.integers(0, 256, source_shape(step), np.uint8)
    index = random.choice(step.examples, (step.batch_size, step.num_sources), replace=False).astype(np.int32)
    labels, groups = random.integers(0, CLASSES, step.examples, np.int32), np.arange(step.examples, dtype=np.int32)
    state = jax.device_put(jax.tree.map(np.array, state), placement(parts.method, parts.mesh))
    return state, Batch(*jax.device_put((sources, index), cut)), Tables(*jax.device_put((labels, groups), whole))


def source_shape(step: Step) -> tuple[int, ...]:
    """Returns the shape of a batch's source images, [B, I, H, W, 3]."""
    return step.batch_size, step.num_sources, step.source_size, step.source_size, 3
