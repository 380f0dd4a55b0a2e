"""One source and its draw in, one augmented image out: the ops of a policy in their order, on one or on many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import jax
from jax import lax
from jaxtyping import Array, Key, UInt8

from mi_contrast.views.blur import count_taps, gaussian_blur
from mi_contrast.views.colour import greyscale, jitter, solarize
from mi_contrast.views.draws import Draw, draw_view
from mi_contrast.views.randaugment import randaugment
from mi_contrast.views.resampling import Image, resample, to_lines


class MakeView(Protocol):
    """A view of one source, from its draw. `banded` as in `resample`: the faster way on a CPU, with the same value."""

    def __call__(self, source: UInt8[Array, "H W 3"], draw: Any, *, banded: bool) -> Array: ...


def augment(ops: Mapping[str, Any], size: int, source: UInt8[Array, "H W 3"], draw: Draw, *, banded: bool) -> Image:
    """Crop and flip, then the ops in their order: float32 [size, 3, size] in [0, 1].

    A flip commutes with every op but `randaugment`, whose turns and shifts are as likely either way; so it is done by
    the crop's weights, wherever the policy names it.
    """
    return apply_ops(ops, draw, resample(to_lines(source), draw.box, size, draw.flip, banded=banded))


def apply_ops(ops: Mapping[str, Any], draw: Draw, image: Image) -> Image:
    """The ops that come after crop and flip, in the policy's order."""
    for name in ops["order"]:
        if name in OPS:
            image = OPS[name](ops[name], draw, image)
    return image


def draw_batch(ops: Mapping[str, Any], number: int, keys: Key[Array, " B"], sources: UInt8[Array, "B H W 3"]) -> Draw:
    """The decisions of a batch for the view that has this number, each from its example's key."""
    height, width = sources.shape[1:3]
    return jax.vmap(lambda key: draw_view(ops, jax.random.fold_in(key, number), height, width))(keys)


def map_batch(make: MakeView, sources: UInt8[Array, "B H W 3"], draws: Any) -> Array:
    """`make` of every example, in the way that is fast where it is compiled for."""
    return lax.platform_dependent(
        sources, draws, cpu=partial(map_sequentially, make), default=partial(map_vectorised, make)
    )


def map_sequentially(make: MakeView, sources: Array, draws: Any) -> Array:
    """The CPU's way: an image at a time stays in cache, and what its draw leaves out is not computed."""
    return lax.map(lambda pair: make(*pair, banded=True), (sources, draws))


def map_vectorised(make: MakeView, sources: Array, draws: Any) -> Array:
    """The accelerator's way: the same computation over the whole batch; every op is computed, then chosen or not."""
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
    """`op` where its draw says so; without a choice where p is 0 or 1."""
    if p <= 0.0 or p >= 1.0:
        return op(image) if p > 0.0 else image
    return lax.cond(applies, op, lambda x: x, image)
