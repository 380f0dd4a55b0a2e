"""What chance decides about one view: its crop box, which ops apply, and how strongly."""

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
# A view makes one vector of uniform numbers; each decision reads its own place in it, so that adding or removing an op
# changes no other. A place is part of every run's result: add at the end, never renumber.
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
# What else a view draws, it draws from a key folded from its own by one of these numbers, which are as lasting. They
# begin above the places: in JAX, number i of a key's vector and the key folded by i come of the same bits.
STREAMS = {"layers": 1000, "patches": 1001, "place": 1002}


class Draw(NamedTuple):
    """One view's decisions. Parameters of an op that does not apply are drawn all the same."""

    box: Float[Array, " 4"]  # top, left, height, width, whole pixels of the source
    flip: Bool[Array, ""]
    jitter: Bool[Array, ""]
    factors: Float[Array, " 4"]  # of brightness, contrast, saturation; the turn of the hue
    order: Int[Array, " 4"]  # a permutation of 0 to 3
    grey: Bool[Array, ""]
    blur: Bool[Array, ""]
    sigma: Float[Array, ""]
    solarize: Bool[Array, ""]
    layers: Layers | None  # of RandAugment; None where the policy has none


def draw_view(ops: Mapping[str, Any], key: Key[Array, ""], height: int, width: int) -> Draw:
    """The decisions for one view of a source of height x width pixels, from its key alone.

    Laws: an op applies with its probability p; brightness, contrast and saturation factors are uniform in
    [max(0, 1 - s), 1 + s], the hue's turn in [-s, s], their order uniform over the 24; sigma is uniform; the box as in
    `crop_box` (the whole source without a crop).
    """
    uniform = jax.random.uniform(key, (COUNT,))
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
        layers=draw_layers(ops["randaugment"], stream_rng(key, "layers")) if "randaugment" in ops else None,
    )


def stream_rng(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """The view's key folded by the number of one of `STREAMS`."""
    return jax.random.fold_in(key, STREAMS[name])


def crop_box(
    u_area: Float[Array, " tries"],
    u_aspect: Float[Array, " tries"],
    u_corner: Float[Array, " 2"],
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Float[Array, " 4"]:
    """Inception's random crop as torchvision draws it: the first of the tries that fits, else a centre crop.

    A try has area uniform in `area` (of the source's) and aspect (width / height) log-uniform in `aspect`, both sides
    rounded to whole pixels; it fits if no side is 0 or longer than the source's. The corner is uniform over whole
    pixels. The fallback is the largest centred box of the aspect nearest to the source's.

    Returns: float32 [4]: top, left, height, width.
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


def centre_box(height: int, width: int, aspect: tuple[float, float]) -> Float[Array, " 4"]:
    """The largest centred box of height x width whose aspect lies in `aspect`: float32 [4] top, left, height, width."""
    ratio = width / height
    wide = min(width, round(height * aspect[1])) if ratio > aspect[1] else width
    tall = min(height, round(width / aspect[0])) if ratio < aspect[0] else height
    return jnp.array([(height - tall) // 2, (width - wide) // 2, tall, wide], jnp.float32)
