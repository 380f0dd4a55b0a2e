"""Random keys of JAX, called rng here because `key` is MoCo's word for an embedding.

Every rng follows from the run's seed: one for each step, one for each example (step, position), and from each of those
one for each named stream, such as 'views' or 'partner'.
"""

from __future__ import annotations

import jax
from jaxtyping import Array, Int, Key

# A stream's number influences the results of every run. Add new streams at the end, and never renumber.
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


def stream_rng(rng: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Returns the rng of a named stream, fold_in(rng, STREAMS[name]). Never draw from `rng` itself."""
    return jax.random.fold_in(rng, STREAMS[name])


def step_rng(seed: int, step: Int[Array, ""] | int) -> Key[Array, ""]:
    """Returns the rng of a step, fold_in(key(seed), step)."""
    return jax.random.fold_in(jax.random.key(seed), step)


def example_rngs(seed: int, step: Int[Array, ""] | int, positions: Int[Array, " B"]) -> Key[Array, " B"]:
    """Returns the rngs of the examples at (step, position), fold_in(fold_in(key(seed), step), position).

    Args:
      positions: int32 [B], positions in the global batch over all processes and devices.
    """
    return jax.vmap(lambda position: jax.random.fold_in(step_rng(seed, step), position))(positions)
