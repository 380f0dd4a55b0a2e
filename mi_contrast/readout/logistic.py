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
from mi_contrast.readout.linear import Linear, statistics


@dataclass(frozen=True)
class LBFGS:
    """How a logistic regression is solved.

    l2: weight of |weights|^2 / 2 beside the mean cross-entropy (the bias is free); scikit-learn's C is 1 / (l2 N).
    It ends when no entry of the gradient exceeds `tolerance`, or after `iterations`.
    """

    l2: float = 1e-4
    iterations: int = 1000
    tolerance: float = 1e-5
    standardise: bool = True

    def __post_init__(self):
        """Raises UserError on a value that can't be."""
        for name, least in (("l2", 0), ("iterations", 1), ("tolerance", 0)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")


class Solution(NamedTuple):
    """The classifier, and how far the solver came: iterations done, largest entry of the gradient left."""

    model: Linear
    iterations: Int[Array, ""]
    gradient: Float[Array, ""]


def fit(features: Float[Arrays, "N F"], labels: Int[Arrays, " N"], settings: LBFGS, *, classes: int) -> Solution:
    """The (W, b) of least mean cross-entropy(x W + b, label) + l2 |W|^2 / 2, sought from zero.

    Args:
      features: float [N, F]; labels: int [N] in [0, classes).

    Returns:
      Solution, float32. The optimum is unique for l2 > 0, but for a shift of b common to all classes.
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
    """The classifier of each regulariser, in the order given, each sought from the one before, the first from zero.

    From strong to weak is quickest: a strong one's optimum is near zero, and each is near the next.

    Args:
      l2s: the regularisers, in place of the one in `settings`.
      watch: wraps the loop over them, to show how it goes.
    Raises UserError on one that can't be.
    """
    for l2 in l2s:
        replace(settings, l2=l2)  # raises where it can't be
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32)
    mean, scale = statistics(features, settings.standardise)
    standardised = (features - mean) / scale
    start = (jnp.zeros((features.shape[1], classes), jnp.float32), jnp.zeros(classes, jnp.float32))
    found = []
    for i in range(len(l2s)) if watch is None else watch(range(len(l2s))):
        (weights, bias), done, left = _solve(
            start, standardised, labels, l2s[i], settings.tolerance, settings.iterations
        )
        start = weights, bias
        found.append(Solution(Linear(weights, bias, mean, scale), done, left))
        if watch is not None:
            jax.block_until_ready(start)
    return found


@jax.jit
def _solve(begin, features, labels, l2, tolerance, iterations):
    def loss(parameters):
        weights, bias = parameters
        logits = jnp.matmul(features, weights, precision="highest") + bias
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(each) + 0.5 * l2 * jnp.sum(weights**2)

    solver = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def largest(gradient):
        return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradient)]))

    def step(carry):
        parameters, state, done, _ = carry
        value, gradient = value_and_gradient(parameters, state=state)
        updates, state = solver.update(gradient, state, parameters, value=value, grad=gradient, value_fn=loss)
        parameters = optax.apply_updates(parameters, updates)
        return parameters, state, done + 1, largest(optax.tree.get(state, "grad"))

    def goes_on(carry):
        _, _, done, left = carry
        return (done < iterations) & (left > tolerance)

    start = (begin, solver.init(begin), jnp.int32(0), largest(jax.grad(loss)(begin)))
    parameters, _, done, left = jax.lax.while_loop(goes_on, step, start)
    return parameters, done, left
