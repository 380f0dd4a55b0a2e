"""Finds, for each of many tracks, the track that shares most information with it, and tests whether that is chance.

Positions along a track are not independent draws. The estimate for the positions of two independent walks is far above
0 nats: .76 at 40 steps in the plane, 1.6 and more for smooth motion. Steps are independent if they have no memory.
Otherwise use second differences, or the residuals of a regression on earlier steps.

The largest of many estimates needs a test of its own. The largest of 63 estimates is about .2 nats for independent
tracks, and one of 63 tests at level .05 nearly always rejects. So the statistic here is the *largest estimate over all
partners*. Its distribution without dependence comes from circular shifts in time of the anchor, which preserve the
anchor's own motion and destroy its relation to all partners at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.pairwise import check_series, shifted_pairs
from mi_contrast.estimators.samples import as_real, as_series, as_whole_number

MIN_SHIFT = 3  # steps; a series shifted by less is almost the series itself
TOLERANCE = 1e-5  # nats within which two estimates count as equal


class Twins(NamedTuple):
    """The twin of each series: the partner with the largest estimate.

    Attributes:
      partner: index of the twin, int32 [P]; the series' own index if it has no partner.
      nats: the estimate with the twin, float32 [P]; NaN if there is no partner.
      null: mean over shifts of the largest estimate of the shifted series, float32 [P].
      p: p value of the largest estimate, float32 [P].
      accepted: whether p <= level, bool [P].
    """

    partner: Int[Array, " P"]
    nats: Float[Array, " P"]
    null: Float[Array, " P"]
    p: Float[Array, " P"]
    accepted: Bool[Array, " P"]


def raw(tracks: Float[ArrayLike, "... T d"]) -> Float[Array, "... T d"]:
    """Returns positions unchanged, for comparison. Estimates for independent tracks are far above 0 nats."""
    return tracks.astype(jnp.float32) if isinstance(tracks, jax.core.Tracer) else _cast(as_real(tracks, "tracks"))


def displacements(tracks: Float[ArrayLike, "... T d"]) -> Float[Array, "... T-1 d"]:
    """Returns the steps x_{t+1} - x_t.

    Estimates for independent tracks are 0 nats if steps have no memory, and .4 and more for smooth motion.

    >>> displacements(jnp.array([[0.0], [1.0], [3.0]]))[:, 0]
    Array([1., 2.], dtype=float32)
    """
    return _differences(tracks, 1)


def second_differences(tracks: Float[ArrayLike, "... T d"]) -> Float[Array, "... T-2 d"]:
    """Returns the second differences x_{t+2} - 2 x_{t+1} + x_t.

    Estimates for independent tracks are 0 nats even if steps are correlated over long times.

    >>> second_differences(jnp.array([[0.0], [1.0], [3.0]]))[:, 0]
    Array([1.], dtype=float32)
    """
    return _differences(tracks, 2)


def _differences(tracks: Float[ArrayLike, "... T d"], order: int) -> Float[Array, "... T-order d"]:
    """Takes differences in float64 if the tracks are concrete. Far from 0, float32 would lose the steps."""
    series = as_series(tracks)
    return jnp.diff(series, n=order, axis=-2) if isinstance(series, Array) else _cast(np.diff(series, order, axis=-2))


def _cast(x: np.ndarray) -> Array:
    with np.errstate(over="ignore"):
        return jnp.asarray(x.astype(np.float32))


def prewhitened(tracks: Float[ArrayLike, "... T d"], order: int = 1) -> Float[Array, "... T-1-order d"]:
    """Returns the steps minus their prediction from the `order` steps before.

    The prediction is a least-squares autoregression with a constant, fitted for each track and coordinate separately.

    Raises:
      UserError: order below 1, or so large that there are fewer residuals than coefficients.

    >>> steps = 0.5 ** jnp.arange(8.0)  # perfectly predictable: each step is half of the one before
    >>> bool(jnp.all(jnp.abs(prewhitened(jnp.cumsum(steps)[:, None])) < 1e-4))
    True
    """
    steps = displacements(tracks)
    order, count = as_whole_number("order", order), steps.shape[-2]
    if count - order < order + 2:
        raise UserError(f"{count + 1} positions can't be predicted from {order} steps", fix="give a smaller order")
    return _residuals(steps, order)


@functools.partial(jax.jit, static_argnums=1)
def _residuals(steps: Float[Array, "... T d"], order: int) -> Float[Array, "... T-order d"]:
    """Returns the residuals of a least-squares autoregression. Columns are scaled by their largest step meanwhile."""
    count = steps.shape[-2]
    exponent = _exponent(steps, axis=(-2,))
    steps = jnp.ldexp(steps, -exponent)
    centre = lambda x: x - jnp.mean(x, axis=-2, keepdims=True)  # noqa: E731
    targets = centre(steps[..., order:, :])
    lagged = [centre(steps[..., order - lag : count - lag, :]) for lag in range(1, order + 1)]
    predictors = jnp.stack(lagged, axis=-1)
    gram = jnp.einsum("...tdp,...tdq->...dpq", predictors, predictors, precision="highest")
    ridge = 1e-6 * jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None] + 1e-20  # solvable for a track at rest too
    covariance = jnp.einsum("...tdp,...td->...dp", predictors, targets, precision="highest")
    weights = jnp.linalg.solve(gram + ridge * jnp.eye(order), covariance[..., None])[..., 0]
    prediction = jnp.einsum("...tdp,...dp->...td", predictors, weights, precision="highest")
    return jnp.ldexp(targets - prediction, exponent)


def _exponent(x: Float[Array, "... T d"], axis: tuple[int, ...]) -> Int[Array, "..."]:
    """Returns the exponent of the power of two just above the largest magnitude; 1 if that is not finite."""
    largest = jnp.max(jnp.abs(lax.stop_gradient(x)), axis=axis, keepdims=True)
    return jnp.frexp(jnp.where(jnp.isfinite(largest), largest, 1.0))[1]


SERIES: dict[str, Callable[..., Array]] = {
    "raw": raw,
    "displacement": displacements,
    "second_difference": second_differences,
    "prewhitened": prewhitened,
}


def of_unit_size(series: Float[ArrayLike, "... T d"]) -> Float[Array, "... T d"]:
    """Divides each series by the square root of its total variance, so that all series have similar scales.

    The coordinates of a series keep their relative sizes, because one that hardly moves is mostly noise. A constant
    series does not change.

    >>> of_unit_size(jnp.array([[2.0, 0.0], [-2.0, 0.0]]))[:, 0]
    Array([ 1., -1.], dtype=float32)
    """
    if not isinstance(series, jax.core.Tracer):
        series = as_real(series, "series").astype(np.float64)
        series = np.ldexp(series, -np.frexp(np.max(np.abs(series), axis=(-2, -1), keepdims=True, initial=0.0))[1])
    series = raw(series)
    series = jnp.ldexp(series, -_exponent(series, axis=(-2, -1)))
    spread = jnp.sqrt(jnp.sum(jnp.var(series, axis=-2), axis=-1))[..., None, None]
    return series / jnp.where(spread > 0, spread, 1.0)


def spread_shifts(samples: int, count: int, key: Key[Array, ""] | None = None) -> tuple[int, ...]:
    """Returns `count` distinct circular shifts from 3 to T - 3.

    Args:
      samples: T, the length of the series.
      count: number of shifts.
      key: random key to draw the shifts with. By default they are evenly spaced.
    Raises:
      UserError: count below 1 or above T - 5.

    >>> spread_shifts(40, 5)
    (3, 11, 20, 29, 37)
    """
    num_possible = samples - 2 * MIN_SHIFT + 1
    if not 1 <= count <= num_possible:
        fix = f"give 1 to {num_possible}" if num_possible > 0 else "longer clips are needed"
        raise UserError(f"{count} circular shifts of {samples} samples", fix=fix)
    if key is not None:
        drawn = jax.random.permutation(key, jnp.arange(MIN_SHIFT, MIN_SHIFT + num_possible))[:count]
        return tuple(sorted(int(shift) for shift in drawn))
    lower = np.floor(np.linspace(MIN_SHIFT, samples - MIN_SHIFT, count)[: count // 2]).astype(int).tolist()
    return (*lower, *([samples // 2] * (count % 2)), *(samples - shift for shift in lower[::-1]))


def twins(
    series: Float[ArrayLike, "P T d"],
    *,
    shifts: int | Sequence[int] = 19,
    level: float = 0.05,
    where: Bool[ArrayLike, " P"] | Bool[ArrayLike, "P P"] | None = None,
    k: int = 3,
    estimator: str = "ksg",
) -> Twins:
    """Returns, for each series, the partner with the largest estimate and the p value of that estimate.

    p = (1 + #{s : max_b I_s(a, b) >= max_b I_0(a, b)}) / (1 + #shifts), with I_s the estimate for series a shifted
    circularly by s. The statistic is the *largest estimate over partners*, so p needs no correction for their number.
    The test supposes series whose memory is short compared with T. It is invalid for positions, because a circular
    shift joins the two ends of a track.

    Args:
      series: numbers [P, T, d], such as a member of `SERIES` makes from tracks.
      shifts: the number of evenly spaced shifts, or the shifts, from 3 to T - 3. With n shifts p is at least
        1 / (n + 1).
      level: the largest p that is accepted.
      where: mask of the series that take part, [P], or symmetric mask of the pairs that are allowed, [P, P]; default
        all. Pairs whose estimate is NaN are not allowed.
      k, estimator: see `all_pairs`.
    Returns:
      Twins, without gradient.
    Raises:
      UserError: see `all_pairs`; shifts outside 3 to T - 3 or not distinct; too few shifts for any p to be accepted.
    Warns:
      as `all_pairs` does.
    Source: the maximum statistic of Westfall and Young 1993 for many tests at once, here with circular shifts.

    >>> x = jax.random.normal(jax.random.key(0), (4, 40, 2))
    >>> result = twins(x.at[2].set(x[0] + 0.1 * x[2]))
    >>> [int(index) for index in result.partner[jnp.array([0, 2])]], round(float(result.p[0]), 3)
    ([2, 0], 0.05)
    """
    series = check_series(series, k, estimator)
    num_samples = series.shape[1]
    if isinstance(shifts, int | np.integer):
        shifts = spread_shifts(num_samples, int(shifts))
    else:
        shifts = tuple(int(shift) for shift in shifts)
    max_shift = num_samples - MIN_SHIFT
    if len(set(shifts)) < len(shifts) or not all(MIN_SHIFT <= shift <= max_shift for shift in shifts):
        fix = f"give distinct ones from {MIN_SHIFT} to {max_shift}"
        raise UserError(f"shifts {shifts} of {num_samples} samples", fix=fix)
    if level * (len(shifts) + 1) < 1 - 1e-9:
        num_required = int(np.ceil(1 / level - 1e-9)) - 1 if level > 0 else "infinitely many"
        fix = f"give {num_required} shifts or more"
        raise UserError(f"{len(shifts)} shifts can't accept at level {level}", fix=fix)
    # The estimates of shift s contain those of shift T - s: rows are anchors at shift s, columns anchors at T - s.
    half_shifts = sorted({min(shift, num_samples - shift) for shift in shifts})
    indices = [2 * half_shifts.index(min(shift, num_samples - shift)) + (2 * shift > num_samples) for shift in shifts]
    allowed = jnp.ones(len(series), bool) if where is None else jnp.asarray(where, bool)
    allowed = allowed & allowed[:, None] if allowed.ndim == 1 else allowed
    if allowed.shape != (len(series),) * 2:
        raise UserError(f"where of shape {allowed.shape} for {len(series)} series", fix="give [P] or [P, P]")
    nats = shifted_pairs(series, jnp.array([0, *half_shifts]), k, estimator)
    return _find_twins(nats, allowed, jnp.array(indices), level)


@functools.partial(jax.jit, static_argnums=3)
def _find_twins(
    nats: Float[Array, "S P P"], allowed: Bool[Array, "P P"], indices: Int[Array, " n"], level: float
) -> Twins:
    """Returns the twins from estimates at shift 0 and at H = S - 1 half shifts.

    Args:
      nats: `shifted_pairs`.
      allowed: which pairs are allowed.
      indices: for each shift, 2 h if it is half shift h, and 2 h + 1 if it is T minus half shift h.
      level: the largest p that is accepted.
    """
    nats = jnp.where(allowed & ~jnp.isnan(nats), nats, -jnp.inf)
    row_maxima, column_maxima = jnp.max(nats[1:], axis=2), jnp.max(nats[1:], axis=1)  # [H, P] at s and at T - s
    maxima = jnp.stack([row_maxima, column_maxima], axis=1)
    shifted = maxima.reshape(-1, row_maxima.shape[1])[indices]  # [n, P]
    largest, partner = jnp.max(nats[0], axis=1), jnp.argmax(nats[0], axis=1)
    has_partner = jnp.isfinite(largest)
    num_as_large = jnp.sum(shifted >= largest - TOLERANCE, axis=0)
    p = jnp.where(has_partner, (1 + num_as_large) / (1 + len(indices)), 1.0)
    return Twins(
        jnp.where(has_partner, partner, jnp.arange(len(partner))).astype(jnp.int32),
        jnp.where(has_partner, largest, jnp.nan),
        jnp.where(has_partner, jnp.mean(shifted, axis=0), jnp.nan),
        p,
        has_partner & (p <= level + 1e-6),
    )
