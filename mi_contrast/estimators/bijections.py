"""One-to-one maps of samples. They change the distribution and leave the mutual information unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

Samples = Float[Array, "n d"]
NUM_BISECTIONS = 40  # enough for the resolution of float32 from any bracket used here
WAVES = (  # (amplitude, frequency, phase); amplitudes x frequencies sum to less than 1, so t + waves increases
    ((0.4, 1.0, 0.0), (0.2, 1.7, 1.0), (0.03, 3.3, -2.5)),
    ((-0.4, 0.4, 0.0), (0.17, 1.3, 3.5), (0.02, 4.3, -2.5)),
)


@dataclass(frozen=True)
class Bijection:
    """A map of samples [n, d] and its inverse, applied to each row. Only swiss_roll changes d."""

    name: str
    forward: Callable[[Samples], Samples]
    inverse: Callable[[Samples], Samples]


def solve(increasing: Callable[[Array], Array], value: Array, low: Array, high: Array) -> Array:
    """Returns the t in [low, high] with increasing(t) = value, by bisection of each element; float32, any shape.

    >>> bool(jnp.abs(solve(lambda t: t**3, jnp.array(8.0), jnp.array(0.0), jnp.array(5.0)) - 2) < 1e-5)
    True
    """

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        is_low = increasing(middle) < value
        return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

    low, high = jax.lax.fori_loop(0, NUM_BISECTIONS, halve, (low, high))
    return (low + high) / 2


def half_cube() -> Bijection:
    """Returns the elementwise map t sqrt|t|, which makes tails longer.

    >>> half_cube().forward(jnp.array([[-4.0, 9.0]]))
    Array([[-8., 27.]], dtype=float32)
    """
    return Bijection(
        "half_cube", lambda t: t * jnp.sqrt(jnp.abs(t)), lambda t: jnp.sign(t) * jnp.cbrt(jnp.square(jnp.abs(t)))
    )


def asinh() -> Bijection:
    """Returns the elementwise inverse hyperbolic sine, which makes tails shorter.

    >>> asinh().inverse(asinh().forward(jnp.array([[0.0, 1.0]])))
    Array([[0., 1.]], dtype=float32)
    """
    return Bijection("asinh", jnp.arcsinh, jnp.sinh)


def normal_cdf() -> Bijection:
    """Returns the elementwise distribution function of a standard normal, which makes standard normal margins uniform.

    float32 rounds it to 1 beyond 5.4. The inverse treats 1 as the largest number below 1.

    >>> normal_cdf().forward(jnp.array([[0.0]]))
    Array([[0.5]], dtype=float32)
    """
    largest = 1 - 2.0**-24
    return Bijection("normal_cdf", ndtr, lambda u: ndtri(jnp.minimum(u, largest)))


def wiggly(side: int) -> Bijection:
    """Returns the increasing elementwise map that adds three small sines, different ones for x (side 0) and y (side 1).

    >>> bool((jnp.diff(wiggly(0).forward(jnp.linspace(-9, 9, 500)[:, None]), axis=0) > 0).all())
    True
    """
    waves = WAVES[side]

    def forward(t: Array) -> Array:
        return t + sum(a * jnp.sin(w * t + phase) for a, w, phase in waves)

    return Bijection("wiggly", forward, lambda value: solve(forward, value, value - 1, value + 1))


def spiral(speed: float, plane: tuple[int, int]) -> Bijection:
    """Returns the map that rotates two coordinates of each row t by the angle speed |t|^2, which preserves volumes.

    >>> quarter = spiral(math.pi / 2, (0, 1))
    >>> bool(jnp.allclose(quarter.forward(jnp.array([[1.0, 0.0]])), jnp.array([[0.0, 1.0]]), atol=1e-6))
    True
    """
    i, j = plane

    def rotate(t: Samples, sign: float) -> Samples:
        angle = sign * speed * jnp.sum(jnp.square(t), axis=-1)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return t.at[:, i].set(cos * t[:, i] - sin * t[:, j]).at[:, j].set(sin * t[:, i] + cos * t[:, j])

    return Bijection("spiral", lambda t: rotate(t, 1.0), lambda t: rotate(t, -1.0))


def swiss_roll() -> Bijection:
    """Returns the map of u in [0, 1] to a roll in the plane: (t cos t, t sin t) / 21 with t = 3 pi (1 + 2 u) / 2.

    >>> bool(jnp.allclose(swiss_roll().forward(jnp.array([[0.5]])), jnp.array([[-3 * math.pi / 21, 0.0]]), atol=1e-6))
    True
    """

    def forward(u: Samples) -> Samples:
        t = 1.5 * math.pi * (1 + 2 * u)
        return jnp.concatenate([t * jnp.cos(t), t * jnp.sin(t)], axis=-1) / 21

    def inverse(rolled: Samples) -> Samples:
        t = 21 * jnp.linalg.norm(rolled, axis=-1, keepdims=True)
        return (t / (1.5 * math.pi) - 1) / 2

    return Bijection("swiss_roll", forward, inverse)


def bimodal(weights: tuple[float, float], means: tuple[float, float]) -> Bijection:
    """Returns the elementwise map of a standard normal to a mixture of two normals of unit variance, by quantiles.

    >>> bool(jnp.allclose(bimodal((0.5, 0.5), (-1, 3)).forward(jnp.array([[0.0]])), 1.0))
    True
    """

    def inverse(t: Array) -> Array:
        below = sum(w * ndtr(t - m) for w, m in zip(weights, means, strict=True))
        above = sum(w * ndtr(m - t) for w, m in zip(weights, means, strict=True))
        return jnp.where(below < above, ndtri(below), -ndtri(above))  # the smaller tail is more precise

    # The quantile of a mixture lies between those of its components.
    return Bijection("bimodal", lambda z: solve(inverse, z, z + min(means), z + max(means)), inverse)
