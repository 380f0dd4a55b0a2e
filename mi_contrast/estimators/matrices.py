"""Lower bounds on mutual information from a square matrix of scores, and how such a matrix is read.

Rows are x, columns y, and pair (x_i, y_i) is a draw of the joint distribution: the diagonal holds joint pairs, what is
off it pairs of the marginals. Scores are critic values F_ij = f(x_i, y_j), float32 or bfloat16 in, float32 out; leading
axes are a batch of matrices. `-inf` removes a pair from the mean that it belongs to, sum and count, so that rows and
columns of -inf leave the estimate of the smaller matrix. Where no joint pair or no crossed pair is left the estimate is
0 nats with zero gradient; a NaN anywhere makes it NaN.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.mass import Mass, join, log_mean, mass


class Pairs(NamedTuple):
    """A matrix of scores in float32, parted: joint pairs (the diagonal) and crossed pairs (off it, -inf upon it)."""

    joint: Float[Array, "... N"]
    crossed: Float[Array, "... N N"]


def parted(scores: Float[Array, "... N N"]) -> Pairs:
    """The two kinds of pairs of a square matrix.

    Raises:
      UserError: a matrix that is not square, or that has no pair off its diagonal.
    """
    scores = jnp.asarray(scores)
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2]:
        raise UserError(f"scores {scores.shape} are no square matrix", fix="give [..., N, N], rows x and columns y")
    size = scores.shape[-1]
    if size < 2:
        raise UserError(f"{size} pair leaves nothing off the diagonal", fix="give a matrix of at least 2 x 2")
    scores = scores.astype(jnp.float32)
    return Pairs(jnp.diagonal(scores, axis1=-2, axis2=-1), jnp.where(jnp.eye(size, dtype=bool), -jnp.inf, scores))


def counted(pairs: Pairs, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """The value of each matrix, and 0 with zero gradient where it has no joint or no crossed pair."""
    some = jnp.any(pairs.joint != -jnp.inf, axis=-1) & jnp.any(pairs.crossed != -jnp.inf, axis=(-2, -1))
    return jnp.where(some, value, 0.0)


def average(values: Float[Array, "..."], here: Bool[Array, "..."], axes: int = 1) -> Float[Array, "..."]:
    """The mean over the last axes of the values that are here; 0 with zero gradient where none is."""
    over = tuple(range(-axes, 0))
    total = jnp.sum(jnp.where(here, values, 0.0), axis=over)
    return total / jnp.maximum(jnp.sum(here, axis=over), 1)


def mean_joint(pairs: Pairs) -> Float[Array, "..."]:
    """mean_i F_ii."""
    return average(pairs.joint, pairs.joint != -jnp.inf)


def log_mean_crossed(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Log mean_{i != j} e^{F_ij}, of crossed pairs; 0 where there is none."""
    return log_mean(mass(scores.reshape(*scores.shape[:-2], math.prod(scores.shape[-2:])), None))


def concrete(value: ArrayLike) -> np.ndarray | None:
    """A setting's value, or None while it is traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value, np.float64)


def nwj(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """NWJ: TUBA with the baseline e (the f-GAN bound of the Kullback-Leibler divergence, MINE-f).

    value = mean_i F_ii - (1/e) mean_{i != j} e^{F_ij}. Optimum critic: 1 + log p(x,y) / (p(x) p(y)).

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
    Returns:
      nats, f32 [...]: in the mean over batches of independent pairs a lower bound on I, for any critic, without
      ceiling. Its variance grows like E e^{2 log r} under the marginals, at least e^I.
    Raises:
      UserError: no square matrix of at least 2 x 2.
    Source: Nguyen, Wainwright and Jordan 2010; Poole et al. 2019.

    >>> value = nwj(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, jnp.log(6.0) - 1.5 / jnp.e))
    True
    """
    return tuba(scores, 1.0)


def tuba(scores: Float[Array, "... N N"], log_baseline: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """TUBA: the tractable unnormalised bound of Barber and Agakov, with a baseline a(x) of one's own.

    value = 1 + mean_i (F_ii - log a_i) - mean_{i != j} e^{F_ij} / a_i. Optimum critic: log a(x) + log r,
    r = p(x,y) / (p(x) p(y)).

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
      log_baseline: log a > -inf, one for all or one a row, f32 [..., N]; it carries gradient. For a baseline a(y) give
        the matrix transposed.
    Returns:
      nats, f32 [...]: in the mean over batches of independent pairs a lower bound on I, for any critic and baseline
      that do not depend on the batch; without ceiling.
    Raises:
      UserError: no square matrix of at least 2 x 2; a baseline that does not fit.
    Source: Barber and Agakov 2003; Poole et al. 2019.

    >>> f = jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]]))
    >>> bool(jnp.allclose(tuba(f, jnp.log(jnp.array([1.0, 2.0]))), 1 + jnp.log(6.0) - jnp.log(2.0) / 2 - 1.0))
    True
    """
    pairs = parted(scores)
    return _tuba(pairs, _of_rows(pairs, log_baseline))


def donsker_varadhan(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Donsker-Varadhan, from one batch.

    value = mean_i F_ii - log mean_{i != j} e^{F_ij}. Optimum critic: log p(x,y) / (p(x) p(y)) + any constant.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
    Returns:
      nats, f32 [...]: no bound. With the expectation under the logarithm it would be one from below; the logarithm of
      a batch's mean is too low on average, so the value is too high, the more the smaller N. No ceiling.
    Raises:
      UserError: no square matrix of at least 2 x 2.
    Source: Donsker and Varadhan 1983; Belghazi et al. 2018.

    >>> value = donsker_varadhan(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, jnp.log(6.0 / 1.5)))
    True
    """
    return _donsker_varadhan(parted(scores))


def interpolated(
    scores: Float[Array, "... N N"],
    alpha: Float[Array, "..."] | float,
    *,
    log_baseline: Float[Array, "..."] | float = 1.0,
    strict: bool = False,
) -> Float[Array, "..."]:
    """From NWJ (alpha 0) to InfoNCE (alpha 1): variance is traded for bias.

    value = 1 + mean_i (F_ii - log a_i) - mean_{i != j} e^{F_ij} / a'_i,
    a_i = alpha mean_j e^{F_ij} + (1 - alpha) q_i with j = i among the N, a'_i the same with the mean over j != i;
    strict: log a_i becomes mean_{k != i} log a_ik, a_ik = alpha mean_{j != k} e^{F_ij} + (1 - alpha) q_i with j = i
    among the N - 1: as many candidates as in a'_i.

    Optimum critic: log q(x) + log p(x,y) / (p(x) p(y)) as N grows. Alpha 1 is the mean of `info_nce` over rows, at most
    log N (strict: with one candidate fewer, at most log(N - 1)); alpha 0 is `tuba`, and with q = e it is `nwj`.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair, and so a candidate of its row. A row
        without crossed pairs has none to leave out: strict changes nothing there.
      alpha: in [0, 1], one for all or [...]; may be traced; no gradient.
      log_baseline: log q, one for all or one a row, f32 [..., N]; it carries gradient. Default log e. For a baseline
        q(y) give the matrix transposed.
      strict: leave one negative out of a_i too.
    Returns:
      nats, f32 [...]. At alpha 0 and 1, and anywhere with `strict`, in the mean over batches of independent pairs a
      lower bound on I for any critic and baseline. Between, without `strict`, neither bound: it may exceed I by the
      order of 1/N^2 (by .06 nats at N = 2), and reads above the strict one by some .007 nats at N = 64.
    Raises:
      UserError: no square matrix of at least 2 x 2; a concrete alpha outside [0, 1]; a baseline that does not fit.
    Source: Poole et al. 2019; `strict` is the form of their released code (there for a baseline of y).

    >>> f = jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]]))
    >>> bool(jnp.allclose(interpolated(f, 1.0), jnp.mean(jnp.log(6 / jnp.array([3.5, 4.0])))))
    True
    >>> bool(jnp.allclose(interpolated(f, 0.0), nwj(f)))
    True
    """
    known = concrete(alpha)
    if known is not None and not np.all((known >= 0) & (known <= 1)):
        raise UserError(f"alpha {alpha} is outside [0, 1]", fix="0 is NWJ, 1 is InfoNCE")
    pairs = parted(scores)
    alpha = lax.stop_gradient(jnp.asarray(alpha, jnp.float32))[..., None]
    return _interpolated(pairs, alpha, _of_rows(pairs, log_baseline), bool(strict))


def _of_rows(pairs: Pairs, log_baseline: Any) -> Float[Array, "... N"]:
    log_baseline, rows = jnp.asarray(log_baseline, jnp.float32), pairs.joint.shape
    if log_baseline.ndim > len(rows) or any(
        own not in (1, row) for own, row in zip(log_baseline.shape[::-1], rows[::-1], strict=False)
    ):
        raise UserError(f"log_baseline {log_baseline.shape} does not fit rows {rows}", fix="give one for all or a row")
    return jnp.broadcast_to(log_baseline, rows)


@jax.jit
def _donsker_varadhan(pairs: Pairs) -> Array:
    return counted(pairs, mean_joint(pairs) - log_mean_crossed(pairs.crossed))


@jax.jit
def _tuba(pairs: Pairs, log_baseline: Array) -> Array:
    rows = mass(pairs.crossed, None)
    return _with_baseline(pairs, rows, log_baseline, log_mean(rows) - log_baseline)


def _with_baseline(pairs: Pairs, rows: Mass, log_joint: Array, log_crossed: Array) -> Array:
    """1 + mean_i (F_ii - log_joint_i) - the mean over crossed pairs of e^{log_crossed}, one value a row."""
    some = rows.size != 0
    ratios = jnp.where(some, jnp.exp(jnp.where(some, log_crossed, 0.0)), 0.0)
    share = rows.size / jnp.maximum(jnp.sum(rows.size, axis=-1, keepdims=True), 1.0)
    here = pairs.joint != -jnp.inf
    joint = average(jnp.where(here, pairs.joint, 0.0) - log_joint, here)
    return counted(pairs, 1.0 + joint - jnp.sum(share * ratios, axis=-1))


@functools.partial(jax.jit, static_argnums=3)
def _interpolated(pairs: Pairs, alpha: Array, log_q: Array, strict: bool) -> Array:
    rows, here = mass(pairs.crossed, None), pairs.joint != -jnp.inf
    log_alpha, log_rest = jnp.log(alpha), jnp.log1p(-alpha) + log_q
    whole = log_mean(join(Mass(pairs.joint, here.astype(jnp.float32)), rows))
    log_joint = _log_mix(log_alpha, whole, log_rest)
    if strict:
        kept = _log_sums_without_each(pairs) - jnp.log(jnp.maximum(rows.size, 1.0))[..., None]
        kept = jnp.where(here[..., None], kept, 0.0)
        each = average(_log_mix(log_alpha[..., None], kept, log_rest[..., None]), pairs.crossed != -jnp.inf)
        log_joint = jnp.where(rows.size == 0, log_joint, each)
    # log e^F / a' as minus log a' / e^F, which is finite where the mean of e^F is not
    return _with_baseline(pairs, rows, log_joint, -jnp.logaddexp(log_alpha, log_rest - log_mean(rows)))


def _log_mix(log_alpha: Array, log_mean: Array, log_rest: Array) -> Array:
    """log(alpha e^{log_mean} + e^{log_rest}), where alpha is 0 too, whatever the mean."""
    return jnp.logaddexp(jnp.where(log_alpha == -jnp.inf, -jnp.inf, log_alpha + log_mean), log_rest)


def _log_sums_without_each(pairs: Pairs) -> Float[Array, "... N N"]:
    """Log of the sum of e^F over each row, its joint pair included and its crossed pair k left out.

    What is left out is taken from a sum that holds something at least as large: nothing cancels. The greatest of a row
    has no such sum, so the others are summed without it.
    """
    size = pairs.joint.shape[-1]
    scores = jnp.where(jnp.eye(size, dtype=bool), pairs.joint[..., None], pairs.crossed)
    greatest = jnp.argmax(scores, axis=-1)[..., None] == jnp.arange(size)
    top = jnp.sum(jnp.where(greatest, scores, 0.0), axis=-1, keepdims=True)
    top = jnp.where(top == -jnp.inf, 0.0, top)  # nothing is left in the row
    others = mass(jnp.where(greatest, -jnp.inf, scores), None).log_sum[..., None]
    below = jnp.exp(others - top) - jnp.where(greatest, 0.0, jnp.exp(scores - top))
    return jnp.where(greatest, others, top + jnp.log1p(below))
