"""Paired samples as the estimators that read them see them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError


def paired(x: Any, y: Any, least: int = 2) -> tuple[Float[Array, "... N dx"], Float[Array, "... N dy"]]:
    """Both in float32, one column added where they are [N].

    What is float64 numpy loses its mean before its precision: mutual information does not know where zero is.

    Args:
      x, y: numbers [..., N, dx] and [..., N, dy], or [N]; leading axes alike.
      least: how many samples are needed.
    Raises:
      UserError: other numbers of samples or leading axes, no column, fewer than `least` samples.

    >>> [a.shape for a in paired(jnp.zeros(5), jnp.zeros((5, 2)))]
    [(5, 1), (5, 2)]
    """
    x, y = _columns(x), _columns(y)
    if x.shape[:-1] != y.shape[:-1] or x.ndim < 2:
        raise UserError(f"samples x {x.shape} and y {y.shape} do not fit", fix="give [..., N, dx] and [..., N, dy]")
    if 0 in (x.shape[-1], y.shape[-1]):
        raise UserError(f"samples x {x.shape} and y {y.shape} lack columns", fix="give one of each at least")
    if x.shape[-2] < least:
        raise UserError(f"{x.shape[-2]} samples are too few", fix=f"give {least} at least")
    return x, y


def _columns(x: Any) -> Array:
    if isinstance(x, np.ndarray) and x.dtype == np.float64:
        x = x - x.mean(axis=-2 if x.ndim > 1 else 0, keepdims=True) if x.size else x
    x = jnp.asarray(x).astype(jnp.float32)
    return x[:, None] if x.ndim == 1 else x


def deviation(x: Float[Array, "... N d"]) -> Float[Array, "... 1 d"]:
    """The standard deviation of each column; 1 where a column is constant.

    >>> deviation(jnp.array([[1.0, 7.0], [5.0, 7.0]]))
    Array([[2., 1.]], dtype=float32)
    """
    spread = jnp.std(x, axis=-2, keepdims=True)
    return jnp.where(jnp.min(x, axis=-2, keepdims=True) == jnp.max(x, axis=-2, keepdims=True), 1.0, spread)
