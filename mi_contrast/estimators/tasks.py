"""Distributions with known mutual information, to test estimators on.

A task is a distribution of pairs with a closed form, seen through one-to-one maps of x and of y. The maps do not change
the mutual information:

  task = tasks.gaussian(5, 5, 0.8, pairs=2).half_cube()
  x, y = task.sample(key, 5000)          # float32 [5000, 5] each
  task.nats                              # 1.0217, the truth
  task.log_ratio(x, y).mean()            # the optimum critic; its mean converges to the truth

The tasks are those of Czyż et al. 2023, "Beyond Normal: On the Evaluation of Mutual Information Estimators". Their
names are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError
from mi_contrast.estimators import bijections
from mi_contrast.estimators.bijections import Bijection, Samples

IDENTITY = Bijection("", lambda t: t, lambda t: t)


class Base(Protocol):
    """A distribution of pairs with a closed form."""

    @property
    def dims(self) -> tuple[int, int]:
        """The dimensions of x and y."""

    @property
    def nats(self) -> float:
        """The mutual information in nats."""

    def sample(self, key: Array, n: int) -> tuple[Samples, Samples]:
        """Returns n independent pairs."""

    def log_ratio(self, x: Samples, y: Samples) -> Float[Array, " n"]:
        """Returns log p(x, y) / (p(x) p(y)) of each pair."""


@dataclass(frozen=True, eq=False)
class Elliptical:
    """A normal (dof infinite) or Student-t distribution of (x, y) with mean 0 and a dispersion matrix D [dx+dy, dx+dy].

    For a normal, I = I_normal = (log det D_xx + log det D_yy - log det D) / 2. For a Student-t,
    I = I_normal + c(dof) + c(dof+dx+dy) - c(dof+dx) - c(dof+dy), with c(t) = log Gamma(t/2) - (t/2) digamma(t/2). It is
    above 0 even for the identity matrix, because x and y have a random scale in common.
    Source: Arellano-Valle, Contreras-Reyes and Genton 2013, "Shannon entropy and mutual information for multivariate
    skew-elliptical distributions".
    """

    dispersion: np.ndarray
    dx: int
    dof: float = math.inf

    @property
    def dims(self) -> tuple[int, int]:
        """The dimensions of x and y."""
        return self.dx, len(self.dispersion) - self.dx

    def _blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.dispersion, self.dispersion[: self.dx, : self.dx], self.dispersion[self.dx :, self.dx :]

    @property
    def nats(self) -> float:
        """The mutual information in nats."""
        joint, x, y = (np.linalg.slogdet(block)[1] for block in self._blocks())
        normal = float(x + y - joint) / 2
        if math.isinf(self.dof):
            return normal
        (dx, dy), dof = self.dims, self.dof
        return normal + _c(dof) + _c(dof + dx + dy) - _c(dof + dx) - _c(dof + dy)

    def sample(self, key: Array, n: int) -> tuple[Samples, Samples]:
        """Returns n independent pairs."""
        normal_key, scale_key = jax.random.split(key)
        root = jnp.asarray(np.linalg.cholesky(self.dispersion), jnp.float32)
        samples = jax.random.normal(normal_key, (n, len(root))) @ root.T
        if not math.isinf(self.dof):
            samples = samples * jnp.sqrt(self.dof / jax.random.chisquare(scale_key, self.dof, (n,)))[:, None]
        return samples[:, : self.dx], samples[:, self.dx :]

    def log_ratio(self, x: Samples, y: Samples) -> Float[Array, " n"]:
        """Returns log p(x, y) / (p(x) p(y)) of each pair."""
        parts = (jnp.concatenate([x, y], axis=-1), x, y)
        joint, log_x, log_y = (self._log_density(t, block) for t, block in zip(parts, self._blocks(), strict=True))
        return joint - log_x - log_y

    def _log_density(self, t: Samples, dispersion: np.ndarray) -> Float[Array, " n"]:
        """Returns the log density up to a constant times d, which cancels in the ratio."""
        dof = self.dof
        white = t @ jnp.asarray(np.linalg.inv(np.linalg.cholesky(dispersion)).T, jnp.float32)
        square, volume = jnp.sum(jnp.square(white), axis=-1), float(np.linalg.slogdet(dispersion)[1]) / 2
        if math.isinf(dof):
            return -square / 2 - volume
        half = (dof + t.shape[-1]) / 2
        return math.lgamma(half) - math.lgamma(dof / 2) - volume - half * jnp.log1p(square / dof)


def _c(t: float) -> float:
    return math.lgamma(t / 2) - t / 2 * _digamma(t / 2)


def _digamma(t: float) -> float:
    """Returns the digamma function in float64, by its recurrence up to 12 and its asymptotic series from there."""
    value = 0.0
    while t < 12:
        value, t = value - 1 / t, t + 1
    squared = 1 / t**2
    series = squared * (1 / 12 - squared * (1 / 120 - squared * (1 / 252 - squared * (1 / 240 - squared / 132))))
    return value + math.log(t) - 0.5 / t - series


@dataclass(frozen=True)
class Additive:
    """The distribution of y = x + u, with x uniform on (0, 1) and u uniform on (-noise, noise).

    I = noise - log(2 noise) for noise <= 1/2, otherwise 1 / (4 noise).
    """

    noise: float

    @property
    def dims(self) -> tuple[int, int]:
        """The dimensions of x and y."""
        return 1, 1

    @property
    def nats(self) -> float:
        """The mutual information in nats."""
        return self.noise - math.log(2 * self.noise) if self.noise <= 0.5 else 1 / (4 * self.noise)

    def sample(self, key: Array, n: int) -> tuple[Samples, Samples]:
        """Returns n independent pairs."""
        x_key, noise_key = jax.random.split(key)
        x = jax.random.uniform(x_key, (n, 1))
        return x, x + jax.random.uniform(noise_key, (n, 1), minval=-self.noise, maxval=self.noise)

    def log_ratio(self, x: Samples, y: Samples) -> Float[Array, " n"]:
        """Returns log p(x, y) / (p(x) p(y)) of each pair."""
        length = jnp.minimum(y + self.noise, 1) - jnp.maximum(y - self.noise, 0)  # of the interval of possible x for y
        return jnp.where(jnp.abs(y - x) <= self.noise * (1 + 1e-6) + 1e-6, -jnp.log(length), -jnp.inf)[:, 0]


@dataclass(frozen=True, eq=False)
class Task:
    """A distribution of pairs, seen through one-to-one maps of x and of y.

    The methods that add maps return new tasks with the same mutual information.

    Attributes:
      name: describes distribution and maps.
      base: the distribution.
      on_x, on_y: the maps in the order in which they are applied.

    >>> task = gaussian(1, 1, 0.75).asinh()
    >>> task.name, round(task.nats, 6)
    ('asinh-gaussian-1x1-0.75', 0.413339)
    >>> x, y = task.sample(jax.random.key(0), 3)
    >>> x.shape, task.log_ratio(x, y).shape
    ((3, 1), (3,))
    """

    name: str
    base: Base
    on_x: tuple[Bijection, ...] = ()
    on_y: tuple[Bijection, ...] = ()

    @property
    def nats(self) -> float:
        """The mutual information in nats, which is that of the base for any maps."""
        return self.base.nats

    @property
    def dims(self) -> tuple[int, int]:
        """The dimensions of x and y after the maps."""
        dx, dy = self.base.dims
        return dx + any(bijection.name == "swiss_roll" for bijection in self.on_x), dy

    def sample(self, key: Array, n: int) -> tuple[Float[Array, "n dx"], Float[Array, "n dy"]]:
        """Returns n independent pairs, x float32 [n, dx] and y float32 [n, dy], for a random key."""
        x, y = self.base.sample(key, n)
        for bijection in self.on_x:
            x = bijection.forward(x)
        for bijection in self.on_y:
            y = bijection.forward(y)
        return x, y

    def log_ratio(self, x: Float[Array, "n dx"], y: Float[Array, "n dy"]) -> Float[Array, " n"]:
        """Returns the optimum critic log p(x, y) / (p(x) p(y)) of each pair, float32 [n]. Its expectation is `nats`.

        For swiss_roll, densities are along the roll.
        """
        for bijection in reversed(self.on_x):
            x = bijection.inverse(x)
        for bijection in reversed(self.on_y):
            y = bijection.inverse(y)
        return self.base.log_ratio(x, y)

    def through(self, on_x: Bijection = IDENTITY, on_y: Bijection = IDENTITY, name: str = "") -> Task:
        """Returns the task with one more one-to-one map of x and of y."""
        name = name or on_x.name or on_y.name
        return replace(self, name=f"{name}-{self.name}", on_x=(*self.on_x, on_x), on_y=(*self.on_y, on_y))

    def half_cube(self) -> Task:
        """Returns the task with t sqrt|t| in place of every coordinate t."""
        return self.through(bijections.half_cube(), bijections.half_cube())

    def asinh(self) -> Task:
        """Returns the task with the inverse hyperbolic sine of every coordinate."""
        return self.through(bijections.asinh(), bijections.asinh())

    def normal_cdf(self) -> Task:
        """Returns the task with the normal distribution function of every coordinate."""
        return self.through(bijections.normal_cdf(), bijections.normal_cdf())

    def wiggly(self) -> Task:
        """Returns the task with small sines added to every coordinate."""
        return self.through(bijections.wiggly(0), bijections.wiggly(1))

    def spiral(self, speed: float = 1.0) -> Task:
        """Returns the task with rows t rotated by the angle speed |t|^2 / d.

        x is rotated in its coordinates 0 and 1, y in 1 and 2, or in 0 and 1 if it has only two.

        Raises:
          UserError: x or y has one dimension.
        """
        dx, dy = self.dims
        if min(dx, dy) < 2:
            raise UserError(f"spiral of {self.name}: x and y need two dimensions", fix="turn a task of more dimensions")
        on_x, on_y = bijections.spiral(speed / dx, (0, 1)), bijections.spiral(speed / dy, (1, 2) if dy > 2 else (0, 1))
        return self.through(on_x, on_y, name="spiral" if speed == 1 else f"spiral_{speed:g}")

    def swiss_roll(self) -> Task:
        """Returns the task with x, which must be one number in (0, 1), rolled up in two dimensions.

        Raises:
          UserError: x is not one number in (0, 1).
        """
        uniform = self.on_x[-1].name == "normal_cdf" if self.on_x else isinstance(self.base, Additive)
        if self.dims[0] != 1 or not uniform:
            raise UserError(
                f"swiss_roll of {self.name}: x must be one number in (0, 1)", fix="use .normal_cdf() before"
            )
        return self.through(bijections.swiss_roll())


def correlation(dx: int, dy: int, rho: float, pairs: int | None = None) -> np.ndarray:
    """Returns a correlation matrix, float64 [dx+dy, dx+dy].

    The correlation is rho between any two coordinates, or with `pairs` only between x_i and y_i for i < pairs.

    Raises:
      UserError: the result is not a correlation matrix.

    >>> correlation(1, 2, 0.5, pairs=1)
    array([[1. , 0.5, 0. ],
           [0.5, 1. , 0. ],
           [0. , 0. , 1. ]])
    """
    matrix = np.eye(dx + dy)
    if pairs is None:
        matrix = (1 - rho) * matrix + rho
    elif 0 <= pairs <= min(dx, dy):
        i = np.arange(pairs)
        matrix[i, dx + i] = matrix[dx + i, i] = rho
    else:
        raise UserError(f"pairs={pairs} of x [n, {dx}] and y [n, {dy}]", fix=f"give 0 to {min(dx, dy)}")
    if min(dx, dy) < 1 or np.linalg.eigvalsh(matrix).min() < 1e-9:
        raise UserError(f"no correlation matrix of {dx} + {dy} dimensions has rho={rho:g}", fix="give |rho| < 1")
    return matrix


def _describe(dx: int, dy: int, rho: float, pairs: int | None) -> str:
    if pairs is not None:
        return f"{dx}x{dy}-{pairs}_pairs-{rho:g}"
    return f"{dx}x{dy}-{rho:g}" if dx == dy == 1 else f"{dx}x{dy}-dense-{rho:g}"


def gaussian(dx: int, dy: int, rho: float, *, pairs: int | None = None) -> Task:
    """Returns standard normal coordinates with correlation rho, between any two or only in `pairs`; see `correlation`.

    With `pairs`, I = -(pairs / 2) log(1 - rho^2); without, it follows from determinants.

    Raises:
      UserError: rho or pairs is impossible.

    >>> round(gaussian(5, 5, 0.5).nats, 6), round(gaussian(5, 5, 0.8, pairs=2).nats, 6)
    (0.592812, 1.021651)
    """
    return Task(f"gaussian-{_describe(dx, dy, rho, pairs)}", Elliptical(correlation(dx, dy, rho, pairs), dx))


def student(dx: int, dy: int, dof: float, rho: float = 0.0, *, pairs: int | None = None) -> Task:
    """Returns a Student-t distribution with `dof` degrees of freedom. Its dispersion is the correlation of `gaussian`.

    Raises:
      UserError: dof, rho or pairs is impossible.

    >>> round(student(1, 1, 1).nats, 6)
    0.224171
    """
    if not 0 < dof < math.inf:
        raise UserError(f"dof={dof:g}", fix="give a number above 0; infinity is gaussian(...)")
    description = _describe(dx, dy, rho, pairs) if rho else f"{dx}x{dy}"
    return Task(f"student-{description}-dof_{dof:g}", Elliptical(correlation(dx, dy, rho, pairs), dx, dof))


def elliptical(dispersion: np.ndarray, dx: int, dof: float = math.inf, *, name: str = "elliptical") -> Task:
    """Returns a normal distribution with any dispersion matrix [dx+dy, dx+dy], or a Student-t if dof is finite.

    Raises:
      UserError: the matrix is not symmetric and positive definite, or dx leaves no dimension for y.

    >>> round(elliptical(np.array([[4.0, 2.4], [2.4, 4.0]]), 1).nats, 6)
    0.223144
    """
    matrix = np.asarray(dispersion, np.float64)
    is_square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and 0 < dx < len(matrix)
    if not (is_square and np.allclose(matrix, matrix.T) and np.linalg.eigvalsh(matrix).min() > 0 and dof > 0):
        raise UserError(f"no dispersion of x [n, {dx}] and some y: {matrix.shape}", fix="symmetric, positive definite")
    return Task(name, Elliptical(matrix, dx, dof))


def additive(noise: float) -> Task:
    """Returns y = x + u, with x uniform on (0, 1) and u uniform on (-noise, noise).

    I = noise - log(2 noise) for noise <= 1/2, otherwise 1 / (4 noise).

    Raises:
      UserError: noise is not above 0.

    >>> round(additive(0.1).nats, 6), round(additive(0.75).nats, 6)
    (1.709438, 0.333333)
    """
    if not 0 < noise < math.inf:
        raise UserError(f"noise={noise:g}", fix="give a number above 0")
    return Task(f"additive-{noise:g}", Additive(noise))


def bimodal(rho: float) -> Task:
    """Returns a Gaussian copula with correlation rho whose margins are mixtures of two normals of unit variance.

    x has weights .3 and .7 at 0 and 5, y has weights .5 and .5 at -1 and 3.

    Raises:
      UserError: |rho| is not below 1.

    >>> round(bimodal(0.75).nats, 6)
    0.413339
    """
    on_x, on_y = bijections.bimodal((0.3, 0.7), (0.0, 5.0)), bijections.bimodal((0.5, 0.5), (-1.0, 3.0))
    return replace(gaussian(1, 1, rho).through(on_x, on_y), name=f"bimodal-{rho:g}")


def standard() -> tuple[Task, ...]:
    """Returns the 40 tasks of Czyż et al. 2023 in their order, from 1 x 1 to 50 x 50 dimensions and .18 to 1.71 nats.

    >>> len(standard()), min(t.nats for t in standard()) > 0.178, max(t.dims for t in standard())
    (40, True, (50, 50))
    """
    pair = gaussian(1, 1, 0.75)
    sparse = {d: gaussian(d, d, 0.8, pairs=2) for d in (2, 3, 5, 25)}
    larger = [sparse[d] for d in (3, 5, 25)]
    heavy = [student(d, d, dof) for d, dof in ((2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3))]
    return (
        *(pair, pair.normal_cdf(), additive(0.1), additive(0.75), bimodal(0.75), pair.wiggly(), pair.half_cube()),
        *(student(1, 1, 1), student(1, 1, 1).asinh(), pair.normal_cdf().swiss_roll()),
        *(gaussian(d, d, 0.5) for d in (2, 3, 5, 25, 50)),
        *sparse.values(),
        *heavy,
        *(t.normal_cdf() for t in larger),
        *(t.half_cube() for t in larger),
        *(t.spiral() for t in larger),
        *(t.normal_cdf().spiral() for t in larger),
        *(t.asinh() for t in (heavy[0], heavy[2], heavy[4])),
    )
