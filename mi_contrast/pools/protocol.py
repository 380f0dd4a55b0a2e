"""What an anchor is scored against, and the protocol of the pools that provide it.

A pool is a frozen dataclass. Its fields are its settings in `config.method.pools`; it holds no arrays. What it
remembers between steps is an explicit state, which its methods take and return, as optax's transformations do.

To add a pool, write one file in this folder with a class that follows `Pool`, and add one line to `kinds.KINDS`.
tests/pools/test_adding_a_pool.py does so with a bank that forgets rows which have not been written for long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from mi_contrast.core.schedules import Progress


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Candidates:
    """What an anchor is scored against: the rows of a pool, and what is known of each.

    Attributes:
      rows: f32 [K, D], embeddings of unit norm.
      valid: bool [K], False for rows that are not written yet, held out, or padding. They are never candidates.
      ids: int32 [K], the example that each row was made from. A row is no candidate of an anchor of the same example.
        None where an anchor's own row is a candidate too.
      labels: int32 [K, R] or None, what the support `close` compares with an anchor's labels; -1 equals nothing.
      sharded: whether rows are sharded over the mesh axis `data`. If not, every device holds all of them.
      has_gradient: whether the gradient of the objective reaches the rows.
      own_rows: how many valid rows belong to an anchor's own example, 0 where this varies. The ceiling leaves them out.
    """

    rows: Float[Array, "K D"]
    valid: Bool[Array, " K"]
    ids: Int[Array, " K"] | None
    labels: Int[Array, "K R"] | None = None
    sharded: bool = field(default=False, metadata=dict(static=True))
    has_gradient: bool = field(default=False, metadata=dict(static=True))
    own_rows: int = field(default=0, metadata=dict(static=True))


class BatchEmbeddings(NamedTuple):
    """The embeddings of this step in the space of one head, by view.

    Attributes:
      rows: f32 [B, D] for each view, made by the target or, without a target, by the online network.
      ids: int32 [B] for each view, the examples that the view was made from.
      has_gradient: whether the rows carry gradient, which those of a target never do.
    """

    rows: Mapping[str, Float[Array, "B D"]]
    ids: Mapping[str, Int[Array, " B"]]
    has_gradient: bool


class Pool(Protocol):
    """Where candidates come from.

    Class attributes:
      network: whose embeddings the state is made of: "online", or "target" (the online network's where there is no
        target). None for a pool without a state, whose `init` and `update` are never called.
      sharded: whether axis 0 of the state's arrays is sharded over the mesh axis `data`. If not, they are replicated.
      per_example: whether row i of the state belongs to example i. Only then may a term have the positive 'row', the
        form `binary`, or clusters.
    """

    network: ClassVar[Literal["online", "target"] | None]
    sharded: ClassVar[bool]
    per_example: ClassVar[bool]

    @property
    def takes(self) -> str | None:
        """The view whose embeddings `update` writes. None for a pool without a state."""
        ...

    @property
    def views(self) -> tuple[str, ...]:
        """The views whose embeddings `candidates` reads from the batch."""
        ...

    def check(self, path: str) -> None:
        """Raises UserError where a setting is wrong; `path` is the pool's place in the config."""
        ...

    def init(self, rng: Key[Array, ""], train_mask: Bool[Array, " N"], dim: int, mesh: Mesh) -> Any:
        """Returns the state before the first step.

        Args:
          rng: of this pool alone.
          train_mask: bool [N], the examples that are trained on.
          dim: of the embeddings, D.
        """
        ...

    def candidates(self, state: Any, batch: BatchEmbeddings, labels: Int[Array, "N R"] | None) -> Candidates:
        """Returns what an anchor is scored against in this step.

        Args:
          state: as the step before left it; None for a pool without a state.
          labels: int32 [N, R] of every example by its stable index; None where the support compares none.
        """
        ...

    def update(
        self,
        state: Any,
        embeddings: Float[Array, "B D"],
        ids: Int[Array, " B"],
        progress: Progress,
        accept: Bool[Array, ""],
        mesh: Mesh,
    ) -> Any:
        """Returns the state after a step.

        Args:
          embeddings: f32 [B, D] of the view that the pool takes, by the network that it takes them from.
          ids: int32 [B], the example of each.
          progress: for settings that are schedules.
          accept: if False, the state is returned unchanged.
        """
        ...
