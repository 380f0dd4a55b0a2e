"""Resolves links of Markdown that leave the folder docs/, to other pages or to the repository."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

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


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    lines = [list(head), *map(list, rows)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    rule = ["---"] * len(cells[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]]) + "\n"
