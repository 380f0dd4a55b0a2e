"""Measures `contrast` on a pool of ImageNet's size: its memory beyond the inputs, and the time of ring over info_nce.

256 anchors, a pool of 1,048,576 x 128, float32, blocks of 32 anchors, percentiles .90 to .99; value and gradients of
anchors and positives. The memory is that of the temporaries, as the compiled program reports it. The nats of the first
anchors are compared with the dense form.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.benchmarks.timing import spread, time_interleaved

LOWER, UPPER, TEMPERATURE, BLOCK = 0.9, 0.99, 0.2, 32
SUPPORTS: dict[str, Any] = {"info_nce": mi.All(), "ring": mi.Ring(LOWER, UPPER), "cave": mi.Cave(LOWER, UPPER)}


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns the memory beyond the inputs in MiB, the seconds, and the ratio of ring over info_nce."""
    batch, size, dim, few = (16, 4096, 16, 4) if small else (256, 2**20, 128, 8)
    rngs = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(rng, (rows, dim)) for rng, rows in zip(rngs, (batch, batch, size), strict=True)]
    anchors, positives, pool = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in arrays)
    programs = {name: _compile(support, anchors, positives, pool) for name, support in SUPPORTS.items()}
    contenders = {
        name: lambda run=program: jax.block_until_ready(run(anchors, positives, pool))
        for name, program in programs.items()
    }
    worst = _compare_with_dense(contenders["ring"]()[0], anchors[:few], positives[:few], pool)
    seconds = time_interleaved(contenders, repeats)
    memory = {name: program.memory_analysis().temp_size_in_bytes / 2**20 for name, program in programs.items()}
    return {
        "what": f"nats and gradients, {batch} anchors in blocks of {BLOCK}, pool {size} x {dim}, float32",
        "pool_mib": pool.nbytes / 2**20,
        "mib_beyond_inputs": memory,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ring_over_info_nce": spread([a / b for a, b in zip(seconds["ring"], seconds["info_nce"], strict=True)]),
        "ring_against_dense_worst_error": worst,
    }


def _compile(support: Any, *arrays: jax.Array) -> Any:
    def step(anchors: jax.Array, positives: jax.Array, pool: jax.Array) -> Any:
        def loss(a: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
            nats = mi.contrast(a, p, pool, support, temperature=TEMPERATURE, block=BLOCK)
            return -jnp.mean(nats), nats

        gradients, nats = jax.grad(loss, argnums=(0, 1), has_aux=True)(anchors, positives)
        return nats, gradients

    return jax.jit(step).lower(*arrays).compile()


def _compare_with_dense(nats: jax.Array, anchors: jax.Array, positives: jax.Array, pool: jax.Array) -> float:
    """Returns the largest absolute difference, in nats, from the dense ring."""
    positive, scores = jnp.sum(anchors * positives, axis=1) / TEMPERATURE, anchors @ pool.T / TEMPERATURE
    return float(np.abs(mi.ring(positive, scores, LOWER, UPPER) - nats[: len(anchors)]).max())
