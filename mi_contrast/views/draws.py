"""Draws the random choices for a view: its crop box, which ops apply, and how strongly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mi_contrast.views.colour import JITTERS, ORDERS
from mi_contrast.views.randaugment import Layers, draw_layers

TRIES = 10
Side = int | Int[Array, ""]  # a number of pixels
# A view draws one vector of uniform numbers, and every choice reads its own entries. Adding or removing an op therefore
# changes no other choice. The places influence the results of every run: add new ones at the end, and never renumber.
PLACES = {
    "area": slice(0, TRIES),
    "aspect": slice(TRIES, 2 * TRIES),
    "corner": slice(20, 22),
    "flip": 22,
    "jitter": 23,
    "factors": slice(24, 28),
    "order": 28,
    "grey": 29,
    "blur": 30,
    "sigma": 31,
    "solarize": 32,
}
COUNT = 33
# For other choices, a view folds its rng by one of these numbers, which must never change either. They are above the
# places, because in JAX entry i of an rng's uniform vector and the rng folded by i come from the same bits.
STREAMS = {"layers": 1000, "patches": 1001, "place": 1002}


class Draw(NamedTuple):
    """The random choices for one view. The parameters of an op are drawn even if the op does not apply."""

    box: Float[Array, " 4"] | None  # top, left, height, width in pixels of the source; None if it is cut already
    flip: Bool[Array, ""]
    jitter: Bool[Array, ""]
    factors: Float[Array, " 4"]  # factors of brightness, contrast and saturation; turn of the hue
    order: Int[Array, " 4"]  # order of the jitters, a permutation of 0 to 3
    grey: Bool[Array, ""]
    blur: Bool[Array, ""]
    sigma: Float[Array, ""]
    solarize: Bool[Array, ""]
    layers: Layers | None  # layers of RandAugment; None if the policy has none


class Cut(NamedTuple):
    """A crop that a policy takes of a source image.

    Attributes:
      number: by which the example's rng is folded.
      ops: the ops of the view, of which `crop` sets the box.
      size: pixels a side of the crop after it is resized.
      source: index of the source image: 0 the first, -1 the last.
    """

    number: int
    ops: Mapping[str, Any]
    size: int
    source: int


def draw_view(ops: Mapping[str, Any], rng: Key[Array, ""], height: Side, width: Side) -> Draw:
    """Draws the choices for one view of an image of height x width pixels, which may be traced.

    - An op applies with its probability p.
    - The factors of brightness, contrast and saturation of strength s are uniform in [max(0, 1 - s), 1 + s], and the
      turn of the hue in [-s, s]. Their order is uniform over all 24.
    - The blur's sigma is uniform in its range.
    - The box is drawn as in `crop_box`. Without a crop it is the whole image.
    """
    uniform = jax.random.uniform(rng, (COUNT,))
    u = {name: uniform[place] for name, place in PLACES.items()}
    crop, jitter, blur, solarize = (ops.get(name) or {} for name in ("crop", "jitter", "blur", "solarize"))
    strength = jnp.array([jitter.get(name, 0.0) for name in JITTERS], jnp.float32)
    middle = jnp.array([1.0, 1.0, 1.0, 0.0], jnp.float32)
    lowest = jnp.maximum(middle - strength, jnp.array([0.0, 0.0, 0.0, -1.0], jnp.float32))
    low, high = blur.get("sigma", (1.0, 1.0))
    return Draw(
        box=crop_box(u["area"], u["aspect"], u["corner"], height, width, crop["area"], crop["aspect"])
        if crop
        else jnp.array([0.0, 0.0, height, width], jnp.float32),
        flip=u["flip"] < ops.get("flip", 0.0),
        jitter=u["jitter"] < jitter.get("p", 0.0),
        factors=lowest + u["factors"] * (middle + strength - lowest),
        order=jnp.asarray(ORDERS)[jnp.int32(len(ORDERS) * u["order"])],
        grey=u["grey"] < ops.get("grey", 0.0),
        blur=u["blur"] < blur.get("p", 0.0),
        sigma=low + u["sigma"] * (high - low),
        solarize=u["solarize"] < solarize.get("p", 0.0),
        layers=draw_layers(ops["randaugment"], stream_rng(rng, "layers")) if "randaugment" in ops else None,
    )


def stream_rng(rng: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Folds the view's rng by the number of one of `STREAMS`."""
    return jax.random.fold_in(rng, STREAMS[name])


def crop_box(
    u_area: Float[Array, " tries"],
    u_aspect: Float[Array, " tries"],
    u_corner: Float[Array, " 2"],
    height: Side,
    width: Side,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Float[Array, " 4"]:
    """Returns the box of Inception's random crop as torchvision draws it: the first try that fits, else a centre crop.

    A try has an area uniform in `area` (shares of the image's area) and an aspect (width / height) log-uniform in
    `aspect`. Its sides are rounded to whole pixels. It fits if no side is 0 or longer than the image's. The corner is
    uniform over whole pixels. The fallback is the largest centred box with the aspect closest to the image's.

    Args:
      u_area, u_aspect, u_corner: uniform numbers in [0, 1).
      height, width: of the image, in pixels. May be traced.
      area, aspect: ranges (low, high).

    Returns:
      float32 [4]: top, left, height, width.
    Source: torchvision.transforms.RandomResizedCrop.get_params.
    """
    target = height * width * (area[0] + u_area * (area[1] - area[0]))
    ratio = jnp.exp(math.log(aspect[0]) + u_aspect * (math.log(aspect[1]) - math.log(aspect[0])))
    wide, tall = jnp.round(jnp.sqrt(target * ratio)), jnp.round(jnp.sqrt(target / ratio))
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = jnp.argmax(fits)
    wide, tall = wide[first], tall[first]
    corner = jnp.floor(u_corner * jnp.stack([height - tall + 1.0, width - wide + 1.0]))
    return jnp.where(jnp.any(fits), jnp.stack([corner[0], corner[1], tall, wide]), centre_box(height, width, aspect))


def centre_box(height: Side, width: Side, aspect: tuple[float, float]) -> Float[Array, " 4"]:
    """Returns the largest centred box with an aspect in `aspect`, float32 [4]: top, left, height, width."""
    ratio = width / height
    wide: Side
    tall: Side
    if isinstance(height, int) and isinstance(width, int):
        wide = min(width, round(height * aspect[1])) if ratio > aspect[1] else width
        tall = min(height, round(width / aspect[0])) if ratio < aspect[0] else height
    else:
        widest, tallest = jnp.round(height * aspect[1]), jnp.round(width / aspect[0])
        wide = jnp.where(ratio > aspect[1], jnp.minimum(width, widest), width).astype(jnp.int32)
        tall = jnp.where(ratio < aspect[0], jnp.minimum(height, tallest), height).astype(jnp.int32)
    return jnp.array([(height - tall) // 2, (width - wide) // 2, tall, wide], jnp.float32)
