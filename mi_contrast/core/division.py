"""Divisions of an image into two views, 'first' and 'second', by channels, by frequency or by a learned colour space.

`views` divides training images this way, and `models` encodes each view with a network of its own. The fields
`config.model.split` and `config.views.split` describe a division:

  a colour space, such as 'lab'       channel 0, and channels 1 and 2 (Tian et al. 2020, CMC)
  dict(kind='bands', space, sigma)    the Gaussian blur, and the image minus its blur (Tian et al. 2020, InfoMin)
  dict(kind='generator', space, flow, couplings, hidden)
                                      channel 0, and channels 1 and 2, of a learned colour space g(image) (InfoMin);
                                      every call takes the parameters of g
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.core.bands import split_bands
from mi_contrast.core.colour import check_space
from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.generators import Generator, Params

VIEWS = ("first", "second")
KINDS: Mapping[str, tuple[str, ...]] = {
    "bands": ("space", "sigma"),
    "generator": ("space", "flow", "couplings", "hidden"),
}


@dataclass(frozen=True)
class Division:
    """How an image is divided into two views. Hashable, so it can be a static argument of `jit`.

    Attributes:
      space: the colour space of the images that are divided.
      sigma: standard deviation of the blur in pixels; None unless the views are bands.
      generator: the learned colour space, without its parameters; None unless there is one.
    """

    space: str
    sigma: float | None = None
    generator: Generator | None = None

    @property
    def slices(self) -> Mapping[str, slice]:
        """For each view, the slice of its channels in what `apply` returns."""
        ends = (0, 3, 6) if self.sigma is not None else (0, 1, 3)
        return {view: slice(*ends[i : i + 2]) for i, view in enumerate(VIEWS)}

    @property
    def is_colour_space(self) -> bool:
        """Whether the views are unchanged channels of the colour space."""
        return self.sigma is None and self.generator is None

    def count(self, view: str) -> int:
        """Number of channels of a view."""
        channels = self.slices[view]
        return int(channels.stop - channels.start)

    def apply(self, images: Float[Array, "*batch H W 3"], params: Params | None = None) -> Float[Array, "*batch H W C"]:
        """Returns the channels of both views, concatenated. `slices` says which are whose.

        Args:
          images: float32 [..., H, W, 3], normalised, in the division's colour space.
          params: parameters of the generator, if the division has one.
        """
        if self.sigma is not None:
            return jnp.concatenate(split_bands(images, self.sigma), axis=-1)
        if self.generator is not None:
            assert params is not None, "a division by a generator needs the generator's parameters"
            return self.generator.forward(params, images)
        return images

    def views(self, divided: Float[Array, "*batch H W C"]) -> dict[str, Float[Array, "*batch H W channels"]]:
        """Splits what `apply` returned into the two views, by name."""
        return {view: divided[..., channels] for view, channels in self.slices.items()}

    def __str__(self) -> str:
        if self.sigma is not None:
            return f"bands of {self.space}, sigma {self.sigma:g}"
        return self.space if self.generator is None else f"generator of {self.space}"


def parse_optional(split: object, path: str = "split") -> Division | None:
    """Returns the division that `split` describes, or None if `split` is None. Raises UserError as `parse` does."""
    return None if split is None else parse(split, path)


def parse(split: object, path: str = "split") -> Division:
    """Returns the division that `split` describes (see the module's docstring).

    Raises:
      UserError: `split` has an unknown or missing field, or a value out of range. `path` names the config's field.
    """
    if isinstance(split, str):
        return Division(check_space(split, path))
    if not isinstance(split, Mapping) or "kind" not in split:
        fix = f"give a colour space, or dict(kind=...) with kind one of {', '.join(KINDS)}"
        raise UserError(f"{path} is {split!r}", fix=fix)
    if split["kind"] not in KINDS:
        raise unknown(f"kind of {path}", split["kind"], KINDS)
    check_section(path, split, ("kind", *KINDS[split["kind"]]))
    space = check_space(split["space"], f"{path}.space")
    if split["kind"] == "generator":
        return Division(space, generator=Generator(*(split[name] for name in ("flow", "couplings", "hidden"))))
    sigma = split["sigma"]
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 < sigma < 1e3:
        raise UserError(f"{path}.sigma is {sigma!r}", fix="give a number of pixels above 0")
    return Division(space, sigma=float(sigma))
