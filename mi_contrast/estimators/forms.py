"""Every form as a small function of streamed sums: what is summed over the scores, how nats follow, and the slopes.

A form asks for sums over candidates or further positives of w x (a function of f), reads each (its logarithm, or as it
is), and combines the readings with f+ and the sizes. Its slope to a score is then the slope to each reading times the
reading's slope to that score, so that gradients are never written twice. A form's own fields are float32 [B].
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.estimators.mass import Mass, join, log_mean
from mi_contrast.estimators.reweighted import reweighted_nats
from mi_contrast.estimators.supports import Binary, Decoupled, Form, Hard, Softmax

Column = Float[Array, "B 1"]


class Sum(NamedTuple):
    """One streamed sum: over candidates or further positives, of w e^{power f} (read as its log), w f, or
    w log(sigmoid(offset - f)).
    """

    over: Literal["candidates", "positives"]
    of: Literal["exponential", "score", "doubt"]
    power: Column | float = 1.0


class Sizes(NamedTuple):
    """Sums of weights: of candidates and of further positives, float32 [B, 1]; neither counts the positive."""

    candidates: Column
    positives: Column


def _column(x: Array | float) -> Column:
    return jnp.asarray(x)[:, None]


def sums(form: Form, several: bool) -> tuple[Sum, ...]:
    """What the form asks of the scores; `several`: there are further positives."""
    match form:
        case Softmax("mean") if several:
            return Sum("candidates", "exponential"), Sum("positives", "score")
        case Softmax() if several:
            return Sum("candidates", "exponential"), Sum("positives", "exponential")
        case Hard(beta):
            return Sum("candidates", "exponential", 1 + _column(beta)), Sum("candidates", "exponential", _column(beta))
        case Binary():
            return (Sum("candidates", "doubt"),)
        case _:
            return (Sum("candidates", "exponential"),)


def offset(form: Form, sizes: Sizes) -> Column:
    """The score at which `Binary` is undecided: log Z + log(K / N); 0 for other forms."""
    if not isinstance(form, Binary):
        return jnp.zeros_like(sizes.candidates)
    some = jnp.maximum(sizes.candidates, 1.0)
    return _column(form.log_normaliser) + jnp.log(some) - jnp.log(_column(form.data_size))


def summand(sum: Sum, f: Float[Array, "B K"], weight: Array | None, offset: Column) -> Float[Array, "B K"]:
    """What is summed: float32 [B, K], 0 where the weight is."""
    match sum.of:
        case "exponential":
            terms = jnp.exp(sum.power * f if not isinstance(sum.power, float) else f)
        case "score":
            terms = f
        case "doubt":
            terms = jax.nn.log_sigmoid(offset - f)
    if weight is None:
        # A removed score is -inf, whose e^f is 0 already, unless it is raised to the power 0.
        return terms if isinstance(sum.power, float) and sum.of != "score" else jnp.where(f == -jnp.inf, 0.0, terms)
    return jnp.where(weight > 0, weight * terms, 0.0)


def reading(sum: Sum, total: Column) -> Column:
    """How the form sees a sum."""
    if sum.of != "exponential":
        return total
    return jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1.0, total)))


def pull(
    sum: Sum, f: Float[Array, "B K"], weight: Array | None, offset: Column, total: Column
) -> tuple[Float[Array, "B K"], Column]:
    """The reading's slope to each score, as a matrix and what its rows are to be multiplied by."""
    match sum.of:
        case "exponential":
            return summand(sum, f, weight, offset), sum.power / jnp.where(total == 0, 1.0, total)
        case "score":
            assert weight is not None
            return weight, jnp.ones_like(total)
        case "doubt":
            doubt = jax.nn.sigmoid(f - offset)
            return doubt if weight is None else weight * doubt, -jnp.ones_like(total)


def nats(
    form: Form, several: bool, positive: Column, readings: tuple[Column, ...], sizes: Sizes, offset: Column, top: Column
) -> Column:
    """The value from f+ and the readings, all scores being measured from `top` (nats, 0 for `Binary`)."""
    one = jnp.ones_like(positive)
    match form:
        case Softmax(reduce):
            among = log_mean(join(Mass(positive, one), Mass(readings[0], sizes.candidates)))
            if not several:
                return positive - among
            if reduce == "mean":
                return (positive + readings[1]) / (1 + sizes.positives) - among
            return log_mean(join(Mass(positive, one), Mass(readings[1], sizes.positives))) - among
        case Decoupled():
            some = sizes.candidates > 0
            return jnp.where(some, positive - log_mean(Mass(readings[0], sizes.candidates)), 0.0)
        case Hard(_, prior, floor):
            floor = None if floor is None else _column(floor) - top
            return reweighted_nats(positive, readings[0], readings[1], sizes.candidates, _column(prior), floor)
        case _:  # Binary
            some = sizes.candidates > 0
            return jnp.where(some, jax.nn.log_sigmoid(positive - offset) + readings[0], 0.0)
