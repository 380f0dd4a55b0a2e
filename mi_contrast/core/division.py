"""Divisions: what makes two views of one image, each with a network of its own. On the ground floor, since views are
made by them and representations of two networks are read by them.

`config.model.split` and `config.views.split` name one:

  a colour space                                  channel 0 of it, and channels 1 and 2 (Tian et al. 2020, CMC)
  dict(kind='bands', space, sigma)                the image blurred, and what the blur took away (Tian et al. 2020,
                                                  InfoMin)
  dict(kind='generator', space, flow, couplings, hidden)   channel 0 of g(image), and channels 1 and 2: a colour space
                                                  that is learned (InfoMin); its parameters are given to every call
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.core.bands import bands
from mi_contrast.core.colour import known
from mi_contrast.core.config import fields
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.generators import Generator, Params

VIEWS = ("first", "second")
KINDS: Mapping[str, tuple[str, ...]] = {
    "bands": ("space", "sigma"),
    "generator": ("space", "flow", "couplings", "hidden"),
}


@dataclass(frozen=True)
class Division:
    """A division, ready to be applied; hashable. sigma: pixels, of bands; generator: its form, without parameters."""

    space: str
    sigma: float | None = None
    generator: Generator | None = None

    @property
    def slices(self) -> Mapping[str, slice]:
        """Which of the channels that `apply` returns each view has."""
        ends = (0, 3, 6) if self.sigma is not None else (0, 1, 3)
        return {view: slice(*ends[i : i + 2]) for i, view in enumerate(VIEWS)}

    @property
    def plain(self) -> bool:
        """Whether its views are channels of the colour space as they are."""
        return self.sigma is None and self.generator is None

    def count(self, view: str) -> int:
        """Channels of a view."""
        found = self.slices[view]
        return int(found.stop - found.start)

    def apply(self, images: Float[Array, "*batch H W 3"], params: Params | None = None) -> Float[Array, "*batch H W C"]:
        """The channels of both views side by side, `slices` telling whose they are.

        Args:
          images: f32 [..., H, W, 3] in the division's colour space, normalised.
          params: the generator's, where there is one.
        """
        if self.sigma is not None:
            return jnp.concatenate(bands(images, self.sigma), axis=-1)
        if self.generator is not None:
            assert params is not None, "a generator divides by its parameters"
            return self.generator.forward(params, images)
        return images

    def views(self, divided: Float[Array, "*batch H W C"]) -> dict[str, Float[Array, "*batch H W channels"]]:
        """Each view's channels of what `apply` returned."""
        return {view: divided[..., seen] for view, seen in self.slices.items()}

    def __str__(self) -> str:
        if self.sigma is not None:
            return f"bands of {self.space}, sigma {self.sigma:g}"
        return self.space if self.generator is None else f"generator of {self.space}"


def read(split: object, where: str = "split") -> Division | None:
    """The division that `split` describes, None where it is None. Raises UserError as `named` does."""
    return None if split is None else named(split, where)


def named(split: object, where: str = "split") -> Division:
    """The division that `split` describes. Raises UserError on an unknown word or number."""
    if isinstance(split, str):
        return Division(known(split, where))
    if not isinstance(split, Mapping) or "kind" not in split:
        fix = f"give a colour space, or dict(kind=...) with kind one of {', '.join(KINDS)}"
        raise UserError(f"{where} is {split!r}", fix=fix)
    if split["kind"] not in KINDS:
        raise unknown(f"kind of {where}", split["kind"], KINDS)
    fields(where, split, ("kind", *KINDS[split["kind"]]))
    space = known(split["space"], f"{where}.space")
    if split["kind"] == "generator":
        return Division(space, generator=Generator(*(split[name] for name in ("flow", "couplings", "hidden"))))
    sigma = split["sigma"]
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 < sigma < 1e3:
        raise UserError(f"{where}.sigma is {sigma!r}", fix="give a number of pixels above 0")
    return Division(space, sigma=float(sigma))
