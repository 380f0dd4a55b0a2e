"""Executes the notebooks from clean kernels and stores them with their outputs:

  python launch/colab/execute.py [NAME ...] [--limit=180] [--text]

A notebook is written as a script, launch/colab/NAME.py, in jupytext's percent format, and stored as NAME.ipynb. Without
names all are executed, each in an empty folder. A notebook that takes longer than the limit in seconds, or whose file
is larger than 1 MiB, is an error. With --text nothing is executed: changed text is taken over into stored notebooks
whose code is unchanged. Needs the extra [notebooks].
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
LARGEST = 2**20  # bytes of a stored notebook
# A bar as tqdm draws it, and its warning where a kernel has no widgets to draw it with.
BAR = re.compile(r"\d%\||TqdmWarning|^  from \.autonotebook")
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def list_scripts() -> list[Path]:
    """Returns the scripts of the notebooks, in order."""
    return sorted(file for file in FOLDER.glob("[0-9]_*.py"))


def read_script(script: Path) -> nbformat.NotebookNode:
    """Returns the notebook of a script, without outputs. It is the same whenever it is read."""
    notebook = jupytext.read(script)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: nbformat.NotebookNode, limit: int) -> float:
    """Executes the cells in an empty folder, and returns the seconds. A cell that fails raises its error."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=limit, kernel_name=KERNEL["name"], resources={"metadata": {"path": folder}},
            record_timing=False,
        )  # fmt: skip
        client.execute()
    return time.perf_counter() - start


def drop_progress(notebook: nbformat.NotebookNode) -> None:
    """Removes progress bars, which say nothing afterwards, and joins the other lines that a cell printed."""
    for cell in notebook.cells:
        kept: list[nbformat.NotebookNode] = []
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                continue
            if output.output_type == "stream":
                output.text, output.name = keep_lines(output.text), "stdout"
                if kept and kept[-1].output_type == "stream":
                    kept[-1].text += output.text
                    continue
                if not output.text:
                    continue
            if "image/jpeg" in output.get("data", {}):
                output["data"].pop("image/png", None)  # the same photo again, at seven times the size
            kept.append(output)
        if "outputs" in cell:
            cell.outputs = kept
    notebook.metadata.pop("widgets", None)


def keep_lines(text: str) -> str:
    """Returns the lines of a text that no progress bar drew, with paths from its own folder or from home on."""
    text = text.replace(f"{Path.home()}/", "~/")
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/tmp\w+/", "", text)
    lines = [line.rpartition("\r")[2] for line in text.splitlines(keepends=True)]
    return "".join(line for line in lines if line.strip() and not BAR.search(line))


def take_over_text(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """Returns the notebook with the outputs that are stored in `path`. Raises ValueError if its code has changed."""
    codes, stored = (
        [cell for cell in each.cells if cell.cell_type == "code"] for each in (notebook, nbformat.read(path, 4))
    )
    if [cell.source for cell in codes] != [cell.source for cell in stored]:
        raise ValueError(f"the code of {path.stem} has changed: execute it")
    for cell, old in zip(codes, stored, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def store(notebook: nbformat.NotebookNode, path: Path) -> int:
    """Writes the notebook and returns its size in bytes."""
    drop_progress(notebook)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook)
    path.write_text(text + "\n", encoding="utf-8")
    return len(text.encode())


def main() -> int:
    """Executes and stores the notebooks that the command line names. Returns 1 if one of them is too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of notebooks, such as 1_mi_in_five_minutes; all by default")
    parser.add_argument("--limit", type=int, default=180, help="seconds that a notebook may take")
    parser.add_argument("--text", action="store_true", help="execute nothing: take over changed text alone")
    given = parser.parse_args()
    scripts = {script.stem: script for script in list_scripts()}
    if wrong := [name for name in given.names if name not in scripts]:
        parser.error(f"unknown notebook {wrong[0]}; one of: {', '.join(scripts)}")
    failed = False
    for name in given.names or scripts:
        notebook = read_script(scripts[name])
        if given.text:
            notebook, seconds = take_over_text(notebook, FOLDER / f"{name}.ipynb"), 0.0
        else:
            seconds = execute(notebook, given.limit)
        size = store(notebook, FOLDER / f"{name}.ipynb")
        is_over = seconds > given.limit or size > LARGEST
        failed |= is_over
        print(f"{name}: {seconds:.0f} s, {size / 1024:.0f} KiB{', OVER THE LIMIT' if is_over else ''}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
