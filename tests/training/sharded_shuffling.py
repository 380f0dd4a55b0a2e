"""Run on eight virtual devices by test_shuffling: prints a line of JSON for what was asked.

python -m tests.training.sharded_shuffling moves|text
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.benchmarks.steps import abstract_arguments, make_recipe_step
from mi_contrast.core.mesh import batch_sharding, make_mesh
from mi_contrast.training import encoding
from mi_contrast.training.shuffling import move_rows, shuffled_positions

BATCH = 96
COLLECTIVE = re.compile(
    r"= (.*) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|ragged-all-to-all)(?:-start)?\("
)
SHAPE = re.compile(r"\w+\[([\d,]*)\]")


def moves():
    """The rows that arrive, for devices and groups in every relation, in the order of the loops in the test."""
    x = jnp.arange(BATCH, dtype=jnp.float32)[:, None] * jnp.ones((1, 2))
    found = []
    for devices in (1, 2, 4, 8):
        mesh = make_mesh(jax.devices()[:devices])
        for groups in (2, 3, 4, 8, 16):
            positions = shuffled_positions(BATCH, groups, seed=3)
            placed = jax.device_put(x, batch_sharding(mesh))
            there = jax.jit(lambda x, p=positions, m=mesh: move_rows(x, p, m))(placed)
            back = jax.jit(lambda x, p=positions, m=mesh: move_rows(x, np.argsort(p), m))(there)
            assert (np.asarray(back) == np.asarray(x)).all()
            found.append(np.asarray(there)[:, 0].tolist())
    return found


def collectives(text):
    """(kind, shape) of every array that a collective of a compiled text moves."""
    return [
        (kind, [int(n) for n in shape.split(",") if n])
        for arrays, kind in COLLECTIVE.findall(text)
        for shape in SHAPE.findall(arrays)
    ]


def whole_step(groups, gathered=False):
    """Collectives of the compiled training step. With `gathered`, keys are shuffled as 0.1.0 did."""
    changes = {"data.batch": BATCH, "model.width": 8, "model.norm.groups": groups, "method.pools.queue.size": 1024}
    with pytest.MonkeyPatch.context() as patched:
        if gathered:  # an order that only the running program knows

            def move(x, positions, mesh):
                order = jax.random.permutation(jax.random.key(0), len(positions))
                return x[order if x.ndim == 4 else jnp.argsort(order)]  # images, then what was made of them

            patched.setattr(encoding, "move_rows", move)
        step = make_recipe_step("configs/moco.py:cifar10_small", changes)
        assert step.parts.encoder.batch_norm_groups == groups
        return collectives(step.call.lower(*abstract_arguments(step)).compile().as_text())


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    if sys.argv[1] == "moves":
        print(json.dumps(moves()))
    else:
        found = {str(groups): whole_step(groups) for groups in (4, 8, 16)}
        print(json.dumps(found | {"gathered": whole_step(8, gathered=True)}))
