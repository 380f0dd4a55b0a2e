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

import mi_contrast
from mi_contrast.core import legacy
from mi_contrast.core.config import differences
from mi_contrast.core.errors import FileError, UserError, unknown
from mi_contrast.core.layout import RunDirectory, read_json, read_record, set_aside, write_json
from mi_contrast.data import fingerprint, sets

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
    before = legacy.complete(read_json(folder.config)["config"])
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


def claim_config(
    folder: RunDirectory,
    config: Mapping[str, Any],
    name: str,
    variant: str | None,
    allow: Sequence[str] = (),
    *,
    finished: bool = False,
) -> None:
    """Writes config.json, or refuses a folder that holds another config's run; that of a finished run stays."""
    described = {"version": mi_contrast.__version__, "name": name, "variant": variant, "config": config}
    if folder.config.is_file():
        there = read_json(folder.config)
        described = {field: value for field, value in described.items() if field != "version" or field in there}
        different = differences(legacy.complete(there["config"]), config)
        fixed = [d for d in different if d.split(".")[0] not in (*FREE, *allow)]
        if fixed:
            raise UserError(
                f"{folder.root} holds a run of another config: {', '.join(fixed[:8])} differ",
                fix="give another --workdir, or the config it was started with",
            )
        if finished:
            if different:
                named = ", ".join(different[:8])
                print(f"nothing is trained: {folder.root} has all its steps; config.json stays, though {named} differ")
            return
        if "steps" in different:
            print(
                f"steps {there['config']['steps']} -> {config['steps']}: schedules stretch, so the result no longer "
                "equals that of one uninterrupted run bit for bit"
            )
    elif folder.checkpoints.is_dir() and any(folder.checkpoints.iterdir()):
        raise FileError(
            f"{folder.root} has checkpoints but no config.json", fix="restore it, or give another --workdir"
        )
    write_json(folder.config, described)


def claim_data(
    folder: RunDirectory,
    images: sets.ImageSet,
    recorded: Mapping[str, Any] | None,
    begun: bool,
    data: Mapping[str, Any],
) -> None:
    """Writes data.json, the data's fingerprint, or refuses data that are not those that the run began with."""
    if recorded is not None:
        if why := fingerprint.describe_change(recorded, images.fingerprint):
            raise UserError(why, fix="restore the data as they were, or give another --workdir")
        return
    if begun and not sets.has_same_listing(data["name"], data["split"], data["dir"]):
        raise UserError(
            f"{folder.root} began under 0.1.0, which lists other files of {data['name']} than are listed now",
            fix="end it with 0.1.0, or give another --workdir",
        )
    write_json(folder.data, dict(images.fingerprint))


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
