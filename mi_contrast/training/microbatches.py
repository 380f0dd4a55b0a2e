"""Microbatches: a batch is encoded in parts, one after the other, so that only one part's activations are held.

The contrastive batch stays whole. The embeddings of all parts meet in the objective, and its gradient then goes back
through each part, which is encoded a second time. This is gradient accumulation for objectives that are not a sum over
examples; it costs one more forward pass. The result equals that of the undivided step. Where it could not, because the
whole batch is normalised together, microbatches are refused.

Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup" (GradCache).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mi_contrast.core.errors import UserError
from mi_contrast.models.normalisation import Statistics
from mi_contrast.models.towers import Tower, TowerOutput


@dataclass(frozen=True)
class Microbatches:
    """How a batch is divided into parts.

    Attributes:
      number: number of parts.
      pieces: the batch is cut into this many equal contiguous pieces. Part i consists of the pieces i, i + number, ..,
        so that every device has its share of each part.
      tower: encodes one part.
    """

    number: int
    pieces: int
    tower: Tower

    def encode(self, variables: Any, images: Array, view: str | None) -> TowerOutput:
        """Returns the encodings of a batch in training mode, in the order of the batch.

        All parts start from the same running statistics; the parts' new ones are averaged, as those of groups are.

        Args:
          images: [B, ...], B a multiple of `pieces`.
        """
        pieces = images.reshape(self.pieces // self.number, self.number, -1, *images.shape[1:])
        parts = [pieces[:, i].reshape(-1, *images.shape[1:]) for i in range(self.number)]
        encoded = _encode_parts(self.tower, view, variables, parts)

        def join(*rows: Array) -> Array:
            pieces = [x.reshape(self.pieces // self.number, -1, *x.shape[1:]) for x in rows]
            return jnp.stack(pieces, axis=1).reshape(-1, *rows[0].shape[1:])

        statistics = jax.tree.map(lambda *s: sum(s) / self.number, *(part.batch_stats for part in encoded))
        rows = [part._replace(batch_stats={}) for part in encoded]
        return jax.tree.map(join, *rows)._replace(batch_stats=statistics)


def divide(number: int, tower: Tower, norm: Mapping[str, Any], batch: int, devices: int) -> Microbatches | None:
    """Returns how the batch is divided into `number` parts; None for 1.

    Pieces are the groups of batch norm or, where no batch statistics are used, `number` pieces on each device.

    Args:
      norm: the config's section model.norm.
      batch: number of examples.
    Raises:
      UserError: a part would cut a group, or the batch has no such pieces.
    """
    if number < 1:
        raise UserError(f"config.optim.microbatches is {number}", fix="give 1 or more")
    if number == 1:
        return None
    groups = norm.get("groups", 1)
    frozen = norm["kind"] == "frozen" or not tower.has_statistics
    if not frozen and groups % number:
        what = "the whole batch" if groups == 1 else f"{groups} groups of the batch"
        raise UserError(
            f"config.optim.microbatches is {number}, but batch statistics are of {what}, which a microbatch would cut",
            fix=f"set model.norm.groups to a multiple of {number}, or model.norm.kind='frozen'",
        )
    pieces = number * devices if frozen else groups
    if batch % pieces:
        raise UserError(f"config.data.batch is {batch}, not a multiple of {pieces}: {number} microbatches, {devices} "
                        "devices")  # fmt: skip
    return Microbatches(number, pieces, tower.with_statistics(Statistics(max(groups // number, 1), frozen)))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _encode_parts(tower: Tower, view: str | None, variables: Any, parts: list[Array]) -> list[TowerOutput]:
    """Returns the encodings of each part. The backward pass encodes each part again, so that none keeps activations.

    Parts are unrolled: inside a `lax.scan` the gradient of a convolution was 40 times slower on CPUs.
    """
    encoded: list[TowerOutput] = []
    for part in parts:
        previous = encoded[-1].embedding if encoded else None
        encoded.append(tower.encode(variables, _wait_for(part, previous), train=True, view=view))
    return encoded


def _encode_parts_forward(
    tower: Tower, view: str | None, variables: Any, parts: list[Array]
) -> tuple[list[TowerOutput], Any]:
    return _encode_parts(tower, view, variables, parts), (variables, parts)


def _encode_parts_backward(
    tower: Tower, view: str | None, residuals: Any, cotangents: list[TowerOutput]
) -> tuple[Any, list[Array]]:
    variables, parts = residuals
    encode = partial(tower.encode, train=True, view=view)
    total, part_gradients, previous = None, [], cotangents[-1].embedding
    for part, cotangent in zip(parts, cotangents, strict=True):
        _, pull_back = jax.vjp(encode, variables, _wait_for(part, previous))
        gradient, part_gradient = pull_back(cotangent)
        total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
        previous = jax.tree.leaves(total["params"])[0]
        part_gradients.append(part_gradient)
    return total, part_gradients


_encode_parts.defvjp(_encode_parts_forward, _encode_parts_backward)


def _wait_for(part: Array, previous: Array | None) -> Array:
    """Returns the part, in a form that can only be computed after `previous`.

    It adds 0 times one of its numbers, which no compiler may drop; CPUs drop an optimisation barrier. This also stops
    the compiler from merging the second encoding of a part with the first.
    """
    return part if previous is None else part + 0.0 * previous.ravel()[0]
