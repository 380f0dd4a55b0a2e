"""Representation: a trained, frozen backbone with its preprocessing. Every evaluation calls its method `encode`.

If the model has a split (see `towers.Tower`), there are two backbones, and their features are concatenated.
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
from numpy.typing import ArrayLike

from mi_contrast.core import division
from mi_contrast.core.colour import from_rgb
from mi_contrast.core.division import Division
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.mesh import DATA, batch_sharding, replicated
from mi_contrast.models import towers
from mi_contrast.models.description import HEAD_FIELDS, resolve

# Images are encoded in blocks of this size. Smaller inputs are padded to a power of two, to compile few programs.
BLOCK = 256
MAX_THREADS = 8  # on a CPU
RANGE_SLACK = 1e-3
LAYERS = ("pooled", "map")

Images = UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"] | np.ndarray


@dataclass(frozen=True, eq=False)
class Representation:
    """A backbone in evaluation mode, from pixels to features. It is immutable and can be used by several threads.

    Attributes:
      variables: the backbone's variables, {'params', 'batch_stats'}. With a split, each is {'first', 'second'}, and
        'generator' has the parameters of the view generator, if the split has one.
      spec: plain data with the fields
        - model: as config.model, without the heads;
        - split: None, or a division as in config.model;
        - mean, std: three numbers each, of pixels in [0, 1] or in the split's colour space;
        - size: pixels a side of the training images.
    """

    variables: towers.Variables
    spec: Mapping[str, Any]

    def __repr__(self) -> str:
        """Describes it in a line, without the arrays: 'Representation(tiny x 64, 128 features, 32 px)'."""
        model, split = self.spec["model"], self.split
        network = f"{model['backbone']} x {model.get('width', 64)}"
        parts = network if split is None else f"{len(split.slices)} of {network} for the parts of {split}"
        return f"Representation({parts}, {self.dim} features, {self.spec['size']} px)"

    @cached_property
    def backbone(self) -> towers.Backbone:
        """The network. With a split it stands for both networks, which differ only in their variables."""
        return towers.build_backbone(resolve(self.spec["model"]))

    @cached_property
    def split(self) -> Division | None:
        """The division of images between two networks, or None."""
        return division.parse_optional(self.spec["split"])

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.backbone.dim * (1 if self.split is None else len(self.split.slices))

    def prepare(self, images: Images) -> Float[Array, "B H W C"]:
        """Returns the networks' input (see `preprocess`)."""
        spec = self.spec
        return preprocess(images, self.split, spec["mean"], spec["std"], self.variables.get(towers.GENERATOR))

    def encode(self, images: Images, *, layer: str = "pooled") -> Float[Array, "B F"]:
        """Returns the features of each image, in evaluation mode. They do not depend on the other images.

        Args:
          images: RGB [B, H, W, 3] of any size, uint8, or float in [0, 1] and not normalised.
          layer: 'pooled' is the mean over the last feature map or, for a transformer, the class token. 'map' is the
            feature map (for a transformer, the other tokens), flattened from [h, w, features]. Its length grows with H
            and W. Wu et al. 2020 fit their linear classifier on it.

        Returns:
          float32 [B, F], with F = `dim` if pooled. If the variables are replicated over devices, so is the result.
        Raises:
          UserError: the images have another shape, dtype or range, or the layer is unknown.
        """
        check_images(images)
        if layer not in LAYERS:
            raise unknown("layer", layer, LAYERS)
        network = self.backbone, self.split, layer == "pooled"
        mean, std = (np.asarray(self.spec[name], np.float32) for name in ("mean", "std"))
        mesh = find_data_mesh(self.variables)
        batch, num_threads = images.shape[0], count_threads(images, self.variables, mesh)
        block = min(BLOCK, 1 << (-(-batch // num_threads) - 1).bit_length())
        if mesh is not None and block % mesh.shape[DATA]:
            mesh = None

        def encode_block(start: int) -> Array:
            part = images[start : start + block]
            count = part.shape[0]
            if count < block:
                xp = jnp if isinstance(images, jax.Array) else np
                part = xp.concatenate([part, xp.zeros((block - count, *part.shape[1:]), part.dtype)])
            features = _encode(network, mesh, self.variables, part, mean, std)
            return features if count == block else features[:count]

        starts = range(0, batch, block)
        if num_threads == 1 or len(starts) == 1:
            parts = [encode_block(start) for start in starts]
        else:
            with ThreadPoolExecutor(num_threads) as threads:
                parts = list(threads.map(encode_block, starts))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def count_threads(images: Images, variables: towers.Variables, mesh: Mesh | None) -> int:
    """Returns how many threads encode blocks at the same time.

    On a CPU there are several, because XLA does not use all cores well for one block: on two cores, two threads encode
    1.5 times as many images a second. On other devices, and inside a traced function, there is one.
    """
    if mesh is not None or any(isinstance(x, jax.core.Tracer) for x in (images, *jax.tree.leaves(variables))):
        return 1
    return min(MAX_THREADS, os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1


@partial(jax.jit, static_argnums=(0, 1))
def _encode(
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
    """Returns the features of what `preprocess` returned. With a split, concatenates those of both networks."""
    if split is None:
        return cast(Array, backbone.apply(variables, x, False, pooled))
    per_view = {view: {name: variables[name][view] for name in towers.COLLECTIONS} for view in split.slices}
    parts = [backbone.apply(per_view[view], images, False, pooled) for view, images in split.views(x).items()]
    return jnp.concatenate(cast(list[Array], parts), axis=-1)


def preprocess(
    images: Images, split: Division | None, mean: ArrayLike, std: ArrayLike, generator: towers.Variables | None = None
) -> Float[Array, "B H W C"]:
    """Returns the networks' input: (x - mean) / std, divided by the split if there is one.

    x is the pixels in [0, 1] or, with a split, the pixels in its colour space.

    Args:
      images: RGB [B, H, W, 3], uint8, or float in [0, 1].
      split: the division, or None.
      mean, std: three numbers each, as in a spec.
      generator: parameters of the split's generator, if it has one.
    """
    images = jnp.asarray(images)
    x = images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    x = x if split is None else from_rgb(x, split.space)
    x = (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
    return x if split is None else split.apply(x, generator)


def find_data_mesh(variables: towers.Variables) -> Mesh | None:
    """Returns the mesh of the variables if its axis `data` has several devices, else None."""
    sharding = getattr(jax.tree.leaves(variables)[0], "sharding", None)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return mesh if isinstance(mesh, Mesh) and mesh.shape.get(DATA, 1) > 1 else None


def check_images(images: Images) -> None:
    """Raises UserError unless images are [B, H, W, 3] with B of at least 1, uint8, or float in [0, 1]."""
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
    """Makes the spec of a representation from config.model and the preprocessing of its training images.

    Raises UserError if `model` has an unknown word, or if mean and std are not three numbers each with std above 0.
    """
    backbone = {name: field for name, field in resolve(model).items() if name not in HEAD_FIELDS}
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise UserError(f"mean {mean} and std {std} of pixels", fix="give three numbers each, std above 0")
    pixels = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std)), "size": int(size)}
    return {"model": backbone, "split": backbone["split"], **pixels}


def from_tower(
    variables: towers.Variables,
    model: Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    generator: towers.Variables | None = None,
) -> Representation:
    """Makes the representation of a tower's backbone (with a split, of both), without the heads.

    Args:
      variables: the tower's variables, {'params': {'backbone', ..}, 'batch_stats': {'backbone', ..}}.
      model: config.model.
      mean, std: of the training images, in the split's colour space if there is one.
      size: pixels a side of the training images.
      generator: parameters of the split's generator, if it has one.
    """
    backbone = {name: variables[name]["backbone"] for name in towers.COLLECTIONS}
    if generator:
        backbone[towers.GENERATOR] = generator
    return Representation(backbone, make_spec(model, mean=mean, std=std, size=size))
