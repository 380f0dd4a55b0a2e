"""Critics f(x, y) that are learned from samples: a Gaussian part in closed form, and a network for the rest.

    f(x, y) = sum_i [ -log(1 - r_i^2) / 2 + (2 r_i u_i v_i - r_i^2 (u_i^2 + v_i^2)) / (2 (1 - r_i^2)) ] + net(x, y)

u, v are canonical pairs of correlation r. Where x and y are jointly Gaussian in the coordinates taken, the first part
is log p(x, y) / (p(x) p(y)) itself; the network starts at 0, so a critic begins as the Gaussian one, and what
comes after is kept only where a validation part says that it is better.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

CRITICS = ("separable", "joint")
WIDTH, RANK = 64, 8  # of the networks: hidden units, and dimensions of a separable critic's inner product
ROWS = 64  # anchors scored at once by a joint critic: it holds ROWS x N x WIDTH floats


class Side(NamedTuple):
    """One variable as the critic sees it, float32: canonical coordinates [N, R] and the network's inputs [N, D]."""

    canonical: Float[Array, "N R"]
    inputs: Float[Array, "N D"]


def normal_scores(reference: Float[np.ndarray, "M D"], values: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Each coordinate through its empirical distribution and the normal quantile: Phi^-1(F_reference(value)).

    A monotone map of each coordinate, so mutual information stays as it is and heavy tails go. F is the reference's
    mid-rank distribution; between its points the scores are linear, beyond them constant. Ties share.

    Args:
      reference: float [M, D], the samples F is taken from. values: float [N, D], the samples to map.
    Returns:
      float64 [N, D].

    >>> normal_scores(np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [200.0]])).round(3).tolist()
    [[0.0], [0.967]]
    """
    size = len(reference)
    out = np.empty(values.shape)
    for j in range(values.shape[1]):
        points, counts = np.unique(reference[:, j], return_counts=True)
        shares = (np.cumsum(counts) - counts / 2) / size
        out[:, j] = np.interp(values[:, j], points, [NormalDist().inv_cdf(p) for p in shares])
    return out


def canonical_pairs(
    x: Float[np.ndarray, "N dx"], y: Float[np.ndarray, "N dy"]
) -> tuple[Float[np.ndarray, "dx R"], Float[np.ndarray, "dy R"], Float[np.ndarray, " R"]]:
    """Directions and correlations of the canonical pairs, R = min(dx, dy), the correlations shrunk.

    With independent x and y the squared sample correlations reach (sqrt(dx) + sqrt(dy))^2 / N in high dimensions; this
    edge is taken off every square, so that pairs of noise weigh nothing.

    Args:
      x, y: float [N, dx], [N, dy].
    Returns:
      float64 directions [dx, R] and [dy, R] (x @ directions has unit variance) and correlations [R] in [0, 1).
    Source: Hotelling 1936; the edge is that of Wachter 1980, to first order in dx / N.

    >>> x = np.random.default_rng(0).normal(size=(2000, 2))
    >>> canonical_pairs(x, x[:, :1] + np.random.default_rng(1).normal(size=(2000, 1)))[2].round(1)
    array([0.7])
    """
    size = len(x)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    from_x, from_y = whiten(x.T @ x / size), whiten(y.T @ y / size)
    left, correlations, right = np.linalg.svd(from_x.T @ (x.T @ y / size) @ from_y, full_matrices=False)
    edge = (np.sqrt(x.shape[1]) + np.sqrt(y.shape[1])) ** 2 / size
    return from_x @ left, from_y @ right.T, np.sqrt(np.clip(correlations**2 - edge, 0, 0.9999))


def whiten(covariance: np.ndarray) -> np.ndarray:
    """W with W^T covariance W = 1, and 0 along directions without variance (constant or repeated columns)."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-9 * values.max(initial=1e-300)
    return vectors * np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)


def gaussian(u: Float[Array, "N R"], v: Float[Array, "M R"], correlations: Float[Array, " R"]) -> Float[Array, "N M"]:
    """The Gaussian part: log p(u, v) / (p(u) p(v)) of pairs that are standard normal with these correlations.

    sum_i -log(1 - r_i^2) / 2 + (2 r_i u_i v_i - r_i^2 (u_i^2 + v_i^2)) / (2 (1 - r_i^2)), in nats.

    Args:
      u: float [N, R]. v: float [M, R]. correlations: float [R], in [0, 1).
    Returns:
      scores [N, M], row i column j for (u_i, v_j).

    >>> float(gaussian(jnp.array([[1.0]]), jnp.array([[2.0]]), jnp.array([0.0]))[0, 0])
    0.0
    """
    square = correlations**2
    own = square / (1 - square) / 2
    constant = -jnp.log1p(-square).sum() / 2
    return (u * (correlations / (1 - square))) @ v.T - (u**2 @ own)[:, None] - (v**2 @ own)[None, :] + constant


def network(key: Array, inputs: tuple[int, int], kind: str) -> dict:
    """Parameters of a network that scores 0 everywhere.

    separable: g(x) . h(y), two networks of two hidden layers into RANK dimensions, g's last layer 0.
    joint: a network of two hidden layers on x and y together, its last layer 0.

    Args:
      key: typed key. inputs: how many inputs x and y have. kind: 'separable' or 'joint'.
    Returns:
      a pytree of float32 arrays for `net`.
    """
    keys = iter(jax.random.split(key, 6))

    def layer(into: int, out: int, scale: float = 1.4) -> dict:
        return {"w": jax.random.normal(next(keys), (into, out)) * scale / np.sqrt(into), "b": jnp.zeros(out)}

    x, y = inputs
    if kind == "separable":
        tower = lambda d, last: [layer(d, WIDTH), layer(WIDTH, WIDTH), layer(WIDTH, RANK, last)]  # noqa: E731
        return {"x": tower(x, 0.0), "y": tower(y, RANK**-0.5)}
    return {"x": layer(x, WIDTH), "y": layer(y, WIDTH), "both": [layer(WIDTH, WIDTH), layer(WIDTH, 1, 0.0)]}


def _layers(layers: list[dict], values: Array) -> Array:
    for layer in layers[:-1]:
        values = jax.nn.silu(values @ layer["w"] + layer["b"])
    return values @ layers[-1]["w"] + layers[-1]["b"]


def net(parameters: dict, x: Float[Array, "N dx"], y: Float[Array, "M dy"]) -> Float[Array, "N M"]:
    """Scores of every x with every y by the parameters of `network`; a joint network takes `ROWS` anchors at a time."""
    if "both" not in parameters:
        return _layers(parameters["x"], x) @ _layers(parameters["y"], y).T
    first = x @ parameters["x"]["w"] + parameters["x"]["b"]
    second = y @ parameters["y"]["w"] + parameters["y"]["b"]
    row = lambda a: _layers(parameters["both"], jax.nn.silu(a + second))[:, 0]  # noqa: E731
    return lax.map(jax.checkpoint(row), first, batch_size=min(ROWS, len(first)))


def score(parameters: dict, x: Side, y: Side) -> Float[Array, "N M"]:
    """The whole critic: Gaussian part, network and a constant, every x with every y, float32 [N, M]."""
    start = gaussian(x.canonical, y.canonical, parameters["correlations"])
    return lax.stop_gradient(start) + net(parameters["network"], x.inputs, y.inputs) + parameters["shift"]
