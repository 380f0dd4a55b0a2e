"""Optimisers from a config: optax's, with masks, and a learning rate that the step hands them.

The learning rate is a function of `state.step`. An optimiser that counted for itself would fall behind where a step is
skipped, since a skipped step puts the optimiser's state back.
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
Learns = Callable[[optax.Params], optax.Params]  # parameters to a tree of their shape, whether each may move
TRUST = 0.001  # of LARS, optax's
Rate = Callable[[Int[Array, ""]], Float[Array, ""]]


def learning_rate(optim: Mapping[str, Any], total_steps: int) -> Rate:
    """Returns the learning rate as a function of the step, int32, possibly traced.

    Over the first `warmup` steps it is lr(0) (step + 1) / warmup. With `decay_after_warmup` a linear, cosine or
    exponential decay runs over the steps that follow, lr((step - warmup) / (total_steps - warmup)), as the released
    trainers have it; a step schedule keeps its boundaries in shares of the whole run. Without it, which is 0.1.0's way,
    the decay runs over the whole run and warm-up multiplies it.
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
    """Scales updates by -learning_rate, the number that `update` is given under that name."""

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


def decayed(params: optax.Params) -> optax.Params:
    """True for the weights that a mask lets decay: matrices and kernels, not biases nor normalisation (ndim <= 1), nor
    the class token and the positions of a transformer.
    """
    spared = (TOKEN, POSITIONS)
    return jax.tree_util.tree_map_with_path(lambda path, p: p.ndim > 1 and path[-1].key not in spared, params)


def held(learns: Learns) -> optax.GradientTransformation:
    """No update of parameters that don't learn, whatever came before: neither of a gradient nor of decay."""

    def hold(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return jax.tree.map(lambda u, moves: u if moves else jax.numpy.zeros_like(u), updates, learns(updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), hold)


def build(optim: Mapping[str, Any], learns: Learns | None = None) -> optax.GradientTransformationExtraArgs:
    """Returns the optimiser of `config.optim`, whose `update` takes the step's `learning_rate`.

    sgd: g + weight_decay p, momentum buffer, times -lr, as torch's SGD, which the released MoCo uses. lars: optax's,
    as SimCLR trains. adamw: optax's, decoupled decay. `clip` bounds the gradient's global norm.

    Args:
      optim: the section. `decay_all` says which parameters decay, and under LARS are adapted: all of them (True), all
        but biases, normalisation, class token and positions (False), or as the optimiser's source has it (None): all
        under sgd and adamw, the latter under lars.
      learns: which parameters move (see `Tower.trainable_mask`); all, where it is None.
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
    decay = optax.add_decayed_weights(optim["weight_decay"], None if decay_all else decayed)
    if kind == "sgd":
        chain = optax.chain(decay, optax.trace(momentum), scale_by_given_rate())
    elif kind == "lars":
        adapt = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=TRUST), True if decay_all else decayed)
        chain = optax.chain(decay, adapt, scale_by_given_rate(), optax.trace(momentum))
    elif kind == "adamw":
        chain = optax.chain(optax.scale_by_adam(), decay, scale_by_given_rate())
    else:
        raise unknown("config.optim.kind", kind, ("sgd", "lars", "adamw"))
    if optim["clip"]:
        chain = optax.chain(optax.clip_by_global_norm(optim["clip"]), chain)
    return optax.with_extra_args_support(chain if learns is None else optax.chain(chain, held(learns)))
