"""The code blocks of the README and the documentation, and what of them is run, and what is only parsed, and why."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

# Pages outside docs/ with blocks of their own.
OTHERS = ("README.md", "CONTRIBUTING.md", "configs/studies/README.md", "mi_contrast/methods/README.md")
# Python blocks that other tests run.
TESTED_ELSEWHERE = {
    "CONTRIBUTING.md": "tests/test_contributing.py",
    "mi_contrast/methods/README.md": "tests/methods/test_differences.py",
}
# Shell commands that are run in a folder with small inputs; each of the others is only parsed, for the reason below.
RUN = (
    "mi-contrast --list",
    "python -m mi_contrast.bench",
    "mi-contrast estimate data.csv",
)
ONLY_PARSED = {
    "train": "trains for minutes or hours; tests/test_main.py and tests/training run the job",
    "evaluate": "needs a trained backbone and data sets; tests/test_evaluate.py runs the job",
    "study": "trains for hours; tests/test_study.py runs the job",
    "pairs": "needs clips; tests/test_pairs.py runs the job",
    "plan": "compiles for minutes; tests/test_plan.py runs the job",
    "bench": "measures for minutes; tests/benchmarks run each case at small sizes",
    "export": "needs a trained backbone; tests/test_export.py runs the job",
    "report": "needs a run; tests/test_report.py runs the job",
    "encode": "needs a trained backbone; tests/test_encode.py runs the job",
    "estimate": "needs the file that is named; tests/test_estimate.py runs the job",
    "data": "needs pictures; tests/data/test_prepare.py runs the job",
    "statistics": "needs a data set; tests/data/test_statistics.py runs the job",
    "git": "needs the network",
    "pip": "needs the network; .ci/run installs the package",
    "python3": "makes an environment; .ci/run does",
    "pytest": "is the test run itself",
    "just": "stands for one command of the justfile, which is named beside it",
    "bash": ".ci/run and .ci/nightly run everything",
    "tests": "drills and matrices take minutes; they are run by hand",
    "launch": "needs a cluster; tests/test_launch.py runs the scripts with stand-ins",
    "shell": "changes nothing but the shell",
}


class Block(NamedTuple):
    """A block of code: its page, the line on which it starts, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def list_pages() -> dict[str, str]:
    """Returns the text of every page, written by hand or generated, by its name."""
    from docs import generate, links

    pages = {name: (ROOT / name).read_text(encoding="utf-8") for name in OTHERS}
    for file in sorted(DOCS.rglob("*.md")):
        if file.relative_to(DOCS).parts[0] not in ("_build", links.GENERATED):
            pages[file.relative_to(ROOT).as_posix()] = file.read_text(encoding="utf-8")
    pages["generated/methods"] = generate.methods_page()
    return pages


def list_blocks(*languages: str) -> list[Block]:
    """Returns all blocks in one of the languages."""
    blocks = []
    for page, text in list_pages().items():
        for match in re.finditer(r"^```([\w{}-]*)\n(.*?)^```$", text, re.M | re.S):
            blocks.append(Block(page, text[: match.start()].count("\n") + 1, match[1], match[2]))
    return [block for block in blocks if block.language in languages]


def list_commands(text: str) -> list[list[str]]:
    """Returns the words of each command of a shell block, without comments."""
    lines = [re.sub(r"(^|\s)#\s.*$", "", line) for line in text.replace("\\\n", " ").splitlines()]
    commands = [part for line in lines for part in re.split(r"\s+&&\s+|\s*;\s+", line)]
    return [words for words in (shlex.split(command, comments=True) for command in commands) if words]


def find_inline_commands(text: str) -> list[list[str]]:
    """Returns the commands of the package that stand within a text, such as `mi-contrast train moco`."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    words = [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", outside)]
    commands = [word for word in words if re.match(r"(mi-contrast \w|python -m mi_contrast\.\w+ -)", word)]
    return [shlex.split(word) for word in commands if not re.search(r"\.\.\.|[<\[]|\b[A-Z]{3,}\b", word)]
