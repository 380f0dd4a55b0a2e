"""A representation: a trained backbone with its preprocessing, frozen; `encode` is what every score of it uses.

Of a split (see `towers.Tower`) it is two backbones: features of the first beside features of the second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float, UInt8

from mi_contrast.core import division
from mi_contrast.core.colour import from_rgb
from mi_contrast.core.division import Division
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.mesh import DATA, batch_sharding, replicated
from mi_contrast.models import towers
from mi_contrast.models.description import HEAD_FIELDS, resolve

# One program serves blocks of at most this many images; smaller ones are a power of two, which makes a few more.
BLOCK = 256
MAX_THREADS = 8  # threads at most, on a CPU
RANGE_SLACK = 1e-3
LAYERS = ("pooled", "map")

Images = UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"] | np.ndarray


@dataclass(frozen=True, eq=False)
class Representation:
    """A backbone in evaluation mode, from pixels to features. Immutable; may be used from several threads.

    Attributes:
      variables: the backbone's alone, {'params', 'batch_stats'}; of a split each is {'first', 'second'}, and
        'generator' has the parameters of what divides, where that is a generator.
      spec: plain data: model (as config.model, without its heads), split (as there: None, or a division), mean and std
        (3 each, of pixels in [0, 1], or in the split's colour space), size (pixels a side it was trained at).
    """

    variables: towers.Variables
    spec: Mapping[str, Any]

    @cached_property
    def backbone(self) -> towers.Backbone:
        """The network; of a split, either of the two, which differ in their variables alone."""
        return towers.build_backbone(resolve(self.spec["model"]))

    @cached_property
    def split(self) -> Division | None:
        """What divides an image between two networks, if anything."""
        return division.parse_optional(self.spec["split"])

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.backbone.dim * (1 if self.split is None else len(self.split.slices))

    def prepare(self, images: Images) -> Float[Array, "B H W C"]:
        """What the networks are given: see `preprocess`."""
        spec = self.spec
        return preprocess(images, self.split, spec["mean"], spec["std"], self.variables.get(towers.GENERATOR))

    def encode(self, images: Images, *, layer: str = "pooled") -> Float[Array, "B F"]:
        """Features of each image alone, in evaluation mode.

        Args:
          images: uint8, or floating in [0, 1], [B, H, W, 3], RGB, not normalised, of any H and W, any B.
          layer: 'pooled', the mean over the last map or, of a transformer, its class token; or 'map', the map itself
            (of a transformer the other tokens), flattened as [h, w, features], whose length grows with H and W (Wu et
            al. 2020 fit their linear classifier on it).

        Returns:
          f32 [B, F], F = `dim` where pooled; the same array on every device where the variables are replicated over
          several.
        Raises UserError on another shape, dtype or range, or an unknown layer.
        """
        check_images(images)
        if layer not in LAYERS:
            raise unknown("layer", layer, LAYERS)
        network = self.backbone, self.split, layer == "pooled"
        mean, std = (np.asarray(self.spec[name], np.float32) for name in ("mean", "std"))
        mesh = find_data_mesh(self.variables)
        batch, callers = images.shape[0], count_threads(images, self.variables, mesh)
        block = min(BLOCK, 1 << (-(-batch // callers) - 1).bit_length())
        if mesh is not None and block % mesh.shape[DATA]:
            mesh = None

        def features(start: int) -> Array:
            part = images[start : start + block]
            kept = part.shape[0]
            if kept < block:
                stack = jnp if isinstance(images, jax.Array) else np
                part = stack.concatenate([part, stack.zeros((block - kept, *part.shape[1:]), part.dtype)])
            found = _features(network, mesh, self.variables, part, mean, std)
            return found if kept == block else found[:kept]

        starts = range(0, batch, block)
        if callers == 1 or len(starts) == 1:
            parts = [features(start) for start in starts]
        else:
            with ThreadPoolExecutor(callers) as threads:
                parts = list(threads.map(features, starts))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def count_threads(images: Images, variables: towers.Variables, mesh: Mesh | None) -> int:
    """How many threads call a block each. On a CPU several: XLA shares one block's work among the cores badly, and two
    threads on two cores take half as many images again a second. Elsewhere, and inside a traced function, one.
    """
    if mesh is not None or any(isinstance(x, jax.core.Tracer) for x in (images, *jax.tree.leaves(variables))):
        return 1
    return min(MAX_THREADS, os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1


@partial(jax.jit, static_argnums=(0, 1))
def _features(
    network: tuple[towers.Backbone, Division | None, bool],
    mesh: Mesh | None,
    variables: towers.Variables,
    images: Array,
    mean: Array,
    std: Array,
) -> Array:
    backbone, split, pooled = network
    if mesh is not None:
        images = jax.lax.with_sharding_constraint(images, batch_sharding(mesh))
    x = preprocess(images, split, mean, std, variables.get(towers.GENERATOR))
    features = apply_backbone(backbone, split, variables, x, pooled)
    features = features.reshape(len(features), -1)
    return features if mesh is None else jax.lax.with_sharding_constraint(features, replicated(mesh))


def apply_backbone(
    backbone: towers.Backbone, split: Division | None, variables: towers.Variables, x: Array, pooled: bool = True
) -> Array:
    """Features in evaluation mode of what `preprocess` made; of a split those of both networks, side by side."""
    if split is None:
        return cast(Array, backbone.apply(variables, x, False, pooled))
    own = {view: {name: variables[name][view] for name in towers.COLLECTIONS} for view in split.slices}
    parts = [backbone.apply(own[view], seen, False, pooled) for view, seen in split.views(x).items()]
    return jnp.concatenate(cast(list[Array], parts), axis=-1)


def preprocess(
    images: Images, split: Division | None, mean: Any, std: Any, generator: Any = None
) -> Float[Array, "B H W C"]:
    """(x - mean) / std, x the pixels in [0, 1] or, with a split, in its colour space; and then as the split divides it:
    what the networks are given.

    Args:
      images: uint8, or floating in [0, 1], [B, H, W, 3], RGB.
      mean, std: of a spec, three numbers each.
      generator: the parameters of the split's generator, where it has one.
    """
    images = jnp.asarray(images)
    x = images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    x = x if split is None else from_rgb(x, split.space)
    x = (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
    return x if split is None else split.apply(x, generator)


def find_data_mesh(variables: towers.Variables) -> Mesh | None:
    """The mesh that the variables are placed on, where it has an axis `data` of several devices."""
    sharding = getattr(jax.tree.leaves(variables)[0], "sharding", None)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.shape.get(DATA, 1) > 1 else None


def check_images(images: Images) -> None:
    """UserError where images are not uint8 or floating in [0, 1] of shape [B, H, W, 3], B at least 1."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.shape[0] == 0:
        raise UserError(f"images of shape {list(images.shape)}", fix="encode takes [B, H, W, 3] with B at least 1")
    if images.dtype == np.uint8:
        return
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images of dtype {images.dtype}", fix="encode takes uint8, or floating in [0, 1]")
    if isinstance(images, jax.core.Tracer):
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):
        raise UserError(
            f"floating images range from {low:.4g} to {high:.4g}", fix="encode takes [0, 1], before normalisation"
        )


def make_spec(model: Mapping[str, Any], *, mean: Sequence[float], std: Sequence[float], size: int) -> dict[str, Any]:
    """The spec of a representation: `model` resolved and without its heads, and the pixels it was trained on.

    Raises UserError on an unknown word in `model`, or where mean and std are not three numbers each, std above 0.
    """
    described = {name: field for name, field in resolve(model).items() if name not in HEAD_FIELDS}
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(f"mean {mean} and std {std} of pixels", fix="give three numbers each, std above 0")
    pixels = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std)), "size": int(size)}
    return {"model": described, "split": described["split"], **pixels}


def from_tower(
    variables: towers.Variables,
    model: Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    generator: Any = None,
) -> Representation:
    """The representation of a tower's backbone, or of both of a split's; its heads are left out.

    Args:
      variables: the tower's, {'params': {'backbone', ..}, 'batch_stats': {'backbone', ..}}.
      generator: the parameters of the generator that divides, where one does.
      model: config.model.
      mean, std, size: of the pixels it was trained on, mean and std in the split's colour space.
    """
    backbone = {name: variables[name]["backbone"] for name in towers.COLLECTIONS}
    if generator:
        backbone[towers.GENERATOR] = generator
    return Representation(backbone, make_spec(model, mean=mean, std=std, size=size))
