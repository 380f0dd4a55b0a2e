"""Mutual information from samples by a critic that is trained, and read on samples it was not trained on.

The recipe, one for all methods. The samples are cut into parts; each part in turn is held out, the others train and
validate a critic (cross-fitting), and the estimate is the mean over parts of the bound read on the held-out pairs.
A critic starts from the Gaussian one (canonical correlations, in closed form) in the coordinates that the validation
part prefers: standardised or normal scores, without or with the radius; a small network climbs from there by the
method's own gradient. Kept is the best by the validation part among the running averages of the parameters, the start
among them: where the network learns nothing that lasts, the answer is the Gaussian one. Held-out scores are capped at
the highest score of a joint pair of the validation part.
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
from mi_contrast.estimators.critics import CRITICS, Side, canonical_pairs, gaussian, network, normal_scores, score
from mi_contrast.estimators.intervals import Reading, with_interval
from mi_contrast.estimators.matrices import donsker_varadhan, nwj
from mi_contrast.estimators.reading import Estimate
from mi_contrast.estimators.samples import as_columns, scaled
from mi_contrast.estimators.trained_apart import Partition, jensen_shannon, mine, smile

VALIDATION = 0.2  # share of what is not held out
EVERY, PATIENCE = 25, 4  # steps between looks at the validation part; looks without a better one before the end
AVERAGE = 0.96  # decay of the running average of the parameters
DECAY = 0.3  # weight decay, times the learning rate
CORRELATED = 0.05  # from where a canonical pair is an input of the network
LEAST = 20  # samples a part
BUCKET = 8  # inputs are padded with zeros to a multiple, so that pairs of like dimensions share a compiled program


class Method(NamedTuple):
    """How a method trains, reads and judges a critic, from a square matrix of its scores."""

    climb: Callable[[Array, Partition], tuple[Array, Partition]]
    read: Callable[[Array], Array]
    crossed: Callable[[Array], Array] | None  # log of the weight of each crossed pair in the reading; None: InfoNCE
    judge: Callable[[Array], Array]  # a lower bound, for the validation part
    shift: float = 0.0  # of the optimum critic from log p(x, y) / (p(x) p(y))


def _row_wise(scores: Array) -> Array:
    """InfoNCE of a square matrix: mean_i F_ii - log mean_j e^{F_ij}."""
    return jnp.mean(jnp.diagonal(scores) - logsumexp(scores, axis=1)) + jnp.log(len(scores))


def _relative(scores: Array) -> Array:
    """F minus log mean_{i != j} e^F."""
    return scores - (jnp.mean(jnp.diagonal(scores)) - donsker_varadhan(scores))


def _methods(clip: float) -> dict[str, Method]:
    plain = lambda bound: lambda scores, partition: (bound(scores), partition)  # noqa: E731
    clipped = lambda scores: _relative(jnp.clip(scores, -clip, clip))  # noqa: E731
    squeezed = functools.partial(smile, clip=clip)
    return {
        "info_nce": Method(plain(_row_wise), _row_wise, None, _row_wise),
        "nwj": Method(plain(nwj), nwj, lambda scores: scores - 1.0, nwj, shift=1.0),
        "donsker_varadhan": Method(plain(donsker_varadhan), donsker_varadhan, _relative, donsker_varadhan),
        "mine": Method(mine, donsker_varadhan, _relative, donsker_varadhan),
        "jensen_shannon": Method(plain(jensen_shannon), jensen_shannon, lambda scores: scores, jensen_shannon),
        "smile": Method(plain(squeezed), squeezed, clipped, jensen_shannon),
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
    """Mutual information of x and y by a trained critic, read on held-out samples.

    nats = mean over parts of bound(f_p(x_i, y_j); i, j in part p), f_p trained on the other parts alone, with
    f = log-ratio of Gaussian canonical pairs + network (`critics`), and the bound of `method`:

      info_nce           mean_i F_ii - log mean_j e^{F_ij}; ceiling log of a part's size
      nwj                mean_i F_ii - mean_{i != j} e^{F_ij - 1}
      donsker_varadhan   mean_i F_ii - log mean_{i != j} e^{F_ij}
      mine               the same, trained with the partition averaged over batches
      jensen_shannon     nwj of F + 1, trained as the Jensen-Shannon divergence
      smile              donsker_varadhan with crossed scores within [-clip, clip], trained as jensen_shannon

    The first two and jensen_shannon are lower bounds in the mean; the others are not. Marginal maps, directions,
    network and every choice come from a part's training and validation samples; what is held out is only read.

    Args:
      x, y: float [N, dx], [N, dy], pairs in rows, independent draws; [N] is [N, 1].
      method: one of the six.
      key: typed key: cuts the parts, starts the networks, draws the batches. Same key, same answer.
      critic: 'separable' (an inner product of two networks) or 'joint' (one network of x and y; slower).
      parts: into how many the samples are cut, at least 2. Each costs one training.
      steps: of Adam at most, a part; training ends where the validation part has seen nothing better for 100.
      batch: pairs a step, its own negatives (at most the training samples).
      learning_rate: of Adam.
      clip: of smile.
      corrected: whether to answer with the Gaussian copula where the critic shows nothing beyond it, and to give an
        interval that holds the truth. False returns the bound itself, with low and high -+1.645 standard errors.
    Returns:
      Estimate of float32 scalars. L is the cross-fitted reading above, and s its standard error over draws of the
      held-out pairs (each as anchor and as candidate, first order, critics fixed). g and s_g are those of
      `gaussian_copula`, which takes ranks to normal scores first. e^2 = s_d^2 + dx dy / (2 N^2), with s_d the standard
      error of the critic's paired gain over the copula's critic, and the rest the variance of g without dependence.

        L <= max(g, 0) + 2 e    nats = g, error = s_g, [low, high] = g -+ 2.24 s_g
        L >  max(g, 0) + 2 e    nats = L, error = s, [low, high] = [L - 2.24 s, L + 2.24 s + max(L - L_half, 0)]
        a lower limit           nats = L, error = s, [low, high] = [L - 2.24 s, infinity]

      L_half is the mean reading of the two halves of the samples: a loss that falls as 1 / N is as large as L - L_half.
      The answer is a lower limit where L or g is within half a nat of log of a part's size, or dx dy > N / 10: there
      held-out pairs cannot show whether the copula is Gaussian. nats may be below 0, low and high are at least 0.
      The interval supposes in the first case that the copula is Gaussian, in the second that the critic converges to
      the truth; the estimators' page has its measured coverage. ceiling: log(held-out candidates) for info_nce,
      else infinity.
    Raises:
      UserError: an unknown method or critic; shapes that don't fit; fewer than 20 samples a part; a value that is not
      finite; a setting out of range.
    Source: van den Oord et al. 2018, Poole et al. 2019, Belghazi et al. 2018, Song and Ermon 2020; cross-fitting as
    Chernozhukov et al. 2018.

    >>> x = jax.random.normal(jax.random.key(0), (120, 1))
    >>> nats, standard_error, ceiling = estimate(x, x**3, key=jax.random.key(1), steps=25, batch=32)
    >>> bool(nats > 1), round(float(ceiling), 3)
    (True, 3.689)
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if critic not in CRITICS:
        raise unknown("critic", critic, CRITICS)
    x, y = _samples(x, y, parts)
    for name, value, low in (("steps", steps, 1), ("batch", batch, 2), ("learning_rate", learning_rate, 0)):
        if value < low:
            raise UserError(f"{name} {value} is below {low}", fix="give more")
    if not clip > 0:
        raise UserError(f"clip {clip} is not above 0", fix="give a bound on |f|, such as 5")
    settings = _Settings(method, critic, parts, steps, batch, learning_rate, float(clip))
    seed, start = jax.random.split(key)
    draw = np.random.default_rng(np.asarray(jax.random.bits(seed, (4,))))
    found = _cross_fit(x, y, draw, start, settings)
    ceiling = np.log(len(x) // parts) if method == "info_nce" else np.inf
    if not corrected:
        return Estimate.from_error(*(jnp.float32(value) for value in (found.nats, found.error, ceiling)))

    def read_again(own: np.ndarray, number: int) -> float:
        return _cross_fit(x[own], y[own], draw, jax.random.fold_in(start, number), settings).nats

    halved = read_again if len(x) // 2 >= LEAST * parts else None
    return with_interval(x, y, found, ceiling, draw, len(x) // parts, halved)


class _Settings(NamedTuple):
    method: str
    critic: str
    parts: int
    steps: int
    batch: int
    learning_rate: float
    clip: float


def _cross_fit(x: np.ndarray, y: np.ndarray, draw: np.random.Generator, start: Array, settings: _Settings) -> Reading:
    """Trains a critic on all parts but one, reads it on that one, and takes the mean over parts."""
    method, critic, parts, steps, batch, learning_rate, clip = settings
    size = len(x) // parts
    order = draw.permutation(len(x))[: size * parts].reshape(parts, size)
    rest = np.stack([np.delete(order, part, axis=0).reshape(-1) for part in range(parts)])
    judged = max(2, int(VALIDATION * rest.shape[1]))
    seen = [_as_seen(x, y, own[judged:], own[:judged]) for own in rest]
    sides = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *seen)
    batches = np.stack([_batches(draw, own[judged:], steps, batch) for own in rest])
    rows = _Rows(*(jnp.asarray(part, jnp.int32) for part in (batches, rest[:, :judged], order)))
    setting = _Setting(method, critic, clip)
    found = _train(jax.random.split(start, parts), sides, rows, jnp.float32(learning_rate), setting)
    values, effects, reference = (np.asarray(part, np.float64) for part in found)
    error = lambda effects: float(np.std(effects) / np.sqrt(np.size(effects)))  # noqa: E731
    return Reading(float(np.mean(values)), error(effects), error(effects - reference))


def _samples(x: ArrayLike, y: ArrayLike, parts: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(as_columns(z, name)) for z, name in ((x, "x"), (y, "y")))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or 0 in (x.shape[1], y.shape[1]):
        raise UserError(f"x {x.shape} and y {y.shape} do not fit", fix="give [N, dx] and [N, dy]")
    if parts < 2:
        raise UserError(f"parts {parts} leaves nothing held out", fix="give at least 2")
    if len(x) < LEAST * parts:
        raise UserError(f"{len(x)} samples are too few for {parts} parts", fix=f"give at least {LEAST * parts}")
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            raise UserError(f"{name} has values that are not finite", fix="leave those pairs out")
    return scaled(x)[0], scaled(y)[0]


def _batches(draw: np.random.Generator, train: np.ndarray, steps: int, batch: int) -> np.ndarray:
    """Rows of each step [steps, batch], epoch after epoch in new order: none twice in a batch."""
    batch = min(batch, len(train))
    whole = len(train) // batch
    epochs = [draw.permutation(train)[: whole * batch].reshape(whole, batch) for _ in range(-(-steps // whole))]
    return np.concatenate([np.empty((0, batch), train.dtype), *epochs])[:steps]


class _Rows(NamedTuple):
    """Which samples a part trains on, step by step, judges by, and holds out."""

    batches: Array
    judge: Array
    held_out: Array


class _Seen(NamedTuple):
    """The samples as one part's critic sees them: canonical coordinates and inputs of each side, and correlations."""

    x: Side
    y: Side
    correlations: np.ndarray
    copula: tuple[np.ndarray, np.ndarray, np.ndarray]  # canonical pairs of normal scores, and their correlations


def _as_seen(x: np.ndarray, y: np.ndarray, train: np.ndarray, judge: np.ndarray) -> _Seen:
    """Maps and directions from the training samples, in the coordinates whose Gaussian critic the judges prefer.

    In float64 on the host: once a part, small, and nothing to compile.
    """
    (plain_x, normal_x, in_x), (plain_y, normal_y, in_y) = _coordinates(x, train), _coordinates(y, train)
    best, found = -np.inf, None
    for of_x, of_y in ((plain_x, plain_y), (normal_x, normal_y)):
        for radius in (False, True):
            u, v = (_with_radius(z, train) if radius else z for z in (of_x, of_y))
            to_u, to_v, correlations = canonical_pairs(u[train], v[train])
            u, v = (u - u[train].mean(axis=0)) @ to_u, (v - v[train].mean(axis=0)) @ to_v
            u, v, correlations = _padded(u), _padded(v), _padded(correlations)
            value = float(_gaussian_reading(u[judge], v[judge], correlations))
            if of_x is normal_x and not radius:
                copula = u, v, correlations
            if found is None or value > best:
                best, found = value, (u, v, correlations)
    assert found is not None
    u, v, correlations = found
    # the network too gets the pairs that are correlated: in high dimensions they are what tells the few from the many
    pairs, count = correlations > CORRELATED, min(x.shape[1], y.shape[1])
    x_side, y_side = (
        Side(jnp.asarray(own), jnp.asarray(_padded(np.concatenate([inputs, own[:, :count] * pairs[:count]], axis=1))))
        for own, inputs in ((u, in_x), (v, in_y))
    )
    return _Seen(x_side, y_side, correlations, copula)


@jax.jit
def _gaussian_reading(u: Array, v: Array, correlations: Array) -> Array:
    return _row_wise(gaussian(u, v, correlations))


def _coordinates(values: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised values, normal scores, and what the network is given: both, tails drawn in, and their radii.

    The coordinates are scaled to share the variance of one input, so that the radii are not lost among many.
    """
    own = values[train]
    plain = (values - own.mean(axis=0)) / np.maximum(own.std(axis=0), 1e-12)
    normal = normal_scores(own, values)
    low, middle, high = np.quantile(own, (0.16, 0.5, 0.84), axis=0)
    robust = (values - middle) / np.maximum((high - low) / 2, 1e-12)
    square = lambda z: np.mean(z**2, axis=1, keepdims=True)  # noqa: E731
    radii = (np.log(square(normal) + 0.05), np.log(square(robust) + 0.05), np.minimum(square(robust), 9.0))
    inputs = np.concatenate([*radii, normal, np.arcsinh(robust)], axis=1)
    inputs = (inputs - inputs[train].mean(axis=0)) / np.maximum(inputs[train].std(axis=0), 1e-6)
    inputs[:, len(radii) :] /= np.sqrt(values.shape[1])
    return plain, normal, inputs


def _with_radius(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """One more coordinate: the normal score of the squared radius, so that a shared scale is a correlation."""
    square = np.sum(values**2, axis=1, keepdims=True)
    return np.concatenate([values, normal_scores(square[train], square)], axis=1)


def _padded(values: np.ndarray) -> np.ndarray:
    """Zeros behind the last axis, up to a multiple of BUCKET."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % BUCKET)])


class _Setting(NamedTuple):
    """What a compiled program is made for, beside shapes."""

    method: str
    critic: str
    clip: float


class _State(NamedTuple):
    """Of the training of one critic."""

    parameters: dict
    optimiser: optax.OptState
    partition: Partition
    average: dict


@functools.partial(jax.jit, static_argnames="setting")
def _train(
    keys: Array, seen: _Seen, rows: _Rows, learning_rate: Array, setting: _Setting
) -> tuple[Float[Array, " P"], Float[Array, "P n"], Float[Array, "P n"]]:
    """The reading of every part, the effects of its held-out pairs, and their effects under the copula's critic.

    Parts come one after another, so that each stops by itself.
    """
    one = functools.partial(_fit, learning_rate=learning_rate, setting=setting)
    return lax.map(lambda part: one(*part), (keys, seen, rows))


def _fit(key: Array, seen: _Seen, rows: _Rows, learning_rate: Array, setting: _Setting) -> tuple[Array, Array, Array]:
    x, y, correlations, copula = seen
    method = _methods(setting.clip)[setting.method]
    optimiser = optax.adamw(learning_rate, weight_decay=DECAY)

    def scores(trained: dict, own: Array) -> Array:
        x_own, y_own = jax.tree.map(lambda leaf: leaf[own], (x, y))
        return score(trained | {"correlations": correlations}, x_own, y_own)

    def train(number: Array, state: _State) -> _State:
        def loss(trained: dict) -> tuple[Array, Partition]:
            nats, partition = method.climb(scores(trained, rows.batches[number]), state.partition)
            return -nats, partition

        slope, partition = jax.grad(loss, has_aux=True)(state.parameters)
        change, moments = optimiser.update(slope, state.optimiser, state.parameters)
        parameters = optax.apply_updates(state.parameters, change)
        average = optax.incremental_update(parameters, state.average, 1 - AVERAGE)
        return _State(parameters, moments, partition, average)

    steps = len(rows.batches)
    looks = -(-steps // EVERY) + 1

    def look_and_train(carry: tuple) -> tuple:
        look, since, best, best_value, state = carry
        judged = scores(state.average, rows.judge)
        value = method.judge(judged)
        better = (look == 0) | (value > best_value)
        found = (state.average, jnp.max(jnp.diagonal(judged)))
        best = jax.tree.map(functools.partial(jnp.where, better), found, best)
        state = lax.fori_loop(look * EVERY, jnp.minimum((look + 1) * EVERY, steps), train, state)
        return look + 1, jnp.where(better, 0, since + 1), best, jnp.where(better, value, best_value), state

    inputs = (x.inputs.shape[1], y.inputs.shape[1])
    first = {"network": network(key, inputs, setting.critic), "shift": jnp.float32(method.shift)}
    state = _State(first, optimiser.init(first), Partition.first(), first)
    nothing = jnp.float32(-jnp.inf)
    carry = (jnp.int32(0), jnp.int32(0), (first, nothing), nothing, state)
    _, _, (best, highest), _, _ = lax.while_loop(lambda c: (c[0] < looks) & (c[1] < PATIENCE), look_and_train, carry)
    # above what any joint pair was judged at a critic extrapolates, and one e^f can outweigh all others
    matrix = jnp.minimum(scores(best, rows.held_out), highest)
    u, v, of_copula = copula
    reference = gaussian(u[rows.held_out], v[rows.held_out], jnp.asarray(of_copula)) + method.shift
    reference = jnp.minimum(reference, highest)
    return method.read(matrix), _effects(matrix, method), _effects(reference, method)


def _effects(scores: Float[Array, "n n"], method: Method) -> Float[Array, " n"]:
    """To first order, what each pair adds to the reading, as anchor and as candidate, less their mean."""
    if method.crossed is None:
        anchor, candidate = logsumexp(scores, axis=1), jnp.sum(jax.nn.softmax(scores, axis=1), axis=0)
    else:
        weights = jnp.where(jnp.eye(len(scores), dtype=bool), 0.0, jnp.exp(method.crossed(scores)))
        anchor, candidate = (jnp.sum(weights, axis=axis) / (len(scores) - 1) for axis in (1, 0))
    effects = jnp.diagonal(scores) - anchor - candidate
    return effects - jnp.mean(effects)
