"""A function of rows, applied to a block of rows at a time, so that what it builds stays small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

Rows = TypeVar("Rows")  # a pytree of arrays [N, ...]
Results = TypeVar("Results")  # a pytree of arrays


def over_rows(function: Callable[[Rows], Results], rows: Rows, block: int) -> Results:
    """function(rows), computed in blocks along axis 0, one after another; a row's result may depend on that row alone.

    The last block begins early enough to be full, so that nothing is padded; rows that it shares with the block before
    are computed twice, to the same result.

    Args:
      function: pytree of arrays [block, ...] to a pytree of arrays [block, ...].
      rows: pytree of arrays [N, ...].
      block: rows at a time, at least 1.
    Returns:
      pytree of arrays [N, ...].

    >>> over_rows(lambda x: 2 * x, jnp.arange(5), 2)
    Array([0, 2, 4, 6, 8], dtype=int32)
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    blocks = -(-count // block)
    if blocks <= 1:
        return function(rows)
    results = lax.map(lambda i: function(_block(rows, i, block, count)), jnp.arange(blocks))
    joined = jax.tree.map(lambda x: x.reshape(blocks * block, *x.shape[2:]), results)
    if blocks * block == count:
        return joined
    row = jnp.arange(count)
    place = jnp.where(row < (blocks - 1) * block, row, row + blocks * block - count)
    return jax.tree.map(lambda x: x[place], joined)


def sum_over_rows(function: Callable[[Rows, Bool[Array, " block"]], Results], rows: Rows, block: int) -> Results:
    """The sum of function(rows of a block, once) over the blocks of `over_rows`; `once` is False for a row that the
    block before held as well.

    Args:
      function: pytree of arrays [block, ...] and bool [block] to a pytree of arrays.
      rows: pytree of arrays [N, ...].
      block: rows at a time, at least 1.
    Returns:
      pytree of arrays, as the function gives.

    >>> sum_over_rows(lambda x, once: jnp.sum(x * once), jnp.arange(5), 2)
    Array(10, dtype=int32)
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    block = min(block, count)
    blocks = -(-count // max(1, block))

    def of(i: Int[Array, ""] | int) -> Any:
        once = jnp.arange(block) >= i * block - jnp.minimum(i * block, count - block)
        return function(_block(rows, i, block, count), once)

    add = lambda total, i: (jax.tree.map(jnp.add, total, of(i)), None)  # noqa: E731
    return of(0) if blocks <= 1 else lax.scan(add, of(0), jnp.arange(1, blocks))[0]


def _block(rows: Any, i: Int[Array, ""] | int, block: int, count: int) -> Any:
    start = jnp.minimum(i * block, count - block)
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, block), rows)
