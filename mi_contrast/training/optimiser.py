"""Optimisers from a config: optax's, with masks and a learning rate that follows progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError, unknown

FIELDS = ("kind", "lr", "warmup", "momentum", "weight_decay", "decay_all", "clip", "patience", "microbatches")


def learning_rate(optim: Mapping[str, Any], total_steps: int) -> optax.Schedule:
    """Step -> lr(step / total_steps), times (step + 1) / warmup during the first `warmup` steps."""
    warmup = optim["warmup"]

    def at(step: jax.Array) -> jax.Array:
        rate = schedules.value(optim["lr"], step / total_steps)
        return rate * jax.numpy.minimum(1.0, (step + 1) / warmup) if warmup else rate

    return at


def decayed(params: Any) -> Any:
    """True for the weights that a mask lets decay: matrices and kernels, not biases nor normalisation (ndim <= 1)."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def build(optim: Mapping[str, Any], total_steps: int) -> optax.GradientTransformation:
    """The optimiser of `config.optim`.

    sgd: g + weight_decay p, momentum buffer, times -lr, as torch's SGD, which the released MoCo uses, with decay on
    every parameter where `decay_all`. lars: optax's, biases and normalisation neither decayed nor adapted unless
    `decay_all`. adamw: optax's, decoupled decay. `clip` bounds the gradient's global norm.
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
    return optax.chain(optax.clip_by_global_norm(optim["clip"]), chain) if optim["clip"] else chain
