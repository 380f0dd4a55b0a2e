"""The online probe: a linear classifier that learns beside the network, on features that carry no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class Probe:
    """softmax(features W + b) over `classes`, by Adam at rate `lr` on the mean cross-entropy of the labelled."""

    classes: int
    lr: float

    def init(self, dim: int) -> dict[str, Any]:
        """{'params': {'kernel' f32 [F, C], 'bias' f32 [C]}, 'optimiser'}, zero weights."""
        params = {
            "kernel": jnp.zeros((dim, self.classes), jnp.float32),
            "bias": jnp.zeros((self.classes,), jnp.float32),
        }
        return {"params": params, "optimiser": optax.adam(self.lr).init(params)}

    def learn(
        self, state: dict[str, Any], features: Float[Array, "B F"], labels: Int[Array, " B"]
    ) -> tuple[dict[str, Any], Float[Array, ""]]:
        """One step. Labels below 0 are unknown and left out. Returns the new state and the loss in nats."""
        known = labels >= 0

        def loss_of(params: Any) -> Array:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, features), jnp.maximum(labels, 0))
            return jnp.sum(jnp.where(known, losses, 0.0)) / jnp.maximum(jnp.sum(known), 1)

        loss, gradient = jax.value_and_grad(loss_of)(state["params"])
        updates, optimiser = optax.adam(self.lr).update(gradient, state["optimiser"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "optimiser": optimiser}, loss


def logits(params: dict[str, Array], features: Float[Array, "B F"]) -> Float[Array, "B C"]:
    """Features W + b."""
    return features @ params["kernel"] + params["bias"]
