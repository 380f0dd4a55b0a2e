"""The starts of a run: what may differ between them, and the record of each in run.json."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from mi_contrast.core.config import differences
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.layout import RunDirectory, read_json, read_record, set_aside, write_json

FREE = ("steps", "log", "checkpoint")  # what may differ between the starts of one run
ALLOWED = ("optim", "method", "views", "eval")  # what may differ where the user allows it
PACKAGES = ("mi-contrast", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def check_allowed(sections: Sequence[str]) -> tuple[str, ...]:
    """The sections of the config that a start is allowed to change. UserError on one that can't be."""
    for section in sections:
        if section in FREE:
            raise UserError(f"--allow={section} is not needed", fix=f"{', '.join(FREE)} may always differ")
        if section not in ALLOWED:
            raise unknown("section for --allow", section, ALLOWED)
    return tuple(dict.fromkeys(sections))


def find_changes(folder: RunDirectory, config: Mapping[str, Any], allow: Sequence[str]) -> dict[str, list[Any]]:
    """{dotted field: [value of the start before, value of this one]} of the sections allowed to differ."""
    if not allow or not folder.config.is_file():
        return {}
    before = read_json(folder.config)["config"]
    return {
        path: [_value(before, path), _value(config, path)]
        for path in differences(before, config)
        if path.split(".")[0] in allow
    }


def _value(tree: Any, path: str) -> Any:
    for name in path.split("."):
        if isinstance(tree, Mapping):
            tree = tree.get(name)
        elif isinstance(tree, Sequence) and name.isdigit() and int(name) < len(tree):
            tree = tree[int(name)]
        else:
            return None
    return tree


def record_start(
    folder: RunDirectory, config: Mapping[str, Any], start: int, changes: Mapping[str, Any] | None = None
) -> str | None:
    """Adds this start to run.json, setting a broken one aside. Returns the W&B id of earlier starts, if any.

    Args:
      start: the step that it goes on from.
      changes: fields of the config that `--allow` let differ, as `find_changes` gives them.
    """
    record = read_record(folder)
    if folder.starts.is_file() and not record["starts"]:
        there = set_aside(folder.starts, "broken")
        print(f"{folder.starts} can't be read: kept as {there.name}, and a new one is begun")
    begun = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "from_step": start,
        "seed": config["seed"],
        "commit": commit(),
        "devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    record["starts"].append(begun | ({"allowed": dict(changes)} if changes else {}))
    write_json(folder.starts, record)
    return record.get("wandb_id")


def record_wandb(folder: RunDirectory, wandb_id: str | None) -> None:
    """Adds the id of the W&B run to run.json, so that the next start goes on with its curves."""
    if wandb_id is not None:
        write_json(folder.starts, read_record(folder) | {"wandb_id": wandb_id})


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout this package runs from, or None where it is not one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
