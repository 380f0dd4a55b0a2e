"""Applies a function to rows block by block, so that its intermediate arrays stay small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int


def map_blocks(function: Callable[[Any], Any], rows: Any, block_size: int) -> Any:
    """Returns function(rows), computed one block of rows after another.

    The function must treat each row by itself. The last block starts early enough to be full, so nothing is padded.
    The rows that it shares with the block before it are computed twice, with the same result.

    Args:
      function: maps a pytree of arrays [block_size, ...] to a pytree of arrays [block_size, ...].
      rows: pytree of arrays [N, ...].
      block_size: number of rows in a block, at least 1.
    Returns:
      pytree of arrays [N, ...].

    >>> map_blocks(lambda x: 2 * x, jnp.arange(5), 2)
    Array([0, 2, 4, 6, 8], dtype=int32)
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    num_blocks = -(-num_rows // block_size)
    if num_blocks <= 1:
        return function(rows)
    results = lax.map(lambda i: function(_slice_block(rows, i, block_size, num_rows)), jnp.arange(num_blocks))
    stacked = jax.tree.map(lambda x: x.reshape(num_blocks * block_size, *x.shape[2:]), results)
    if num_blocks * block_size == num_rows:
        return stacked
    row = jnp.arange(num_rows)
    position = jnp.where(row < (num_blocks - 1) * block_size, row, row + num_blocks * block_size - num_rows)
    return jax.tree.map(lambda x: x[position], stacked)


def sum_blocks(function: Callable[[Any, Bool[Array, " block"]], Any], rows: Any, block_size: int) -> Any:
    """Returns the sum over blocks of function(block, is_new), with the blocks of `map_blocks`.

    Args:
      function: maps a pytree of arrays [block_size, ...] and a mask to a pytree of arrays. The mask, bool [block_size],
        is False for rows that the block before contained too; they must not be added again.
      rows: pytree of arrays [N, ...].
      block_size: number of rows in a block, at least 1.
    Returns:
      pytree of arrays with the shapes that the function returns.

    >>> sum_blocks(lambda x, is_new: jnp.sum(x * is_new), jnp.arange(5), 2)
    Array(10, dtype=int32)
    """
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    block_size = min(block_size, num_rows)
    num_blocks = -(-num_rows // max(1, block_size))

    def compute_block(i: Int[Array, ""] | int) -> Any:
        is_new = jnp.arange(block_size) >= i * block_size - jnp.minimum(i * block_size, num_rows - block_size)
        return function(_slice_block(rows, i, block_size, num_rows), is_new)

    add = lambda total, i: (jax.tree.map(jnp.add, total, compute_block(i)), None)  # noqa: E731
    return compute_block(0) if num_blocks <= 1 else lax.scan(add, compute_block(0), jnp.arange(1, num_blocks))[0]


def _slice_block(rows: Any, i: Int[Array, ""] | int, block_size: int, num_rows: int) -> Any:
    start = jnp.minimum(i * block_size, num_rows - block_size)
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, block_size), rows)
