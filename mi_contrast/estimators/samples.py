"""Checks, centres and scales samples, and casts them to float32.

Concrete arrays are prepared on the host in float64. So units and offsets do not matter: strain of 1e-21, stellar masses
of 1e30 kg and time stamps in nanoseconds keep their digits. Under `jit`, `vmap` and `grad` samples are traced, and they
are prepared in the precision in which they come.
"""

from __future__ import annotations

import operator
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError

LARGEST = 1e30  # ratio of an outlier to the typical size of its column up to which float32 can hold distances

NO_EXPONENT = np.iinfo(np.int32).min // 4  # of constant columns, which must not determine a shared scale
MIN_EXPONENT = -2000  # scales any float64 to 0


class SamplePair(NamedTuple):
    """Samples x and y in float32, and the standard deviation of each of their columns (1 for constant columns)."""

    x: Float[Array, "... N dx"]
    y: Float[Array, "... N dy"]
    deviation_x: Float[Array, "... 1 dx"]
    deviation_y: Float[Array, "... 1 dy"]


def prepare_pair(
    x: Any, y: Any, min_samples: int = 2, *, scale: str = "columns", normal_scores: bool = False
) -> SamplePair:
    """Returns x and y as float32 [..., N, d], centred and scaled by powers of two.

    Args:
      x, y: numbers [..., N, dx] and [..., N, dy], or [N], with equal leading axes.
      min_samples: the smallest N that the caller can handle.
      scale: 'columns' scales each column separately. 'shared' scales all columns of x and y by one factor, so their
        relative sizes do not change.
      normal_scores: whether to replace each column by its normal scores first; see `normal_scores`.
    Returns:
      SamplePair, float32.
    Raises:
      UserError: values that are not real numbers; different numbers of samples or leading axes; no column; fewer than
      `min_samples` samples; a range that float32 cannot hold.

    >>> prepare_pair(jnp.arange(5.0), jnp.zeros((5, 2))).y.shape
    (5, 2)
    """
    x, y = as_columns(x, "x"), as_columns(y, "y")
    if x.shape[:-1] != y.shape[:-1] or x.ndim < 2:
        raise UserError(f"samples x {x.shape} and y {y.shape} do not fit", fix="give [..., N, dx] and [..., N, dy]")
    if 0 in (x.shape[-1], y.shape[-1]):
        raise UserError(f"samples x {x.shape} and y {y.shape} lack columns", fix="give one of each at least")
    if x.shape[-2] < min_samples:
        is_wide = max(x.shape[-1], y.shape[-1]) > x.shape[-2]
        hint = "; are they transposed? Samples are rows" if is_wide else ""
        raise UserError(f"{x.shape[-2]} samples are too few", fix=f"give {min_samples} at least{hint}")
    if normal_scores:
        x, y = _normal_scores(x), _normal_scores(y)
    is_traced = isinstance(x, jax.core.Tracer) or isinstance(y, jax.core.Tracer)
    return _prepare_traced(x, y, scale) if is_traced else _prepare_on_host(x, y, scale)


def as_columns(x: Any, name: str = "x") -> Any:
    """Returns x as a float64 numpy array [..., N, d], or as float32 if it is traced.

    Where float64 would lose digits, an offset is subtracted first, which does not change mutual information: from
    integers the smallest value of each column, from extended precision the first sample.

    Raises:
      UserError: complex, masked, object, text or date values.

    >>> as_columns(np.array([2**62, 2**62 + 1]))[:, 0].tolist()
    [0.0, 1.0]
    """
    if isinstance(x, jax.core.Tracer):
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise _type_error(name, x.dtype)
        x = lax.stop_gradient(x).astype(jnp.float32)
        return x[:, None] if x.ndim == 1 else x
    x = as_real(x, name)
    axis = -2 if x.ndim > 1 else 0
    if x.size and x.dtype.kind in "iu":
        integers = x.astype(np.uint64 if x.dtype.kind == "u" else np.int64)
        smallest = integers.min(axis=axis, keepdims=True)
        x = (integers.view(np.uint64) - smallest.view(np.uint64)).astype(np.float64)  # cannot overflow
    elif x.size and x.dtype.itemsize > 8:
        with np.errstate(invalid="ignore"):
            x = x - np.take(x, [0], axis=axis)
    x = np.asarray(x, np.float64)
    return x[:, None] if x.ndim == 1 else x


def as_real(x: Any, name: str = "x") -> np.ndarray:
    """Returns x as a numpy array of real numbers in native byte order. Types that numpy does not know become float64.

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
    raise _type_error(name, x.dtype)


def _type_error(name: str, dtype: Any) -> UserError:
    kind = np.dtype(dtype).kind
    fixes = {"c": "give real and imaginary parts as columns", "O": "give numbers of one kind: x.astype(float)"}
    default_fix = "give numbers: x.astype('int64')" if kind in "mM" else "give numbers"
    words = {"c": "complex", "O": "an array of objects", "M": "dates", "m": "time spans"}
    return UserError(
        f"{name} holds {words.get(kind, f'{dtype} values')}, not real numbers", fix=fixes.get(kind, default_fix)
    )


def as_whole_number(name: str, value: Any, minimum: int = 1) -> int:
    """Returns a number of any integer type as a Python int.

    Raises:
      UserError: the value is not an integer, or below the minimum.

    >>> as_whole_number("k", np.int64(3))
    3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if number < minimum:
        raise UserError(f"{name} = {value}", fix=f"give a whole number from {minimum} up")
    return number


def normal_scores(x: Any) -> Float[Array, "... N d"]:
    """Returns the normal scores of each column, Phi^-1((rank - 1/2) / N), which have a standard normal distribution.

    Such monotone maps of coordinates leave mutual information unchanged and remove heavy tails. Equal values get their
    mean rank, so ties stay ties, and the result does not depend on the order of the samples.

    Args:
      x: numbers [..., N, d] or [N].
    Returns:
      float32 of the same shape. A column with values that are not finite is NaN.
    Raises:
      UserError: values that are not real numbers.

    >>> normal_scores(np.array([1.0, 2.0, 1e9])).round(3).tolist()
    [-0.967..., 0.0, 0.967...]
    """
    columns = as_columns(x)
    return jnp.asarray(_normal_scores(columns), jnp.float32).reshape(np.shape(x))


def _normal_scores(x: Any) -> Any:
    """Returns the normal scores of [..., N, d], by numpy or, for traced samples, by jax."""
    is_traced = isinstance(x, jax.core.Tracer)
    xp: Any = jnp if is_traced else np
    num_below: Any
    num_up_to: Any
    count = x.shape[-2]
    columns = xp.moveaxis(x, -2, -1).reshape(-1, count)
    if is_traced:
        ordered = jnp.sort(columns, axis=1)
        num_below, num_up_to = (
            jax.vmap(lambda row, values, side=side: jnp.searchsorted(row, values, side=side))(ordered, columns)
            for side in ("left", "right")
        )
    else:
        pairs = [(np.sort(column), column) for column in columns]
        num_below, num_up_to = (
            np.array([np.searchsorted(ordered, column, side) for ordered, column in pairs]).reshape(columns.shape)
            for side in ("left", "right")
        )
    quantiles = (num_below + num_up_to) / (2 * count)
    scores = ndtri(quantiles) if is_traced else np.asarray(_normal_quantile(quantiles))
    scores = xp.where(xp.all(xp.isfinite(columns), axis=1, keepdims=True), scores, xp.nan)
    return xp.moveaxis(scores.reshape(*x.shape[:-2], x.shape[-1], count), -1, -2)


def _normal_quantile(probabilities: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri as quantile

    return quantile(probabilities)


def centre_and_scale(x: Float[np.ndarray, "... N d"]) -> tuple[np.ndarray, np.ndarray]:
    """Subtracts the mode of each column and divides by a power of two. Returns the result and the exponents.

    float32 has its finest resolution near 0, so that is where the densest samples should lie: at the half-sample mode.
    Columns with values that are not finite do not change.

    >>> centre_and_scale(np.array([[1e30], [3e30], [3.5e30]]))[0][:, 0].round(2).tolist()
    [-7.1, -0.79, 0.79]
    """
    finite = np.all(np.isfinite(x), axis=-2, keepdims=True)
    safe = np.where(finite, x, 0.0)
    largest = np.max(np.abs(safe), axis=-2, keepdims=True, initial=0.0)
    safe = np.ldexp(safe, -np.frexp(largest)[1])  # prevents overflow of differences
    safe = safe - _modes(safe)
    magnitude = np.where(safe == 0, np.nan, np.abs(safe))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a constant column has no values to take the median of
        median = np.nanmedian(magnitude, axis=-2, keepdims=True)
    exponent = np.frexp(np.where(np.isnan(median), 1.0, median))[1]
    centred = np.where(finite, np.ldexp(safe, -exponent), x)
    return centred, np.where(finite, exponent + np.frexp(largest)[1], 0)


def _modes(x: np.ndarray) -> np.ndarray:
    """Returns the half-sample mode of each column, [..., 1, d].

    The shortest interval that holds half of the samples is kept, again and again, until two samples are left. The mode
    is their midpoint.
    """
    ordered = np.sort(np.moveaxis(x, -2, -1).reshape(-1, x.shape[-2]), axis=1)
    while ordered.shape[1] > 2:
        half = (ordered.shape[1] + 1) // 2
        widths = ordered[:, half - 1 :] - ordered[:, : ordered.shape[1] - half + 1]
        ordered = np.take_along_axis(ordered, np.argmin(widths, axis=1)[:, None] + np.arange(half), axis=1)
    return (ordered[:, 0] / 2 + ordered[:, -1] / 2).reshape(*x.shape[:-2], 1, x.shape[-1])


def _prepare_on_host(x: np.ndarray, y: np.ndarray, scale: str) -> SamplePair:
    """Centres and scales float64 samples, and computes their standard deviations before casting to float32."""
    values: list[np.ndarray] = []
    deviations: list[np.ndarray] = []
    exponents: list[np.ndarray] = []
    for z in (x, y):
        centred, exponent = centre_and_scale(z)
        finite = np.all(np.isfinite(z), axis=-2, keepdims=True)
        spread = np.std(np.where(finite, centred, 0.0), axis=-2, keepdims=True)
        constant = np.all(np.where(finite, centred, 0.0) == 0, axis=-2, keepdims=True)
        values.append(centred)
        deviations.append(np.where(constant, 1.0, spread))
        exponents.append(np.where(constant, NO_EXPONENT, exponent))
    if scale == "shared":
        shared = np.maximum(*(e.max(axis=-1, keepdims=True) for e in exponents))
        shifts = [np.maximum(e - shared, MIN_EXPONENT) for e in exponents]
        values = [np.ldexp(v, s) for v, s in zip(values, shifts, strict=True)]
        deviations = [np.where(s == MIN_EXPONENT, d, np.ldexp(d, s)) for d, s in zip(deviations, shifts, strict=True)]
    for name, z in zip("xy", values, strict=True):
        _check_range(name, z)
    with np.errstate(over="ignore"):
        return SamplePair(*(jnp.asarray(np.asarray(z, np.float32)) for z in (*values, *deviations)))


def _check_range(name: str, z: np.ndarray) -> None:
    finite = np.isfinite(z)
    if np.max(np.abs(z), where=finite & np.all(finite, axis=-2, keepdims=True), initial=0.0) > LARGEST:
        raise UserError(
            f"{name} has outliers beyond {LARGEST:.0e} times its typical size",
            fix="give normal_scores=True, or take logarithms",
        )


def _prepare_traced(x: Array, y: Array, scale: str) -> SamplePair:
    """Scales by a power of two near the largest magnitude, without centring."""
    x, y = (lax.stop_gradient(jnp.asarray(z, jnp.float32)) for z in (x, y))
    largest = [jnp.max(jnp.abs(z), axis=-2, keepdims=True) for z in (x, y)]
    if scale == "shared":
        shared = jnp.maximum(*(m.max(axis=-1, keepdims=True) for m in largest))
        largest = [shared, shared]
    exponents = [jnp.frexp(jnp.where(jnp.isfinite(m), m, 1.0))[1] for m in largest]
    x, y = (jnp.ldexp(z, -e) for z, e in zip((x, y), exponents, strict=True))
    return SamplePair(x, y, standard_deviation(x), standard_deviation(y))


def prepare_series(series: Any) -> Float[Array, "P T d"]:
    """Returns series [P, T, d] in float32, with each column centred and all of them scaled by one power of two.

    Raises:
      UserError: values that are not real numbers; a range that float32 cannot hold.
    """
    columns = as_columns(series, "series")
    if isinstance(columns, jax.core.Tracer):
        largest = jnp.max(jnp.where(jnp.isfinite(columns), jnp.abs(columns), 0.0))
        return jnp.ldexp(columns, -jnp.frexp(largest)[1])
    centred, exponents = centre_and_scale(columns)
    varies = np.any(centred != 0, axis=-2, keepdims=True)
    shared = np.max(exponents, where=varies, initial=NO_EXPONENT)
    values = np.ldexp(centred, np.where(varies, np.maximum(exponents - shared, MIN_EXPONENT), 0))
    _check_range("series", values)
    return jnp.asarray(np.asarray(values, np.float32))


def as_series(tracks: Any, name: str = "tracks") -> Any:
    """Returns tracks [..., T, d] in float64 with their first sample subtracted, or in float32 if they are traced.

    Raises:
      UserError: values that are not real numbers.
    """
    if isinstance(tracks, jax.core.Tracer):
        return tracks.astype(jnp.float32)
    columns = as_columns(tracks, name)
    return columns - columns[..., :1, :] if columns.ndim > 1 and columns.shape[-2] else columns


def standard_deviation(x: Float[Array, "... N d"]) -> Float[Array, "... 1 d"]:
    """Returns the standard deviation of each column; 1 for constant columns.

    >>> standard_deviation(jnp.array([[1.0, 7.0], [5.0, 7.0]]))
    Array([[2., 1.]], dtype=float32)
    """
    spread = jnp.std(x, axis=-2, keepdims=True)
    return jnp.where(jnp.min(x, axis=-2, keepdims=True) == jnp.max(x, axis=-2, keepdims=True), 1.0, spread)
