"""Applies the ops of a policy to an image, given the random choices (a `Draw`) for it, or to a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt8

from mi_contrast.views.blur import count_taps, gaussian_blur
from mi_contrast.views.colour import greyscale, jitter, solarize
from mi_contrast.views.draws import Draw, draw_view
from mi_contrast.views.randaugment import randaugment
from mi_contrast.views.resampling import Image, resample, to_lines

# The images of a batch, or the crops that were cut for each view while the images were decoded.
Sources = UInt8[Array, "B I H W 3"] | Mapping[str, UInt8[Array, "B size size 3"]]
Boxes = Mapping[str, Float[Array, "B 4"]]  # by view, the box in pixels of its source


class MakeView(Protocol):
    """A function that makes one view of one image from its draw.

    `banded` selects how the crop is resampled (see `resample`). It is faster on a CPU and does not change the result.
    """

    def __call__(self, source: UInt8[Array, "H W 3"], draw: Any, *, banded: bool) -> Array: ...


def augment(ops: Mapping[str, Any], size: int, source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool) -> Image:
    """Crops and flips an image, then applies the other ops in the policy's order. Returns float32 [size, 3, size].

    The flip is part of the crop's resampling, wherever the policy lists it. This does not change the distribution of
    views: a flip commutes with every op except `randaugment`, whose rotations and shifts are symmetric. If the draw has
    no box, the image is a crop already, of size x size pixels.
    """
    if draw.box is None:
        lines = to_lines(source)
        return apply_ops(ops, draw, jnp.where(draw.flip, lines[..., ::-1], lines))
    return apply_ops(ops, draw, resample(to_lines(source), draw.box, size, draw.flip, banded=banded))


def select_source(sources: Sources, name: str, source: int) -> UInt8[Array, "B H W 3"]:
    """Returns the images that the view `name` is made from: the source of this index, or the crop cut for the view."""
    return sources[name] if isinstance(sources, Mapping) else sources[:, source]


def set_box(draw: Draw, sources: Sources, boxes: Boxes | None, name: str) -> Draw:
    """Returns the draw with the box that was drawn for the whole image, or with None if the crop is cut already."""
    if isinstance(sources, Mapping):
        return draw._replace(box=None)
    return draw if boxes is None else draw._replace(box=boxes[name])


def apply_ops(ops: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    """Applies the ops other than crop and flip, in the policy's order."""
    for name in ops["order"]:
        if name in OPS:
            image = OPS[name](ops[name], draw, image)
    return image


def draw_batch(ops: Mapping[str, Any], number: int, rngs: Key[Array, " B"], sources: UInt8[Array, "B H W 3"]) -> Draw:
    """Draws the random choices of a batch for the view with this number, from each example's rng."""
    height, width = sources.shape[1:3]
    return jax.vmap(lambda rng: draw_view(ops, jax.random.fold_in(rng, number), height, width))(rngs)


def map_batch(make: MakeView, sources: UInt8[Array, "B H W 3"], draws: Any) -> Array:
    """Applies `make` to every example: one at a time on CPU, vectorised elsewhere."""
    return lax.platform_dependent(
        sources, draws, cpu=partial(map_sequentially, make), default=partial(map_vectorised, make)
    )


def map_sequentially(make: MakeView, sources: Array, draws: Any) -> Array:
    """Applies `make` to one example at a time. A CPU then keeps the image in cache and skips ops that don't apply."""
    return lax.map(lambda pair: make(*pair, banded=True), (sources, draws))


def map_vectorised(make: MakeView, sources: Array, draws: Any) -> Array:
    """Applies `make` to the whole batch at once. Every op is computed for every example, then selected or not."""
    return jax.vmap(partial(make, banded=False))(sources, draws)


def apply_jitter(settings: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    return apply_if(settings["p"], draw.jitter, lambda x: jitter(x, draw.factors, draw.order), image)


def apply_grey(p: float, draw: Draw, image: Image) -> Image:
    return apply_if(p, draw.grey, greyscale, image)


def apply_blur(settings: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    radius = count_taps(settings["sigma"][1])
    return apply_if(settings["p"], draw.blur, lambda x: gaussian_blur(x, draw.sigma, radius), image)


def apply_solarize(settings: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    return apply_if(settings["p"], draw.solarize, lambda x: solarize(x, settings["threshold"]), image)


def apply_randaugment(settings: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    return randaugment(image, draw.layers, tuple(settings["fill"]))  # type: ignore[arg-type]


OPS: dict[str, Callable[[Any, Draw, Image], Image]] = {
    "jitter": apply_jitter,
    "grey": apply_grey,
    "blur": apply_blur,
    "solarize": apply_solarize,
    "randaugment": apply_randaugment,
}


def apply_if(p: float, applies: Array, op: Callable[[Image], Image], image: Image) -> Image:
    """Applies `op` if `applies` is True. A probability p of 0 or 1 needs no branch."""
    if p <= 0.0 or p >= 1.0:
        return op(image) if p > 0.0 else image
    return lax.cond(applies, op, lambda x: x, image)
