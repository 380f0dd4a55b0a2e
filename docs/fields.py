"""The page of every config field, from the configs and from the meanings in fields.toml."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from docs.links import DOCS, table
from mi_contrast.core import schedules
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.methods import recipes

Leaves = Iterator[tuple[str, Any]]


def flatten(tree: Any, path: str = "") -> Leaves:
    """Yields (dotted name, value) of every field. Items of a tuple have the name '*', and a schedule is a value."""
    if isinstance(tree, Mapping) and tree and not is_schedule(tree):
        for name, value in tree.items():
            yield from flatten(value, f"{path}.{name}" if path else name)
    elif isinstance(tree, tuple) and tree and all(isinstance(item, Mapping) for item in tree):
        for item in tree:
            yield from flatten(item, f"{path}.*")
    else:
        yield path, tree


def is_schedule(value: Any) -> bool:
    """Whether a value is a schedule. The task `linear` has the same word as the schedule, and other fields."""
    fields = schedules.FIELDS.get(value.get("kind"), None) if isinstance(value, Mapping) else None
    return fields is not None and set(value) == {"kind", *fields}


def load_variants(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (variant, config) of every variant that a config file has: those of its recipe, its header and its tables.

    The variant of a config without variants is ''.
    """
    text = file.read_text(encoding="utf-8")
    words = [*recipes.VARIANTS, *re.findall(r":(\w+)", text), *re.findall(r'"(\w+)"', text)]
    for variant in dict.fromkeys(words):
        try:
            yield variant, to_plain_data(load_config(f"{file}:{variant}")[0])
        except (UserError, ValueError):
            continue
    if "def get_config()" in text:
        yield "", to_plain_data(load_config(str(file))[0])


def read_meanings() -> dict[str, dict[str, dict[str, str]]]:
    """Returns {kind of config: {section: {pattern of a field: its meaning}}}, of fields.toml."""
    tables = tomllib.loads((DOCS / "fields.toml").read_text(encoding="utf-8"))
    return {
        kind: {
            "": {name: text for name, text in table.items() if isinstance(text, str)},
            **{name: text for name, text in table.items() if not isinstance(text, str)},
        }
        for kind, table in tables.items()
    }


def find_meaning(field: str, sections: Mapping[str, Mapping[str, str]], names: Iterable[str] = ()) -> str | None:
    """Returns the meaning of a field, of the sections given by name or of all, or None if it has none."""
    chosen = [sections[name] for name in names] if names else list(sections.values())
    patterns = {pattern: text for section in chosen for pattern, text in section.items()}
    if field in patterns:
        return patterns[field]
    return next((t for p, t in patterns.items() if "*" in p and _matches(field, p)), None)


def _matches(field: str, pattern: str) -> bool:
    """Whether a pattern means the field; a star stands for one name, or at the end for any number of them."""
    parts, wanted = field.split("."), pattern.split(".")
    same_length = len(parts) == len(wanted) or (wanted[-1] == "*" and len(parts) > len(wanted))
    return same_length and all(fnmatchcase(part, word) for part, word in zip(parts, wanted, strict=False))


def write_value(value: Any) -> str:
    """Returns a value as a cell of a table, a schedule as it is called in a config file."""
    if is_schedule(value):
        names = inspect.signature(getattr(schedules, value["kind"])).parameters
        return f"`{value['kind']}({', '.join(f'{name}={value[name]}' for name in names)})`"
    if isinstance(value, float):
        return f"`{value:.4g}`"
    if isinstance(value, tuple):
        inner = ", ".join(f"{item:.4g}" if isinstance(item, float) else repr(item) for item in value)
        return f"`({inner}{',' if len(value) == 1 else ''})`"
    return f"`{value!r}`"


def fields_page() -> str:
    """Returns the page of every config field: its default, what it means, and what the variants set."""
    meanings = read_meanings()
    run = meanings["run"]
    base = dict(flatten(to_plain_data(recipes.recipe("cifar10").config)))
    names = [*recipes.VARIANTS, *recipes.OWN]
    variants = {name: dict(flatten(to_plain_data(recipes.recipe(name).config))) for name in names}
    parts = [
        "# Config fields\n\nEvery field can be changed on the command line, `--config.optim.lr=.03`. A value has to be "
        "of the same kind as the one that it replaces; a number may become a schedule, and None may become anything. "
        "A `*` stands for one name.\n\n## Training\n\nDefaults are those of `:cifar10`; what other variants set is "
        "[below](#what-variants-set). A field without a default belongs to some methods or views only.\n"
    ]
    for section, fields in run.items():
        rows = [(f"`{name}`", write_value(base[name]) if name in base else "", text) for name, text in fields.items()]
        parts.append((f"### {section}\n\n" if section else "") + table(("field", "default", "meaning"), rows))
    rows = []
    for field in dict.fromkeys(name for fields in variants.values() for name in fields):
        values = [variants[name].get(field, "") for name in names]
        if any(value != values[0] for value in values):
            rows.append([f"`{field}`", *(write_value(value) if value != "" else "" for value in values)])
    parts.append(
        "### What variants set\n\nA config file adds its method, and may set fields of its own. What is None "
        "under `:folder` is fitted to the pictures at the first start.\n"
    )
    parts.append(table(("field", *(f"`:{name}`" for name in names)), rows))
    for kind, title, text in (
        ("evaluation", "Evaluation", "Of `configs/evaluate/`. A task has the fields of its kind."),
        ("study", "Studies", "Of `configs/studies/`."),
    ):
        parts.append(f"## {title}\n\n{text}\n")
        for section, fields in meanings[kind].items():
            rows = [(f"`{name}`", meaning) for name, meaning in fields.items()]
            parts.append((f"### {title}: {section}\n\n" if section else "") + table(("field", "meaning"), rows))
    return "\n".join(parts)
