"""What moves together: series made of tracks, the partner that shares most with each, and whether that is chance.

Positions along independent walks read far above 0 nats (.76 at 40 steps in the plane, 1.6 and more where the motion is
smooth): they are not independent draws. Their steps are, where these have no memory; where they have, second
differences or the residuals of a regression on earlier steps are nearer to it.

The largest of 63 estimates is no estimate: under independence it is .2 nats, and one of 63 tests at level .05 nearly
always fires. So the test here is of the *largest*: the anchor is shifted circularly in time, which keeps its own motion
and undoes what it has in common with all others at once, and the largest over partners is taken anew.
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
from mi_contrast.estimators.pairwise import checked, shifted_pairs
from mi_contrast.estimators.samples import as_real, as_series, whole_number

NEAREST_SHIFT = 3  # steps: nearer ones are the series itself, but for a little
SAME = 1e-5  # nats within which two sums of the same terms count as equal


class Twins(NamedTuple):
    """For each series its twin, [P] each: the partner that shares most with it.

    partner: int32, its own place where there is none. nats: float32, the largest estimate over partners, NaN where
    there is none. null: float32, that largest with the anchor shifted, mean over shifts. p: float32, of the largest.
    accepted: bool, p <= level.
    """

    partner: Int[Array, " P"]
    nats: Float[Array, " P"]
    null: Float[Array, " P"]
    p: Float[Array, " P"]
    accepted: Bool[Array, " P"]


def raw(tracks: Float[ArrayLike, "... T d"]) -> Float[Array, "... T d"]:
    """Positions as they are, to compare with: independent ones read far above 0 nats."""
    return tracks.astype(jnp.float32) if isinstance(tracks, jax.core.Tracer) else _cast(as_real(tracks, "tracks"))


def displacements(tracks: Float[ArrayLike, "... T d"]) -> Float[Array, "... T-1 d"]:
    """x_{t+1} - x_t. Independent walks of steps without memory read 0 nats; of smooth ones they read .4 and more.

    >>> displacements(jnp.array([[0.0], [1.0], [3.0]]))[:, 0]
    Array([1., 2.], dtype=float32)
    """
    return _differences(tracks, 1)


def second_differences(tracks: Float[ArrayLike, "... T d"]) -> Float[Array, "... T-2 d"]:
    """x_{t+2} - 2 x_{t+1} + x_t: reads 0 nats of independent walks even where steps last long.

    >>> second_differences(jnp.array([[0.0], [1.0], [3.0]]))[:, 0]
    Array([1.], dtype=float32)
    """
    return _differences(tracks, 2)


def _differences(tracks: Float[ArrayLike, "... T d"], order: int) -> Float[Array, "... T-order d"]:
    """Differences in float64 where the tracks are concrete: far from 0 the steps would be lost in float32."""
    series = as_series(tracks)
    return jnp.diff(series, n=order, axis=-2) if isinstance(series, Array) else _cast(np.diff(series, order, axis=-2))


def _cast(x: np.ndarray) -> Array:
    with np.errstate(over="ignore"):
        return jnp.asarray(x.astype(np.float32))


def prewhitened(tracks: Float[ArrayLike, "... T d"], order: int = 1) -> Float[Array, "... T-1-order d"]:
    """Steps less what the `order` steps before foretell: residuals of a least-squares autoregression with a constant,
    of each track and coordinate by itself.

    Raises:
      UserError: order below 1, or so large that fewer residuals than coefficients remain.

    >>> steps = 0.5 ** jnp.arange(8.0)  # each half of the one before: nothing is left
    >>> bool(jnp.all(jnp.abs(prewhitened(jnp.cumsum(steps)[:, None])) < 1e-4))
    True
    """
    steps = displacements(tracks)
    order, count = whole_number("order", order), steps.shape[-2]
    if count - order < order + 2:
        raise UserError(f"{count + 1} positions can't be foretold from {order} steps", fix="give a smaller order")
    return _residuals(steps, order)


@functools.partial(jax.jit, static_argnums=1)
def _residuals(steps: Float[Array, "... T d"], order: int) -> Float[Array, "... T-order d"]:
    """What a least-squares autoregression leaves, in units of each column's largest step while it is computed."""
    count = steps.shape[-2]
    exponent = _exponent(steps, axis=(-2,))
    steps = jnp.ldexp(steps, -exponent)
    centred = lambda x: x - jnp.mean(x, axis=-2, keepdims=True)  # noqa: E731
    now = centred(steps[..., order:, :])
    before = jnp.stack([centred(steps[..., order - lag : count - lag, :]) for lag in range(1, order + 1)], axis=-1)
    products = jnp.einsum("...tdp,...tdq->...dpq", before, before, precision="highest")
    ridge = 1e-6 * jnp.trace(products, axis1=-2, axis2=-1)[..., None, None] + 1e-20  # of a track that stands still
    towards = jnp.einsum("...tdp,...td->...dp", before, now, precision="highest")
    weights = jnp.linalg.solve(products + ridge * jnp.eye(order), towards[..., None])[..., 0]
    return jnp.ldexp(now - jnp.einsum("...tdp,...dp->...td", before, weights, precision="highest"), exponent)


def _exponent(x: Float[Array, "... T d"], axis: tuple[int, ...]) -> Int[Array, "..."]:
    """The exponent of the power of two that scales the largest magnitude below 1; 0 where that is not finite."""
    largest = jnp.max(jnp.abs(lax.stop_gradient(x)), axis=axis, keepdims=True)
    return jnp.frexp(jnp.where(jnp.isfinite(largest), largest, 1.0))[1]


SERIES: dict[str, Callable[..., Array]] = {
    "raw": raw,
    "displacement": displacements,
    "second_difference": second_differences,
    "prewhitened": prewhitened,
}


def of_unit_size(series: Float[ArrayLike, "... T d"]) -> Float[Array, "... T d"]:
    """Each series over its own spread, the root of its total variance, so that all have like scales; coordinates keep
    theirs to each other, for one that hardly moves is mostly noise. A constant series stays as it is.

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
    """`count` distinct circular shifts from 3 to T - 3, evenly spread, or drawn by `key`.

    Raises:
      UserError: more than T - 5 of them.

    >>> spread_shifts(40, 5)
    (3, 11, 20, 29, 37)
    """
    most = samples - 2 * NEAREST_SHIFT + 1
    if not 1 <= count <= most:
        fix = f"give 1 to {most}" if most > 0 else "longer clips are needed"
        raise UserError(f"{count} circular shifts of {samples} samples", fix=fix)
    if key is not None:
        drawn = jax.random.permutation(key, jnp.arange(NEAREST_SHIFT, NEAREST_SHIFT + most))[:count]
        return tuple(sorted(int(shift) for shift in drawn))
    lower = np.floor(np.linspace(NEAREST_SHIFT, samples - NEAREST_SHIFT, count)[: count // 2]).astype(int).tolist()
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
    """The partner that shares most with each series, and the p value of there being one.

    p = (1 + #{s : max_b I_s(a, b) >= max_b I_0(a, b)}) / (1 + #shifts), I_s the estimate with the anchor a shifted
    circularly by s: of the *largest over partners*, so it need not be corrected for their number. It supposes series
    whose memory is short beside T, and is void for positions (the ends do not meet).

    Args:
      series: numbers [P, T, d], one of `SERIES` of tracks.
      shifts: how many, evenly spread, or which; 3 to T - 3. Of n shifts no p lies below 1 / (n + 1).
      level: the largest p that is accepted.
      where: which series have and are partners, [P], or which pairs may be, [P, P] and symmetric; default all. A pair
        whose estimate is NaN is none.
      k, estimator: as `all_pairs`.
    Returns:
      Twins. No gradient.
    Raises:
      UserError: as `all_pairs`; shifts outside 3 .. T - 3 or not distinct; so few that none can be accepted.
    Source: the statistic of a maximum for many tests at once (Westfall and Young 1993), here under circular shifts.

    >>> x = jax.random.normal(jax.random.key(0), (4, 40, 2))
    >>> found = twins(x.at[2].set(x[0] + 0.1 * x[2]))
    >>> [int(place) for place in found.partner[jnp.array([0, 2])]], round(float(found.p[0]), 3)
    ([2, 0], 0.05)
    """
    series = checked(series, k, estimator)
    samples = series.shape[1]
    if isinstance(shifts, int | np.integer):
        chosen = spread_shifts(samples, int(shifts))
    else:
        chosen = tuple(int(shift) for shift in shifts)
    if len(set(chosen)) < len(chosen) or not all(NEAREST_SHIFT <= s <= samples - NEAREST_SHIFT for s in chosen):
        fix = f"give distinct ones from {NEAREST_SHIFT} to {samples - NEAREST_SHIFT}"
        raise UserError(f"shifts {chosen} of {samples} samples", fix=fix)
    if level * (len(chosen) + 1) < 1 - 1e-9:
        least = int(np.ceil(1 / level - 1e-9)) - 1 if level > 0 else "infinitely many"
        raise UserError(f"{len(chosen)} shifts can't accept at level {level}", fix=f"give {least} shifts or more")
    halves = sorted({min(shift, samples - shift) for shift in chosen})  # a matrix serves a shift and its opposite
    of_shift = [2 * halves.index(min(shift, samples - shift)) + (2 * shift > samples) for shift in chosen]
    may = jnp.ones(len(series), bool) if where is None else jnp.asarray(where, bool)
    may = may & may[:, None] if may.ndim == 1 else may
    if may.shape != (len(series),) * 2:
        raise UserError(f"where of shape {may.shape} for {len(series)} series", fix="give [P] or [P, P]")
    nats = shifted_pairs(series, jnp.array([0, *halves]), k, estimator)
    return _twins(nats, may, jnp.array(of_shift), level)


@functools.partial(jax.jit, static_argnums=3)
def _twins(nats: Float[Array, "S P P"], may: Bool[Array, "P P"], of_shift: Int[Array, " n"], level: float) -> Twins:
    """From the estimates unshifted and shifted by each half, and which row or column of them each shift is."""
    nats = jnp.where(may & ~jnp.isnan(nats), nats, -jnp.inf)
    rows, columns = jnp.max(nats[1:], axis=2), jnp.max(nats[1:], axis=1)  # [H, P]: by the half, and by its opposite
    shifted = jnp.stack([rows, columns], axis=1).reshape(-1, rows.shape[1])[of_shift]  # [n, P]
    most, partner = jnp.max(nats[0], axis=1), jnp.argmax(nats[0], axis=1)
    there = jnp.isfinite(most)
    as_much = jnp.sum(shifted >= most - SAME, axis=0)
    p = jnp.where(there, (1 + as_much) / (1 + len(of_shift)), 1.0)
    return Twins(
        jnp.where(there, partner, jnp.arange(len(partner))).astype(jnp.int32),
        jnp.where(there, most, jnp.nan),
        jnp.where(there, jnp.mean(shifted, axis=0), jnp.nan),
        p,
        there & (p <= level + 1e-6),
    )
