"""Random keys: one a (step, position), one a named stream of it, from the run's seed alone."""

from __future__ import annotations

import jax
from jaxtyping import Array, Int, Key

# A stream's number is part of every run's result: add at the end, never renumber.
STREAMS = {
    "init": 0,
    "permutation": 1,
    "partner": 2,
    "views": 3,
    "support": 4,
    "batch_norm": 5,
    "probe": 6,
    "pools": 7,
    "held_out": 8,
    "generator": 9,
}


def stream_rng(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """The key of a named stream: fold_in(key, STREAMS[name]); the key given is never used itself."""
    return jax.random.fold_in(key, STREAMS[name])


def step_rng(seed: int, step: Int[Array, ""] | int) -> Key[Array, ""]:
    """fold_in(key(seed), step)."""
    return jax.random.fold_in(jax.random.key(seed), step)


def example_rngs(seed: int, step: Int[Array, ""] | int, positions: Int[Array, " B"]) -> Key[Array, " B"]:
    """Keys of the examples at (step, position): fold_in(fold_in(key(seed), step), position).

    Args:
      positions: int32 [B], positions in the full batch over all processes and devices.
    """
    return jax.vmap(lambda position: jax.random.fold_in(step_rng(seed, step), position))(positions)
