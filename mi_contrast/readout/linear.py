"""Linear classifiers on frozen features, trained by SGD like the linear probes of the papers."""

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


class LinearModel(NamedTuple):
    """A linear classifier with logits ((x - mean) / scale) weights + bias."""

    weights: Float[Array, "F C"]
    bias: Float[Array, " C"]
    mean: Float[Array, " F"]
    scale: Float[Array, " F"]


@dataclass(frozen=True)
class SGD:
    """How a linear probe is trained.

    The right learning rate depends on the scale of the features: 30 in MoCo is for pooled ResNet-50 features without
    standardisation, .01 in Ring for those of ResNet-18.

    Attributes:
      lr: learning rate, a number or a schedule of progress (core.schedules).
      momentum: of SGD.
      weight_decay: of weights and bias, added to the gradient before momentum, as in the released code of the papers.
      epochs: number of epochs.
      batch_size: number of examples per step.
      standardise: whether to bring features to mean 0 and variance 1 first, by the statistics of the training features.
    """

    lr: schedules.Schedule = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    epochs: int = 100
    batch_size: int = 256
    standardise: bool = True

    def __post_init__(self):
        """Raises UserError if a value is out of range."""
        schedules.check(self.lr, "lr")
        for name, minimum in (("epochs", 1), ("batch_size", 1), ("momentum", 0), ("weight_decay", 0)):
            if not getattr(self, name) >= minimum:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {minimum} or more")


def statistics(features: Float[Array, "N F"], standardise: bool) -> tuple[Float[Array, " F"], Float[Array, " F"]]:
    """Returns mean and standard deviation of each feature, float32 [F]; the deviation of constant features is 1.

    If not `standardise`, all means are 0 and all deviations 1.
    """
    if not standardise:
        return jnp.zeros(features.shape[1], jnp.float32), jnp.ones(features.shape[1], jnp.float32)
    mean, spread = jnp.mean(features, axis=0), jnp.std(features, axis=0)
    return mean, jnp.where(spread > 1e-6 * (1.0 + jnp.abs(mean)), spread, 1.0)


@jax.jit
def scores(model: LinearModel, features: Float[Arrays, "N F"]) -> Float[Array, "N C"]:
    """Returns the logits, float32 [N, C]."""
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
) -> LinearModel:
    """Returns the classifier after the last epoch of SGD; see `fit_each`."""
    return select_model(fit_each(features, labels, key, settings, (1.0,), classes=classes, watch=watch), 0)


def select_model(models: LinearModel, index: int) -> LinearModel:
    """Returns one of the classifiers of `fit_each`."""
    return LinearModel(models.weights[index], models.bias[index], models.mean, models.scale)


@jax.jit
def scores_each(models: LinearModel, features: Float[Arrays, "N F"]) -> Float[Array, "R N C"]:
    """Returns the logits of all classifiers of `fit_each`, float32 [R, N, C]."""
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
) -> LinearModel:
    """Returns classifiers for several learning rates, each after the last epoch of SGD on the mean cross-entropy.

    The learning rates are that of `settings` times each factor. All classifiers are trained together, from the same
    initial weights and on the same batches, with one matrix product per batch; they do not influence each other.

    v <- momentum v + gradient + weight_decay w;  w <- w - lr v. Weights start as normal(0, .01), biases as 0.
    Each epoch is a new permutation of all N examples. The last batch may be smaller; its loss is the mean over its
    examples.

    Args:
      features: frozen features, float [N, F].
      labels: int [N] in [0, classes).
      key: random key for initial weights and permutations. Equal arguments give bit-equal results.
      settings: how to train.
      factors: R numbers > 0 that multiply the learning rate.
      classes: number of classes.
      watch: wraps the loop over epochs, for a progress display.
    Returns:
      LinearModel, float32, with weights [R, F, C] and bias [R, C]. They are not finite if the learning rate was too
      large; the caller must check.
    Raises:
      UserError: no factor, or a factor that is not above 0.
    Source: He et al. 2020 (MoCo), linear classification protocol; Wu et al. 2021 (Ring), transfer settings. Both train
    on augmented images; here the features are computed once.
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
    return LinearModel(*parameters, mean, scale)


def _optimiser(momentum, weight_decay):
    """Returns torch's SGD without the learning rate, which multiplies the update after momentum."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(decay=momentum))


@partial(jax.jit, static_argnames="batch_size")
def _epoch(parameters, state, features, labels, key, rates, momentum, weight_decay, *, batch_size):
    """Trains all classifiers for one epoch. Parameters, state and rates have a leading axis of classifiers."""
    count, padded_count = len(features), rates.shape[1] * batch_size
    optimiser = _optimiser(momentum, weight_decay)

    def compute_loss(parameters, rows, is_example):
        weights, bias = parameters
        logits = jnp.matmul(features[rows], weights, precision="highest") + bias
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
        return jnp.sum(losses * is_example) / jnp.sum(is_example)

    def train_step(carry, batch):
        rows, is_example, rates = batch
        return jax.vmap(partial(update, rows=rows, is_example=is_example))(carry, rates), None

    def update(carry, rate, *, rows, is_example):
        parameters, state = carry
        gradient = jax.grad(compute_loss)(parameters, rows, is_example)
        updates, state = optimiser.update(gradient, state, parameters)
        return jax.tree.map(lambda p, u: p - rate * u, parameters, updates), state

    rows = jnp.pad(jax.random.permutation(key, count), (0, padded_count - count)).reshape(-1, batch_size)
    is_example = (jnp.arange(padded_count) < count).astype(jnp.float32).reshape(-1, batch_size)
    return jax.lax.scan(train_step, (parameters, state), (rows, is_example, rates.T))[0]
