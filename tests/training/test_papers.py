"""The training step of every recipe of a paper, lowered on shapes: nothing is computed, and no data set is needed."""

import jax
import jax.numpy as jnp
import pytest

from mi_contrast.benchmarks import steps
from tests.methods.test_papers import RECIPES

QUICK = "ring_ir:paper_cifar10"


@pytest.mark.parametrize("name", [n if n == QUICK else pytest.param(n, marks=pytest.mark.nightly) for n in RECIPES])
def test_the_step_of_a_recipe_lowers_on_shapes(name):
    method, variant = name.split(":")
    step = steps.make_recipe_step(f"configs/{method}.py:{variant}", {})
    arguments = steps.abstract_arguments(step)
    state, scalars = step.call.lower(*arguments).out_info
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert shapes(state) == shapes(arguments[0])
    assert shapes(scalars["objective"]) == ((), jnp.float32)
