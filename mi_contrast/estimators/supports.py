"""Supports (which candidates an anchor meets) and forms (how it is scored): frozen values, pytrees of their fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.estimators.percentiles import Percentile, check_band, millionths, not_a_number, rank

REDUCTIONS = ("logsumexp", "mean")


def _pytree(*static: str) -> Callable[[type], type]:
    def register(cls: type) -> type:
        names = [field.name for field in dataclasses.fields(cls) if field.name not in static]
        return jax.tree_util.register_dataclass(cls, data_fields=names, meta_fields=list(static))

    return register


@_pytree()
@dataclasses.dataclass(frozen=True)
class All:
    """Every valid candidate: InfoNCE."""


@_pytree()
@dataclasses.dataclass(frozen=True)
class Ball:
    """Candidates from percentile `lower` up: the closest (1 - lower). Float or traced, one for all or [B]."""

    lower: Percentile


@_pytree()
@dataclasses.dataclass(frozen=True)
class Ring:
    """Candidates in the percentile band [lower, upper), 0 = least similar. Floats or traced, one for all or [B]."""

    lower: Percentile
    upper: Percentile


@_pytree()
@dataclasses.dataclass(frozen=True)
class Cave:
    """The band [lower, upper) as negatives, what lies above it as more positives. Floats or traced, one or [B]."""

    lower: Percentile
    upper: Percentile


@_pytree()
@dataclasses.dataclass(frozen=True)
class Nearest:
    """The k most similar candidates, or all where there are fewer. A whole number or traced, one for all or [B]."""

    k: Int[Array, "..."] | int


@_pytree()
@dataclasses.dataclass(frozen=True)
class Close:
    """Candidates of the support `of`; those that share a label with the anchor are positives too.

    With labels from several clusterings, one in common is enough: local aggregation over `Nearest(k)`, and with class
    labels the supervised form.
    """

    of: Support = dataclasses.field(default_factory=All)


@_pytree("k")
@dataclasses.dataclass(frozen=True)
class Drawn:
    """k draws, with replacement, from the support `of`, fresh for every key and anchor.

    Over one device exactly k. Over a sharded pool each candidate comes up a Poisson number of times, k in all in the
    mean, and the value divides by 1 + the number that came. Draws reproduce the k of papers. They save no time: every
    candidate is scored, and the support itself gives the same value with less variance.
    """

    k: int
    of: Support = dataclasses.field(default_factory=All)


@_pytree("reduce")
@dataclasses.dataclass(frozen=True)
class Softmax:
    """The positives among the candidates, equal weights within the support: the form of InfoNCE.

    `reduce` joins several positives: 'logsumexp' (the log of their mean e^f) or 'mean' (the mean of f).
    """

    reduce: str = "logsumexp"


@_pytree()
@dataclasses.dataclass(frozen=True)
class Decoupled:
    """The positive is left out of the candidates; not a bound."""


@_pytree()
@dataclasses.dataclass(frozen=True)
class Hard:
    """Candidates weighed by e^{beta f} and corrected for `prior`, the chance that one is of the anchor's class.

    beta 0 is the debiased form. `floor` is the least log of a candidate's corrected e^f, as released -1 / temperature.
    Numbers or traced, one for all or [B].
    """

    beta: Float[Array, "..."] | float
    prior: Float[Array, "..."] | float = 0.0
    floor: Float[Array, "..."] | float | None = None


@_pytree()
@dataclasses.dataclass(frozen=True)
class Binary:
    """Each score told apart from noise on its own: the historical loss, with its normaliser from the caller's state."""

    log_normaliser: Float[Array, "..."] | float
    data_size: Float[Array, "..."] | float


Support = All | Ball | Ring | Cave | Nearest | Close | Drawn
Form = Softmax | Decoupled | Hard | Binary
SOFTMAX = Softmax()
SUPPORTS = (
    "All()",
    "Ball(lower)",
    "Ring(lower, upper)",
    "Cave(lower, upper)",
    "Nearest(k)",
    "Close(of)",
    "Drawn(k, of)",
)
FORMS = ("Softmax(reduce)", "Decoupled()", "Hard(beta, prior, floor)", "Binary(log_normaliser, data_size)")


def several(support: Support) -> bool:
    """Whether candidates of the support may be positives as well."""
    return isinstance(support, (Cave, Close))


def check(support: Support, form: Form) -> None:
    """Refuses what is no support or form, closed bands, and pairs that mean nothing.

    Raises:
      UserError: as said, with the reason.
    """
    match support:
        case All():
            pass
        case Ball(lower):
            check_band(lower, 1.0)
        case Ring(lower, upper) | Cave(lower, upper):
            check_band(lower, upper)
        case Nearest(k):
            _at_least_one("Nearest", k)
        case Close(of) | Drawn(of=of):
            if isinstance(of, (Cave, Close, Drawn)):
                name = type(support).__name__
                fix = "take All(), Ball(lower), Ring(lower, upper) or Nearest(k)"
                raise UserError(f"{name} of {type(of).__name__}: one choice has been made there already", fix=fix)
            check(of, SOFTMAX)
            if isinstance(support, Drawn):
                _at_least_one("Drawn", support.k)
        case _:
            raise unknown("support", support, SUPPORTS)
    match form:
        case Softmax(reduce):
            if reduce not in REDUCTIONS:
                raise unknown("reduce", reduce, REDUCTIONS)
        case Decoupled() | Hard() | Binary():
            if several(support):
                name = type(form).__name__
                why = f"{name} scores one positive, {type(support).__name__} has several"
                raise UserError(why, fix="take Softmax(), or another support")
        case _:
            raise unknown("form", form, FORMS)


def _at_least_one(name: str, k: Any) -> None:
    if not isinstance(k, jax.core.Tracer) and not np.all(np.asarray(k) >= 1):
        raise UserError(f"{name}({k}) takes no candidate", fix="give a whole number above 0")


def resolved(support: Support) -> tuple[Support, Float[Array, "..."]]:
    """The support with percentiles in int32 millionths and counts in int32; and NaN where a percentile is, else 0."""
    match support:
        case Ball(lower):
            return Ball(millionths(lower)), not_a_number(lower)
        case Ring(lower, upper) | Cave(lower, upper):
            return type(support)(millionths(lower), millionths(upper)), not_a_number(lower, upper)
        case Nearest(k):
            return Nearest(jnp.asarray(k, jnp.int32)), jnp.zeros(())
        case Close(of) | Drawn(of=of):
            inner, bad = resolved(of)
            return dataclasses.replace(support, of=inner), bad
        case _:
            return support, jnp.zeros(())


def ranks(support: Support, count: Int[Array, "..."]) -> tuple[Int[Array, "..."], Int[Array, "..."]] | None:
    """Candidates among `count` by similarity, ranks [lower, upper) from least to most similar; None = all of them.

    Takes a `resolved` support; of Drawn and Close, those of what they are taken from.
    """
    match support:
        case All():
            return None
        case Ball(lower) | Cave(lower):
            return rank(jnp.asarray(lower), count), count
        case Ring(lower, upper):
            start = rank(jnp.asarray(lower), count)
            return start, jnp.maximum(start, rank(jnp.asarray(upper), count))
        case Nearest(k):
            return jnp.maximum(count - k, 0), count
        case Close(of) | Drawn(of=of):
            return ranks(of, count)
    raise unknown("support", support, SUPPORTS)


def size(support: Support, count: Int[Array, "..."]) -> Int[Array, "..."]:
    """How many candidates an anchor meets among `count` valid ones, the positive not counted; int32 [...].

    >>> int(size(Ring(0.9, 0.99), 65536)), int(size(Drawn(4096, Ball(0.9)), 65536))
    (5899, 4096)
    """
    inside = ranks(resolved(support)[0], jnp.asarray(count, jnp.int32))
    found = jnp.asarray(count, jnp.int32) if inside is None else inside[1] - inside[0]
    return jnp.where(found > 0, support.k, 0) if isinstance(support, Drawn) else found
