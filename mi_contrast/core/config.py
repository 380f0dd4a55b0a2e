"""Configs: plain data made by a Python file, changed field by field from the command line.

A config file defines `get_config(variant) -> ConfigDict` of plain values (numbers, strings, None, tuples, dicts).
`--config=path.py:variant` is looked for in the working folder, then in the package;
`--config.section.field=value` changes one field that exists, to a value of its kind.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core import schedules
from mi_contrast.core.errors import FileError, UserError, nearest, unknown


@dataclass(frozen=True)
class Call:
    """What a command line asked for: the config with its changes applied, and the job's own flags.

    `config` is None where no --config was given; `flags` maps a flag's name to its text ('' for a bare flag).
    """

    config: ConfigDict | None = None
    name: str | None = None
    variant: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)


def package_configs() -> Path:
    """The folder of the config files that come with the package: inside it when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "configs", package.parent / "configs"
    return inside if inside.is_dir() else beside


def find_config(path: str) -> Path:
    """The config file that `path` names, in the working folder or among the package's. UserError if none."""
    given = Path(path)
    relative = Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    for candidate in (given, package_configs() / relative):
        if candidate.is_file():
            return candidate
    known = [f"configs/{p.relative_to(package_configs())}" for p in sorted(package_configs().rglob("*.py"))]
    raise FileError(
        f"config file {path!r} does not exist", nearest=nearest(path, known), fix=f"one of: {', '.join(known)}"
    )


def load_config(spec: str) -> tuple[ConfigDict, str, str | None]:
    """The config of 'path.py[:variant]', its name (the file's stem) and its variant.

    Raises UserError where the file is missing, doesn't run, has no get_config, or refuses the variant.
    """
    path, _, variant = spec.partition(":")
    file = find_config(path)
    module_spec = importlib.util.spec_from_file_location(f"mi_contrast_config_{file.stem}", file)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError) as error:
        raise UserError(f"config file {file} does not run ({type(error).__name__}: {error})", fix="mend it") from None
    if not hasattr(module, "get_config"):
        raise UserError(f"config file {file} has no get_config", fix="define get_config(variant) -> ConfigDict")
    default = inspect.signature(module.get_config).parameters.get("variant")
    if variant and default is None:
        raise UserError(f"config file {file} has no variants", fix=f"leave out ':{variant}'")
    if not variant and default is not None and default.default is not inspect.Parameter.empty:
        variant = default.default
    try:
        config = module.get_config(variant) if variant else module.get_config()
    except (AttributeError, KeyError) as error:  # a locked ConfigDict answers an unknown field so
        raise UserError(f"config file {file}: {' '.join(str(error).split())}", fix="mend the field's name") from None
    return config, file.stem, variant or None


def plain(value: Any, where: str = "config") -> Any:
    """The value as plain data: dicts, tuples, numbers, strings, None. UserError on anything else, naming its place."""
    if isinstance(value, ConfigDict):
        value = {key: value[key] for key in value}
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(plain(item, f"{where}.{i}") for i, item in enumerate(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(f"{where} is a {type(value).__name__}", fix="a config holds plain data only")


def _read(text: str) -> Any:
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _literal(node: ast.expr) -> Any:
    """The plain value that an expression of literals writes; dict(a=1) is one too. ValueError on any other."""
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[]) if all(word.arg for word in node.keywords):
            return {str(word.arg): _literal(word.value) for word in node.keywords}
        case ast.Dict() if None not in node.keys:
            keys = [ast.literal_eval(key) for key in node.keys if key is not None]
            return dict(zip(keys, map(_literal, node.values), strict=True))
        case ast.Tuple() | ast.List():
            made = [_literal(item) for item in node.elts]
            return tuple(made) if isinstance(node, ast.Tuple) else made
    return ast.literal_eval(node)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def convert(old: Any, text: str, where: str) -> Any:
    """The text as a value of the old value's kind. UserError where it is of another kind.

    Where the old value is a number or a schedule, a schedule may be given as a dict; where it is None, anything plain;
    where it is a word or a dict with a `kind`, either of the two; where it is an empty dict, any.
    """
    new = _read(text)
    if old is None:
        return plain(new, where)
    if isinstance(old, bool):
        if isinstance(new, bool):
            return new
    elif isinstance(old, str):
        return plain(new, where) if isinstance(new, Mapping) and "kind" in new else text
    elif isinstance(new, Mapping) and (_is_number(old) or isinstance(old, Mapping)):
        if new.get("kind") in schedules.FIELDS and (_is_number(old) or old.get("kind") in schedules.FIELDS):
            return plain(new, where)
        of_kinds = isinstance(old, Mapping) and old.get("kind") not in schedules.FIELDS
        whole = not old or where.endswith(".options")  # what a data set may be told is its own affair
        if of_kinds and (whole or set(new) <= set(old) or ("kind" in old and "kind" in new)):
            return plain(new, where)
    elif isinstance(old, Mapping):
        if _is_number(new) and old.get("kind") in schedules.FIELDS:
            return new
        if isinstance(new, str) and "kind" in old and old["kind"] not in schedules.FIELDS:
            return new
    elif isinstance(old, int):
        if _is_number(new) and int(new) == new:
            return int(new)
    elif isinstance(old, float):
        if _is_number(new):
            return float(new)
    elif isinstance(old, tuple):
        if isinstance(new, (tuple, list)):
            return plain(new, where)
        if isinstance(new, str) or _is_number(new):
            return (new,)
    raise UserError(f"{where} takes a {type(old).__name__} such as {old!r}, not {text!r}")


def change(config: ConfigDict, path: str, text: str) -> ConfigDict:
    """The config with the field at dotted `path` set from `text`. UserError where there is no such field."""
    tree = plain(config)
    where = f"config.{path}"

    def descend(node: Any, names: list[str], seen: str) -> Any:
        name, rest = names[0], names[1:]
        if isinstance(node, tuple):
            if not name.isdigit() or int(name) >= len(node):
                raise UserError(f"{seen} has no item {name!r}", fix=f"0 to {len(node) - 1}")
            at: Any = int(name)
        elif isinstance(node, dict) and name in node:
            at = name
        elif isinstance(node, dict):
            elsewhere = (found for found in _paths(tree) if found.rpartition(".")[2] == name)
            likely = nearest(name, node) or next(elsewhere, None)
            raise UserError(f"no field {name!r} in {seen}", nearest=likely, fix=f"fields: {', '.join(sorted(node))}")
        else:
            raise UserError(f"{seen} is {node!r} and has no fields", fix=f"set it with --{seen}=...")
        new = descend(node[at], rest, f"{seen}.{name}") if rest else convert(node[at], text, where)
        if isinstance(node, tuple):
            return (*node[:at], new, *node[at + 1 :])
        return {**node, at: new}

    return ConfigDict(descend(tree, path.split("."), "config"), convert_dict=True).lock()


def _paths(tree: Any, where: str = "config") -> list[str]:
    if not isinstance(tree, dict):
        return [where]
    return [where, *(p for key, item in tree.items() for p in _paths(item, f"{where}.{key}"))]


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Dotted names of the fields in which two plain trees differ, lists and tuples taken as equal kinds."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = list(dict.fromkeys([*old, *new]))
        return [d for n in names for d in differences(old.get(n, "<absent>"), new.get(n, "<absent>"), f"{where}.{n}")]
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{where}.{i}")]
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [where.lstrip(".")]


def parse(arguments: list[str], flags: Mapping[str, str], *, positional: str | None = None, usage: str = "") -> Call:
    """Reads a command line.

    Args:
      arguments: as in sys.argv[1:].
      flags: name -> help; a name ending in '=' takes a value. `config=` also admits --config.field=value.
      positional: the flag (without '=') that a bare argument stands for, if one may be given.
      usage: shown by --help above the flags.

    Returns:
      Call. Raises UserError on unknown flags, missing values, unknown fields; SystemExit(0) after --help.
    """
    names = {name.rstrip("="): name.endswith("=") for name in flags}
    given: dict[str, str] = {}
    changes: list[tuple[str, str]] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument in ("--help", "-h"):
            print("\n".join([usage.strip(), *(f"  --{n:<14} {h}" for n, h in flags.items()), "  --help"]).strip())
            raise SystemExit(0)
        if not argument.startswith("--"):
            if positional is None or positional in given:
                raise UserError(f"unexpected argument {argument!r}", fix="flags are --name=value; see --help")
            given[positional] = argument
            continue
        name, equals, text = argument[2:].partition("=")
        head, dot, path = name.partition(".")
        is_change = bool(dot) and head == "config" and "config" in names
        if not is_change and name not in names:
            raise unknown("flag", f"--{name}", [f"--{n}" for n in names])
        if is_change or names[name]:
            if not equals:
                if not queue or queue[0].startswith("--"):
                    raise UserError(f"flag --{name} has no value", fix=f"write --{name}=VALUE")
                text = queue.pop(0)
        elif equals:
            raise UserError(f"flag --{name} takes no value", fix=f"write --{name}")
        if is_change:
            changes.append((path, text))
        elif name in given:
            raise UserError(f"flag --{name} is given twice", fix="give it once")
        else:
            given[name] = text
    if "config" not in given:
        if changes:
            raise UserError("--config.* given without --config", fix="add --config=configs/ring_moco.py")
        return Call(flags=given)
    config, file_name, variant = load_config(given.pop("config"))
    for path, text in changes:
        config = change(config, path, text)
    return Call(config, file_name, variant, given)


def fields(what: str, given: Any, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises UserError where `given` is no section, has an unknown field, or lacks a needed one."""
    needed, optional = tuple(needed), tuple(optional)
    if not isinstance(given, Mapping):
        raise UserError(f"{what} is {given!r}", fix=f"give a dict with {', '.join(needed or optional)}")
    for name in given:
        if name not in needed + optional:
            raise unknown(f"field of {what}", name, needed + optional)
    for name in needed:
        if name not in given:
            raise UserError(f"{what} has no {name!r}", fix=f"it takes {', '.join(needed + optional)}")
