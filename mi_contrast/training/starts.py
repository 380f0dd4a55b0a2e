"""The starts of a run: what may differ from one to the next, and the record of each in run.json."""

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
from mi_contrast.core import legacy, processes
from mi_contrast.core.config import differences
from mi_contrast.core.errors import FileError, UserError, unknown
from mi_contrast.core.layout import RunDirectory, read_json, read_record, set_aside, write_json
from mi_contrast.data import fingerprint, own, sets

FREE = ("steps", "log", "checkpoint")  # sections that may always differ
ALLOWED = ("optim", "method", "views", "eval")  # sections that may differ where the user allows it
PACKAGES = ("mi-contrast", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def check_allowed(sections: Sequence[str]) -> tuple[str, ...]:
    """Returns the sections of the config that a start may change, each once.

    Raises:
      UserError: a section that may always differ, or never.
    """
    for section in sections:
        if section in FREE:
            raise UserError(f"--allow={section} is not needed", fix=f"{', '.join(FREE)} may always differ")
        if section not in ALLOWED:
            raise unknown("section for --allow", section, ALLOWED)
    return tuple(dict.fromkeys(sections))


def check_same(config: Mapping[str, Any], data: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Raises UserError unless all processes have the same version of the package, config, data and flags.

    Args:
      data: the fingerprint of the data.
    """
    if processes.count() == 1:
        return
    own = {"version": mi_contrast.__version__, "config": config, "flags": flags}
    first, data_of_first = processes.agree(own), processes.agree(data)
    who = f"process {processes.index()}"
    with processes.together():
        if different := differences(first, own):
            theirs, ours = (_value(facts, different[0]) for facts in (first, own))
            raise UserError(
                f"{who} has {different[0]} {ours!r}, the first process has {theirs!r}",
                fix="start the same command with the same version of the package on all hosts",
            )
        if why := fingerprint.describe_change(data_of_first, data):
            fix = "give all hosts the same data"
            raise UserError(f"the data of {who} differ from the first process's: {why}", fix=fix)


def find_changes(folder: RunDirectory, config: Mapping[str, Any], allow: Sequence[str]) -> dict[str, list[Any]]:
    """Returns the changes in sections that are allowed to differ: {dotted field: [value before, value now]}."""
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


def _is_one_place(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two sections config.data name one folder or file of own pictures, relative to here or absolute."""
    kinds = {data["name"].partition(":")[0] for data in (first, second)}
    if len(kinds) > 1 or not kinds <= set(own.KINDS):
        return False
    return len({sets.resolve_path(data["name"], data["dir"]).resolve() for data in (first, second)}) == 1


def claim_config(
    folder: RunDirectory,
    config: Mapping[str, Any],
    name: str,
    variant: str | None,
    allow: Sequence[str] = (),
    *,
    finished: bool = False,
) -> None:
    """Writes config.json. The one of a finished run is left as it is.

    Raises:
      UserError: the folder holds a run of another config, or checkpoints without a config.
    """
    contents = {"version": mi_contrast.__version__, "name": name, "variant": variant, "config": config}
    if folder.config.is_file():
        existing = read_json(folder.config)
        contents = {field: value for field, value in contents.items() if field != "version" or field in existing}
        different = differences(legacy.complete(existing["config"]), config)
        if "data.name" in different and _is_one_place(existing["config"]["data"], config["data"]):
            different.remove("data.name")
        refused = [name for name in different if name.split(".")[0] not in (*FREE, *allow)]
        if refused:
            raise UserError(
                f"{folder.root} holds a run of another config: {', '.join(refused[:8])} differ",
                fix="give another --workdir, or the config it was started with",
            )
        if finished:
            if different:
                named = ", ".join(different[:8])
                print(f"nothing is trained: {folder.root} has all its steps; config.json stays, though {named} differ")
            return
        if "steps" in different:
            print(
                f"{folder.root} goes on to {config['steps']:,} steps, {existing['config']['steps']:,} were planned "
                "before; its schedules now span all of them, with the same warm-up, so the result is not that of one "
                "run from the start"
            )
        if "version" not in existing and (rules := legacy.list_new_rules(config)):
            print(f"this run of 0.1.0 goes on by newer rules: {'; '.join(rules)}")
    elif folder.checkpoints.is_dir() and any(folder.checkpoints.iterdir()):
        raise FileError(
            f"{folder.root} has checkpoints but no config.json", fix="restore it, or give another --workdir"
        )
    write_json(folder.config, contents)


def claim_data(
    folder: RunDirectory,
    images: sets.ImageSet,
    recorded: Mapping[str, Any] | None,
    has_checkpoint: bool,
    data: Mapping[str, Any],
) -> None:
    """Writes data.json, the fingerprint of the data.

    Raises:
      UserError: the data are not those that the run began with.
    """
    if recorded is not None:
        if why := fingerprint.describe_change(recorded, images.fingerprint):
            raise UserError(why, fix="restore the data as they were, or give another --workdir")
        return
    if has_checkpoint and not sets.has_same_listing(data["name"], data["split"], data["dir"]):
        raise UserError(
            f"{folder.root} began under 0.1.0, which lists other files of {data['name']} than are listed now",
            fix="end it with 0.1.0, or give another --workdir",
        )
    write_json(folder.data, dict(images.fingerprint))


def record_start(
    folder: RunDirectory, config: Mapping[str, Any], start: int, changes: Mapping[str, Any] | None = None
) -> str | None:
    """Adds this start to run.json, and returns the W&B id of earlier starts, if any. A broken run.json is set aside.

    Args:
      start: the step that this start continues from.
      changes: fields of the config that `--allow` let differ, as `find_changes` returns them.
    """
    record = read_record(folder)
    if folder.starts.is_file() and not record["starts"]:
        aside = set_aside(folder.starts, "broken")
        print(f"{folder.starts} can't be read: kept as {aside.name}, and a new one is begun")
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "from_step": start,
        "seed": config["seed"],
        "commit": commit(),
        "devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()],
        "processes": processes.count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    record["starts"].append(entry | ({"allowed": dict(changes)} if changes else {}))
    write_json(folder.starts, record)
    return record.get("wandb_id")


def record_wandb(folder: RunDirectory, wandb_id: str | None) -> None:
    """Adds the id of the W&B run to run.json, so that the next start continues its curves."""
    if wandb_id is not None:
        write_json(folder.starts, read_record(folder) | {"wandb_id": wandb_id})


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Returns the commit of the checkout that this package runs from; None where it is not one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
