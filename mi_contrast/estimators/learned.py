"""Mutual information from samples by a trained critic, evaluated on samples that it was not trained on.

All methods share one procedure:

1. Cut the samples into parts. Hold out each part once, and use the others to train and validate a critic. The estimate
   is the mean over parts of the bound on the held-out samples (cross-fitting).
2. A critic starts as the log-ratio of Gaussians, in closed form from canonical correlations. Its coordinates are either
   standardised or normal scores, with or without the radius, whichever has the best validation score.
3. A small network is added to it and trained by the gradient of the method. The parameters are averaged over steps, and
   the average with the best validation score is returned. The initial parameters are one of the candidates, so if
   training does not help, the critic stays Gaussian.
4. Held-out scores are clipped to the highest score of a joint pair in the validation set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, ArrayLike, Float

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.estimators.critic_inputs import CriticInputs, make_inputs
from mi_contrast.estimators.critics import CRITICS, gaussian, init_network, score
from mi_contrast.estimators.intervals import CrossFit, combine_parts, estimate_with_interval
from mi_contrast.estimators.matrices import donsker_varadhan, matrix_info_nce, nwj
from mi_contrast.estimators.result import Estimate
from mi_contrast.estimators.samples import as_columns, centre_and_scale
from mi_contrast.estimators.surrogates import Partition, jensen_shannon, mine, smile

VALIDATION = 0.2  # share of the training samples that is used for validation
STEPS_PER_CHECK, PATIENCE = 25, 4  # steps between validations; validations without improvement before training stops
AVERAGE = 0.96  # decay of the moving average of the parameters
WEIGHT_DECAY = 0.3  # of AdamW, which multiplies it by the learning rate
MIN_PART_SIZE = 20  # minimum number of samples in a part


class TrainedBound(NamedTuple):
    """A bound and how a critic is trained for it. All functions take the square matrix of a critic's scores.

    Attributes:
      train: value whose gradient is ascended, given also the `Partition` of `mine`; returns the next partition too.
      bound: value on the held-out samples.
      log_weights: log of the weight of each crossed pair in the gradient of the bound; None for InfoNCE.
      validate: a lower bound that ranks critics on the validation samples.
      shift: difference between the optimum critic and log p(x, y) / (p(x) p(y)).
    """

    train: Callable[[Array, Partition], tuple[Array, Partition]]
    bound: Callable[[Array], Array]
    log_weights: Callable[[Array], Array] | None
    validate: Callable[[Array], Array]
    shift: float = 0.0


def _subtract_log_mean(scores: Array) -> Array:
    """Returns F - log mean_{i != j} e^{F_ij}."""
    return scores - (jnp.mean(jnp.diagonal(scores)) - donsker_varadhan(scores))


def _methods(clip: float) -> dict[str, TrainedBound]:
    without_state = lambda bound: lambda scores, partition: (bound(scores), partition)  # noqa: E731
    clipped_log_weights = lambda scores: _subtract_log_mean(jnp.clip(scores, -clip, clip))  # noqa: E731
    clipped_smile = functools.partial(smile, clip=clip)
    return {
        "info_nce": TrainedBound(without_state(matrix_info_nce), matrix_info_nce, None, matrix_info_nce),
        "nwj": TrainedBound(without_state(nwj), nwj, lambda scores: scores - 1.0, nwj, shift=1.0),
        "donsker_varadhan": TrainedBound(
            without_state(donsker_varadhan), donsker_varadhan, _subtract_log_mean, donsker_varadhan
        ),
        "mine": TrainedBound(mine, donsker_varadhan, _subtract_log_mean, donsker_varadhan),
        "jensen_shannon": TrainedBound(
            without_state(jensen_shannon), jensen_shannon, lambda scores: scores, jensen_shannon
        ),
        "smile": TrainedBound(without_state(clipped_smile), clipped_smile, clipped_log_weights, jensen_shannon),
    }


METHODS = tuple(_methods(5.0))


def estimate(
    x: Float[ArrayLike, "N dx"],
    y: Float[ArrayLike, "N dy"],
    method: str = "info_nce",
    *,
    key: Array,
    critic: str = "separable",
    parts: int = 3,
    steps: int = 1000,
    batch: int = 256,
    learning_rate: float = 3e-3,
    clip: float = 5.0,
    corrected: bool = True,
) -> Estimate:
    """Returns the mutual information of x and y by a trained critic, evaluated on held-out samples.

    nats = mean over parts p of bound(f_p(x_i, y_j); i, j in part p), with f_p trained on the other parts,
    f = log-ratio of Gaussian canonical pairs + network (`critics`), and the bound of `method`:

      info_nce           mean_i F_ii - log mean_j e^{F_ij}; ceiling log of the size of a part
      nwj                mean_i F_ii - mean_{i != j} e^{F_ij - 1}
      donsker_varadhan   mean_i F_ii - log mean_{i != j} e^{F_ij}
      mine               the same, trained with an average of the partition function over batches
      jensen_shannon     nwj of F + 1, trained on the Jensen-Shannon divergence
      smile              donsker_varadhan with crossed scores clipped to [-clip, clip], trained as jensen_shannon

    The means of info_nce, nwj and jensen_shannon are lower bounds; the others are no bounds. Everything that is fitted
    or chosen (marginal maps, directions, network) comes from the training and validation samples of a part.

    Args:
      x, y: float [N, dx], [N, dy], independent draws in rows; [N] means [N, 1].
      method: one of the six names above.
      key: random key for parts, initial networks and batches. Equal keys give equal results.
      critic: 'separable' (an inner product of two networks) or 'joint' (one network of x and y; slower).
      parts: number of parts, at least 2. Each takes one training.
      steps: maximum number of steps of Adam per part. Training stops after 100 steps without a better validation score.
      batch: pairs per step, which are each other's negatives; at most the number of training samples.
      learning_rate: of Adam.
      clip: of smile.
      corrected: whether to return the Gaussian copula's estimate unless the critic finds more, with an interval that
        is designed to contain the truth. False returns the bound itself, with low and high -+1.645 standard errors.
    Returns:
      Estimate of float32 scalars. Let L be the cross-fitted bound above and s its standard error. s^2 is the variance
      over draws of the held-out samples (to first order, each sample as anchor and as candidate), plus what the bounds
      of the parts differ beyond it, which is the variation between critics (`intervals.combine_parts`). Let g and s_g
      be the nats and error of `gaussian_copula`. Let e^2 = s_d^2 + dx dy / (2 N^2), with s_d the standard error of the
      difference between the critic and the copula's critic on the same samples, and the second term the variance of g
      without dependence.

        L <= max(g, 0) + 2 e    nats = g, error = s_g, [low, high] = g -+ 2.24 s_g
        L >  max(g, 0) + 2 e    nats = L, error = s, [low, high] = [L - 2.24 s, L + 2.24 s + max(L - L_half, 0)]
        a lower limit           nats = L, error = s, [low, high] = [L - 2.24 s, infinity]

      L_half is the mean of L over the two halves of the samples. If the bias of L falls as 1 / N, it equals L - L_half.
      The result is a lower limit if L or g is within half a nat of log of the size of a part, or if dx dy > N / 10:
      held-out samples cannot show then whether the copula is Gaussian. nats can be below 0; low and high are at least
      0. The interval supposes that the copula is Gaussian (first case), or that the critic converges to the truth
      (second case). The estimators' page has its measured coverage. ceiling: log of the size of a part for info_nce,
      otherwise infinite.
    Raises:
      UserError: an unknown method or critic; shapes that do not fit; fewer than 20 samples per part; a value that is
      not finite; a setting out of range.
    Source: van den Oord et al. 2018, Poole et al. 2019, Belghazi et al. 2018, Song and Ermon 2020; Chernozhukov et al.
    2018 for cross-fitting.

    >>> x = jax.random.normal(jax.random.key(0), (120, 1))
    >>> nats, standard_error, ceiling = estimate(x, x**3, key=jax.random.key(1), steps=25, batch=32)
    >>> bool(nats > 1), round(float(ceiling), 3)
    (True, 3.689)
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if critic not in CRITICS:
        raise unknown("critic", critic, CRITICS)
    x, y = _check_samples(x, y, parts)
    for name, value, low in (("steps", steps, 1), ("batch", batch, 2), ("learning_rate", learning_rate, 0)):
        if value < low:
            raise UserError(f"{name} {value} is below {low}", fix="give more")
    if not clip > 0:
        raise UserError(f"clip {clip} is not above 0", fix="give a bound on |f|, such as 5")
    settings = _Settings(method, critic, parts, steps, batch, learning_rate, float(clip))
    numpy_key, key = jax.random.split(key)
    rng = np.random.default_rng(np.asarray(jax.random.bits(numpy_key, (4,))))
    cross_fit = _cross_fit(x, y, rng, key, settings)
    part_size = len(x) // parts
    ceiling = np.log(part_size) if method == "info_nce" else np.inf
    if not corrected:
        return Estimate.from_error(*(jnp.float32(value) for value in (cross_fit.nats, cross_fit.error, ceiling)))

    def refit(indices: np.ndarray, number: int) -> float:
        return _cross_fit(x[indices], y[indices], rng, jax.random.fold_in(key, number), settings).nats

    can_halve = len(x) // 2 >= MIN_PART_SIZE * parts
    return estimate_with_interval(x, y, cross_fit, ceiling, rng, part_size, refit if can_halve else None)


class _Settings(NamedTuple):
    method: str
    critic: str
    parts: int
    steps: int
    batch: int
    learning_rate: float
    clip: float


def _cross_fit(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, key: Array, settings: _Settings) -> CrossFit:
    """Trains a critic without each part, evaluates it on that part, and averages over parts."""
    method, critic, parts, steps, batch, learning_rate, clip = settings
    part_size = len(x) // parts
    held_out = rng.permutation(len(x))[: part_size * parts].reshape(parts, part_size)
    others = np.stack([np.delete(held_out, part, axis=0).reshape(-1) for part in range(parts)])
    num_validation = max(2, int(VALIDATION * others.shape[1]))
    inputs = [make_inputs(x, y, rows[num_validation:], rows[:num_validation]) for rows in others]
    stacked_inputs = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *inputs)
    batches = np.stack([_draw_batches(rng, rows[num_validation:], steps, batch) for rows in others])
    split = _Split(*(jnp.asarray(rows, jnp.int32) for rows in (batches, others[:, :num_validation], held_out)))
    config = _CriticConfig(method, critic, clip)
    results = _train_critics(jax.random.split(key, parts), stacked_inputs, split, jnp.float32(learning_rate), config)
    return combine_parts(*(np.asarray(result, np.float64) for result in results))


def _check_samples(x: ArrayLike, y: ArrayLike, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and y in float64, [N, dx] and [N, dy], centred and scaled."""
    x, y = (np.asarray(as_columns(z, name)) for z, name in ((x, "x"), (y, "y")))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or 0 in (x.shape[1], y.shape[1]):
        raise UserError(f"x {x.shape} and y {y.shape} do not fit", fix="give [N, dx] and [N, dy]")
    if parts < 2:
        raise UserError(f"parts {parts} leaves nothing held out", fix="give at least 2")
    if len(x) < MIN_PART_SIZE * parts:
        raise UserError(f"{len(x)} samples are too few for {parts} parts", fix=f"give at least {MIN_PART_SIZE * parts}")
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            raise UserError(f"{name} has values that are not finite", fix="leave those pairs out")
    return centre_and_scale(x)[0], centre_and_scale(y)[0]


def _draw_batches(rng: np.random.Generator, train: np.ndarray, steps: int, batch: int) -> np.ndarray:
    """Returns the samples of each step, [steps, batch]: epochs in random order, no sample twice in a batch."""
    batch = min(batch, len(train))
    batches_per_epoch = len(train) // batch
    num_epochs = -(-steps // batches_per_epoch)
    size = batches_per_epoch * batch
    epochs = [rng.permutation(train)[:size].reshape(batches_per_epoch, batch) for _ in range(num_epochs)]
    return np.concatenate([np.empty((0, batch), train.dtype), *epochs])[:steps]


class _Split(NamedTuple):
    """Row indices of the samples that a part's critic is trained on (by step), validated on and evaluated on."""

    batches: Array
    validation: Array
    held_out: Array


class _CriticConfig(NamedTuple):
    """What a compiled training depends on beside shapes."""

    method: str
    critic: str
    clip: float


class _TrainState(NamedTuple):
    parameters: dict
    optimiser: optax.OptState
    partition: Partition
    average: dict


@functools.partial(jax.jit, static_argnames="config")
def _train_critics(
    keys: Array, inputs: CriticInputs, split: _Split, learning_rate: Array, config: _CriticConfig
) -> tuple[Float[Array, " P"], Float[Array, "P n"], Float[Array, "P n"]]:
    """Trains the critics of all P parts one after another, so that each can stop early.

    Returns:
      the bound of each part, the `_effects` of its held-out samples, and their effects under the copula's critic.
    """
    train = functools.partial(_train_critic, learning_rate=learning_rate, config=config)
    return lax.map(lambda part: train(*part), (keys, inputs, split))


def _train_critic(
    key: Array, inputs: CriticInputs, split: _Split, learning_rate: Array, config: _CriticConfig
) -> tuple[Array, Array, Array]:
    x, y, correlations, copula = inputs
    method = _methods(config.clip)[config.method]
    optimiser = optax.adamw(learning_rate, weight_decay=WEIGHT_DECAY)

    def compute_scores(parameters: dict, rows: Array) -> Array:
        x_rows, y_rows = jax.tree.map(lambda leaf: leaf[rows], (x, y))
        return score(parameters | {"correlations": correlations}, x_rows, y_rows)

    def train_step(step: Array, state: _TrainState) -> _TrainState:
        def compute_loss(parameters: dict) -> tuple[Array, Partition]:
            nats, partition = method.train(compute_scores(parameters, split.batches[step]), state.partition)
            return -nats, partition

        gradient, partition = jax.grad(compute_loss, has_aux=True)(state.parameters)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        average = optax.incremental_update(parameters, state.average, 1 - AVERAGE)
        return _TrainState(parameters, optimiser_state, partition, average)

    num_steps = len(split.batches)
    num_checks = -(-num_steps // STEPS_PER_CHECK) + 1

    def validate_and_train(carry: tuple) -> tuple:
        check, checks_since_best, best, best_value, state = carry
        scores = compute_scores(state.average, split.validation)
        value = method.validate(scores)
        is_better = (check == 0) | (value > best_value)
        candidate = (state.average, jnp.max(jnp.diagonal(scores)))
        best = jax.tree.map(functools.partial(jnp.where, is_better), candidate, best)
        last_step = jnp.minimum((check + 1) * STEPS_PER_CHECK, num_steps)
        state = lax.fori_loop(check * STEPS_PER_CHECK, last_step, train_step, state)
        checks_since_best = jnp.where(is_better, 0, checks_since_best + 1)
        return check + 1, checks_since_best, best, jnp.where(is_better, value, best_value), state

    input_sizes = (x.inputs.shape[1], y.inputs.shape[1])
    parameters = {"network": init_network(key, input_sizes, config.critic), "shift": jnp.float32(method.shift)}
    state = _TrainState(parameters, optimiser.init(parameters), Partition.first(), parameters)
    lowest = jnp.float32(-jnp.inf)
    carry = (jnp.int32(0), jnp.int32(0), (parameters, lowest), lowest, state)
    should_continue = lambda carry: (carry[0] < num_checks) & (carry[1] < PATIENCE)  # noqa: E731
    _, _, (best, highest), _, _ = lax.while_loop(should_continue, validate_and_train, carry)
    # A critic extrapolates above the joint pairs of the validation set, and one such e^f can outweigh all others.
    scores = jnp.minimum(compute_scores(best, split.held_out), highest)
    u, v, copula_correlations = copula
    copula_scores = gaussian(u[split.held_out], v[split.held_out], jnp.asarray(copula_correlations)) + method.shift
    copula_scores = jnp.minimum(copula_scores, highest)
    return method.bound(scores), _effects(scores, method), _effects(copula_scores, method)


def _effects(scores: Float[Array, "n n"], method: TrainedBound) -> Float[Array, " n"]:
    """Returns the first-order effect of each sample on the bound, as anchor and as candidate, minus their mean."""
    if method.log_weights is None:
        anchor, candidate = logsumexp(scores, axis=1), jnp.sum(jax.nn.softmax(scores, axis=1), axis=0)
    else:
        weights = jnp.where(jnp.eye(len(scores), dtype=bool), 0.0, jnp.exp(method.log_weights(scores)))
        anchor, candidate = (jnp.sum(weights, axis=axis) / (len(scores) - 1) for axis in (1, 0))
    effects = jnp.diagonal(scores) - anchor - candidate
    return effects - jnp.mean(effects)
