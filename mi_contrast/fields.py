"""Changes fields of a config from Python, by their dotted or plain names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core.config import change, to_plain_data
from mi_contrast.core.errors import UserError, nearest


def change_fields(config: ConfigDict | Mapping[str, Any], fields: Mapping[str, Any]) -> ConfigDict:
    """Returns the config with some fields changed.

    Args:
      fields: values by name. A name is dotted ('optim.lr'), or plain where only one field has it ('batch'). A dict
        changes the fields that it names of a section: `optim={'lr': .1}`.
    Raises:
      UserError: no field or several fields have the name, or a value is of another kind than the field's.
    """
    changed = ConfigDict(to_plain_data(config), convert_dict=True).lock()
    for name, value in fields.items():
        path = find_path(to_plain_data(changed), name)
        for at, item in _list_changes(to_plain_data(changed), path, to_plain_data(value, path)):
            changed = change(changed, at, item if isinstance(item, str) else repr(item))
    return changed


def find_path(tree: Mapping[str, Any], name: str) -> str:
    """Returns the dotted name of the one field that a name stands for."""
    paths = list(_list_paths(tree))
    if name in paths:
        return name
    matches = [path for path in paths if path.rpartition(".")[2] == name or path.endswith(f".{name}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(matches)
        raise UserError(f"{len(matches)} fields are called {name!r}", fix=f"give one of {names}, in a dict: {{**...}}")
    last = {path.rpartition(".")[2]: path for path in reversed(paths)}
    near = nearest(name, paths) or last.get(nearest(name, last) or "")
    raise UserError(f"no field {name!r} in the config", nearest=near, fix=f"its sections are {', '.join(sorted(tree))}")


def _list_paths(tree: Mapping[str, Any], path: str = "") -> list[str]:
    """Returns the dotted names of all sections and fields; what is inside of a schedule or an option is no field."""
    found = []
    for name, item in tree.items():
        found.append(f"{path}{name}")
        if isinstance(item, Mapping) and "kind" not in item:
            found += _list_paths(item, f"{path}{name}.")
        elif isinstance(item, Mapping):
            found += [f"{path}{name}.{inner}" for inner in item]
    return found


def _list_changes(tree: Mapping[str, Any], path: str, value: Any) -> list[tuple[str, Any]]:
    """Returns (path, value) of each field that a value changes: those that a dict names of a section."""
    old: Any = tree
    for name in path.split("."):
        old = old[name]
    is_section = isinstance(old, Mapping) and bool(old) and not path.endswith(".options")
    if is_section and isinstance(value, Mapping) and set(value) <= set(old) and "kind" not in value:
        return [change for name, item in value.items() for change in _list_changes(tree, f"{path}.{name}", item)]
    if is_section and isinstance(value, Mapping) and "kind" not in value:
        wrong = next(name for name in value if name not in old)
        fix = f"its fields are {', '.join(sorted(old))}"
        raise UserError(f"no field {wrong!r} in config.{path}", nearest=nearest(wrong, old), fix=fix)
    return [(path, value)]
