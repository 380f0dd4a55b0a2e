"""A function of rows, applied to a block of rows at a time, so that what it builds stays small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def over_rows(function: Callable[[Any], Any], rows: Any, block: int) -> Any:
    """function(rows) computed in blocks along axis 0, one after another; each row's result may depend on that row alone.

    The last block begins early enough to be full, so that nothing is padded; rows it shares with the one before are computed
    twice, to the same result.

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
    starts = jnp.minimum(jnp.arange(blocks) * block, count - block)
    results = lax.map(lambda at: function(jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, at, block), rows)), starts)
    index = jnp.arange(count)
    index = jnp.where(index < (blocks - 1) * block, index, index + blocks * block - count)
    whole = blocks * block == count
    join = lambda x: x.reshape(blocks * block, *x.shape[2:])  # noqa: E731
    return jax.tree.map(lambda x: join(x) if whole else join(x)[index], results)
