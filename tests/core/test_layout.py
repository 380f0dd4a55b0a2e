import os
import subprocess
import sys

import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory, locked, read_json, write_json


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "a" / "x.json"
    write_json(path, {"b": [1, 2]})
    assert read_json(path) == {"b": [1, 2]}
    with pytest.raises(TypeError):
        write_json(path, {"b": object()})
    assert read_json(path) == {"b": [1, 2]}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_missing_and_broken_json(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "x.json")


def test_a_second_process_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mi_contrast.core.layout import *\n"
        "from mi_contrast.core.errors import run_job\n"
        "def job(a):\n    with locked(RunDirectory(Path(a[0]))): pass\n"
        "sys.exit(run_job(job))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with locked(RunDirectory(tmp_path / "run")):
        held = subprocess.run(command, capture_output=True, text=True, check=False)
        assert held.returncode == 2
        assert f"in use by process {os.getpid()}" in held.stderr
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"), locked(RunDirectory(tmp_path / "run")):
        pass
