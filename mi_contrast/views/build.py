"""Views, the one interface to policies of every kind."""

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
from mi_contrast.views.augmentation import Boxes, Sources
from mi_contrast.views.checks import check
from mi_contrast.views.draws import Cut, Side, draw_view

KINDS: Mapping[str, ModuleType] = {"two_crops": two_crops, "channels": channels, "patches": patches}


@dataclass(frozen=True, eq=False)
class Views:
    """Makes the views of a policy. Construct it with `policies.build`, which checks the policy.

    views(sources, rngs) -> {name: [B, *shapes[name]]}. Each view folds its own rng from the example's. On a mesh of
    several devices, each device makes the views of its own part of the batch, if the batch size is divisible by their
    number. This does not change the values.
    """

    policy: Mapping[str, Any]
    mesh: Mesh | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.source_index)

    @property
    def source_index(self) -> dict[str, int]:
        """For each view, the index of the source image that it is made from: 0 the first, -1 the last."""
        return KINDS[self.policy["kind"]].view_sources(self.policy)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """For each view, the shape of one example: (H, W, C), or (patches, h, w, 3) for a jigsaw."""
        return KINDS[self.policy["kind"]].view_shapes(self.policy)

    @property
    def size(self) -> int:
        return self.policy["size"]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the three channels, of RGB in [0, 1] or of the colour space that a policy of channels divides."""
        return tuple(self.policy["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(self.policy["std"])

    def check_image_size(self, height: int, width: int) -> None:
        """Raises UserError if images of this size are too small for the policy."""
        if self.policy["kind"] == "patches":
            patches.count_places(self.policy["size"], self.policy["distance"], height, width)

    def channel_constants(self, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns the mean and std of the channels of one view."""
        return KINDS[self.policy["kind"]].channel_constants(self.policy, name)

    @property
    def cuts(self) -> dict[str, Cut]:
        """Every crop that the policy takes of a source image, by name. Patches take none."""
        return KINDS[self.policy["kind"]].find_cuts(self.policy)

    def draw_boxes(self, rng: Key[Array, ""], height: Side, width: Side) -> dict[str, Float[Array, " 4"]]:
        """Returns the box of each of `cuts` in an image of height x width pixels, as `apply_random_ops` draws it.

        Returns:
          float32 [4]: top, left, height and width in pixels.
        """
        boxes = {}
        for name, cut in self.cuts.items():
            box = draw_view(cut.ops, jax.random.fold_in(rng, cut.number), height, width).box
            assert box is not None
            boxes[name] = box
        return boxes

    def __call__(
        self, sources: UInt8[Array, "B I H W 3"], rngs: Key[Array, " B"], generator: Any = None
    ) -> dict[str, Float[Array, "B ..."]]:
        """Makes every view of a batch, normalised by the policy's mean and std.

        It calls `apply_random_ops`, then `divide`.

        Args:
          sources: uint8 [B, I, H, W, 3], I = 1 or 2 images per example, any H and W.
          rngs: typed keys of JAX, [B], one an example.
          generator: parameters of the view generator, if the policy's split has one.

        Returns:
          float32 [B, *shapes[name]] by view. An example's views depend only on its own sources and rng.
        """
        return self.divide(self.apply_random_ops(sources, rngs), generator)

    def apply_random_ops(
        self, sources: Sources, rngs: Key[Array, " B"], boxes: Boxes | None = None
    ) -> dict[str, Float[Array, "B ..."]]:
        """Applies the random operations. With a split the result is the undivided crop, otherwise the views.

        Args:
          sources: uint8 [B, I, H, W, 3]; or for each of `cuts` the crop that was cut while the images were decoded,
            uint8 [B, size, size, 3] by name.
          rngs: one an example.
          boxes: for each of `cuts` the box in pixels of `sources`, float32 [B, 4]; drawn here by default.
        """
        make = partial(KINDS[self.policy["kind"]].make_views, self.policy)
        if self.mesh is not None and self.mesh.size > 1 and len(rngs) % self.mesh.size == 0:
            spec = PartitionSpec(DATA)
            make = jax.shard_map(make, mesh=self.mesh, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
        return make(sources, rngs, boxes)

    def divide(self, crops: Mapping[str, Array], generator: Any = None) -> dict[str, Float[Array, "B ..."]]:
        """Divides what `apply_random_ops` returned into views if the policy has a split, else returns it."""
        if self.policy["kind"] != "channels":
            return dict(crops)
        return channels.divide(self.policy["split"], crops[channels.WHOLE], generator)


def build(policy: Mapping[str, Any], mesh: Mesh | None = None) -> Views:
    """Checks a policy and returns its `Views`. Raises UserError as `check` does."""
    check(policy)
    return Views(policy, mesh)
