"""A pool of ImageNet's size: what `contrast` needs beyond its inputs, and ring's time beside info_nce's.

256 anchors, a pool of 1,048,576 x 128, float32, blocks of 32 anchors, percentiles .90 to .99, forward and backward to
anchors and positives. Memory is the compiled program's own account of its temporaries. The first anchors' nats are held
against the dense form.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.benchmarks.timing import interleaved, spread

LOWER, UPPER, TEMPERATURE, BLOCK = 0.9, 0.99, 0.2, 32
SUPPORTS: dict[str, Any] = {"info_nce": mi.All(), "ring": mi.Ring(LOWER, UPPER), "cave": mi.Cave(LOWER, UPPER)}


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Memory beyond the inputs in MiB, seconds, and ring over info_nce round by round."""
    batch, size, dim, slice_of = (16, 4096, 16, 4) if small else (256, 2**20, 128, 8)
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, (rows, dim)) for key, rows in zip(keys, (batch, batch, size), strict=True)]
    anchors, positives, pool = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in arrays)
    programs = {name: _compiled(support, anchors, positives, pool) for name, support in SUPPORTS.items()}
    contenders = {
        name: lambda run=program: jax.block_until_ready(run(anchors, positives, pool))
        for name, program in programs.items()
    }
    worst = _error(contenders["ring"]()[0], anchors[:slice_of], positives[:slice_of], pool)
    seconds = interleaved(contenders, repeats)
    memory = {name: program.memory_analysis().temp_size_in_bytes / 2**20 for name, program in programs.items()}
    return {
        "what": f"nats and gradients, {batch} anchors in blocks of {BLOCK}, pool {size} x {dim}, float32",
        "pool_mib": pool.nbytes / 2**20,
        "mib_beyond_inputs": memory,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ring_over_info_nce": spread([a / b for a, b in zip(seconds["ring"], seconds["info_nce"], strict=True)]),
        "ring_against_dense_worst_error": worst,
    }


def _compiled(support: Any, *arrays: jax.Array) -> Any:
    def step(anchors: jax.Array, positives: jax.Array, pool: jax.Array) -> Any:
        def loss(a: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
            nats = mi.contrast(a, p, pool, support, temperature=TEMPERATURE, block=BLOCK)
            return -jnp.mean(nats), nats

        slopes, nats = jax.grad(loss, argnums=(0, 1), has_aux=True)(anchors, positives)
        return nats, slopes

    return jax.jit(step).lower(*arrays).compile()


def _error(nats: jax.Array, anchors: jax.Array, positives: jax.Array, pool: jax.Array) -> float:
    positive, scores = jnp.sum(anchors * positives, axis=1) / TEMPERATURE, anchors @ pool.T / TEMPERATURE
    return float(np.abs(mi.ring(positive, scores, LOWER, UPPER) - nats[: len(anchors)]).max())
