"""Distributions whose mutual information is known: ground truth for every estimator.

A task is a distribution of pairs with a closed form, and one-to-one maps of x and of y, which change nothing of it:

  task = tasks.gaussian(5, 5, 0.8, pairs=2).half_cube()
  x, y = task.sample(key, 5000)          # float32 [5000, 5] each
  task.nats                              # 1.0217, the truth
  task.log_ratio(x, y).mean()            # the optimal critic: its mean tends to the truth

The family is that of Czyż et al. 2023, "Beyond Normal: On the Evaluation of Mutual Information Estimators"; the names
of its members are ours.
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
        """Dimensions of x and y."""

    @property
    def nats(self) -> float:
        """The mutual information."""

    def sample(self, key: Array, n: int) -> tuple[Samples, Samples]:
        """So many pairs, independent."""

    def log_ratio(self, x: Samples, y: Samples) -> Float[Array, " n"]:
        """The log of p(x, y) / (p(x) p(y)), pair by pair."""


@dataclass(frozen=True, eq=False)
class Elliptical:
    """A normal (dof infinite) or Student-t distribution of (x, y) with mean 0 and a dispersion matrix [dx+dy, dx+dy].

    I = I_normal + c(dof) + c(dof+dx+dy) - c(dof+dx) - c(dof+dy), c(t) = log Gamma(t/2) - (t/2) digamma(t/2), where
    I_normal = (log det D_xx + log det D_yy - log det D) / 2; of a normal, I_normal alone. A Student-t shares its scale
    between x and y, so that even the identity has information.
    Source: Arellano-Valle, Contreras-Reyes and Genton 2013, "Shannon entropy and mutual information for multivariate
    skew-elliptical distributions".
    """

    dispersion: np.ndarray
    dx: int
    dof: float = math.inf

    @property
    def dims(self) -> tuple[int, int]:
        """Dimensions of x and y."""
        return self.dx, len(self.dispersion) - self.dx

    def _blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.dispersion, self.dispersion[: self.dx, : self.dx], self.dispersion[self.dx :, self.dx :]

    @property
    def nats(self) -> float:
        """The mutual information."""
        whole, x, y = (np.linalg.slogdet(block)[1] for block in self._blocks())
        normal = float(x + y - whole) / 2
        if math.isinf(self.dof):
            return normal
        (dx, dy), dof = self.dims, self.dof
        return normal + _c(dof) + _c(dof + dx + dy) - _c(dof + dx) - _c(dof + dy)

    def sample(self, key: Array, n: int) -> tuple[Samples, Samples]:
        """So many pairs, independent."""
        normal, scale = jax.random.split(key)
        root = jnp.asarray(np.linalg.cholesky(self.dispersion), jnp.float32)
        both = jax.random.normal(normal, (n, len(root))) @ root.T
        if not math.isinf(self.dof):
            both = both * jnp.sqrt(self.dof / jax.random.chisquare(scale, self.dof, (n,)))[:, None]
        return both[:, : self.dx], both[:, self.dx :]

    def log_ratio(self, x: Samples, y: Samples) -> Float[Array, " n"]:
        """The log of p(x, y) / (p(x) p(y)), pair by pair."""
        parts = (jnp.concatenate([x, y], axis=-1), x, y)
        whole, of_x, of_y = (self._log_density(t, block) for t, block in zip(parts, self._blocks(), strict=True))
        return whole - of_x - of_y

    def _log_density(self, t: Samples, dispersion: np.ndarray) -> Float[Array, " n"]:
        """Up to a constant times d, which cancels in the ratio."""
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
    """In float64, which jax's is not: the recurrence up to 12, then the asymptotic series."""
    value = 0.0
    while t < 12:
        value, t = value - 1 / t, t + 1
    squared = 1 / t**2
    series = squared * (1 / 12 - squared * (1 / 120 - squared * (1 / 252 - squared * (1 / 240 - squared / 132))))
    return value + math.log(t) - 0.5 / t - series


@dataclass(frozen=True)
class Additive:
    """y = x + u, x uniform on (0, 1), u uniform on (-noise, noise).

    I = noise - log(2 noise) where noise <= 1/2, else 1 / (4 noise).
    """

    noise: float

    @property
    def dims(self) -> tuple[int, int]:
        """Dimensions of x and y."""
        return 1, 1

    @property
    def nats(self) -> float:
        """The mutual information."""
        return self.noise - math.log(2 * self.noise) if self.noise <= 0.5 else 1 / (4 * self.noise)

    def sample(self, key: Array, n: int) -> tuple[Samples, Samples]:
        """So many pairs, independent."""
        of_x, of_noise = jax.random.split(key)
        x = jax.random.uniform(of_x, (n, 1))
        return x, x + jax.random.uniform(of_noise, (n, 1), minval=-self.noise, maxval=self.noise)

    def log_ratio(self, x: Samples, y: Samples) -> Float[Array, " n"]:
        """The log of p(x, y) / (p(x) p(y)), pair by pair."""
        near = jnp.minimum(y + self.noise, 1) - jnp.maximum(y - self.noise, 0)  # length of the x that y can come from
        return jnp.where(jnp.abs(y - x) <= self.noise * (1 + 1e-6) + 1e-6, -jnp.log(near), -jnp.inf)[:, 0]


@dataclass(frozen=True, eq=False)
class Task:
    """A distribution of pairs, seen through one-to-one maps of x and of y. Its methods give new tasks of equal truth.

    name: says all of it; base: the distribution; on_x, on_y: the maps, first to last.

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
        """The true mutual information, in nats: the base's, whatever the maps."""
        return self.base.nats

    @property
    def dims(self) -> tuple[int, int]:
        """Dimensions of x and y as sampled."""
        dx, dy = self.base.dims
        return dx + any(m.name == "swiss_roll" for m in self.on_x), dy

    def sample(self, key: Array, n: int) -> tuple[Float[Array, "n dx"], Float[Array, "n dy"]]:
        """So many independent pairs, x float32 [n, dx] and y float32 [n, dy], a function of the key."""
        x, y = self.base.sample(key, n)
        for m in self.on_x:
            x = m.forward(x)
        for m in self.on_y:
            y = m.forward(y)
        return x, y

    def log_ratio(self, x: Float[Array, "n dx"], y: Float[Array, "n dy"]) -> Float[Array, " n"]:
        """The optimal critic, log p(x, y) / (p(x) p(y)), f32 [n], of pairs as sampled; its mean over pairs is `nats`.

        With swiss_roll the densities are along the roll.
        """
        for m in reversed(self.on_x):
            x = m.inverse(x)
        for m in reversed(self.on_y):
            y = m.inverse(y)
        return self.base.log_ratio(x, y)

    def through(self, on_x: Bijection = IDENTITY, on_y: Bijection = IDENTITY, name: str = "") -> Task:
        """The task seen through one more one-to-one map of x and one of y."""
        name = name or on_x.name or on_y.name
        return replace(self, name=f"{name}-{self.name}", on_x=(*self.on_x, on_x), on_y=(*self.on_y, on_y))

    def half_cube(self) -> Task:
        """Every coordinate as t sqrt|t|."""
        return self.through(bijections.half_cube(), bijections.half_cube())

    def asinh(self) -> Task:
        """Every coordinate's inverse hyperbolic sine."""
        return self.through(bijections.asinh(), bijections.asinh())

    def normal_cdf(self) -> Task:
        """The normal distribution function of every coordinate."""
        return self.through(bijections.normal_cdf(), bijections.normal_cdf())

    def wiggly(self) -> Task:
        """Every coordinate plus small sines, rising."""
        return self.through(bijections.wiggly(0), bijections.wiggly(1))

    def spiral(self, speed: float = 1.0) -> Task:
        """Rows turned by speed |t|^2 / d: x within its coordinates 0 and 1, y within 1 and 2 (0 and 1 if it has two).

        Raises: UserError where x or y has one dimension.
        """
        dx, dy = self.dims
        if min(dx, dy) < 2:
            raise UserError(f"spiral of {self.name}: x and y need two dimensions", fix="turn a task of more dimensions")
        on_x, on_y = bijections.spiral(speed / dx, (0, 1)), bijections.spiral(speed / dy, (1, 2) if dy > 2 else (0, 1))
        return self.through(on_x, on_y, name="spiral" if speed == 1 else f"spiral_{speed:g}")

    def swiss_roll(self) -> Task:
        """Only x, one dimension within (0, 1), rolled up in two.

        Raises: UserError where x is not so.
        """
        uniform = self.on_x[-1].name == "normal_cdf" if self.on_x else isinstance(self.base, Additive)
        if self.dims[0] != 1 or not uniform:
            raise UserError(
                f"swiss_roll of {self.name}: x must be one number in (0, 1)", fix="use .normal_cdf() before"
            )
        return self.through(bijections.swiss_roll())


def correlation(dx: int, dy: int, rho: float, pairs: int | None = None) -> np.ndarray:
    """A correlation matrix, float64 [dx+dy, dx+dy]: rho between any two coordinates, or between x_i and y_i, i < pairs.

    Raises: UserError where that is no correlation matrix.

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


def _which(dx: int, dy: int, rho: float, pairs: int | None) -> str:
    if pairs is not None:
        return f"{dx}x{dy}-{pairs}_pairs-{rho:g}"
    return f"{dx}x{dy}-{rho:g}" if dx == dy == 1 else f"{dx}x{dy}-dense-{rho:g}"


def gaussian(dx: int, dy: int, rho: float, *, pairs: int | None = None) -> Task:
    """Standard normal coordinates: rho between any two (dense), or between x_i and y_i alone for i < pairs (sparse).

    Sparse: I = -(pairs / 2) log(1 - rho^2); dense: from the determinants.
    Raises: UserError where rho or pairs is impossible.

    >>> round(gaussian(5, 5, 0.5).nats, 6), round(gaussian(5, 5, 0.8, pairs=2).nats, 6)
    (0.592812, 1.021651)
    """
    return Task(f"gaussian-{_which(dx, dy, rho, pairs)}", Elliptical(correlation(dx, dy, rho, pairs), dx))


def student(dx: int, dy: int, dof: float, rho: float = 0.0, *, pairs: int | None = None) -> Task:
    """Student-t of `dof` degrees of freedom, by default of identity dispersion; otherwise as `gaussian`.

    Raises: UserError where dof, rho or pairs is impossible.

    >>> round(student(1, 1, 1).nats, 6)
    0.224171
    """
    if not 0 < dof < math.inf:
        raise UserError(f"dof={dof:g}", fix="give a number above 0; infinity is gaussian(...)")
    which = _which(dx, dy, rho, pairs) if rho else f"{dx}x{dy}"
    return Task(f"student-{which}-dof_{dof:g}", Elliptical(correlation(dx, dy, rho, pairs), dx, dof))


def elliptical(dispersion: np.ndarray, dx: int, dof: float = math.inf, *, name: str = "elliptical") -> Task:
    """Any dispersion matrix [dx+dy, dx+dy], positive definite: normal, or Student-t where dof is finite.

    Raises: UserError where the matrix is not symmetric and positive definite, or dx leaves nothing for y.

    >>> round(elliptical(np.array([[4.0, 2.4], [2.4, 4.0]]), 1).nats, 6)
    0.223144
    """
    matrix = np.asarray(dispersion, np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and 0 < dx < len(matrix)
    if not (square and np.allclose(matrix, matrix.T) and np.linalg.eigvalsh(matrix).min() > 0 and dof > 0):
        raise UserError(f"no dispersion of x [n, {dx}] and some y: {matrix.shape}", fix="symmetric, positive definite")
    return Task(name, Elliptical(matrix, dx, dof))


def additive(noise: float) -> Task:
    """Adds noise: y = x + u, x uniform on (0, 1), u on (-noise, noise).

    I = noise - log(2 noise) where noise <= 1/2, else 1 / (4 noise).

    Raises: UserError where noise is not above 0.

    >>> round(additive(0.1).nats, 6), round(additive(0.75).nats, 6)
    (1.709438, 0.333333)
    """
    if not 0 < noise < math.inf:
        raise UserError(f"noise={noise:g}", fix="give a number above 0")
    return Task(f"additive-{noise:g}", Additive(noise))


def bimodal(rho: float) -> Task:
    """Two modes in x (.3 at 0, .7 at 5) and in y (half at -1, half at 3), of unit variance, under a normal copula.

    Raises: UserError where |rho| is not below 1.

    >>> round(bimodal(0.75).nats, 6)
    0.413339
    """
    of_x, of_y = bijections.bimodal((0.3, 0.7), (0.0, 5.0)), bijections.bimodal((0.5, 0.5), (-1.0, 3.0))
    return replace(gaussian(1, 1, rho).through(of_x, of_y), name=f"bimodal-{rho:g}")


def standard() -> tuple[Task, ...]:
    """The forty of the benchmark of Czyż et al. 2023, in its order, from 1 x 1 to 50 x 50 dimensions, .18 to 1.71 nats.

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
