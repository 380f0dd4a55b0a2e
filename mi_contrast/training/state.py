"""The state: everything a run knows, one frozen dataclass of sub-states, each owned by the room that updates it.

A checkpoint is exactly this. The data position is `step`: the reader is seeked to it. No training fact lives outside.
"""

from __future__ import annotations

from typing import Any

import flax.serialization
import flax.struct
import jax
from jax import Array

from mi_contrast.core.checkpoint import Tree
from mi_contrast.pools.queue import Queue


@flax.struct.dataclass
class State:
    """step: int32, steps taken. online, target: {'params', 'batch_stats'}. optimiser: optax's. pools: by name.
    carried: adaptive values and normalisers, by name. guard: int32, bad steps in a row. probe: the online probe's
    {'params', 'optimiser'}, empty where the data have no labels.
    """

    step: Array
    online: dict[str, Any]
    target: dict[str, Any]
    optimiser: Any
    pools: dict[str, Queue]
    carried: dict[str, Any]
    guard: Array
    probe: dict[str, Any]


def to_tree(state: State) -> Tree:
    """The state as a nested dict of arrays with string keys, as checkpoints hold it."""
    return flax.serialization.to_state_dict(state)


def from_tree(like: State, tree: Tree) -> State:
    """The inverse of `to_tree`, in the structure of `like`."""
    return flax.serialization.from_state_dict(like, tree)


def abstract(state: State, sharding: jax.sharding.Sharding) -> State:
    """Shapes and dtypes of the state, each with the given sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)
