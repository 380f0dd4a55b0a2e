"""The training step of every recipe of a paper, lowered on shapes: nothing is computed, and no data set is needed."""

import jax
import jax.numpy as jnp
import pytest

from mi_contrast.benchmarks import steps
from tests.methods.test_papers import RECIPES

QUICK = "ring_ir:paper_cifar10"
SIDES = {"cifar10": 32, "cifar100": 32, "stl10": 96, "imagenet2012": 256}  # of the images that views are made from


@pytest.mark.parametrize("name", [n if n == QUICK else pytest.param(n, marks=pytest.mark.nightly) for n in RECIPES])
def test_the_step_of_a_recipe_lowers_on_shapes(name):
    row, variant = name.split(":")
    step = steps.make_recipe_step(f"configs/{row}.py:{variant}", {})
    state, batch, tables = steps.abstract_arguments(step)
    side = next(side for data, side in SIDES.items() if data.removesuffix("2012") in variant)
    sources = jax.ShapeDtypeStruct((step.batch_size, 1, side, side, 3), jnp.uint8, sharding=batch.sources.sharding)
    after, scalars = step.call.lower(state, batch._replace(sources=sources), tables).out_info
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert shapes(after) == shapes(state)
    assert shapes(scalars["objective"]) == ((), jnp.float32)
