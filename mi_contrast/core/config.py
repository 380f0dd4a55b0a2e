"""Loads configs from Python files, changes single fields, and parses command lines.

A config file defines `get_config(variant) -> ConfigDict` of plain values (numbers, strings, None, tuples, dicts). The
file of `--config=path.py:variant` is looked up in the working folder first, then in the package.
`--config.section.field=value` changes an existing field to a value of the same kind.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core import schedules
from mi_contrast.core.errors import FileError, UserError, nearest, unknown

TEXT_FIELDS = ("data.labels", "data.group")  # they take words, of which 'none' is one and does not stand for None


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line.

    Attributes:
      config: the config with the command line's changes applied; None without --config.
      name, variant: the config file's stem, and the variant.
      flags: the job's own flags by name, as text. A flag without a value has ''.
    """

    config: ConfigDict | None = None
    name: str | None = None
    variant: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)


def package_configs() -> Path:
    """Returns the folder of the package's configs: inside the package when installed, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed, checkout = package / "configs", package.parent / "configs"
    return installed if installed.is_dir() else checkout


def find_config(path: str, folder: str = "") -> Path:
    """Finds a config file in the working folder or among the package's configs.

    Args:
      path: a path such as 'configs/evaluate/knn.py'; or a name such as 'knn', of a file in configs/<folder>.
      folder: where names are looked up: '' for methods, 'evaluate' for tasks, 'studies' for studies.
    Raises UserError if there is none.
    """
    file = Path(path)
    if is_name := not file.suffix and len(file.parts) == 1:
        file = Path("configs", folder, f"{path}.py")
    relative = Path(*file.parts[1:]) if file.parts[:1] == ("configs",) else file
    for candidate in (file, package_configs() / relative):
        if candidate.is_file():
            return candidate
    if is_name:
        raise unknown("config", path, (p.stem for p in (package_configs() / folder).glob("*.py")))
    known = [f"configs/{p.relative_to(package_configs())}" for p in sorted(package_configs().rglob("*.py"))]
    raise FileError(
        f"config file {path!r} does not exist", nearest=nearest(path, known), fix=f"choose one of {', '.join(known)}"
    )


# Fields of a run's config by the flags that other programs have for them.
USUAL_FIELDS = {
    "steps": "steps", "epochs": "steps", "seed": "seed", "batch": "data.batch", "batch_size": "data.batch",
    "lr": "optim.lr", "learning_rate": "optim.lr", "size": "views.size", "width": "model.width",
}  # fmt: skip


def load_config(spec: str, folder: str = "") -> tuple[ConfigDict, str, str | None]:
    """Loads the config of 'path.py[:variant]' or 'name[:variant]'; `find_config` says which file that is.

    Returns the config, its name (the file's stem) and its variant.

    Raises:
      UserError: the file is missing, doesn't run, has no get_config, or rejects the variant.
    """
    path, _, variant = spec.partition(":")
    file = find_config(path, folder)
    module_spec = importlib.util.spec_from_file_location(f"mi_contrast_config_{file.stem}", file)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError) as error:
        raise UserError(f"config file {file} does not run ({type(error).__name__}: {error})",
                        fix="fix the error in this file") from None  # fmt: skip
    if not hasattr(module, "get_config"):
        raise UserError(f"config file {file} has no get_config", fix="define get_config(variant) -> ConfigDict")
    default = inspect.signature(module.get_config).parameters.get("variant")
    if variant and default is None:
        raise UserError(f"config file {file} has no variants", fix=f"leave out ':{variant}'")
    if not variant and default is not None and default.default is not inspect.Parameter.empty:
        variant = default.default
    try:
        config = module.get_config(variant) if variant else module.get_config()
    except (AttributeError, KeyError) as error:  # a locked ConfigDict raises these for an unknown field
        raise UserError(
            f"config file {file}: {' '.join(str(error).split())}", fix="correct the name of the field"
        ) from None
    return config, file.stem, variant or None


def to_plain_data(value: Any, path: str = "config") -> Any:
    """Converts a value to plain data: dicts, tuples, numbers, strings, None.

    Raises UserError for anything else. The message names the field; `path` is the dotted name of the value itself.
    """
    if isinstance(value, ConfigDict):
        value = {key: value[key] for key in value}
    if isinstance(value, Mapping):
        return {str(key): to_plain_data(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(to_plain_data(item, f"{path}.{i}") for i, item in enumerate(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(f"{path} is a {type(value).__name__}", fix="a config holds plain data only")


def _parse_value(text: str) -> Any:
    try:
        return _parse_literal(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _parse_literal(node: ast.expr) -> Any:
    """Evaluates an expression of literals; dict(a=1) counts as one. Raises ValueError for other expressions."""
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[]) if all(word.arg for word in node.keywords):
            return {str(word.arg): _parse_literal(word.value) for word in node.keywords}
        case ast.Dict() if None not in node.keys:
            keys = [ast.literal_eval(key) for key in node.keys if key is not None]
            return dict(zip(keys, map(_parse_literal, node.values), strict=True))
        case ast.Tuple() | ast.List():
            items = [_parse_literal(item) for item in node.elts]
            return tuple(items) if isinstance(node, ast.Tuple) else items
    return ast.literal_eval(node)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def convert(old: Any, text: str, path: str) -> Any:
    """Parses `text` into a value of the same kind as `old`. Raises UserError if the text is of another kind.

    - None can become any plain value.
    - A number can become a schedule (a dict), and a schedule a number.
    - A string can become a dict with a field `kind`, and such a dict a string.
    - A dict can become a dict with some of its fields. An empty dict, and a field named `options`, can become any dict.
    """
    if path.removeprefix("config.") in TEXT_FIELDS:
        return text
    new = _parse_value(text)
    if old is None:
        return to_plain_data(new, path)
    if isinstance(old, bool):
        if isinstance(new, bool):
            return new
    elif isinstance(old, str):
        return to_plain_data(new, path) if isinstance(new, Mapping) and "kind" in new else text
    elif isinstance(new, Mapping) and (_is_number(old) or isinstance(old, Mapping)):
        if new.get("kind") in schedules.FIELDS and (_is_number(old) or old.get("kind") in schedules.FIELDS):
            return to_plain_data(new, path)
        is_section = isinstance(old, Mapping) and old.get("kind") not in schedules.FIELDS
        takes_any_field = not old or path.endswith(".options")  # each data set checks its own options
        if is_section and (takes_any_field or set(new) <= set(old) or ("kind" in old and "kind" in new)):
            return to_plain_data(new, path)
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
            return to_plain_data(new, path)
        if isinstance(new, str) or _is_number(new):
            return (new,)
    raise UserError(f"{path} takes a {type(old).__name__} such as {old!r}, not {text!r}")


def change(config: ConfigDict, path: str, text: str) -> ConfigDict:
    """Returns the config with the field at the dotted `path` set from `text`. Raises UserError if there is none."""
    tree = to_plain_data(config)
    full_path = f"config.{path}"

    def descend(node: Any, names: list[str], prefix: str) -> Any:
        name, rest = names[0], names[1:]
        if isinstance(node, tuple):
            if not name.isdigit() or int(name) >= len(node):
                raise UserError(f"{prefix} has no item {name!r}", fix=f"give an index from 0 to {len(node) - 1}")
            key: Any = int(name)
        elif isinstance(node, dict) and name in node:
            key = name
        elif isinstance(node, dict):
            elsewhere = (path for path in _paths(tree) if path.rpartition(".")[2] == name)
            hint = nearest(name, node) or next(elsewhere, None)
            known = f"its fields are {', '.join(sorted(node))}"
            raise UserError(f"no field {name!r} in {prefix}", nearest=hint, fix=known)
        else:
            raise UserError(f"{prefix} is {node!r} and has no fields", fix=f"set it with --{prefix}=...")
        new = descend(node[key], rest, f"{prefix}.{name}") if rest else convert(node[key], text, full_path)
        if isinstance(node, tuple):
            return (*node[:key], new, *node[key + 1 :])
        return {**node, key: new}

    return ConfigDict(descend(tree, path.split("."), "config"), convert_dict=True).lock()


def set_short_flags(call: CommandLine) -> ConfigDict | None:
    """Returns the config with the fields of `data` for which the flags --labels and --group are short."""
    config = call.config
    for flag in ("labels", "group"):
        if config is not None and flag in call.flags:
            config = change(config, f"data.{flag}", call.flags[flag])
    return config


def _paths(tree: Any, path: str = "config") -> list[str]:
    if not isinstance(tree, dict):
        return [path]
    return [path, *(p for key, item in tree.items() for p in _paths(item, f"{path}.{key}"))]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Returns the dotted names of the fields in which two plain trees differ. Lists and tuples count as equal kinds."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = list(dict.fromkeys([*old, *new]))
        return [d for n in names for d in differences(old.get(n, "<absent>"), new.get(n, "<absent>"), f"{path}.{n}")]
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{path}.{i}")]
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [path.lstrip(".")]


def parse(
    arguments: list[str], flags: Mapping[str, str], *, positional: str | None = None, usage: str = "", folder: str = ""
) -> CommandLine:
    """Parses a command line.

    Args:
      arguments: as in sys.argv[1:].
      flags: help texts by flag. A name that ends in '=' takes a value, and one that ends in '[=]' may take one, which
        follows an equals sign. `config=` also allows --config.field=value.
      positional: name of the flag that receives an argument given without a flag; None forbids such arguments.
      usage: text that --help prints above the flags.
      folder: folder of configs/ in which --config=NAME is looked up.

    Raises:
      UserError: a flag or a field is unknown, or a value is missing.
      SystemExit: code 0 after --help.
    """
    names = {name.rstrip("[=]"): name.endswith("=") for name in flags}
    optional = {name.rstrip("[=]") for name in flags if name.endswith("[=]")}
    values: dict[str, str] = {}
    changes: list[tuple[str, str]] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument in ("--help", "-h"):
            print("\n".join([usage.strip(), *(f"  --{n:<14} {h}" for n, h in flags.items()), "  --help"]).strip())
            raise SystemExit(0)
        if not argument.startswith("--"):
            if positional is None or positional in values:
                raise UserError(f"unexpected argument {argument!r}", fix="flags are --name=value; see --help")
            values[positional] = argument
            continue
        name, equals, text = argument[2:].partition("=")
        head, dot, path = name.partition(".")
        is_change = bool(dot) and head == "config" and "config" in names
        if not is_change and name not in names:
            if "config" in names and name in USUAL_FIELDS:
                raise UserError(f"unknown flag --{name}", nearest=f"--config.{USUAL_FIELDS[name]}")
            raise unknown("flag", f"--{name}", [f"--{n}" for n in names])
        if is_change or names[name]:
            if not equals:
                if not queue or queue[0].startswith("--"):
                    raise UserError(f"flag --{name} has no value", fix=f"write --{name}=VALUE")
                text = queue.pop(0)
        elif equals and name not in optional:
            raise UserError(f"flag --{name} takes no value", fix=f"write --{name}")
        if is_change:
            changes.append((path, text))
        elif name in values:
            raise UserError(f"flag --{name} is given twice", fix="give it once")
        else:
            values[name] = text
    if "config" not in values:
        if changes:
            raise UserError("--config.* given without --config", fix="add --config=configs/ring_moco.py")
        return CommandLine(flags=values)
    config, file_name, variant = load_config(values.pop("config"), folder)
    for path, text in changes:
        config = change(config, path, text)
    return CommandLine(config, file_name, variant, values)


def check_section(section_name: str, section: Any, required: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raises UserError if `section` is no dict, has an unknown field, or lacks a required one.

    Args:
      section_name: used in messages.
    """
    required, optional = tuple(required), tuple(optional)
    if not isinstance(section, Mapping):
        raise UserError(f"{section_name} is {section!r}", fix=f"give a dict with {', '.join(required or optional)}")
    for name in section:
        if name not in required + optional:
            raise unknown(f"field of {section_name}", name, required + optional)
    for name in required:
        if name not in section:
            raise UserError(f"{section_name} has no {name!r}", fix=f"it takes {', '.join(required + optional)}")
