"""Prepares paired samples for the estimators that read them: checks the type, centres, scales, and casts to float32.

Concrete arrays are prepared on the host in float64, so that neither their unit nor their offset matters: strain in
units of 1e-21, stellar masses of 1e30 kg and time stamps in nanoseconds all keep their digits. Inside `jit`, `vmap`
and `grad` the samples stay in the graph, in the precision in which they arrive there.
"""

from __future__ import annotations

import operator
import warnings
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from mi_contrast.core.errors import UserError

LARGEST = 1e30  # times the typical size of a column: distances in float32 can still hold it


class Paired(NamedTuple):
    """Samples x and y in float32, and the standard deviation of each column in the same unit (1 where constant)."""

    x: Float[Array, "... N dx"]
    y: Float[Array, "... N dy"]
    deviation_x: Float[Array, "... 1 dx"]
    deviation_y: Float[Array, "... 1 dy"]


def paired(x: Any, y: Any, least: int = 2, *, scale: str = "columns", normal_scores: bool = False) -> Paired:
    """Returns both samples centred, scaled by powers of two and cast to float32; [N] becomes [N, 1].

    Args:
      x, y: numbers [..., N, dx] and [..., N, dy], or [N]; leading axes alike.
      least: the smallest number of samples that the caller can use.
      scale: 'columns' scales each column by itself. 'shared' scales all columns of x and y by one factor, so that
        their sizes relative to each other stay.
      normal_scores: whether each column is replaced by its normal scores first (`normal_scores`).
    Returns:
      Paired, float32.
    Raises:
      UserError: values that are not real numbers, numbers of samples or leading axes that differ, no column, fewer
      than `least` samples, a range that float32 cannot hold.

    >>> paired(jnp.arange(5.0), jnp.zeros((5, 2))).y.shape
    (5, 2)
    """
    x, y = as_columns(x, "x"), as_columns(y, "y")
    if x.shape[:-1] != y.shape[:-1] or x.ndim < 2:
        raise UserError(f"samples x {x.shape} and y {y.shape} do not fit", fix="give [..., N, dx] and [..., N, dy]")
    if 0 in (x.shape[-1], y.shape[-1]):
        raise UserError(f"samples x {x.shape} and y {y.shape} lack columns", fix="give one of each at least")
    if x.shape[-2] < least:
        turned = "; are they transposed? Samples are rows" if max(x.shape[-1], y.shape[-1]) > x.shape[-2] else ""
        raise UserError(f"{x.shape[-2]} samples are too few", fix=f"give {least} at least{turned}")
    if normal_scores:
        x, y = _scores(x), _scores(y)
    traced = isinstance(x, jax.core.Tracer) or isinstance(y, jax.core.Tracer)
    return _in_graph(x, y, scale) if traced else _on_host(x, y, scale)


def as_columns(x: ArrayLike, name: str = "x") -> Any:
    """Returns [..., N, d] in float64 numpy with exact offsets removed, or in float32 in the graph where x is traced.

    Integers lose their smallest value, and extended precision its first sample, before the conversion to float64.

    Raises:
      UserError: complex, masked, object, text or date values.

    >>> as_columns(np.array([2**62, 2**62 + 1]))[:, 0].tolist()
    [0.0, 1.0]
    """
    if isinstance(x, jax.core.Tracer):
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise _not_real(name, x.dtype)
        x = lax.stop_gradient(x).astype(jnp.float32)
        return x[:, None] if x.ndim == 1 else x
    x = as_real(x, name)
    axis = -2 if x.ndim > 1 else 0
    if x.size and x.dtype.kind in "iu":
        wide = x.astype(np.uint64 if x.dtype.kind == "u" else np.int64)
        x = (wide.view(np.uint64) - wide.min(axis=axis, keepdims=True).view(np.uint64)).astype(np.float64)
    elif x.size and x.dtype.itemsize > 8:
        with np.errstate(invalid="ignore"):
            x = x - np.take(x, [0], axis=axis)
    x = np.asarray(x, np.float64)
    return x[:, None] if x.ndim == 1 else x


def as_real(x: ArrayLike, name: str = "x") -> np.ndarray:
    """Returns a numpy array of real numbers, its dtype kept where numpy computes with it, in native byte order.

    Raises:
      UserError: complex, masked, object, text or date values; lists of rows whose lengths differ.

    >>> as_real([1, 2]).dtype, as_real(jnp.ones(2, jnp.bfloat16)).dtype
    (dtype('int64'), dtype('float64'))
    """
    if isinstance(x, np.ma.MaskedArray):
        raise UserError(f"{name} is a masked array", fix="leave masked pairs out and give x.data")
    try:
        x = np.asarray(x)
    except ValueError:
        raise UserError(f"{name} has rows of different lengths", fix="give [N, d] or [N]") from None
    if x.dtype.kind in "iuf":
        return x.astype(x.dtype.newbyteorder("="), copy=False)
    if x.dtype.kind == "b" or jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(np.float64)  # booleans, and the short types of machine learning
    raise _not_real(name, x.dtype)


def _not_real(name: str, dtype: Any) -> UserError:
    kind = np.dtype(dtype).kind
    fixes = {"c": "give real and imaginary parts as columns", "O": "give numbers of one kind: x.astype(float)"}
    otherwise = "give numbers: x.astype('int64')" if kind in "mM" else "give numbers"
    words = {"c": "complex", "O": "an array of objects", "M": "dates", "m": "time spans"}
    return UserError(
        f"{name} holds {words.get(kind, f'{dtype} values')}, not real numbers", fix=fixes.get(kind, otherwise)
    )


def whole_number(name: str, value: SupportsIndex, least: int = 1) -> int:
    """Returns a Python int of any integer type. UserError where the value is none, or below `least`.

    >>> whole_number("k", np.int64(3))
    3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise UserError(f"{name} = {value}", fix=f"give a whole number from {least} up")
    return number


def normal_scores(x: ArrayLike) -> Float[Array, "... N d"]:
    """Replaces each column by Phi^-1((rank - 1/2) / N): a monotone map of each coordinate onto a normal law.

    Mutual information does not change under such maps, and heavy tails go. Equal values share their mean rank, so ties
    stay ties and the answer does not depend on the order of the samples.

    Args:
      x: numbers [..., N, d] or [N].
    Returns:
      float32 of the same shape. A column that is not finite everywhere is NaN.
    Raises:
      UserError: values that are not real numbers.

    >>> normal_scores(np.array([1.0, 2.0, 1e9])).round(3).tolist()
    [-0.967..., 0.0, 0.967...]
    """
    columns = as_columns(x)
    return jnp.asarray(_scores(columns), jnp.float32).reshape(np.shape(x))


def _scores(x: Any) -> Any:
    """The normal scores of [..., N, d], on the host or in the graph."""
    traced = isinstance(x, jax.core.Tracer)
    xp: Any = jnp if traced else np
    below: Any
    up_to: Any
    count = x.shape[-2]
    columns = xp.moveaxis(x, -2, -1).reshape(-1, count)
    if traced:
        ordered = jnp.sort(columns, axis=1)
        below, up_to = (
            jax.vmap(lambda row, values, side=side: jnp.searchsorted(row, values, side=side))(ordered, columns)
            for side in ("left", "right")
        )
    else:
        rows = [(np.sort(row), row) for row in columns]
        below, up_to = (
            np.array([np.searchsorted(ordered, row, side) for ordered, row in rows]).reshape(columns.shape)
            for side in ("left", "right")
        )
    shares = (below + up_to) / (2 * count)
    scores = ndtri(shares) if traced else np.asarray(_normal_quantile(shares))
    scores = xp.where(xp.all(xp.isfinite(columns), axis=1, keepdims=True), scores, xp.nan)
    return xp.moveaxis(scores.reshape(*x.shape[:-2], x.shape[-1], count), -1, -2)


def _normal_quantile(shares: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri as quantile

    return quantile(shares)


def scaled(x: Float[np.ndarray, "... N d"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns x less a central value of each column in units of a power of two, and its exponent for each column.

    The central value is the column's mode (half-sample mode), because float32 resolves best near 0 and
    that is where samples lie closest. Columns that are not finite everywhere stay as they are.

    >>> scaled(np.array([[1e30], [3e30], [3.5e30]]))[0][:, 0].round(2).tolist()
    [-7.1, -0.79, 0.79]
    """
    finite = np.all(np.isfinite(x), axis=-2, keepdims=True)
    safe = np.where(finite, x, 0.0)
    largest = np.max(np.abs(safe), axis=-2, keepdims=True, initial=0.0)
    safe = np.ldexp(safe, -np.frexp(largest)[1])  # so that no difference overflows
    safe = safe - _modes(safe)
    size = np.where(safe == 0, np.nan, np.abs(safe))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a constant column
        middle = np.nanmedian(size, axis=-2, keepdims=True)
    exponent = np.frexp(np.where(np.isnan(middle), 1.0, middle))[1]
    centred = np.where(finite, np.ldexp(safe, -exponent), x)
    return centred, np.where(finite, exponent + np.frexp(largest)[1], 0)


def _modes(x: np.ndarray) -> np.ndarray:
    """The half-sample mode of each column, [..., 1, d]: the middle of its two samples that lie closest in the end."""
    ordered = np.sort(np.moveaxis(x, -2, -1).reshape(-1, x.shape[-2]), axis=1)
    while ordered.shape[1] > 2:
        half = (ordered.shape[1] + 1) // 2
        widths = ordered[:, half - 1 :] - ordered[:, : ordered.shape[1] - half + 1]
        ordered = np.take_along_axis(ordered, np.argmin(widths, axis=1)[:, None] + np.arange(half), axis=1)
    return (ordered[:, 0] / 2 + ordered[:, -1] / 2).reshape(*x.shape[:-2], 1, x.shape[-1])


def _on_host(x: np.ndarray, y: np.ndarray, scale: str) -> Paired:
    values: list[np.ndarray] = []
    deviations: list[np.ndarray] = []
    exponents: list[np.ndarray] = []
    for z in (x, y):
        centred, exponent = scaled(z)
        finite = np.all(np.isfinite(z), axis=-2, keepdims=True)
        spread = np.std(np.where(finite, centred, 0.0), axis=-2, keepdims=True)
        constant = np.all(np.where(finite, centred, 0.0) == 0, axis=-2, keepdims=True)
        values.append(centred)
        deviations.append(np.where(constant, 1.0, spread))
        exponents.append(np.where(constant, np.iinfo(np.int32).min // 4, exponent))
    if scale == "shared":
        shared = np.maximum(*(e.max(axis=-1, keepdims=True) for e in exponents))
        moves = [np.maximum(e - shared, -2000) for e in exponents]
        values = [np.ldexp(v, m) for v, m in zip(values, moves, strict=True)]
        deviations = [np.where(m == -2000, d, np.ldexp(d, m)) for d, m in zip(deviations, moves, strict=True)]
    for name, z in zip("xy", values, strict=True):
        _check_range(name, z)
    with np.errstate(over="ignore"):
        return Paired(*(jnp.asarray(np.asarray(z, np.float32)) for z in (*values, *deviations)))


def _check_range(name: str, z: np.ndarray) -> None:
    finite = np.isfinite(z)
    if np.max(np.abs(z), where=finite & np.all(finite, axis=-2, keepdims=True), initial=0.0) > LARGEST:
        raise UserError(
            f"{name} has outliers beyond {LARGEST:.0e} times its typical size",
            fix="give normal_scores=True, or take logarithms",
        )


def _in_graph(x: Array, y: Array, scale: str) -> Paired:
    """As on the host, but only scaled, by the largest magnitude."""
    x, y = (lax.stop_gradient(jnp.asarray(z, jnp.float32)) for z in (x, y))
    largest = [jnp.max(jnp.abs(z), axis=-2, keepdims=True) for z in (x, y)]
    if scale == "shared":
        one = jnp.maximum(*(m.max(axis=-1, keepdims=True) for m in largest))
        largest = [one, one]
    exponents = [jnp.frexp(jnp.where(jnp.isfinite(m), m, 1.0))[1] for m in largest]
    x, y = (jnp.ldexp(z, -e) for z, e in zip((x, y), exponents, strict=True))
    return Paired(x, y, deviation(x), deviation(y))


def together(series: ArrayLike) -> Float[Array, "P T d"]:
    """Returns series [P, T, d] in float32, each column centred, all scaled by one power of two.

    Raises:
      UserError: values that are not real numbers, a range that float32 cannot hold.
    """
    columns = as_columns(series, "series")
    if isinstance(columns, jax.core.Tracer):
        largest = jnp.max(jnp.where(jnp.isfinite(columns), jnp.abs(columns), 0.0))
        return jnp.ldexp(columns, -jnp.frexp(largest)[1])
    centred, exponents = scaled(columns)
    moving = np.any(centred != 0, axis=-2, keepdims=True)
    shared = np.max(exponents, where=moving, initial=np.iinfo(np.int32).min // 4)
    values = np.ldexp(centred, np.where(moving, np.maximum(exponents - shared, -2000), 0))
    _check_range("series", values)
    return jnp.asarray(np.asarray(values, np.float32))


def as_series(tracks: ArrayLike, name: str = "tracks") -> Any:
    """Returns tracks [..., T, d] in float64 less their first sample, or in float32 where they are traced.

    Raises:
      UserError: values that are not real numbers.
    """
    if isinstance(tracks, jax.core.Tracer):
        return tracks.astype(jnp.float32)
    columns = as_columns(tracks, name)
    return columns - columns[..., :1, :] if columns.ndim > 1 and columns.shape[-2] else columns


def deviation(x: Float[Array, "... N d"]) -> Float[Array, "... 1 d"]:
    """The standard deviation of each column; 1 where a column is constant.

    >>> deviation(jnp.array([[1.0, 7.0], [5.0, 7.0]]))
    Array([[2., 1.]], dtype=float32)
    """
    spread = jnp.std(x, axis=-2, keepdims=True)
    return jnp.where(jnp.min(x, axis=-2, keepdims=True) == jnp.max(x, axis=-2, keepdims=True), 1.0, spread)
