"""Critics f(x, y) that are trained on samples: a Gaussian part in closed form, plus a network.

    f(x, y) = sum_i [ -log(1 - r_i^2) / 2 + (2 r_i u_i v_i - r_i^2 (u_i^2 + v_i^2)) / (2 (1 - r_i^2)) ] + net(x, y)

u_i and v_i are canonical pairs with correlation r_i. If x and y are jointly Gaussian in the chosen coordinates, the
first part is log p(x, y) / (p(x) p(y)). The network is 0 at first, so training starts from the Gaussian critic.
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
WIDTH, RANK = 64, 8  # hidden units of the networks, and dimensions of a separable critic's inner product
BLOCK_SIZE = 64  # anchors that a joint critic scores at once; its activations are BLOCK_SIZE x N x WIDTH floats


class Side(NamedTuple):
    """The inputs of a critic for one variable, float32: canonical coordinates, and inputs of the network."""

    canonical: Float[Array, "N R"]
    inputs: Float[Array, "N D"]


def normal_scores(reference: Float[np.ndarray, "M D"], values: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Returns Phi^-1(F(value)) for each coordinate, with F the empirical distribution of the reference samples.

    Such monotone maps of coordinates leave mutual information unchanged and remove heavy tails. F is the mid-rank
    distribution. Scores are interpolated linearly between the reference samples and constant beyond them.

    Args:
      reference: float [M, D], the samples that define F.
      values: float [N, D], the samples to map.
    Returns:
      float64 [N, D].

    >>> normal_scores(np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [200.0]])).round(3).tolist()
    [[0.0], [0.967]]
    """
    size = len(reference)
    scores = np.empty(values.shape)
    for j in range(values.shape[1]):
        points, counts = np.unique(reference[:, j], return_counts=True)
        shares = (np.cumsum(counts) - counts / 2) / size
        scores[:, j] = np.interp(values[:, j], points, [NormalDist().inv_cdf(p) for p in shares])
    return scores


def canonical_pairs(
    x: Float[np.ndarray, "N dx"], y: Float[np.ndarray, "N dy"]
) -> tuple[Float[np.ndarray, "dx R"], Float[np.ndarray, "dy R"], Float[np.ndarray, " R"]]:
    """Returns directions and shrunk correlations of the R = min(dx, dy) canonical pairs.

    For independent x and y of many dimensions the squared sample correlations go up to (sqrt(dx) + sqrt(dy))^2 / N.
    This value is subtracted from each square, so that pairs of noise have correlation 0.

    Args:
      x, y: float [N, dx], [N, dy].
    Returns:
      float64 directions [dx, R] and [dy, R] (x @ directions has unit variance) and correlations [R] in [0, 1).
    Source: Hotelling 1936; Wachter 1980 for the largest correlation of noise, to first order in dx / N.

    >>> x = np.random.default_rng(0).normal(size=(2000, 2))
    >>> canonical_pairs(x, x[:, :1] + np.random.default_rng(1).normal(size=(2000, 1)))[2].round(1)
    array([0.7])
    """
    size = len(x)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    whiten_x, whiten_y = whiten(x.T @ x / size), whiten(y.T @ y / size)
    left, correlations, right = np.linalg.svd(whiten_x.T @ (x.T @ y / size) @ whiten_y, full_matrices=False)
    noise = (np.sqrt(x.shape[1]) + np.sqrt(y.shape[1])) ** 2 / size
    return whiten_x @ left, whiten_y @ right.T, np.sqrt(np.clip(correlations**2 - noise, 0, 0.9999))


def whiten(covariance: np.ndarray) -> np.ndarray:
    """Returns W with W^T covariance W = 1, and 0 for directions without variance (constant or repeated columns)."""
    values, vectors = np.linalg.eigh(covariance)
    varies = values > 1e-9 * values.max(initial=1e-300)
    return vectors * np.where(varies, 1 / np.sqrt(np.where(varies, values, 1.0)), 0.0)


def gaussian(u: Float[Array, "N R"], v: Float[Array, "M R"], correlations: Float[Array, " R"]) -> Float[Array, "N M"]:
    """Returns the Gaussian part: log p(u, v) / (p(u) p(v)) for standard normal pairs with these correlations.

    sum_i -log(1 - r_i^2) / 2 + (2 r_i u_i v_i - r_i^2 (u_i^2 + v_i^2)) / (2 (1 - r_i^2)), in nats.

    Args:
      u, v: float [N, R] and [M, R].
      correlations: float [R], in [0, 1).
    Returns:
      scores [N, M]; row i and column j belong to (u_i, v_j).

    >>> float(gaussian(jnp.array([[1.0]]), jnp.array([[2.0]]), jnp.array([0.0]))[0, 0])
    0.0
    """
    square = correlations**2
    penalty = square / (1 - square) / 2
    constant = -jnp.log1p(-square).sum() / 2
    product = (u * (correlations / (1 - square))) @ v.T
    return product - (u**2 @ penalty)[:, None] - (v**2 @ penalty)[None, :] + constant


def init_network(rng: Array, input_sizes: tuple[int, int], kind: str) -> dict:
    """Returns initial parameters for `apply_network`, whose scores are 0 everywhere.

    separable: g(x) . h(y), two networks with two hidden layers and RANK outputs; the last layer of g is 0.
    joint: one network with two hidden layers for x and y together; its last layer is 0.

    Args:
      rng: random key.
      input_sizes: numbers of inputs of x and of y.
      kind: 'separable' or 'joint'.
    Returns:
      a pytree of float32 arrays.
    """
    keys = iter(jax.random.split(rng, 6))

    def init_layer(num_in: int, num_out: int, scale: float = 1.4) -> dict:
        weights = jax.random.normal(next(keys), (num_in, num_out)) * scale / np.sqrt(num_in)
        return {"w": weights, "b": jnp.zeros(num_out)}

    def init_tower(num_in: int, last_scale: float) -> list[dict]:
        return [init_layer(num_in, WIDTH), init_layer(WIDTH, WIDTH), init_layer(WIDTH, RANK, last_scale)]

    x_size, y_size = input_sizes
    if kind == "separable":
        return {"x": init_tower(x_size, 0.0), "y": init_tower(y_size, RANK**-0.5)}
    x, y = init_layer(x_size, WIDTH), init_layer(y_size, WIDTH)
    return {"x": x, "y": y, "both": [init_layer(WIDTH, WIDTH), init_layer(WIDTH, 1, 0.0)]}


def _apply_layers(layers: list[dict], values: Array) -> Array:
    for layer in layers[:-1]:
        values = jax.nn.silu(values @ layer["w"] + layer["b"])
    return values @ layers[-1]["w"] + layers[-1]["b"]


def apply_network(parameters: dict, x: Float[Array, "N dx"], y: Float[Array, "M dy"]) -> Float[Array, "N M"]:
    """Returns the network's scores of every x with every y. A joint network scores BLOCK_SIZE anchors at a time."""
    if "both" not in parameters:
        return _apply_layers(parameters["x"], x) @ _apply_layers(parameters["y"], y).T
    first = x @ parameters["x"]["w"] + parameters["x"]["b"]
    second = y @ parameters["y"]["w"] + parameters["y"]["b"]
    score_row = lambda a: _apply_layers(parameters["both"], jax.nn.silu(a + second))[:, 0]  # noqa: E731
    return lax.map(jax.checkpoint(score_row), first, batch_size=min(BLOCK_SIZE, len(first)))


def score(parameters: dict, x: Side, y: Side) -> Float[Array, "N M"]:
    """Returns the critic's scores of every x with every y: Gaussian part, network and a constant, float32 [N, M]."""
    gaussian_part = gaussian(x.canonical, y.canonical, parameters["correlations"])
    return (
        lax.stop_gradient(gaussian_part)
        + apply_network(parameters["network"], x.inputs, y.inputs)
        + parameters["shift"]
    )
