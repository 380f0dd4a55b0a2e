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
    """softmax(features W + b) over `classes`, trained by Adam at rate `lr` on the labelled examples' cross-entropy."""

    classes: int
    lr: float

    def init(self, dim: int) -> dict[str, Any]:
        """Returns {'params': {'kernel' f32 [F, C], 'bias' f32 [C]}, 'optimiser'}, zero weights; F is `dim`."""
        params = init_classifier(dim, self.classes)
        return {"params": params, "optimiser": optax.adam(self.lr).init(params)}

    def learn(
        self, state: dict[str, Any], features: Float[Array, "B F"], labels: Int[Array, " B"]
    ) -> tuple[dict[str, Any], Float[Array, ""]]:
        """Returns the state after one step, and the loss in nats. Labels below 0 are unknown and left out."""

        def compute_loss(params: Any) -> Array:
            return mean_cross_entropy(compute_logits(params, features), labels)

        loss, gradient = jax.value_and_grad(compute_loss)(state["params"])
        updates, optimiser = optax.adam(self.lr).update(gradient, state["optimiser"], state["params"])
        return {"params": optax.apply_updates(state["params"], updates), "optimiser": optimiser}, loss


def init_classifier(dim: int, classes: int) -> dict[str, Array]:
    """Returns {'kernel' f32 [F, C], 'bias' f32 [C]} of zeros; F is `dim`, C the number of classes."""
    return {"kernel": jnp.zeros((dim, classes), jnp.float32), "bias": jnp.zeros((classes,), jnp.float32)}


def compute_logits(params: dict[str, Array], features: Float[Array, "B F"]) -> Float[Array, "B C"]:
    """Returns features W + b."""
    return features @ params["kernel"] + params["bias"]


def mean_cross_entropy(logits: Float[Array, "B C"], labels: Int[Array, " B"]) -> Float[Array, ""]:
    """Returns the mean cross-entropy over examples with a label, in nats. Labels below 0 are unknown."""
    known = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return jnp.sum(jnp.where(known, losses, 0.0)) / jnp.maximum(jnp.sum(known), 1)
