"""Fields of plain data by their dotted paths, such as 'optim.lr' or 'method.terms.0.temperature'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def has_field(tree: Any, path: str) -> bool:
    """Whether there is a field at a path through dicts. The empty path is the tree itself."""
    for name in path.split(".") if path else ():
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def get_field(tree: Any, path: str) -> Any:
    """Returns the value at a path. Names of a tuple or a list are positions.

    >>> get_field({"terms": ({"weight": 1.0},)}, "terms.0.weight")
    1.0
    """
    for name in path.split("."):
        tree = tree[int(name)] if isinstance(tree, (tuple, list)) else tree[name]
    return tree


def is_none(tree: Any, path: str) -> bool:
    """Whether there is a field at a path through dicts, and its value is None."""
    return has_field(tree, path) and get_field(tree, path) is None


def set_field(tree: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Returns a copy of the tree with another value at a path through dicts; the last of them may lack the field."""
    name, _, rest = path.partition(".")
    return {**tree, name: set_field(tree[name], rest, value) if rest else value}


def drop_field(tree: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Returns a copy of the tree without the field at a path through dicts."""
    section, _, last = path.rpartition(".")
    kept = {name: value for name, value in (get_field(tree, section) if section else tree).items() if name != last}
    return set_field(tree, section, kept) if section else kept
