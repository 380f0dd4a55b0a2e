"""Writes the pages of the documentation that follow from the code.

Each function `*_page` returns the text of a page in Markdown. Sphinx calls `write` before it reads any page; the pages
lie in docs/generated/, which is not kept in git.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from docs.fields import fields_page
from docs.links import DOCS, GENERATED, REPOSITORY, ROOT, copy_page, resolve_links, table
from mi_contrast import bench
from mi_contrast.__main__ import JOBS
from mi_contrast.core import schedules
from mi_contrast.data.__main__ import JOBS as DATA_JOBS

PLACES = {"estimate": "mi_contrast.estimation.estimate"}  # `mi_contrast.estimate` is a module that can be called


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
    modules = {name: job.module for name, job in JOBS.items()}
    modules |= {f"data {name}": module for name, module in DATA_JOBS.items() if module not in modules.values()}
    for name, path in modules.items():
        module = importlib.import_module(path)
        rows = [(f"`--{flag}`", escape(text)) for flag, text in getattr(module, "FLAGS", {}).items()]
        usage = write_header(inspect.getdoc(module) or "")
        flags = table(("flag", "meaning"), rows) if rows else ""
        parts.append(f"## {name}\n\n`python -m {path.removesuffix('.__main__')}`\n\n{usage}\n{flags}")
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
    names = [
        name for name in importlib.import_module("mi_contrast").__all__ if name not in ("__version__", "estimators")
    ]
    return api_page(
        "Python",
        about,
        [
            ("The door", [PLACES.get(name, f"mi_contrast.{name}") for name in sorted(names)]),
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


def list_notebooks() -> list[Path]:
    """Returns the notebooks that are stored with their outputs, in order."""
    return sorted((ROOT / "launch" / "colab").glob("*.ipynb"))


def write(app: Any = None) -> None:
    """Writes all generated pages, copies the notebooks, and removes old ones."""
    folder = DOCS / GENERATED
    folder.mkdir(exist_ok=True)
    for name, make in GENERATORS.items():
        file, text = folder / f"{name}.md", make()
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    notebooks = list_notebooks()
    (folder / "notebooks").mkdir(exist_ok=True)
    for source in notebooks:
        file = folder / "notebooks" / source.name
        if not file.is_file() or file.read_bytes() != source.read_bytes():
            file.write_bytes(source.read_bytes())
    for file in [*folder.glob("*.md"), *folder.glob("notebooks/*.ipynb")]:
        if file.stem not in GENERATORS and file.name not in [source.name for source in notebooks]:
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
