"""Turns the docstrings of the package into reStructuredText that Sphinx reads without warnings.

The docstrings are plain text with the sections `Args:`, `Returns:`, `Raises:` and so on. Equations such as |C| or
e^{x_i}, stars and single backticks mean something else in reStructuredText, so all text is escaped. `convert` keeps
paragraphs, sections, lists, indented blocks and examples of a session (`>>>`).
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

FIELDS = {"Args": "param", "Attributes": "ivar", "Raises": "raises"}
HEADINGS = ("Returns", "Yields", "Source", "Sources", "Example", "Examples", "Note", "Notes")
SECTION = re.compile(rf"^({'|'.join([*FIELDS, *HEADINGS])}):\s*(.*)$")
ITEM = re.compile(r"^([*\w][\w., *]*?):\s+(.*)$")


def escape(text: str) -> str:
    """Returns the text with `code` as literals and every other special character escaped."""
    parts = re.split(r"``?([^`]+)``?", text)
    return "".join(f"``{part}``" if i % 2 else re.sub(r"([\\*|_`<>])", r"\\\1", part) for i, part in enumerate(parts))


def blocks(lines: list[str]) -> list[list[str]]:
    """Splits lines into blocks at empty lines."""
    result: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            result[-1].append(line)
        elif result[-1]:
            result.append([])
    return [block for block in result if block]


def paragraph(block: list[str]) -> list[str]:
    """Returns a block of text, of an indented block, of a list or of a session."""
    if block[0].lstrip().startswith(">>>"):
        return [*dedent("\n".join(block)).split("\n"), ""]
    if block[0].startswith("  "):
        return ["::", "", *("   " + line for line in block), ""]
    result: list[str] = []
    for line in block:
        if re.match(r"\s*(- |\d+\. )", line):
            result.append("- " + escape(re.sub(r"^\s*(- |\d+\. )", "", line)))
        elif result and line.startswith("  ") and not result[-1].startswith("- "):
            return ["| " + escape(line) for line in block] + [""]  # a table in plain text: keep its lines
        elif result:
            result[-1] += " " + escape(line.strip())
        else:
            result.append(escape(line.strip()))
    lines: list[str] = []
    for line in result:  # a list begins and ends with an empty line
        if lines and line.startswith("- ") != lines[-1].startswith("- "):
            lines.append("")
        lines.append(line)
    return [*lines, ""]


def items(lines: list[str]) -> list[tuple[str, str]]:
    """Returns (name, text) of each item of a section such as Args. An item without a name has ''."""
    result: list[tuple[str, str]] = []
    for line in dedent("\n".join(lines)).split("\n"):
        match = ITEM.match(line)
        if match and not line.startswith(" "):
            result.append((match[1], match[2]))
        elif line.strip() and result:
            result[-1] = (result[-1][0], f"{result[-1][1]} {line.strip()}")
        elif line.strip():
            result.append(("", line.strip()))
    return result


def convert(lines: list[str]) -> list[str]:
    """Returns the lines of a docstring as reStructuredText."""
    result: list[str] = []
    fields: list[str] = []
    rest = list(lines)
    while rest:
        match = SECTION.match(rest[0])
        if match is None:
            end = next((i for i, line in enumerate(rest) if i and SECTION.match(line)), len(rest))
            for block in blocks(rest[:end]):
                result += paragraph(block)
            rest = rest[end:]
            continue
        name, first = match[1], match[2]
        end = next((i for i, line in enumerate(rest) if i and line.strip() and not line.startswith(" ")), len(rest))
        body, rest = rest[1:end], rest[end:]
        if name in FIELDS and not first:
            nameless = [escape(text) for word, text in items(body) if not word]
            if nameless:
                result += [f"**{name}.** {' '.join(nameless)}", ""]
            fields += [f":{FIELDS[name]} {word.replace('*', '')}: {escape(text)}" for word, text in items(body) if word]
        else:
            text = " ".join([first, *(line.strip() for line in body)]).strip()
            inner = dedent("\n".join(body)).split("\n")
            has_session = any(line.startswith(">>>") for line in inner)
            result += [f"**{name}.**", "", *inner, ""] if has_session else [f"**{name}.** {escape(text)}", ""]
    return [*result, *fields, ""]


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replaces the lines of a docstring, as Sphinx's event `autodoc-process-docstring` wants it."""
    lines[:] = convert(lines)


def setup(app: Any) -> dict[str, bool]:
    """Connects this module to Sphinx."""
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
