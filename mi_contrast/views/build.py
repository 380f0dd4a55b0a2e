"""The views that a policy makes: one face for every kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.core.mesh import DATA
from mi_contrast.views import channels, patches, two_crops
from mi_contrast.views.checks import check

KINDS: Mapping[str, ModuleType] = {"two_crops": two_crops, "channels": channels, "patches": patches}


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a checked policy; make one with `policies.build`.

    views(sources, keys) -> {name: [B, *shapes[name]]}, each view made from the source that `sources` says, with a key
    of its own folded from the example's. Over a mesh of several devices each makes those of its own part of the batch,
    where the batch divides among them; the values are the same.
    """

    policy: Mapping[str, Any]
    mesh: Mesh | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sources)

    @property
    def sources(self) -> dict[str, int]:
        """Each view's name, and which of the example's sources it is made from: 0 the first, -1 the last."""
        return KINDS[self.policy["kind"]].view_sources(self.policy)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each view's name and the shape of one example: (H, W, C), or (patches, h, w, 3) of a jigsaw."""
        return KINDS[self.policy["kind"]].view_shapes(self.policy)

    @property
    def size(self) -> int:
        return self.policy["size"]

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the three channels: of RGB in [0, 1], or of the space that `channels` splits."""
        return tuple(self.policy["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(self.policy["std"])

    def fit(self, height: int, width: int) -> None:
        """UserError where images of that size can't be viewed so."""
        if self.policy["kind"] == "patches":
            patches.count_places(self.policy["size"], self.policy["distance"], height, width)

    def channels(self, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of the channels of one view."""
        return KINDS[self.policy["kind"]].channel_constants(self.policy, name)

    def __call__(
        self, sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"], generator: Any = None
    ) -> dict[str, Float[Array, "B ..."]]:
        """Every view of a batch, normalised by the policy's mean and std: `divide` of its `crops`.

        Args:
          sources: uint8 [B, V, H, W, 3], V 1 or 2; any H and W.
          keys: typed keys [B], one an example.
          generator: the parameters of the generator that divides, where the policy's split has one.

        Returns:
          float32 [B, *shapes[name]] a view. An example's views depend on its own sources and key alone.
        """
        return self.divide(self.crops(sources, keys), generator)

    def crops(self, sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]) -> dict[str, Float[Array, "B ..."]]:
        """What the views are made of, all that is drawn: the views themselves, or the whole that a split divides."""
        make = partial(KINDS[self.policy["kind"]].make_views, self.policy)
        if self.mesh is not None and self.mesh.size > 1 and len(sources) % self.mesh.size == 0:
            cut = PartitionSpec(DATA)
            make = jax.shard_map(make, mesh=self.mesh, in_specs=(cut, cut), out_specs=cut, check_vma=False)
        return make(sources, keys)

    def divide(self, crops: Mapping[str, Array], generator: Any = None) -> dict[str, Float[Array, "B ..."]]:
        """The views of what `crops` made, divided where the policy has a split."""
        if self.policy["kind"] != "channels":
            return dict(crops)
        return channels.divide(self.policy["split"], crops[channels.WHOLE], generator)


def build(policy: Mapping[str, Any], mesh: Mesh | None = None) -> Views:
    """The views of a policy; over a mesh of several devices each makes those of its own part of the batch.

    Raises UserError as `check` does.
    """
    check(policy)
    return Views(policy, mesh)
