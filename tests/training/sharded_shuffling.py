"""Run on eight virtual devices by test_shuffling: prints a line of JSON for what was asked.

python -m tests.training.sharded_shuffling moves|text
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast.core.mesh import batch_sharding, make_mesh, replicated
from mi_contrast.models import towers
from mi_contrast.training import assemble
from mi_contrast.training.shuffling import move_rows, shuffled_positions
from tests.training import small

BATCH = 96
COLLECTIVE = re.compile(r"= \w+\[([\d,]*)\]\S* (all-gather|all-reduce|all-to-all|collective-permute)")


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


def collectives(groups, gathered):
    """(kind, elements) of each collective of the key network's compiled text."""
    mesh, config = make_mesh(), small.config(data__batch=64, model__norm={"kind": "batch", "groups": groups})
    parts = assemble.make_parts(assemble.check(config), 10, mesh)
    target = jax.eval_shape(lambda: parts.tower.init(jax.random.key(0), (32, 32, 3)))
    if gathered:  # as 0.1.0 did: an order that only the running program knows

        def keys(target, images):
            order = jax.random.permutation(jax.random.key(0), 64)
            return towers.Tower.encode(parts.tower, target, images[order], train=True).embedding[jnp.argsort(order)]
    else:

        def keys(target, images):
            return parts.encoder.encode_keys(target, "key", images).embedding

    images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
    jitted = jax.jit(keys, in_shardings=(replicated(mesh), batch_sharding(mesh)), out_shardings=batch_sharding(mesh))
    text = jitted.lower(target, images).compile().as_text()
    return [(kind, int(np.prod([int(n) for n in shape.split(",") if n]))) for shape, kind in COLLECTIVE.findall(text)]


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    if sys.argv[1] == "moves":
        print(json.dumps(moves()))
    else:
        print(
            json.dumps(
                {str(groups): collectives(groups, False) for groups in (4, 8, 16)} | {"gathered": collectives(8, True)}
            )
        )
