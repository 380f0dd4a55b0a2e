"""A batch encoded in parts, one after the other, so that the activations of one part only are held at a time.

The contrastive batch stays whole: embeddings of all parts meet in the objective, whose gradient then goes back through
each part, encoded a second time. This is gradient accumulation for objectives that are no sum over examples; it costs
one more forward pass. It computes what the undivided step computes, and is refused where it can't: statistics of a
batch that is normalised as a whole can't be had from a part of it.

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
    """How a batch is divided.

    number: parts; pieces: equal contiguous pieces of the batch, part i being every `number`-th of them from i on, so
    that every device has its share of each part; tower: encodes one part.
    """

    number: int
    pieces: int
    tower: Tower

    def encode(self, variables: Any, images: Array, view: str | None) -> TowerOutput:
        """The batch encoded in training mode, part by part, put together in the order of the batch.

        All parts start from the same batch statistics, and theirs are averaged after, as those of groups are.

        Args:
          images: [B, ...], B a multiple of `pieces`.
        """
        cut = images.reshape(self.pieces // self.number, self.number, -1, *images.shape[1:])
        parts = [cut[:, i].reshape(-1, *images.shape[1:]) for i in range(self.number)]
        found = _one_by_one(self.tower, view, variables, parts)

        def together(*rows: Array) -> Array:
            apart = [x.reshape(self.pieces // self.number, -1, *x.shape[1:]) for x in rows]
            return jnp.stack(apart, axis=1).reshape(-1, *rows[0].shape[1:])

        statistics = jax.tree.map(lambda *moved: sum(moved) / self.number, *(part.batch_stats for part in found))
        rows = [part._replace(batch_stats={}) for part in found]
        return jax.tree.map(together, *rows)._replace(batch_stats=statistics)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _one_by_one(tower: Tower, view: str | None, variables: Any, parts: list[Array]) -> list[TowerOutput]:
    """Each part encoded; on the way back each is encoded again, so that nothing of it is kept between.

    Parts are unrolled: inside a `lax.scan` the gradient of a convolution was seen 40 times slower on CPUs.
    """
    found: list[TowerOutput] = []
    for part in parts:
        before = found[-1].embedding if found else None
        found.append(tower.encode(variables, _after(part, before), train=True, view=view))
    return found


def _forth(tower: Tower, view: str | None, variables: Any, parts: list[Array]) -> tuple[list[TowerOutput], Any]:
    return _one_by_one(tower, view, variables, parts), (variables, parts)


def _back(tower: Tower, view: str | None, kept: Any, cotangents: list[TowerOutput]) -> tuple[Any, list[Array]]:
    variables, parts = kept
    total, of_parts, before = None, [], cotangents[-1].embedding
    for part, cotangent in zip(parts, cotangents, strict=True):
        encode = partial(tower.encode, train=True, view=view)
        _, pull = jax.vjp(encode, variables, _after(part, before))
        of_variables, of_part = pull(cotangent)
        total = of_variables if total is None else jax.tree.map(jnp.add, total, of_variables)
        before = jax.tree.leaves(total["params"])[0]
        of_parts.append(of_part)
    return total, of_parts


_one_by_one.defvjp(_forth, _back)


def _after(part: Array, before: Array | None) -> Array:
    """The part, not to be had before `before` is: a sum with 0 times one of its numbers, which no compiler may drop or
    take for the same part encoded already (an optimisation barrier is dropped on CPUs).
    """
    return part if before is None else part + 0.0 * before.ravel()[0]


def divide(number: int, tower: Tower, norm: Mapping[str, Any], batch: int, devices: int) -> Microbatches | None:
    """The batch in `number` parts; None where it is not divided.

    Pieces are the groups that are normalised apart or, where there are no statistics of a batch, `number` pieces a
    device.
    Raises UserError where a part would cut a group, or the batch has no such pieces.
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
