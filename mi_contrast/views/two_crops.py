"""Images in, two augmented views out: every example by its own draws, on the device, inside the caller's jit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.core.mesh import DATA
from mi_contrast.views.blur import gaussian_blur, reach
from mi_contrast.views.colour import greyscale, jitter, solarize
from mi_contrast.views.draws import Draw, draw
from mi_contrast.views.resampling import Image, resample, to_lines, to_pixels

SOURCES = {"query": 0, "key": -1}  # a view's name, and which of the example's sources it is made from


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a checked policy of kind `two_crops`; make one with `policies.build`.

    views(sources, keys) -> {'query': .., 'key': ..}: 'query' is made from the first source, 'key' from the last, each
    with a key of its own folded from the example's. Over a mesh of several devices each makes those of its own part of
    the batch, where the batch divides among them; the values are the same.
    """

    policy: Mapping[str, Any]
    mesh: Mesh | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(SOURCES)

    @property
    def size(self) -> int:
        return self.policy["size"]

    @property
    def mean(self) -> tuple[float, ...]:
        return tuple(self.policy["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(self.policy["std"])

    def __call__(
        self, sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B size size 3"]]:
        """Both views of a batch, normalised by the policy's mean and std.

        Args:
          sources: uint8 [B, V, H, W, 3], V 1 or 2; any H and W.
          keys: typed keys [B], one an example.

        Returns:
          float32 [B, size, size, 3] a view. An example's views depend on its own source and key alone.
        """
        views = partial(make_views, self.policy)
        if self.mesh is not None and self.mesh.size > 1 and len(sources) % self.mesh.size == 0:
            cut = PartitionSpec(DATA)
            views = jax.shard_map(views, mesh=self.mesh, in_specs=(cut, cut), out_specs=cut, check_vma=False)
        return views(sources, keys)


def make_views(
    policy: Mapping[str, Any], sources: UInt8[Array, "B V H W 3"], keys: Key[Array, " B"]
) -> dict[str, Float[Array, "B size size 3"]]:
    """What `Views` does, on one device."""
    height, width = sources.shape[2:4]
    views = {}
    for number, (name, source) in enumerate(SOURCES.items()):
        ops = policy[name]
        draws = jax.vmap(lambda key, ops=ops, n=number: draw(ops, jax.random.fold_in(key, n), height, width))(keys)
        views[name] = lax.platform_dependent(
            sources[:, source], draws, cpu=partial(one_by_one, policy, ops), default=partial(all_at_once, policy, ops)
        )
    return views


def one_by_one(policy: Mapping[str, Any], ops: Mapping[str, Any], sources: Array, draws: Draw) -> Array:
    """The CPU's way: an image at a time stays in cache, and what its draw leaves out is not computed."""
    return lax.map(lambda pair: augment(policy, ops, *pair, banded=True), (sources, draws))


def all_at_once(policy: Mapping[str, Any], ops: Mapping[str, Any], sources: Array, draws: Draw) -> Array:
    """The accelerator's way: the same computation over the whole batch; every op is computed, then chosen or not."""
    return jax.vmap(lambda source, one: augment(policy, ops, source, one, banded=False))(sources, draws)


def augment(
    policy: Mapping[str, Any], ops: Mapping[str, Any], source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool
) -> Float[Array, "size size 3"]:
    """One view of one source: crop and flip, then the policy's ops in their order, then mean and std.

    A flip commutes with every op here, so it is done by the crop's weights, wherever the policy names it.
    """
    image = resample(to_lines(source), draw.box, policy["size"], draw.flip, banded=banded)
    for name in ops["order"]:
        if name in OPS:
            image = OPS[name](ops[name], draw, image)
    mean, std = (jnp.array(policy[name], jnp.float32) for name in ("mean", "std"))
    return (to_pixels(image) - mean) / std


def apply_jitter(settings: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    return maybe(settings["p"], draw.jitter, lambda x: jitter(x, draw.factors, draw.order), image)


def apply_grey(p: float, draw: Draw, image: Image) -> Image:
    return maybe(p, draw.grey, greyscale, image)


def apply_blur(settings: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    radius = reach(settings["sigma"][1])
    return maybe(settings["p"], draw.blur, lambda x: gaussian_blur(x, draw.sigma, radius), image)


def apply_solarize(settings: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    return maybe(settings["p"], draw.solarize, lambda x: solarize(x, settings["threshold"]), image)


OPS: dict[str, Callable[[Any, Draw, Image], Image]] = {
    "jitter": apply_jitter,
    "grey": apply_grey,
    "blur": apply_blur,
    "solarize": apply_solarize,
}


def maybe(p: float, applies: Array, op: Callable[[Image], Image], image: Image) -> Image:
    """`op` where its draw says so; without a choice where p is 0 or 1."""
    if p <= 0.0 or p >= 1.0:
        return op(image) if p > 0.0 else image
    return lax.cond(applies, op, lambda x: x, image)
