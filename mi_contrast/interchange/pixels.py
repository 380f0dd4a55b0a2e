"""How the images of another trainer's weights are prepared, as a command line tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mi_contrast.core.errors import UserError

FLAGS: Mapping[str, str] = {
    "mean=": "of another trainer's file, three numbers for pixels in [0, 1]; ImageNet's by default",
    "std=": "of the same",
    "size=": "of the same, pixels a side; 224 by default",
}


def preprocessing(flags: Mapping[str, str]) -> dict[str, Sequence[float] | int]:
    """What `open_source` takes of these flags. UserError where they are no numbers."""
    given: dict[str, Sequence[float] | int] = {}
    for name in ("mean", "std"):
        if name in flags:
            try:
                given[name] = tuple(float(number) for number in flags[name].split(","))
            except ValueError:
                raise UserError(f"--{name}={flags[name]}", fix="give three numbers, as .485,.456,.406") from None
    if "size" in flags:
        if not flags["size"].isdigit() or int(flags["size"]) < 1:
            raise UserError(f"--size={flags['size']}", fix="give a whole number above 0")
        given["size"] = int(flags["size"])
    return given
