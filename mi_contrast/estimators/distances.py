"""Max-norm distances among samples, a block at a time: the k-th smallest of each sample, without sorting.

A block is [N, C]: from all N samples, down, to C of them, across; what is asked of it are minima, maxima and counts
down the columns, which a processor's vector units take as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.blocks import over_rows

ON_CPU, ELSEWHERE = 2**19, 2**24  # distances of a block: what a processor's cache holds; what keeps a device busy
NARROWEST = 64  # samples across, however many there are down


class Space(NamedTuple):
    """Samples of x or of y, and the length that counts as 1 in each column."""

    rows: Float[Array, "N d"]
    unit: Float[Array, "1 d"]


def between(space: Space, points: Float[Array, "C d"], ids: Int[Array, " C"]) -> Float[Array, "N C"]:
    """max_j |row_j - point_j| / unit_j; infinite from a sample to itself (`ids`: the points' places among the rows).

    Differences are scaled, not samples: a compiler that scales a sample anew on either side of a difference, and rounds
    it otherwise there, would set equal samples apart.

    >>> between(Space(jnp.array([[0.0], [2.0], [5.0]]), jnp.ones((1, 1))), jnp.array([[2.0]]), jnp.array([1]))[:, 0]
    Array([ 2., inf,  3.], dtype=float32)
    """

    def widen(far: Array, column: tuple[Array, Array, Array]) -> tuple[Array, None]:
        row, point, scale = column
        return jnp.maximum(far, jnp.abs(row[:, None] - point) * scale), None

    # A column at a time: a maximum of many columns at once is one that XLA does not bring to vector units.
    far = jnp.where(jnp.arange(len(space.rows))[:, None] == ids, jnp.inf, 0.0)
    return lax.scan(widen, far, (space.rows.T, points.T, 1 / space.unit[0]))[0]


def kth_smallest(distances: Float[Array, "N C"], k: int) -> Float[Array, " C"]:
    """The k-th smallest of each column, equal ones counted each; k passes, so for a small k.

    >>> kth_smallest(jnp.array([[3.0], [1.0], [1.0], [2.0]]), 2)
    Array([1.], dtype=float32)
    """
    edge = jnp.min(distances, axis=0)
    for _ in range(k - 1):
        beyond = jnp.min(jnp.where(distances > edge, distances, jnp.inf), axis=0)
        edge = jnp.where(count(distances <= edge) >= k, edge, beyond)
    return edge


def count(where: Array) -> Float[Array, " C"]:
    """How many of each column: in float32, exact to 2^24, since vector units add these sooner than integers."""
    return jnp.sum(where, axis=0, dtype=jnp.float32)


def block_of(samples: int, pairs: int, chunk: int | None) -> tuple[int, int]:
    """How many pairs at once, and how many samples of each (`chunk` where that is asked for).

    Raises:
      UserError: a chunk below 1.

    >>> block_of(40, 1000, 40)[1], block_of(40, 1000, 7)
    (40, (1, 7))
    """
    if chunk is not None and chunk < 1:
        raise UserError(f"chunk {chunk} holds no samples", fix="give at least 1, or None")
    across = min(samples, chunk or max(NARROWEST, held() // samples))
    return max(1, min(pairs, held() // samples**2)) if across == samples else 1, across


def held() -> int:
    """Distances that are best held at once on this process's devices."""
    return ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE


def of_pairs(function: Callable[..., Any], pairs: int, *arrays: Array) -> Any:
    """Applies a function of one pair of samples over leading axes of any number, `pairs` of them at once.

    Where the caller maps it (`jax.vmap`), what is mapped joins those axes, so that memory stays bounded.

    Args:
      function: arrays of two axes, of one pair, to a pytree of arrays.
      pairs: how many pairs at once.
      arrays: of two axes each after the leading ones, which are alike.
    Returns:
      pytree of arrays [..., *what the function gives].
    """

    @custom_vmap
    def mapped(*arrays: Array) -> Any:
        lead = arrays[0].shape[:-2]
        flat = tuple(a.reshape(-1, *a.shape[-2:]) for a in arrays)
        results = over_rows(lambda block: jax.vmap(function)(*block), flat, pairs)
        return jax.tree.map(lambda r: r.reshape(*lead, *r.shape[1:]), results)

    @mapped.def_vmap
    def _(size: int, batched: list[bool], *arrays: Array) -> Any:
        whole = [a if b else jnp.broadcast_to(a, (size, *a.shape)) for a, b in zip(arrays, batched, strict=True)]
        results = mapped(*whole)
        return results, jax.tree.map(lambda _: True, results)

    return mapped(*arrays)
