"""The batch as a pool: the candidates are this step's embeddings, over all devices. It has no state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from mi_contrast.core.errors import UserError
from mi_contrast.core.schedules import Progress
from mi_contrast.pools.protocol import BatchEmbeddings, Candidates


@dataclass(frozen=True)
class BatchPool:
    """The embeddings that this step makes of some views. views: their names."""

    views: tuple[str, ...]

    takes: ClassVar[str | None] = None
    network: ClassVar[Literal["online", "target"] | None] = None
    sharded: ClassVar[bool] = True
    per_example: ClassVar[bool] = False

    def check(self, path: str) -> None:
        """Raises UserError where no views are named."""
        if not isinstance(self.views, (tuple, list)) or not self.views:
            raise UserError(f"{path}.views is {self.views!r}", fix="name views, such as ('query', 'key')")

    def init(self, rng: Key[Array, ""], train_mask: Bool[Array, " N"], dim: int, mesh: Mesh) -> None:
        """Returns None: there is nothing to remember."""

    def candidates(self, state: None, batch: BatchEmbeddings, labels: Int[Array, "N R"] | None) -> Candidates:
        """Returns the B x V embeddings of the batch, of which V are an anchor's own, V the number of views."""
        # Views alternate row by row. Put end to end, half of the rows would have to change devices.
        rows = jnp.stack([batch.rows[view] for view in self.views], axis=1)
        ids = jnp.stack([batch.ids[view] for view in self.views], axis=1).reshape(-1)
        return Candidates(
            rows=rows.reshape(len(ids), -1),
            valid=jnp.ones(len(ids), bool),
            ids=ids,
            labels=None if labels is None else labels[ids],
            sharded=True,
            has_gradient=batch.has_gradient,
            own_rows=len(self.views),
        )

    def update(
        self,
        state: None,
        embeddings: Float[Array, "B D"],
        ids: Int[Array, " B"],
        progress: Progress,
        accept: Bool[Array, ""],
        mesh: Mesh,
    ) -> None:
        """Returns None: there is nothing to remember."""
