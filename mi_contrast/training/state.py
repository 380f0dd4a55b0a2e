"""The state: everything a run knows, one frozen dataclass of sub-states, each owned by the room that updates it.

A checkpoint is exactly this. The data position is `step`: the reader is seeked to it. No training fact lives outside.
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
from mi_contrast.methods.rows import Row
from mi_contrast.training.adaptive import paces


@flax.struct.dataclass
class State:
    """step: int32, steps taken. online, target: {'params', 'batch_stats'}. optimiser: optax's. pools: by name.
    carried: adaptive values and normalisers, by name. guard: int32, bad steps in a row. probe: the online probe's
    {'params', 'optimiser'}, empty where the data have no labels. generator: {'params'} of the generator that divides
    images, and what it learns by where it learns; empty where none divides.
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
    """The state as a nested dict of arrays with string keys, as checkpoints hold it."""
    return flax.serialization.to_state_dict(state)


def from_tree(like: State, tree: Tree) -> State:
    """The inverse of `to_tree`, in the structure of `like`."""
    return flax.serialization.from_state_dict(like, tree)


def placement(row: Row, mesh: Mesh) -> State:
    """How the state lies over the mesh, as a prefix of it: banks and their clusterings cut, everything else whole."""
    whole, cut = replicated(mesh), batch_sharding(mesh)
    pools = {name: cut if pool["kind"] == "bank" else whole for name, pool in row.pools.items()}
    pools = {name: where for name, where in pools.items() if name not in row.of_kind("in_batch")}
    prefix: Any = State
    return prefix(
        step=whole,
        online=whole,
        target=whole,
        optimiser=whole,
        pools=pools,
        carried={name: cut for name in map(of_clusters, row.clustered)}
        | {normaliser(i): whole for i, term in enumerate(row.terms) if term.binary}
        | dict.fromkeys(paces(row), whole),
        guard=whole,
        probe=whole,
        generator=whole,
    )


def abstract(state: State, where: State) -> State:
    """Shapes and dtypes of the state, each with its sharding: `where` is a prefix of it, as `placement` gives."""

    def of_part(sharding: jax.sharding.Sharding, part: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), part)

    return jax.tree.map(of_part, where, state, is_leaf=lambda x: isinstance(x, jax.sharding.Sharding))


def normaliser(at: int) -> str:
    """Where the carried state holds the log normaliser of term `at`; -inf before the first batch."""
    return f"log_normaliser_{at}"


def of_clusters(name: str) -> str:
    """Where the carried state holds the labels of a bank's clusterings."""
    return f"{name}_clusters"
