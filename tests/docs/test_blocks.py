"""Every code block of the README and the documentation is run, or parsed by our own parsers."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from contextlib import suppress

import numpy as np
import pytest

import mi_contrast
from mi_contrast import __main__ as door
from mi_contrast.core import config as configs
from mi_contrast.core.config import load_config
from mi_contrast.core.errors import UserError
from mi_contrast.data import __main__ as data_jobs
from mi_contrast.studies.plan import make_plan
from tests.docs.blocks import (
    ONLY_PARSED,
    ROOT,
    RUN,
    TESTED_ELSEWHERE,
    Block,
    find_inline_commands,
    list_blocks,
    list_commands,
    list_pages,
)
from tests.drills import readme

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = {job.module: name for name, job in door.JOBS.items()}
SHELL, PYTHON = list_blocks("sh"), list_blocks("python")


class ParsedError(Exception):
    """Ends a job as soon as its command line is parsed."""


@pytest.fixture
def parse_job(monkeypatch):
    """Returns a function that lets a job parse its command line, and checks what a study's config says."""
    monkeypatch.chdir(ROOT)

    def stop(*arguments, **keywords):
        raise ParsedError(configs.parse(*arguments, **keywords))

    def run(name, start, words):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "parse", stop)
        with pytest.raises(ParsedError) as stopped:
            start(words)
        call = stopped.value.args[0]
        if name == "mi_contrast.study":
            make_plan(call.config, call.name, call.variant)

    return run


def check(words, parse_job):
    """Checks a command, and returns its key in ONLY_PARSED. Raises AssertionError or UserError on a mistake."""
    program, *rest = words
    while "=" in program and program.split("=")[0].isupper():  # variables before a command
        program, *rest = rest
    if program == "mi-contrast":
        if rest[0] not in door.JOBS:
            raise UserError(f"unknown job {rest[0]!r}")
        module = data_jobs.JOBS[rest[1]] if rest[0] == "data" else door.JOBS[rest[0]].module
        parse_job(module, door.start, rest)
        return rest[0]
    if program == "python" and rest[0] == "-m" and rest[1].startswith("mi_contrast."):
        parse_job(rest[1], importlib.import_module(rest[1]).main, rest[2:])
        return MODULES.get(rest[1], "data")
    if program == "python" and rest[:2] == ["-m", "pytest"]:
        assert [word for word in rest if word.startswith("tests") and not (ROOT / word).exists()] == []
        return "pytest"
    if program == "python" and rest[0] == "-m" and rest[1].startswith("tests."):
        assert (ROOT / (rest[1].replace(".", "/") + ".py")).is_file(), rest[1]
        return "tests"
    if program == "pip":
        assert rest[0] == "install"
        extras = {extra for word in rest for part in re.findall(r"\[([\w,]+)\]", word) for extra in part.split(",")}
        assert extras <= set(PROJECT["project"]["optional-dependencies"]), words
        return "pip"
    if program == "git":
        assert rest == ["clone", PROJECT["project"]["urls"]["Repository"]]
        return "git"
    if program == "just":
        assert re.search(rf"^{rest[0]}\b.*:", (ROOT / "justfile").read_text(), re.M), words
        return "just"
    if program == "bash" or program.startswith("launch/"):
        assert (ROOT / (rest[0] if program == "bash" else program)).is_file(), words
        return "bash" if program == "bash" else "launch"
    if program == "python3":
        assert rest == ["-m", "venv", ".venv"]
        return "python3"
    assert program in ("cd", ".", "pre-commit"), f"no check knows {program!r}"
    return "shell"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_ours_and_parse(block, parse_job):
    for words in list_commands(block.text):
        if " ".join(words) not in RUN:
            assert check(words, parse_job) in ONLY_PARSED


def test_commands_within_a_text_parse(parse_job):
    commands = [words for text in list_pages().values() for words in find_inline_commands(text)]
    assert len(commands) > 3
    for words in commands:
        check(words, parse_job)


@pytest.mark.parametrize(
    "command",
    [
        "mi-contrast train ring_mocco",
        "mi-contrast trian ring_moco",
        "mi-contrast train simclr --config.data.nmae=x",
        "mi-contrast study negative",
        "python -m mi_contrast.main --config=configs/simclr.py --stop=3",
        "pip install -e '.[tests]'",
        "git clone https://example.org/other",
        "just deploy",
        "bash .ci/walk",
        "python -m tests.drills.none",
        "rm -r runs",
    ],
)
def test_a_wrong_command_is_noticed(command, parse_job):
    (words,) = list_commands(command)
    with pytest.raises((UserError, AssertionError)):
        check(words, parse_job)


@pytest.mark.parametrize("command", RUN)
def test_quick_commands_run(command, tmp_path, monkeypatch, capsys):
    assert any(command in block.text.splitlines() for block in SHELL), "no page has this command"
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    words = command.split()
    door.start([MODULES[words[2]], *words[3:]] if words[0] == "python" else words[1:])
    assert len(capsys.readouterr().out.splitlines()) > 3


def write_inputs(folder):
    """Writes photos/, data.csv and samples.npz."""
    readme.write_inputs(folder, photos=60, samples=300)


def test_every_python_block_is_run_or_tested_elsewhere():
    for page, file in TESTED_ELSEWHERE.items():
        assert any(block.page == page for block in PYTHON) and (ROOT / file).is_file()
    for block in PYTHON:
        compile(block.text, str(block), "exec")


def list_sessions():
    """Returns the Python blocks of each page, in order: a page is one session."""
    pages = dict.fromkeys(block.page for block in PYTHON if block.page not in TESTED_ELSEWHERE)
    return {page: [block for block in PYTHON if block.page == page] for page in pages}


def trains(blocks):
    return any("mi_contrast.train(" in block.text or "mi_contrast.open(" in block.text for block in blocks)


SESSIONS = [
    pytest.param(page, blocks, id=page, marks=[pytest.mark.slow] if trains(blocks) else [])
    for page, blocks in list_sessions().items()
]


@pytest.mark.parametrize("page, blocks", SESSIONS)
def test_python_runs_as_pasted(page, blocks, tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    monkeypatch.setattr(mi_contrast, "train", shorten(mi_contrast.train), raising=False)
    namespace = {"__name__": "__main__"}
    for block in blocks:
        capsys.readouterr()
        exec(compile(block.text, str(block), "exec"), namespace)
        check_output(block, capsys.readouterr().out)
    with suppress(KeyError):  # a page that defines a config: it is one
        assert namespace["get_config"]()


SMALL = {
    "steps": 2, "data.batch": 8, "log.tensorboard": False, "eval.pairs": 2, "eval.knn_k": 3, "model.backbone": "tiny",
    "model.width": 16, "model.stem": "small",
}  # fmt: skip


def shorten(train):
    """Returns `train` for a run of two steps at small sizes."""

    def run(config, *arguments, **keywords):
        fields = SMALL | ({"views.size": 16, "data.size": 16} if "data" in keywords else {"eval.knn_bank": 64})
        return train(config, *arguments, **{**keywords, **fields})

    return run


def check_output(block: Block, output: str) -> None:
    """Compares what a block prints with the block of text that follows it; numbers may differ by a tenth or .05."""
    text = list_pages()[block.page]
    after = text[text.index(block.text) + len(block.text) :].removeprefix("```\n").lstrip("\n")
    if trains([block]):
        return  # a training says what it does
    if not after.startswith("```text\n"):
        assert not output.strip(), f"{block} prints {output!r}, and the page doesn't show it"
        return
    shown = after.removeprefix("```text\n").partition("```")[0]
    number = r"-?\d+\.?\d*"
    assert re.sub(number, "#", shown).split() == re.sub(number, "#", output).split(), output
    values, wanted = ([float(n) for n in re.findall(number, part)] for part in (output, shown))
    np.testing.assert_allclose(values, wanted, rtol=0.1, atol=0.05)


def test_the_study_of_the_page_is_one(tmp_path, monkeypatch):
    (block,) = (b for b in PYTHON if b.page == "docs/how_to/compare.md")
    (tmp_path / "temperatures.py").write_text(block.text)
    monkeypatch.chdir(tmp_path)
    config, name, variant = load_config("temperatures.py")
    assert len(make_plan(config, name, variant).runs) == 6


def test_imports_of_blocks_are_public():
    for block in PYTHON:
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mi_contrast"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), str(block)
