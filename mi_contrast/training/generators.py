"""The generator that divides a run's images: fresh where it is to learn, another run's where it is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mi_contrast.core.config import differences, plain
from mi_contrast.core.division import Division
from mi_contrast.core.errors import UserError
from mi_contrast.core.keys import stream
from mi_contrast.interchange import load
from mi_contrast.models.towers import GENERATOR


def first(config: Mapping[str, Any], split: Division | None) -> Any:
    """The parameters that a run's generator begins with, numpy arrays; None where no generator divides.

    Raises UserError where config.generator does not fit the split, or the run or export that it starts from holds no
    generator, or one of another form, space, mean or std.
    """
    asked = config["generator"]
    given = [name for name in ("start_from", "learn") if asked[name] is not None]
    if split is None or split.generator is None:
        if given:
            raise UserError(f"config.generator.{given[0]} is given, but no generator divides the images",
                            fix="set model.split and views.split to dict(kind='generator', ...)")  # fmt: skip
        return None
    if len(given) != 1:
        said = "both are given" if given else "neither is given"
        raise UserError(f"of config.generator.start_from and config.generator.learn {said}",
                        fix="a generator is another run's, frozen, or it learns")  # fmt: skip
    if asked["learn"] is not None:
        params = split.generator.init(stream(jax.random.key(config["seed"]), "generator"))
    else:
        params = _of_run(asked["start_from"], config)
    return jax.tree.map(np.asarray, params)


def _of_run(path: str, config: Mapping[str, Any]) -> Any:
    """The parameters of the generator in a run directory or an export."""
    there = load(path)
    if there.split is None or there.split.generator is None:
        raise UserError(f"{path} has no generator", fix="name a run that learned views, or its export")
    own = {"split": there.spec["split"], **{name: list(there.spec[name]) for name in ("mean", "std")}}
    views = plain(config["views"])
    wanted = {"split": views["split"], **{name: list(views[name]) for name in ("mean", "std")}}
    if different := differences(own, wanted):
        fix = f"set views.split and model.split to {dict(own['split'])}, mean and std as there"
        raise UserError(f"the generator of {path} differs in {', '.join(different)}", fix=fix)
    return there.variables[GENERATOR]
