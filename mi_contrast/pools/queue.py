"""The queue: keys of past steps, a ring buffer whose state is wholly explicit.

Every row carries the stable indices of the example it was made from, so that an anchor's own older keys can be left
out of its candidates: a queue longer than an epoch holds the same image's keys, negatives of the hardest kind.
Rows not yet written are invalid (index -1) rather than random unit vectors, which would be easy negatives.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


@flax.struct.dataclass
class Queue:
    """rows f32 [K, D]; ids int32 [K], the example each row was made from, -1 while unwritten; pointer int32 [], the
    next row to be written.
    """

    rows: Float[Array, "K D"]
    ids: Int[Array, " K"]
    pointer: Int[Array, ""]


def empty(size: int, dim: int) -> Queue:
    """A queue of `size` unwritten rows."""
    return Queue(jnp.zeros((size, dim), jnp.float32), jnp.full((size,), -1, jnp.int32), jnp.zeros((), jnp.int32))


def valid(queue: Queue) -> Bool[Array, " K"]:
    """Which rows have been written."""
    return queue.ids >= 0


def fill(queue: Queue) -> Float[Array, ""]:
    """The fraction of rows that have been written."""
    return jnp.mean(valid(queue), dtype=jnp.float32)


def push(queue: Queue, keys: Float[Array, "B D"], ids: Int[Array, " B"], keep: Bool[Array, ""] | bool = True) -> Queue:
    """Writes the batch after the newest row, over the oldest, wrapping round; any batch size, dividing K or not.

    Args:
      keys: f32 [B, D]; where B > K only the last K are kept.
      ids: int32 [B], each key's example.
      keep: where False, the queue is returned as it was.
    """
    size = queue.ids.shape[0]
    keys, ids, skipped = keys[-size:], ids[-size:], max(len(ids) - size, 0)
    at = (queue.pointer + skipped + jnp.arange(len(ids), dtype=jnp.int32)) % size
    at = jnp.where(keep, at, size)  # out of range: dropped
    moved = (queue.pointer + skipped + len(ids)) % size
    return Queue(
        rows=queue.rows.at[at].set(keys.astype(jnp.float32), mode="drop", unique_indices=True),
        ids=queue.ids.at[at].set(ids, mode="drop", unique_indices=True),
        pointer=jnp.where(keep, moved, queue.pointer),
    )
