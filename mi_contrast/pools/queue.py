"""The queue of MoCo: the embeddings of past steps in a ring buffer.

Every row carries the stable index of the example it was made from, so that an anchor's own older keys are not its
negatives: a queue longer than an epoch holds keys of the same image, which would be the hardest negatives of all. Rows
that are not written yet are invalid (id -1). Random unit vectors in their place would be easy negatives.

Source: He et al. 2020 (MoCo), whose queue starts from random vectors and does not know examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import flax.struct
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Key

from mi_contrast.core.checks import check_whole
from mi_contrast.core.schedules import Progress
from mi_contrast.pools.protocol import BatchEmbeddings, Candidates


@flax.struct.dataclass
class Queue:
    """The state of a queue.

    Attributes:
      rows: f32 [K, D], embeddings.
      ids: int32 [K], the example each row was made from; -1 for rows that are not written yet.
      pointer: int32 [], the row that is written next.
    """

    rows: Float[Array, "K D"]
    ids: Int[Array, " K"]
    pointer: Int[Array, ""]


@dataclass(frozen=True)
class QueuePool:
    """The embeddings of past steps. size: the number of rows. takes: the view whose embeddings are written."""

    size: int
    takes: str | None = None

    views: ClassVar[tuple[str, ...]] = ()
    network: ClassVar[Literal["online", "target"] | None] = "target"
    sharded: ClassVar[bool] = False
    per_example: ClassVar[bool] = False

    def check(self, path: str) -> None:
        """Raises UserError where the size is no whole number above 0."""
        check_whole(f"{path}.size", self.size)

    def init(self, rng: Key[Array, ""], train_mask: Bool[Array, " N"], dim: int, mesh: Mesh) -> Queue:
        """Returns a queue of unwritten rows."""
        return make_empty_queue(self.size, dim)

    def candidates(self, state: Queue, batch: BatchEmbeddings, labels: Int[Array, "N R"] | None) -> Candidates:
        """Returns the rows of past steps. How many of them are an anchor's own varies."""
        labels = None if labels is None else labels[jnp.maximum(state.ids, 0)]
        return Candidates(state.rows, is_written(state), state.ids, labels)

    def update(
        self,
        state: Queue,
        embeddings: Float[Array, "B D"],
        ids: Int[Array, " B"],
        progress: Progress,
        accept: Bool[Array, ""],
        mesh: Mesh,
    ) -> Queue:
        """Returns the queue with the batch pushed."""
        return push(state, embeddings, ids, accept)


def make_empty_queue(size: int, dim: int) -> Queue:
    """Returns a queue of `size` unwritten rows."""
    return Queue(jnp.zeros((size, dim), jnp.float32), jnp.full((size,), -1, jnp.int32), jnp.zeros((), jnp.int32))


def is_written(queue: Queue) -> Bool[Array, " K"]:
    """Returns which rows have been written."""
    return queue.ids >= 0


def fill_fraction(queue: Queue) -> Float[Array, ""]:
    """Returns the fraction of rows that have been written."""
    return jnp.mean(is_written(queue), dtype=jnp.float32)


def push(
    queue: Queue, keys: Float[Array, "B D"], ids: Int[Array, " B"], accept: Bool[Array, ""] | bool = True
) -> Queue:
    """Returns the queue with the batch written over its oldest rows.

    Args:
      keys: f32 [B, D], any B. Where B is larger than K, the last K are kept.
      ids: int32 [B], the example of each key.
      accept: if False, the queue is returned unchanged.
    """
    size = queue.ids.shape[0]
    keys, ids, skipped = keys[-size:], ids[-size:], max(len(ids) - size, 0)
    rows = (queue.pointer + skipped + jnp.arange(len(ids), dtype=jnp.int32)) % size
    rows = jnp.where(accept, rows, size)  # out of range, where nothing is written
    pointer = (queue.pointer + skipped + len(ids)) % size
    return Queue(
        rows=queue.rows.at[rows].set(keys.astype(jnp.float32), mode="drop", unique_indices=True),
        ids=queue.ids.at[rows].set(ids, mode="drop", unique_indices=True),
        pointer=jnp.where(accept, pointer, queue.pointer),
    )
