"""The notebooks: stored beside their scripts with the same cells, small, with outputs, and their first cells run."""

import contextlib
import io
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="the extra [dev] has it")
nbformat = pytest.importorskip("nbformat", reason="jupytext needs it")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "launch" / "colab"
SCRIPTS = sorted(FOLDER.glob("[0-9]_*.py"))
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def code_cells(script):
    return [cell.source for cell in jupytext.read(script).cells if cell.cell_type == "code"]


@pytest.fixture(params=SCRIPTS, ids=lambda script: script.stem)
def script(request):
    return request.param


def test_script_and_notebook_hold_the_same_cells(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), 4)
    stored = [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert stored == [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]


def test_a_notebook_is_small_executed_in_order_and_free_of_paths(script):
    path = script.with_suffix(".ipynb")
    assert path.stat().st_size < 2**20
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a picture that needs no network"
    assert all(output.output_type != "error" for output in outputs)
    texts = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert not [text for text in texts if re.search(r"/(tmp|root|home|work)/", text)]


def test_a_notebook_is_opened_and_installed_from_the_address_of_the_project(script):
    text = script.read_text()
    badge = f"https://colab.research.google.com/github/{ADDRESS.removeprefix('https://github.com/')}/blob/main"
    assert f"{badge}/launch/colab/{script.stem}.ipynb" in text
    assert f'ADDRESS = "{ADDRESS}"' in code_cells(script)[0]
    assert code_cells(script)[0] == code_cells(SCRIPTS[0])[0], "all begin alike"


def test_the_first_cells_run(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    for source in code_cells(script)[:2]:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, str(script), "exec"), names)
    assert "has_new_jax" in names and len(names) > 5


@pytest.mark.parametrize(
    ("jax", "gpu", "asked"),
    [
        ("0.10.2", True, "mi-contrast @"),  # Colab's own JAX stays
        ("0.9.1", True, "mi-contrast[cuda12] @"),
        ("0.9.1", False, "mi-contrast @"),
        (None, True, "mi-contrast[cuda12] @"),
    ],
)
def test_the_first_cell_installs_what_is_missing(monkeypatch, jax, gpu, asked):
    import importlib.metadata
    import importlib.util
    import shutil

    def version(name):
        if jax is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return jax

    calls = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    exec(code_cells(SCRIPTS[0])[0], {})
    ((python, *_, asked_for),) = calls
    assert python == sys.executable and asked_for == f"{asked} git+{ADDRESS}"


def test_nothing_is_installed_where_the_package_is(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("installed"))
    exec(code_cells(SCRIPTS[0])[0], {})
