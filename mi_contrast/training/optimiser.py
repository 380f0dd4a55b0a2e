"""Optimisers of optax as a config describes them. Their `update` takes the learning rate of the step as an argument.

The learning rate is a function of `state.step`. An optimiser with a count of its own would fall behind whenever a step
is skipped, because a skipped step restores the optimiser's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Progress
from mi_contrast.models.vit import POSITIONS, TOKEN

FIELDS = (
    "kind", "lr", "warmup", "decay_after_warmup", "momentum", "weight_decay", "decay_all", "clip", "patience",
    "microbatches",
)  # fmt: skip
# From parameters to a tree of the same structure: whether each of them learns.
Learns = Callable[[optax.Params], optax.Params]
TRUST = 0.001  # LARS's trust coefficient, optax's default
Rate = Callable[[Int[Array, ""]], Float[Array, ""]]


def learning_rate(optim: Mapping[str, Any], total_steps: int) -> Rate:
    """Returns the learning rate as a function of the step, int32, possibly traced.

    During the first `warmup` steps it rises linearly, lr(0) (step + 1) / warmup. With `decay_after_warmup` a linear,
    cosine or exponential decay runs over the steps after that, lr((step - warmup) / (total_steps - warmup)), as in the
    released trainers. The boundaries of a step schedule stay shares of the whole run. Without `decay_after_warmup`, as
    in 0.1.0, the decay runs over the whole run and warm-up multiplies it.
    """
    warmup, lr = optim["warmup"], optim["lr"]
    decays = isinstance(lr, Mapping) and lr["kind"] in schedules.KINDS_WITH_DECAY
    after = warmup if decays and optim["decay_after_warmup"] else 0

    def rate_at(step: Int[Array, ""]) -> Float[Array, ""]:
        moved = jnp.maximum(step - after, 0)
        rate = schedules.value(lr, Progress(moved, max(total_steps - after, 1)))
        return rate * jnp.minimum(1.0, (step + 1) / warmup) if warmup else rate

    return rate_at


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    """Returns a transformation that scales updates by -learning_rate, an extra argument of its `update`."""

    def scale(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        learning_rate: Array,
        **_: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), scale)


def mask_decay(params: optax.Params) -> optax.Params:
    """Returns which parameters decay: matrices and kernels.

    Biases and normalisation (ndim <= 1) do not, nor do the class token and the positions of a transformer.
    """
    exempt = (TOKEN, POSITIONS)
    return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim > 1 and path[-1].key not in exempt, params)


def freeze(learns: Learns) -> optax.GradientTransformation:
    """Returns a transformation that zeroes the updates of parameters that do not learn, those from decay as well."""

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return jax.tree.map(lambda u, moves: u if moves else jnp.zeros_like(u), updates, learns(updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def build(optim: Mapping[str, Any], learns: Learns | None = None) -> optax.GradientTransformationExtraArgs:
    """Returns the optimiser of `config.optim`, whose `update` takes the step's `learning_rate`.

    sgd is torch's, which the released MoCo uses: g + weight_decay p, then a momentum buffer, then times -lr. lars is
    optax's, as in SimCLR. adamw is optax's, with decoupled decay. `clip` bounds the gradient's global norm.

    Args:
      optim: the section. `decay_all` says which parameters decay and, under LARS, are adapted: all of them (True), or
        those of `mask_decay` (False). None stands for the choice of the optimiser's source: all under sgd and adamw,
        those of `mask_decay` under lars.
      learns: which parameters learn (see `Tower.trainable_mask`); None stands for all.
    Raises:
      UserError: an unknown kind or field, or a number out of range.
    """
    for name in optim:
        if name not in FIELDS:
            raise unknown("field of config.optim", name, FIELDS)
    if optim["decay_all"] not in (True, False, None):
        raise UserError(f"config.optim.decay_all is {optim['decay_all']!r}", fix="give True, False or None")
    schedules.check(optim["lr"], "config.optim.lr")
    if schedules.pace(optim["lr"]):
        raise UserError("config.optim.lr is adaptive", fix="take a schedule of progress, such as cosine(.03, 0.)")
    if min(schedules.extreme_values(optim["lr"])) < 0:
        raise UserError("config.optim.lr is below 0", fix="give rates of 0 or more")
    if not 0 <= optim["momentum"] < 1:
        raise UserError(f"config.optim.momentum is {optim['momentum']}", fix="give a number in [0, 1)")
    for name in ("weight_decay", "warmup"):
        if optim[name] < 0:
            raise UserError(f"config.optim.{name} is {optim[name]}", fix="give 0 or more")
    if optim["clip"] is not None and not optim["clip"] > 0:
        raise UserError(f"config.optim.clip is {optim['clip']}", fix="give a norm above 0, or None")
    kind, momentum = optim["kind"], optim["momentum"]
    decay_all = kind != "lars" if optim["decay_all"] is None else optim["decay_all"]
    decay = optax.add_decayed_weights(optim["weight_decay"], None if decay_all else mask_decay)
    if kind == "sgd":
        chain = optax.chain(decay, optax.trace(momentum), scale_by_given_rate())
    elif kind == "lars":
        adapt = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=TRUST), True if decay_all else mask_decay)
        chain = optax.chain(decay, adapt, scale_by_given_rate(), optax.trace(momentum))
    elif kind == "adamw":
        chain = optax.chain(optax.scale_by_adam(), decay, scale_by_given_rate())
    else:
        raise unknown("config.optim.kind", kind, ("sgd", "lars", "adamw"))
    if optim["clip"]:
        chain = optax.chain(optax.clip_by_global_norm(optim["clip"]), chain)
    return optax.with_extra_args_support(chain if learns is None else optax.chain(chain, freeze(learns)))
