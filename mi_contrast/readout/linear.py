"""A linear classifier on frozen features, fitted by stochastic gradient descent as the papers' linear probes are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError
from mi_contrast.core.rngs import stream_rng
from mi_contrast.readout.accuracy import Arrays


class Linear(NamedTuple):
    """A classifier on standardised features: scores = ((x - mean) / scale) weights + bias."""

    weights: Float[Array, "F C"]
    bias: Float[Array, " C"]
    mean: Float[Array, " F"]
    scale: Float[Array, " F"]


@dataclass(frozen=True)
class SGD:
    """How a linear probe is trained.

    lr: a number or a schedule of progress (core.schedules); momentum, weight_decay (on weights and bias, inside the
    momentum, as in the released codes); epochs; batch_size; standardise: whether features are brought to mean 0 and
    variance 1 by the training features' own statistics first. A learning rate belongs to a scale of features: MoCo's
    30 to pooled ResNet-50 features as they come, Ring's .01 to ResNet-18's.
    """

    lr: schedules.Schedule = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    epochs: int = 100
    batch_size: int = 256
    standardise: bool = True

    def __post_init__(self):
        """Raises UserError on a value that can't be."""
        schedules.check(self.lr, "lr")
        for name, least in (("epochs", 1), ("batch_size", 1), ("momentum", 0), ("weight_decay", 0)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")


def statistics(features: Float[Array, "N F"], standardise: bool) -> tuple[Float[Array, " F"], Float[Array, " F"]]:
    """Mean and standard deviation of each feature, float32 [F]; 0 and 1 where not standardised; 1 for constant ones."""
    if not standardise:
        return jnp.zeros(features.shape[1], jnp.float32), jnp.ones(features.shape[1], jnp.float32)
    mean, spread = jnp.mean(features, axis=0), jnp.std(features, axis=0)
    return mean, jnp.where(spread > 1e-6 * (1.0 + jnp.abs(mean)), spread, 1.0)


@jax.jit
def scores(model: Linear, features: Float[Arrays, "N F"]) -> Float[Array, "N C"]:
    """Logits, float32 [N, C]."""
    standardised = (jnp.asarray(features, jnp.float32) - model.mean) / model.scale
    return jnp.matmul(standardised, model.weights, precision="highest") + model.bias


def fit(
    features: Float[Arrays, "N F"],
    labels: Int[Arrays, " N"],
    key: Key[Array, ""],
    settings: SGD,
    *,
    classes: int,
    watch: Callable[[range], Iterable[int]] | None = None,
) -> Linear:
    """The classifier after the last epoch of SGD, as `fit_each` with the learning rate as it stands."""
    return one_of(fit_each(features, labels, key, settings, (1.0,), classes=classes, watch=watch), 0)


def one_of(models: Linear, index: int) -> Linear:
    """One of the classifiers that `fit_each` fitted side by side."""
    return Linear(models.weights[index], models.bias[index], models.mean, models.scale)


@jax.jit
def scores_each(models: Linear, features: Float[Arrays, "N F"]) -> Float[Array, "R N C"]:
    """Logits of each of the classifiers that `fit_each` fitted, float32 [R, N, C]."""
    standardised = (jnp.asarray(features, jnp.float32) - models.mean) / models.scale
    return jnp.einsum("nf,rfc->rnc", standardised, models.weights, precision="highest") + models.bias[:, None]


def fit_each(
    features: Float[Arrays, "N F"],
    labels: Int[Arrays, " N"],
    key: Key[Array, ""],
    settings: SGD,
    factors: Sequence[float],
    *,
    classes: int,
    watch: Callable[[range], Iterable[int]] | None = None,
) -> Linear:
    """Classifiers after the last epoch (not the best one) of SGD on mean cross-entropy, one a learning rate.

    All are fitted in one run, by one matrix product a batch: the rates are those of `settings` times each of the
    factors. They start from the same weights and see the same batches; none depends on the others.

    v <- momentum v + gradient + weight_decay w;  w <- w - lr v. Weights start as normal(0, .01), the bias as 0.
    Each epoch is a new permutation of all N examples; a last smaller batch counts with its own mean.

    Args:
      features: float [N, F], frozen; labels: int [N] in [0, classes).
      factors: R numbers above 0, of the learning rate.
      key: decides the first weights and the permutations; equal arguments give equal bits.
      watch: wraps the loop over epochs, to show how it goes.

    Returns:
      Linear, float32, weights [R, F, C] and bias [R, C]; not finite where a learning rate was too large for the
      features, which the caller checks.
    Raises UserError on no factor, or one that is not above 0.
    Source: He et al. 2020 (MoCo), linear classification protocol; Wu et al. 2021 (Ring), transfer settings. Both train
      on augmented images, this one on features taken once.
    """
    if not factors or min(factors) <= 0:
        raise UserError(f"factors of the learning rate are {tuple(factors)}", fix="give some, all above 0")
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32)
    mean, scale = statistics(features, settings.standardise)
    standardised = (features - mean) / scale
    weights = 0.01 * jax.random.normal(stream_rng(key, "init"), (features.shape[1], classes), jnp.float32)
    weights = jnp.broadcast_to(weights, (len(factors), *weights.shape))
    parameters = (weights, jnp.zeros((len(factors), classes), jnp.float32))
    state = _optimiser(settings.momentum, settings.weight_decay).init(parameters)
    steps = -(-len(features) // settings.batch_size)
    for epoch in range(settings.epochs) if watch is None else watch(range(settings.epochs)):
        progress = schedules.Progress(epoch * steps + jnp.arange(steps), settings.epochs * steps)
        parameters, state = _epoch(
            parameters,
            state,
            standardised,
            labels,
            jax.random.fold_in(stream_rng(key, "permutation"), epoch),
            jnp.outer(jnp.asarray(factors), jax.vmap(partial(schedules.value, settings.lr))(progress)),
            settings.momentum,
            settings.weight_decay,
            batch_size=settings.batch_size,
        )
        if watch is not None:
            jax.block_until_ready(parameters)
    return Linear(*parameters, mean, scale)


def _optimiser(momentum, weight_decay):
    """Everything of the update but the rate, which is torch's SGD: the rate stands outside the momentum."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(decay=momentum))


@partial(jax.jit, static_argnames="batch_size")
def _epoch(parameters, state, features, labels, key, rates, momentum, weight_decay, *, batch_size):
    """An epoch of every classifier; parameters, state and rates have a leading axis of classifiers, the rest none."""
    count, padded = len(features), rates.shape[1] * batch_size
    optimiser = _optimiser(momentum, weight_decay)

    def loss(parameters, rows, real):
        weights, bias = parameters
        logits = jnp.matmul(features[rows], weights, precision="highest") + bias
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        return jnp.sum(each * real) / jnp.sum(real)

    def step(carry, batch):
        rows, real, rates = batch
        return jax.vmap(partial(move, rows=rows, real=real))(carry, rates), None

    def move(carry, rate, *, rows, real):
        parameters, state = carry
        gradient = jax.grad(loss)(parameters, rows, real)
        updates, state = optimiser.update(gradient, state, parameters)
        return jax.tree.map(lambda p, u: p - rate * u, parameters, updates), state

    rows = jnp.pad(jax.random.permutation(key, count), (0, padded - count)).reshape(-1, batch_size)
    real = (jnp.arange(padded) < count).astype(jnp.float32).reshape(-1, batch_size)
    return jax.lax.scan(step, (parameters, state), (rows, real, rates.T))[0]
