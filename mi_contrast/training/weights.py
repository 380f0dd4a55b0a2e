"""The weights that a run starts from: all networks of another run, or the backbone of an export or a published file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from mi_contrast.core import checkpoint as checkpoints
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.interchange import LoadedBackbone, open_source
from mi_contrast.interchange.export import MANIFEST
from mi_contrast.models import towers
from mi_contrast.models.representation import make_spec
from mi_contrast.training.state import State

BACKBONE = ("backbone", "width", "stem", "split", "patch", "depth", "heads", "positions")  # fields that weights fix


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory with a checkpoint, whose networks are taken with their heads."""
    return checkpoints.latest_step(RunDirectory(path).checkpoints) is not None


def has_backbone(path: Path) -> bool:
    """Whether `path` is a file of weights, an export, or a run directory without checkpoints but with an export."""
    exports = any((folder / MANIFEST).is_file() for folder in (path, RunDirectory(path).export))
    return not is_run(path) and (path.is_file() or exports)


def open_weights(path: Path) -> LoadedBackbone:
    """Returns the backbone in an export, in the export of a run without checkpoints, or in another trainer's file.

    Raises UserError if there is none.
    """
    folder = RunDirectory(path)
    return open_source(folder.export if (folder.export / MANIFEST).is_file() else path)


def describe_weights(path: str | None) -> dict[str, Any] | None:
    """Returns the model of the weights, and mean, std and size of their images, as plain data; None without weights."""
    if path is None:
        return None
    loaded = open_source(path) if is_run(Path(path)) else open_weights(Path(path))
    return dict(loaded.representation.spec)


def check_weights(config: Mapping[str, Any]) -> None:
    """Raises UserError if the weights that a config starts from can't be read, or are of another network than its own.

    Of a run directory, `load_networks` checks each leaf.
    """
    path = config["checkpoint"]["start_from"]
    if path is None or not has_backbone(Path(path)):
        return
    compare_models(config["model"], open_weights(Path(path)).representation.spec["model"], path)


def compare_models(model: Mapping[str, Any], published: Mapping[str, Any], where: str) -> None:
    """Raises UserError on the first field of config.model in which the network differs from that of the weights."""
    own = make_spec(model, mean=(0, 0, 0), std=(1, 1, 1), size=1)["model"]
    different = [field for field in BACKBONE if _freeze(own[field]) != _freeze(published[field])]
    if different:
        fixes = " ".join(f"--config.model.{field}={published[field]}" for field in different)
        field = different[0]
        raise UserError(
            f"config.model.{field} is {own[field]!r}, and the weights of {where} have {published[field]!r}",
            fix=f"set {fixes}",
        )


def _freeze(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def load_networks(state: State, path: Path) -> tuple[State, str]:
    """Returns the first state with the networks of another run's newest checkpoint, and a line about them.

    Raises UserError unless every leaf matches and is finite.
    """
    wanted = {"online": dict(state.online)} | ({"target": dict(state.target)} if state.target else {})
    step, networks = checkpoints.read(RunDirectory(path).checkpoints, subtree=tuple(wanted))
    where = f"checkpoint.start_from {path} (step {step})"
    checkpoints.check_match(networks, wanted, where)
    checkpoints.check_finite(networks, where)
    count = len(checkpoints.flatten(wanted))
    return replace(state, **networks), f"weights of {path}, step {step}: {count} of {count} leaves loaded"


def load_backbone(state: State, model: Mapping[str, Any], path: Path) -> tuple[State, str]:
    """Returns the first state with the backbone of an export or a published file, and a line about it.

    The heads stay as they were initialised.

    Args:
      model: config.model.
    Raises UserError unless the network is the same and every leaf matches and is finite.
    """
    loaded = open_weights(path)
    compare_models(model, loaded.representation.spec["model"], str(path))
    variables = loaded.representation.variables
    own = {name: state.online[name]["backbone"] for name in towers.COLLECTIONS}
    new = {name: variables[name] for name in towers.COLLECTIONS}
    checkpoints.check_match(new, own, f"checkpoint.start_from {path}")

    def put(network: Mapping[str, Any]) -> dict[str, Any]:
        return {name: {**part, "backbone": new[name]} if name in new else part for name, part in network.items()}

    networks: dict[str, Any] = {"online": put(state.online)} | ({"target": put(state.target)} if state.target else {})
    count, total = len(jax.tree.leaves(new)), len(jax.tree.leaves(dict(state.online)))
    heads = ", ".join(sorted({part for name in towers.COLLECTIONS for part in state.online[name]} - {"backbone"}))
    line = f"weights of {path}: {count} of {total} tensors loaded, those of the backbone; new: {heads}"
    return replace(state, **networks), "; ".join([line, *loaded.remarks])
