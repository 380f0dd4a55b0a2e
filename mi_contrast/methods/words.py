"""The words of a term: its support and its form, plain data that is checked once and read at every step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.checks import check_flag, check_schedule, check_whole, check_word
from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError
from mi_contrast.core.schedules import Progress, Schedule

SUPPORTS: Mapping[str, tuple[str, ...]] = {  # kinds and their fields
    "all": (),
    "ball": ("lower",),
    "ring": ("lower", "upper"),
    "cave": ("lower", "upper"),
    "nearest": ("k",),
    "close": ("by", "of"),
    "drawn": ("k", "of"),
}
LABELS = ("label", "clusters")  # what close candidates share with the anchor
FORMS: Mapping[str, Mapping[str, Any]] = {  # kinds, their fields and defaults
    "softmax": {"reduce": "logsumexp"},
    "decoupled": {},
    "hard": {"beta": 1.0, "prior": 0.0, "clamp": True},
    "binary": {"momentum": 1.0},
}
BANDS = {"all": mi.All, "ball": mi.Ball, "ring": mi.Ring, "cave": mi.Cave}


def check_support(path: str, support: Any) -> Mapping[str, Any]:
    """Returns the support. Raises UserError on a wrong kind or field, or a band that closes at any time."""
    kind = support.get("kind") if isinstance(support, Mapping) else None
    names = SUPPORTS[check_word(f"kind of {path}", kind, SUPPORTS)]
    check_section(path, support, ("kind", *names))
    if "of" in names:
        inner = check_support(f"{path}.of", support["of"])
        if inner["kind"] in ("cave", "close", "drawn"):
            fix = "take all, ball, ring or nearest"
            raise UserError(f"{path}: the inner support of {kind} can't be {inner['kind']}", fix=fix)
    if "by" in names:
        check_word(f"label in {path}.by", support["by"], LABELS)
    if "k" in names:
        check_whole(f"{path}.k", support["k"])
    percentiles = [name for name in ("lower", "upper") if name in names]
    for name in percentiles:
        check_schedule(f"{path}.{name}", support[name], 0.0, 1.0)
    if percentiles:
        _check_open(path, support.get("lower", 0.0), support.get("upper", 1.0))
    return support


def _check_open(path: str, lower: Schedule, upper: Schedule) -> None:
    """Raises UserError where lower >= upper at any time of the run; both may be schedules."""
    fix = "percentiles run from least (0) to most similar (1); give lower < upper"
    if schedules.pace(lower) or schedules.pace(upper):
        lows, highs = schedules.extreme_values(lower), schedules.extreme_values(upper)
        if schedules.pace(lower) != schedules.pace(upper):  # either may be anywhere while the other moves
            lows, highs = (max(lows),), (min(highs),)
        for low, high in zip(lows, highs, strict=True):
            if not low < high:
                raise UserError(f"{path} may come to lower {low:.4g} >= upper {high:.4g}", fix=fix)
        return
    times = np.linspace(0.0, 1.0, 257)
    ends = [np.asarray(jax.vmap(partial(schedules.value, end))(jnp.asarray(times))) for end in (lower, upper)]
    for t, low, high in zip(times, *ends, strict=True):
        if not low < high:
            raise UserError(f"{path} has lower {low:.4g} >= upper {high:.4g} at progress {t:.3g}", fix=fix)


def check_form(path: str, form: Any, support: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the form as a dict with all its fields. Raises UserError where it is wrong, or does not fit the support.

    Args:
      form: a kind, or a dict of a kind and its fields; fields that are left out take their defaults.
    """
    form = {"kind": form} if isinstance(form, str) else form
    kind = form.get("kind") if isinstance(form, Mapping) else form
    defaults = FORMS[check_word(f"form in {path}", kind, FORMS)]
    check_section(path, form, ("kind",), defaults)
    form = {"kind": kind, **defaults, **{name: value for name, value in form.items() if name != "kind"}}
    if kind != "softmax" and support["kind"] in ("cave", "close"):
        fix = "take softmax, or another support"
        raise UserError(f"{path}: {kind} scores one positive, {support['kind']} has several", fix=fix)
    if "reduce" in defaults:
        check_word(f"reduce in {path}", form["reduce"], ("logsumexp", "mean"))
    if "beta" in defaults:
        check_schedule(f"{path}.beta", form["beta"], 0.0)
        check_schedule(f"{path}.prior", form["prior"], 0.0, 0.999)
        check_flag(f"{path}.clamp", form["clamp"], "give True (as released) or False")
    if "momentum" in defaults:
        check_schedule(f"{path}.momentum", form["momentum"], 0.0, 1.0)
    return form


def read_percentiles(support: Mapping[str, Any], t: Progress) -> dict[str, Float[Array, ""]]:
    """Returns the percentiles of a support, or of the support it is taken from, at progress t, by name."""
    if "of" in support:
        return read_percentiles(support["of"], t)
    return {name: schedules.value(support[name], t) for name in ("lower", "upper") if name in support}


def make_support(support: Mapping[str, Any], t: Progress) -> Any:
    """Returns the estimators' support at progress t, its percentiles traced float32."""
    match support["kind"]:
        case "nearest":
            return mi.Nearest(support["k"])
        case "close":
            return mi.Close(make_support(support["of"], t))
        case "drawn":
            return mi.Drawn(support["k"], make_support(support["of"], t))
        case kind:
            return BANDS[kind](**read_percentiles(support, t))


def make_form(
    form: Mapping[str, Any],
    t: Progress,
    temperature: Float[Array, ""],
    log_normaliser: Float[Array, ""] | float = 0.0,
    data_size: Float[Array, ""] | float = 1.0,
) -> Any:
    """Returns the estimators' form at progress t.

    Args:
      temperature: with it `hard` clamps as the released code does, at floor = -1 / temperature.
      log_normaliser, data_size: log Z and N of `binary`.
    """
    match form["kind"]:
        case "softmax":
            return mi.Softmax(form["reduce"])
        case "decoupled":
            return mi.Decoupled()
        case "hard":
            beta, prior = schedules.value(form["beta"], t), schedules.value(form["prior"], t)
            return mi.Hard(beta, prior, -1.0 / temperature if form["clamp"] else None)
        case _:
            return mi.Binary(jnp.asarray(log_normaliser, jnp.float32), jnp.asarray(data_size, jnp.float32))
