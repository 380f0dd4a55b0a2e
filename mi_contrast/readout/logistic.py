"""Multinomial logistic regression on frozen features, solved to its optimum by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.readout.accuracy import Arrays
from mi_contrast.readout.linear import LinearModel, statistics


@dataclass(frozen=True)
class LBFGS:
    """How a logistic regression is solved.

    Attributes:
      l2: factor of |weights|^2 / 2 in the loss; the bias is not regularised. scikit-learn's C is 1 / (l2 N).
      iterations: maximum number of iterations.
      tolerance: the solver stops when no entry of the gradient exceeds it.
      standardise: whether to bring features to mean 0 and variance 1 first.
    """

    l2: float = 1e-4
    iterations: int = 1000
    tolerance: float = 1e-5
    standardise: bool = True

    def __post_init__(self):
        """Raises UserError if a value is out of range."""
        for name, minimum in (("l2", 0), ("iterations", 1), ("tolerance", 0)):
            if not getattr(self, name) >= minimum:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {minimum} or more")


class Solution(NamedTuple):
    """The classifier, the number of iterations, and the largest entry of the gradient at the end."""

    model: LinearModel
    iterations: Int[Array, ""]
    gradient: Float[Array, ""]


def fit(features: Float[Arrays, "N F"], labels: Int[Arrays, " N"], settings: LBFGS, *, classes: int) -> Solution:
    """Returns the (W, b) that minimises the mean of cross-entropy(x W + b, label) + l2 |W|^2 / 2, starting from zero.

    Args:
      features: float [N, F].
      labels: int [N] in [0, classes).
      settings: how to solve.
      classes: number of classes.
    Returns:
      Solution, float32. For l2 > 0 the optimum is unique up to a constant added to all of b.
    Source: optax.lbfgs (Nocedal & Wright 2006, algorithm 7.5, zoom line search).
    """
    return fit_path(features, labels, settings, (settings.l2,), classes=classes)[0]


def fit_path(
    features: Float[Arrays, "N F"],
    labels: Int[Arrays, " N"],
    settings: LBFGS,
    l2s: Sequence[float],
    *,
    classes: int,
    watch: Callable[[range], Iterable[int]] | None = None,
) -> list[Solution]:
    """Returns a solution for each l2 in the given order. Each starts from the one before, the first from zero.

    Decreasing order is fastest: the optimum for a large l2 is near zero, and that for the next is near the last.

    Args:
      features, labels, settings, classes: see `fit`.
      l2s: the values of l2, instead of that in `settings`.
      watch: wraps the loop over l2s, for a progress display.
    Raises:
      UserError: an l2 below 0.
    """
    for l2 in l2s:
        replace(settings, l2=l2)  # checks the value
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32)
    mean, scale = statistics(features, settings.standardise)
    standardised = (features - mean) / scale
    start = (jnp.zeros((features.shape[1], classes), jnp.float32), jnp.zeros(classes, jnp.float32))
    solutions = []
    for i in range(len(l2s)) if watch is None else watch(range(len(l2s))):
        (weights, bias), iterations, gradient = _solve(
            start, standardised, labels, l2s[i], settings.tolerance, settings.iterations
        )
        start = weights, bias
        solutions.append(Solution(LinearModel(weights, bias, mean, scale), iterations, gradient))
        if watch is not None:
            jax.block_until_ready(start)
    return solutions


@jax.jit
def _solve(initial, features, labels, l2, tolerance, max_iterations):
    def compute_loss(parameters):
        weights, bias = parameters
        logits = jnp.matmul(features, weights, precision="highest") + bias
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses) + 0.5 * l2 * jnp.sum(weights**2)

    solver = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(compute_loss)

    def max_entry(gradient):
        return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradient)]))

    def iterate(carry):
        parameters, state, iteration, _ = carry
        value, gradient = value_and_gradient(parameters, state=state)
        updates, state = solver.update(gradient, state, parameters, value=value, grad=gradient, value_fn=compute_loss)
        parameters = optax.apply_updates(parameters, updates)
        return parameters, state, iteration + 1, max_entry(optax.tree.get(state, "grad"))

    def should_continue(carry):
        _, _, iteration, max_gradient = carry
        return (iteration < max_iterations) & (max_gradient > tolerance)

    start = (initial, solver.init(initial), jnp.int32(0), max_entry(jax.grad(compute_loss)(initial)))
    parameters, _, iterations, max_gradient = jax.lax.while_loop(should_continue, iterate, start)
    return parameters, iterations, max_gradient
