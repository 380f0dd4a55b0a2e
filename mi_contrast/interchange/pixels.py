"""The command-line flags for the preprocessing of another trainer's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mi_contrast.core.errors import UserError

FLAGS: Mapping[str, str] = {
    "mean=": "preprocessing of another trainer's weights: three numbers, for pixels in [0, 1]; ImageNet's by default",
    "std=": "likewise, three numbers",
    "size=": "likewise, the side in pixels; 224 by default",
}


def read_preprocessing(flags: Mapping[str, str]) -> dict[str, Sequence[float] | int]:
    """Returns the argument `preprocessing` of `open_source`. Raises UserError if a flag is not a number."""
    preprocessing: dict[str, Sequence[float] | int] = {}
    for name in ("mean", "std"):
        if name in flags:
            try:
                preprocessing[name] = tuple(float(number) for number in flags[name].split(","))
            except ValueError:
                raise UserError(f"--{name}={flags[name]}", fix="give three numbers, as .485,.456,.406") from None
    if "size" in flags:
        if not flags["size"].isdigit() or int(flags["size"]) < 1:
            raise UserError(f"--size={flags['size']}", fix="give a whole number above 0")
        preprocessing["size"] = int(flags["size"])
    return preprocessing
