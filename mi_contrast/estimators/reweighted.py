"""Hard negatives: candidates re-weighted by e^{beta f}, and the false negatives among them subtracted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.mass import Mass, join, log_mean, mass, present
from mi_contrast.estimators.scores import fitting


def hard_negatives(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    beta: Float[Array, "..."] | float,
    prior: Float[Array, "..."] | float,
    *,
    where: Array | None = None,
    floor: Float[Array, "..."] | float | None = None,
) -> Float[Array, "... B"]:
    """Hard negatives, de-biased: candidates weigh e^{beta f}, and a share `prior` of them counts as positives.

    With s the candidates' weights, N = sum s, w = e^{beta f}:
    R = N sum(s w e^f) / sum(s w);  Ng = max( (R - prior N e^{f+}) / (1 - prior), N e^{floor} );
    value = f+ - log( (e^{f+} + Ng) / (N + 1) ).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate, the positive not among them.
      beta: >= 0, how much harder candidates weigh; 0 is the de-biased form. May be traced; one for all or [..., B].
      prior: in [0, 1), the chance that a candidate is of the anchor's class. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates or the weights of any support; default all.
      floor: the least a candidate's mean critic value may be, -1/temperature in the released code; None: Ng >= 0.
        Where it holds, no gradient reaches the pool.
    Returns:
      nats, f32 [..., B], at most log(N + 1); 0 with zero gradient where there is no positive or no candidate. At most
      InfoNCE with prior 0, equal to it with beta 0 too; no bound with prior > 0. The weights w carry gradient.
    Raises:
      UserError: concrete beta < 0, or prior outside [0, 1); shapes that do not fit.
    Source: Robinson et al. 2021; beta 0 is Chuang et al. 2020. log(N + 1) minus the released loss, with its floor.

    >>> nats = hard_negatives(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 3.0]])), 1.0, 0.1)
    >>> bool(jnp.allclose(nats, jnp.log(6 * 3 / (6 + (2 * 10 / 4 - 0.1 * 2 * 6) / 0.9))))
    True
    """
    for name, value, good in (("beta", beta, "beta >= 0"), ("prior", prior, "0 <= prior < 1")):
        number = None if isinstance(value, jax.core.Tracer) else np.asarray(value, np.float64)
        if number is not None and not np.all((number >= 0) & (number < (1 if name == "prior" else np.inf))):
            raise UserError(f"{name} = {number} is out of range", fix=f"give {good}")
    return _hard_negatives(*fitting(positive, pool), beta, prior, where, floor)


@jax.jit
def _hard_negatives(
    positive: Array, pool: Array, beta: Array, prior: Array, where: Array | None, floor: Array | None
) -> Array:
    here, weights = present(pool, where)
    scores = jnp.where(here, pool, 0.0)  # so that beta 0 times -inf is nothing
    beta = jnp.broadcast_to(beta, positive.shape)[..., None]
    among, tilt = mass((1 + beta) * scores, weights), mass(beta * scores, weights)
    return reweighted_nats(positive, among.log_sum, tilt.log_sum, among.size, prior, floor)


def reweighted_nats(
    positive: Float[Array, "... B"],
    log_sum: Float[Array, "... B"],
    log_weight: Float[Array, "... B"],
    size: Float[Array, "... B"],
    prior: Float[Array, "..."] | float,
    floor: Float[Array, "..."] | float | None = None,
) -> Float[Array, "... B"]:
    """The value of `hard_negatives` from sums over the candidates, which add across blocks and devices.

    Args:
      positive: f32 [..., B], f+.
      log_sum: f32 [..., B], log sum s w e^f, -inf where there is no candidate.
      log_weight: f32 [..., B], log sum s w.
      size: f32 [..., B], N = sum s.
      prior, floor: as for `hard_negatives`.
    Returns:
      nats, f32 [..., B].

    >>> reweighted_nats(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([3.0])), jnp.log(jnp.array([2.0])), 2.0, 0.0)
    Array([0.6931472], dtype=float32)
    """
    nothing = (positive == -jnp.inf) | (size == 0)
    positive, log_sum, log_weight = (jnp.where(nothing, 0.0, x) for x in (positive, log_sum, log_weight))
    size = jnp.where(nothing, 1.0, size)
    average = log_sum - jnp.where(log_sum == jnp.inf, 0.0, log_weight)  # log of the re-weighted mean of e^f
    negative = _log_difference(average, positive, jnp.asarray(prior, jnp.float32))
    if floor is not None:
        negative = jnp.maximum(negative, floor)
    candidates = join(Mass(positive, jnp.ones_like(positive)), Mass(jnp.log(size) + negative, size))
    return jnp.where(nothing, 0.0, positive - log_mean(candidates))


def _log_difference(average: Array, positive: Array, prior: Array) -> Array:
    """log( (e^average - prior e^positive) / (1 - prior) ), -inf with zero gradient where that is not positive."""
    some = prior != 0
    share = jnp.where(some, jnp.log(jnp.where(some, prior, 1.0)) + positive - average, -jnp.inf)
    gone = share >= 0
    left = jnp.where(some & ~gone, -jnp.expm1(jnp.where(some & ~gone, share, -1.0)), 1.0)
    return jnp.where(gone, -jnp.inf, average + jnp.log(left)) - jnp.log1p(-prior)
