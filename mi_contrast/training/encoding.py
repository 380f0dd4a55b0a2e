"""How a step makes views of a batch and encodes them, and what the networks' outputs are used for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mi_contrast.core import rngs as streams
from mi_contrast.data.readers import Batch, BoxedImages
from mi_contrast.methods.method import TWIN_HEAD
from mi_contrast.models.towers import Tower, TowerOutput
from mi_contrast.training.microbatches import Microbatches
from mi_contrast.training.shuffling import move_rows, shuffled_positions
from mi_contrast.views.policies import Views


def make_crops(views: Views, seed: int, step: Int[Array, ""], batch: Batch) -> Mapping[str, Float[Array, "B H W C"]]:
    """Applies the random operations of the views to a batch. `Views.divide` then splits channels, if there are any.

    Each example draws from the stream `views` of its own random key, which depends on seed, step and position alone.
    """
    positions = jnp.arange(batch.index.shape[0], dtype=jnp.int32)
    rngs = streams.example_rngs(seed, step, positions)
    rngs = jax.vmap(lambda rng: streams.stream_rng(rng, "views"))(rngs)
    if isinstance(batch.sources, BoxedImages):
        return views.apply_random_ops(batch.sources.images, rngs, batch.sources.boxes)
    return views.apply_random_ops(batch.sources, rngs)


@dataclass(frozen=True)
class Encoder:
    """The networks of a run in training mode.

    Attributes:
      tower: the networks, which hold no arrays.
      mesh: the mesh whose axis `data` shards a batch.
      seed: of the run; it orders the shuffle of keys.
      batch_norm_groups: into how many parts of a batch batch norm is divided. Where there are several, keys change
        groups before they are encoded and return after, so that no key shares statistics with its own anchor.
      microbatches: how a batch is encoded in parts; None where it is encoded as a whole.
    """

    tower: Tower
    mesh: Mesh
    seed: int
    batch_norm_groups: int = 1
    microbatches: Microbatches | None = None

    def encode(self, variables: Any, view: str, images: Array) -> TowerOutput:
        """Returns a view's encodings, with the statistics of this batch.

        Args:
          variables: {'params', 'batch_stats'}.
          images: f32 [B, ...], normalised.
        """
        network = find_network(self.tower, view)
        if self.microbatches is not None:
            return self.microbatches.encode(variables, images, network)
        return self.tower.encode(variables, images, train=True, view=network)

    def encode_keys(self, variables: Any, view: str, images: Array) -> TowerOutput:
        """Encodes keys. They are shuffled over the groups of batch norm and returned in the order of the batch.

        Source: He et al. 2020 (MoCo), section 3.3.
        """
        if self.batch_norm_groups == 1:
            return self.encode(variables, view, images)
        positions = shuffled_positions(len(images), self.batch_norm_groups, self.seed)
        encoded = self.encode(variables, view, move_rows(images, positions, self.mesh))
        rows = jax.tree.map(lambda x: move_rows(x, np.argsort(positions), self.mesh), encoded._replace(batch_stats={}))
        return rows._replace(batch_stats=encoded.batch_stats)

    def encode_views(
        self, variables: Any, views: Mapping[str, Array], names: Iterable[str], *, shuffle: bool = False
    ) -> tuple[dict[str, TowerOutput], Any]:
        """Returns the encodings of some views by name, and the batch statistics after them.

        Views are encoded one after the other, each with the running statistics that the one before it left.

        Args:
          shuffle: encode them as `encode_keys` does.
        """
        encodings, statistics = {}, variables.get("batch_stats")
        encode = self.encode_keys if shuffle else self.encode
        for name in names:
            encodings[name] = encode({**variables, "batch_stats": statistics}, name, views[name])
            statistics = encodings[name].batch_stats
        return encodings, statistics


class Encodings(NamedTuple):
    """What the networks made of a batch, by view.

    Attributes:
      online: by the online network, with gradient.
      target: by the target, without gradient; empty where there is no target.
    """

    online: Mapping[str, TowerOutput]
    target: Mapping[str, TowerOutput]

    def select_anchors(self, head: str) -> dict[str, Array]:
        """Returns the embeddings that are anchors in a head's space: the online network's predictions."""
        return select_head(self.online, head, predicted=True)

    def select_keys(self, head: str) -> dict[str, Array]:
        """Returns the embeddings that are positives and candidates: the target's, or without one the predictions."""
        return select_head(self.target, head) if self.target else self.select_anchors(head)

    def embeddings_of(self, network: str, head: str) -> dict[str, Array]:
        """Returns the embeddings of 'online' or 'target', which pools store; without a target both are the online's."""
        return select_head(self.online if network == "online" or not self.target else self.target, head)


def select_head(encodings: Mapping[str, TowerOutput], head: str, *, predicted: bool = False) -> dict[str, Array]:
    """Returns the embeddings of one head by view. With `predicted`, the predictor's; the second head has none."""
    field = "twin" if head == TWIN_HEAD else "prediction" if predicted else "embedding"
    return {view: getattr(encoded, field) for view, encoded in encodings.items()}


def find_network(tower: Tower, view: str) -> str | None:
    """Returns the name of the network that encodes a view: the view's own name, or None if one network encodes all."""
    return None if tower.split is None else view


def encode_plain(tower: Tower, variables: Any, images: Float[Array, "B H W 3"], view: str) -> TowerOutput:
    """Returns the encodings of whole images in eval mode; of a divided tower, by a view's network on its channels."""
    if tower.split is not None:
        images = images[..., tower.split.slices[view]]
    return tower.encode(variables, images, train=False, view=find_network(tower, view))
