"""The state: everything that changes during a run, one frozen dataclass of sub-states.

A checkpoint is exactly this. The position in the data is `step`: the reader is set to it.
"""

from __future__ import annotations

from typing import Any

import flax.serialization
import flax.struct
import jax
from jax import Array
from jax.sharding import Mesh

from mi_contrast.core.checkpoint import Tree
from mi_contrast.core.mesh import batch_sharding, replicated
from mi_contrast.methods.method import Method
from mi_contrast.training.adaptive import find_paces


@flax.struct.dataclass
class State:
    """What a step takes and returns.

    Attributes:
      step: int32, the number of steps taken.
      online, target: {'params', 'batch_stats'}; target is empty where it is no moving average.
      optimiser: the state of the optax optimiser.
      pools: states of the pools, by name.
      carried: the auxiliary state: cluster labels, log normalisers and levels of adaptive schedules, by name.
      guard: int32, the number of bad steps in a row.
      probe: {'params', 'optimiser'} of the online probe; empty where the data have no labels.
      generator: {'params'} of the generator that divides images and, where it learns, the states of its optimiser and
        classifiers; empty where no generator divides.
    """

    step: Array
    online: dict[str, Any]
    target: dict[str, Any]
    optimiser: Any
    pools: dict[str, Any]
    carried: dict[str, Any]
    guard: Array
    probe: dict[str, Any]
    generator: dict[str, Any]


def to_tree(state: State) -> Tree:
    """Returns the state as a nested dict of arrays with string keys, the form of checkpoints."""
    return flax.serialization.to_state_dict(state)


def from_tree(like: State, tree: Tree) -> State:
    """Returns the state of a tree made by `to_tree`, in the structure of `like`."""
    return flax.serialization.from_state_dict(like, tree)


def placement(template: Method, mesh: Mesh) -> State:
    """Returns how the state lies over the mesh, a prefix of the state whose leaves are shardings.

    A pool says whether it is sharded over the mesh axis `data`. The labels of a bank's clusterings are sharded as the
    bank is. All else is replicated.
    """
    everywhere, sharded = replicated(mesh), batch_sharding(mesh)
    prefix: Any = State
    return prefix(
        step=everywhere,
        online=everywhere,
        target=everywhere,
        optimiser=everywhere,
        pools={name: sharded if pool.sharded else everywhere for name, pool in template.stateful_pools.items()},
        carried=dict.fromkeys(map(clusters_name, template.clusterings), sharded)
        | {normaliser_name(i): everywhere for i, term in enumerate(template.terms) if term.binary}
        | dict.fromkeys(find_paces(template), everywhere),
        guard=everywhere,
        probe=everywhere,
        generator=everywhere,
    )


def abstract(state: State, shardings: State) -> State:
    """Returns shapes and dtypes of the state, each with its sharding.

    Args:
      shardings: a prefix of the state, as `placement` returns it.
    """

    def describe(sharding: jax.sharding.Sharding, part: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), part)

    return jax.tree.map(describe, shardings, state, is_leaf=lambda x: isinstance(x, jax.sharding.Sharding))


def normaliser_name(index: int) -> str:
    """Returns the name in `carried` of the log normaliser of a term, whose value is -inf before the first batch."""
    return f"log_normaliser_{index}"


def clusters_name(pool: str) -> str:
    """Returns the name in `carried` of the labels of a pool's clusterings."""
    return f"{pool}_clusters"
