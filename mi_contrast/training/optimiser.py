"""Optimisers from a config: optax's, with masks and a learning rate that follows progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.models.vit import POSITIONS, TOKEN

FIELDS = ("kind", "lr", "warmup", "momentum", "weight_decay", "decay_all", "clip", "patience", "microbatches")
Learns = Callable[[Any], Any]  # parameters to a tree of their shape, whether each may move


def learning_rate(optim: Mapping[str, Any], total_steps: int) -> optax.Schedule:
    """Step -> lr(step / total_steps), times (step + 1) / warmup during the first `warmup` steps."""
    warmup = optim["warmup"]

    def at(step: jax.Array) -> jax.Array:
        rate = schedules.value(optim["lr"], step / total_steps)
        return rate * jax.numpy.minimum(1.0, (step + 1) / warmup) if warmup else rate

    return at


def decayed(params: Any) -> Any:
    """True for the weights that a mask lets decay: matrices and kernels, not biases nor normalisation (ndim <= 1), nor
    the class token and the positions of a transformer.
    """
    spared = (TOKEN, POSITIONS)
    return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim > 1 and path[-1].key not in spared, params)


def held(learns: Learns) -> optax.GradientTransformation:
    """No update of parameters that don't learn, whatever came before: neither of a gradient nor of decay."""

    def hold(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(lambda u, moves: u if moves else jax.numpy.zeros_like(u), updates, learns(updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), hold)


def build(optim: Mapping[str, Any], total_steps: int, learns: Learns | None = None) -> optax.GradientTransformation:
    """The optimiser of `config.optim`.

    sgd: g + weight_decay p, momentum buffer, times -lr, as torch's SGD, which the released MoCo uses, with decay on
    every parameter where `decay_all`. lars: optax's, biases and normalisation neither decayed nor adapted unless
    `decay_all`. adamw: optax's, decoupled decay. `clip` bounds the gradient's global norm. `learns` tells which
    parameters move (see `Tower.learns`); all, where it is None.
    Raises UserError on an unknown kind or field, or a number out of range.
    """
    for name in optim:
        if name not in FIELDS:
            raise unknown("field of config.optim", name, FIELDS)
    schedules.check(optim["lr"], "config.optim.lr")
    if schedules.pace(optim["lr"]):
        raise UserError("config.optim.lr is adaptive", fix="take a schedule of progress, such as cosine(.03, 0.)")
    if min(schedules.points(optim["lr"])) < 0:
        raise UserError("config.optim.lr is below 0", fix="give rates of 0 or more")
    if not 0 <= optim["momentum"] < 1:
        raise UserError(f"config.optim.momentum is {optim['momentum']}", fix="give a number in [0, 1)")
    for name in ("weight_decay", "warmup"):
        if optim[name] < 0:
            raise UserError(f"config.optim.{name} is {optim[name]}", fix="give 0 or more")
    if optim["clip"] is not None and not optim["clip"] > 0:
        raise UserError(f"config.optim.clip is {optim['clip']}", fix="give a norm above 0, or None")
    rate, decay, momentum = learning_rate(optim, total_steps), optim["weight_decay"], optim["momentum"]
    mask = None if optim["decay_all"] else decayed
    if optim["kind"] == "sgd":
        chain = optax.chain(
            optax.add_decayed_weights(decay, mask), optax.trace(momentum), optax.scale_by_learning_rate(rate)
        )
    elif optim["kind"] == "lars":
        adapted = True if optim["decay_all"] else decayed
        chain = optax.lars(rate, decay, mask or True, trust_ratio_mask=adapted, momentum=momentum)
    elif optim["kind"] == "adamw":
        chain = optax.adamw(rate, weight_decay=decay, mask=mask)
    else:
        raise unknown("config.optim.kind", optim["kind"], ("sgd", "lars", "adamw"))
    if optim["clip"]:
        chain = optax.chain(optax.clip_by_global_norm(optim["clip"]), chain)
    return chain if learns is None else optax.chain(chain, held(learns))
