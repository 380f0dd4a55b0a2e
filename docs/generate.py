"""Writes the pages of the documentation that follow from the code, and resolves links that leave the folder docs/.

Each function `*_page` returns the text of a page in Markdown. Sphinx calls `write` before it reads any page; the pages
lie in docs/generated/, which is not kept in git.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mi_contrast import bench
from mi_contrast.__main__ import JOBS
from mi_contrast.core import schedules
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.methods import recipes

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GENERATED = "generated"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PYPROJECT["urls"]["Repository"]  # the one place that knows the repository's address
# Files outside docs/ that are pages here.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": f"{GENERATED}/changelog.md",
    "CONTRIBUTING.md": f"{GENERATED}/contributing.md",
    "mi_contrast/methods/README.md": f"{GENERATED}/words.md",
    "mi_contrast/estimators/README.md": f"{GENERATED}/equations.md",
    "configs/studies/README.md": "studies/index.md",
}
Leaves = Iterator[tuple[str, Any]]


# Links


def resolve_links(text: str, folder: str, page: str) -> str:
    """Returns Markdown whose relative links lead to pages of the documentation, or else to files of the repository.

    Args:
      text: the Markdown.
      folder: the folder of the repository from which its links start, such as 'mi_contrast/methods'.
      page: the page that holds the text, relative to docs/, such as 'generated/words.md'.
    """

    def replace(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if re.match(r"[a-z]+:", target) or not target:
            return match[0]
        path = os.path.normpath(os.path.join(folder, target))
        place = PAGES.get(path, path[5:] if path.startswith("docs/") else None)
        if place is None:
            if not (ROOT / path).exists():
                raise FileNotFoundError(f"{page} links to {path}, which is not there")
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"{match[1]}({REPOSITORY}/{kind}/main/{path})"
        return f"{match[1]}({os.path.relpath(place, os.path.dirname(page) or '.')}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\[(?:[^\]\[]|\[[^\]]*\])*\])\(([^)\s]+)\)", replace, text)


def copy_page(path: str, before: str = "") -> str:
    """Returns a Markdown file of the repository as a page."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return before + resolve_links(text, os.path.dirname(path), PAGES[path])


# Fields of configs


def flatten(tree: Any, path: str = "") -> Leaves:
    """Yields (dotted name, value) of every field. Items of a tuple of dicts have the name '*'; a schedule is a value."""
    if isinstance(tree, Mapping) and tree and tree.get("kind") not in schedules.FIELDS:
        for name, value in tree.items():
            yield from flatten(value, f"{path}.{name}" if path else name)
    elif isinstance(tree, tuple) and tree and all(isinstance(item, Mapping) for item in tree):
        for item in tree:
            yield from flatten(item, f"{path}.*")
    else:
        yield path, tree


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
    if isinstance(value, Mapping) and value.get("kind") in schedules.FIELDS:
        inner = ", ".join(f"{name}={item}" for name, item in value.items() if name != "kind")
        return f"`{value['kind']}({inner})`"
    if isinstance(value, float):
        return f"`{value:.4g}`"
    if isinstance(value, tuple):
        inner = ", ".join(f"{item:.4g}" if isinstance(item, float) else repr(item) for item in value)
        return f"`({inner}{',' if len(value) == 1 else ''})`"
    return f"`{value!r}`"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    lines = [list(head), *map(list, rows)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    rule = ["---"] * len(cells[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]]) + "\n"


def fields_page() -> str:
    """Returns the page of every config field: its default, what it means, and what the variants set."""
    meanings = read_meanings()
    run = meanings["run"]
    base = dict(flatten(to_plain_data(recipes.recipe("cifar10").config)))
    variants = {name: dict(flatten(to_plain_data(recipes.recipe(name).config))) for name in recipes.VARIANTS}
    parts = [
        "# Config fields\n\nEvery field can be changed on the command line, `--config.optim.lr=.03`. A value has to be "
        "of the same kind as the one that it replaces; a number may become a schedule, and None may become anything. "
        "A `*` stands for one name.\n\n## Training\n\nDefaults are those of `:cifar10`; what other variants set is "
        "[below](#what-variants-set). A field without a default belongs to some methods or views only.\n"
    ]
    for section, fields in run.items():
        rows = [
            (f"`{name}`", write_value(base[name]) if name in base else "", text)
            for name, text in fields.items()
        ]
        parts.append((f"### {section}\n\n" if section else "") + table(("field", "default", "meaning"), rows))
    names = list(recipes.VARIANTS)
    rows = []
    for field in dict.fromkeys(name for fields in variants.values() for name in fields):
        values = [variants[name].get(field, "") for name in names]
        if any(value != values[0] for value in values):
            rows.append([f"`{field}`", *(write_value(value) if value != "" else "" for value in values)])
    parts.append("### What variants set\n\nA config file adds its method, and may set fields of its own.\n")
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


# Methods, tasks, commands


def read_header(file: Path) -> str:
    """Returns the docstring at the top of a Python file."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def write_header(text: str, *, code: str = "text") -> str:
    """Returns a docstring as Markdown: indented blocks are code, and single backticks stay as they are."""
    parts = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        first = next((i for i, line in enumerate(lines) if line.startswith("  ")), len(lines))
        if all(line.startswith("  - ") or line.startswith("    ") for line in lines[first:]) and first < len(lines):
            parts += [escape(line) for line in lines[:first]]
            parts += ["", *(escape(line[2:]) for line in lines[first:])]
        else:
            parts += [escape(line) for line in lines[:first]]
            if first < len(lines):
                parts += ["", f"```{code}", *lines[first:], "```"]
        parts.append("")
    return "\n".join(parts)


def escape(line: str) -> str:
    """Returns a line of plain text as Markdown, outside of `code`."""
    return "`".join(part if i % 2 else re.sub(r"([*_<>|$])", r"\\\1", part) for i, part in enumerate(line.split("`")))


def list_configs(folder: str = "") -> list[Path]:
    """Returns the config files of a folder of configs/, sorted by name."""
    return sorted((ROOT / "configs" / folder).glob("*.py"))


def methods_page() -> str:
    """Returns the page of all methods: the header of each config file."""
    parts = [
        f"# Methods, one by one\n\nThe {len(list_configs())} methods, each with the header of its file in "
        f"[configs/]({REPOSITORY}/tree/main/configs). [The words of a method](words.md) explain how a file says what "
        "it trains.\n"
    ]
    for file in list_configs():
        header = write_header(read_header(file))
        parts.append(f"## {file.stem}\n\n```sh\nmi-contrast train {file.stem}\n```\n\n{header}")
    return "\n".join(parts)


def tasks_page() -> str:
    """Returns the page of all evaluation tasks and studies: the header of each config file."""
    parts = ["# Tasks, one by one\n\nHow to judge a backbone: `mi-contrast evaluate TASK RUN`.\n"]
    for file in list_configs("evaluate"):
        parts.append(f"## {file.stem}\n\n{write_header(read_header(file))}")
    return "\n".join(parts)


def differences_page() -> str:
    """Returns the page of differences from the papers: of all methods, and those that each config file tells."""
    text = (DOCS / "differences.md.in").read_text(encoding="utf-8")
    parts = [resolve_links(text, "docs/generated", f"{GENERATED}/differences.md")]
    for file in list_configs():
        blocks = read_header(file).split("\n\n")
        told = [block for block in blocks if "ifferences from" in block.split("\n")[0] or "Unknown, and" in block]
        told += [block for block in blocks if "Differences from" in block and block not in told]
        if told:
            parts.append(f"### {file.stem}\n\n{write_header(chr(10).join(told))}")
    return "\n".join(parts)


def command_page() -> str:
    """Returns the page of the command line: every job with its usage and its flags."""
    main = importlib.import_module("mi_contrast.__main__")
    parts = [f"# Command line\n\n{write_header(inspect.getdoc(main) or '')}"]
    for name, job in JOBS.items():
        module = importlib.import_module(job.module)
        rows = [(f"`--{flag}`", escape(text)) for flag, text in module.FLAGS.items()]
        usage = write_header(inspect.getdoc(module) or "")
        parts.append(f"## {name}\n\n`python -m {job.module}`\n\n{usage}\n{table(('flag', 'meaning'), rows)}")
    cases = [(f"`{name}`", escape(text)) for name, text in bench.CASES.items()]
    parts.append(f"### Cases of bench\n\n{table(('case', 'what is timed'), cases)}")
    return "\n".join(parts)


# The API


def first_sentence(text: str | None) -> str:
    """Returns the first sentence of a docstring."""
    return " ".join((text or "").split("\n\n")[0].split())


def api_page(title: str, about: str, sections: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Returns a page of the API.

    Args:
      title, about: its heading, and what is written below.
      sections: (heading, full names of functions and classes) of each.
    """
    parts = [f"# {title}\n\n{about}\n"]
    for heading, names in sections:
        directives = []
        for name in names:
            module, _, member = name.rpartition(".")
            value = getattr(importlib.import_module(module), member)
            if inspect.isclass(value):
                directives.append(f".. autoclass:: {name}\n   :members:\n")
            elif inspect.isfunction(value):
                directives.append(f".. autofunction:: {name}\n")
        if directives:
            parts.append(f"## {heading}\n\n```{{eval-rst}}\n{chr(10).join(directives)}```\n")
    return "\n".join(parts)


def by_file(door: str) -> list[tuple[str, list[str]]]:
    """Returns the public names of a package, by the files that they come from; a heading is the file's first line."""
    module = importlib.import_module(door)
    groups: dict[str, list[str]] = {}
    for name in module.__all__:
        home = inspect.getmodule(getattr(module, name))
        if home is not None and not inspect.ismodule(getattr(module, name)):
            groups.setdefault(first_sentence(home.__doc__).split(":")[0].rstrip("."), []).append(f"{door}.{name}")
    return sorted(groups.items())


def python_page() -> str:
    """Returns the page of the package's door and of what a script needs beside it."""
    about = "All public functions can be imported from where they stand below."
    names = [name for name in importlib.import_module("mi_contrast").__all__ if name not in ("__version__", "estimators")]
    return api_page(
        "Python",
        about,
        [
            ("The door", [f"mi_contrast.{name}" for name in names]),
            ("Configs", ["mi_contrast.core.config.load_config", "mi_contrast.methods.recipes.recipe",
                         "mi_contrast.methods.recipes.multi_crop", "mi_contrast.methods.recipes.set_split",
                         "mi_contrast.methods.recipes.set_views", "mi_contrast.methods.recipes.pair_with_itself",
                         "mi_contrast.methods.two_branches.with_twins"]),
            ("Schedules", [f"mi_contrast.core.schedules.{name}" for name in (*schedules.FIELDS, "value", "Progress")]),
            ("Backbones", ["mi_contrast.interchange.LoadedBackbone", "mi_contrast.models.representation.Representation",
                           "mi_contrast.interchange.convert", "mi_contrast.evaluation.judge.judge",
                           "mi_contrast.evaluation.heads.Head", "mi_contrast.evaluation.heads.read_head"]),
            ("Errors", [f"mi_contrast.core.errors.{name}" for name in
                        ("UserError", "FileError", "BadNumbersError", "StoppedError", "InterruptedSavedError")]),
        ],
    )  # fmt: skip


def estimators_page() -> str:
    """Returns the page of the estimators."""
    about = "`from mi_contrast import estimators as mi`. [The equations](equations.md) say what bounds what."
    return api_page("Estimators", about, by_file("mi_contrast.estimators"))


def policies_page() -> str:
    """Returns the page of the policies of augmentation, with the words that a policy may use."""
    policies = importlib.import_module("mi_contrast.views.policies")
    about = write_header(inspect.getdoc(policies) or "")
    return api_page("Policies of augmentation", about, by_file("mi_contrast.views.policies"))


def charts_page() -> str:
    """Returns the page of the charts."""
    module = importlib.import_module("mi_contrast.reporting.charts")
    names = [n for n in dir(module) if re.match(r"draw_|lay_out|title_of|as_rows|curve_rows", n)]
    about = write_header(inspect.getdoc(module) or "", code="python").replace(">>> ", "")
    return api_page("Charts", first_sentence(about), [("Functions", [f"{module.__name__}.{name}" for name in names])])


def changelog_page() -> str:
    """Returns the changelog."""
    return copy_page("CHANGELOG.md")


def contributing_page() -> str:
    """Returns CONTRIBUTING; its diagram stays text."""
    return copy_page("CONTRIBUTING.md").replace("```mermaid", "```text")


def words_page() -> str:
    """Returns the page of the words of a method, and of how methods differ from the papers."""
    return copy_page("mi_contrast/methods/README.md")


def equations_page() -> str:
    """Returns the page of the estimators' equations."""
    return copy_page("mi_contrast/estimators/README.md")


GENERATORS: dict[str, Callable[[], str]] = {
    "fields": fields_page,
    "methods": methods_page,
    "tasks": tasks_page,
    "differences": differences_page,
    "command_line": command_page,
    "python": python_page,
    "estimators": estimators_page,
    "policies": policies_page,
    "charts": charts_page,
    "changelog": changelog_page,
    "contributing": contributing_page,
    "words": words_page,
    "equations": equations_page,
}


def write(app: Any = None) -> None:
    """Writes all generated pages, and removes old ones."""
    folder = DOCS / GENERATED
    folder.mkdir(exist_ok=True)
    for name, make in GENERATORS.items():
        file, text = folder / f"{name}.md", make()
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for file in folder.glob("*.md"):
        if file.stem not in GENERATORS:
            file.unlink()


def resolve_page(app: Any, name: str, source: list[str]) -> None:
    """Resolves the links of a page that was written by hand, as Sphinx's event `source-read` wants it."""
    if not name.startswith(GENERATED):
        source[0] = resolve_links(source[0], os.path.dirname(f"docs/{name}"), f"{name}.md")


def setup(app: Any) -> dict[str, bool]:
    """Connects this module to Sphinx."""
    app.connect("builder-inited", write)
    app.connect("source-read", resolve_page)
    return {"parallel_read_safe": True}
