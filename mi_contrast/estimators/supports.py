"""Supports (which candidates an anchor meets) and forms (how it is scored): frozen values, pytrees of their fields."""

from __future__ import annotations

import dataclasses

import jax

from mi_contrast.core.errors import unknown
from mi_contrast.estimators.percentiles import Percentile, check_band


def _pytree(cls: type) -> type:
    names = [field.name for field in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(cls, data_fields=names, meta_fields=[])


@_pytree
@dataclasses.dataclass(frozen=True)
class All:
    """Every valid candidate: InfoNCE."""


@_pytree
@dataclasses.dataclass(frozen=True)
class Ball:
    """Candidates from percentile `lower` up: the closest (1 - lower). Float or traced, one for all or [B]."""

    lower: Percentile


@_pytree
@dataclasses.dataclass(frozen=True)
class Ring:
    """Candidates in the percentile band [lower, upper), 0 = least similar. Floats or traced, one for all or [B]."""

    lower: Percentile
    upper: Percentile


@_pytree
@dataclasses.dataclass(frozen=True)
class Softmax:
    """The positive among the candidates, equal weights within the support: the form of InfoNCE."""


Support = All | Ball | Ring
SOFTMAX = Softmax()


def edges(support: Support) -> tuple[Percentile, Percentile] | None:
    """The support's percentile band (lower, upper), or None where it is the whole pool.

    Raises:
      UserError: no support, or concrete percentiles that are outside [0, 1] or hold nothing.
    """
    band: tuple[Percentile, Percentile]
    match support:
        case All():
            return None
        case Ball(lower):
            band = lower, 1.0
        case Ring(lower, upper):
            band = lower, upper
        case _:
            raise unknown("support", support, ("All()", "Ball(lower)", "Ring(lower, upper)"))
    check_band(*band)
    return band
