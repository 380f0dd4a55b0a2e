import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import (
    RunDirectory,
    check_mounted,
    hold_lock,
    read_json,
    read_record,
    remove_leftovers,
    set_aside,
    write_json,
    write_text,
)


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
        "def job(a):\n    with hold_lock(RunDirectory(Path(a[0]))): pass\n"
        "sys.exit(run_job(job))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with hold_lock(RunDirectory(tmp_path / "run")):
        held = subprocess.run(command, capture_output=True, text=True, check=False)
        assert held.returncode == 2
        assert f"in use by process {os.getpid()}" in held.stderr
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file"), hold_lock(RunDirectory(tmp_path / "run")):
        pass


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_is_one_line_and_leaves_no_temporary_file(tmp_path, monkeypatch, call, number):
    path = tmp_path / "x.json"
    write_json(path, 1)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        if call == "open":
            patched.setattr("builtins.open", fail)
        else:
            patched.setattr(os, call, fail)
        with pytest.raises(UserError, match=rf"can't write {path} \({os.strerror(number)}\)"):
            write_json(path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"] and read_json(path) == 1


def test_ctrl_c_in_a_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "x", "y")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_a_symbolic_link_leaves_its_target_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="lock is a symbolic link; remove it"), hold_lock(RunDirectory(tmp_path)):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_flock_is_said_and_used(tmp_path, monkeypatch, capsys, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with hold_lock(RunDirectory(tmp_path)):
        pass
    said = capsys.readouterr().err
    assert f"{tmp_path} can't be locked" in said and said.count("\n") == 1
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".metrics.jsonl.12", ".config.json.7", ".report.html.1"):
        (tmp_path / name).write_text("")
    (tmp_path / ".export.new.12").mkdir()
    kept = [".hidden.1", "metrics.jsonl", ".notes.txt.5", "export.new.12"]
    for name in kept:
        (tmp_path / name).write_text("")
    remove_leftovers(RunDirectory(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


# Every file that training writes into a run directory through `write_atomically`.
WRITTEN = ["config", "data", "starts", "metrics", "report", "pictures/pairs.png", "pictures/channels.png", "bad"]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_write_that_was_killed_leaves_nothing_after_the_next_start(tmp_path, name):
    run = RunDirectory(tmp_path)
    path = {"bad": tmp_path / "metrics.jsonl.bad"}.get(name) or getattr(run, name, tmp_path / name)
    code = (
        "import os, signal, sys; from pathlib import Path; from mi_contrast.core.layout import write_atomically\n"
        "with write_atomically(Path(sys.argv[1])) as file: os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1  # the temporary file
    remove_leftovers(run)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_setting_aside_replaces_nothing(tmp_path):
    for _ in range(3):
        (tmp_path / "7").mkdir()
        set_aside(tmp_path / "7", "damaged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["7.damaged", "7.damaged.2", "7.damaged.3"]


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"starts": 3}', b'{"starts": [4]}', b"\xff", None])
def test_a_broken_record_of_starts_has_none(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_bytes(text)
    assert read_record(RunDirectory(tmp_path)) == {"starts": []}


def test_a_bucket_is_refused_with_the_command_that_mounts_it():
    with pytest.raises(UserError) as error:
        check_mounted("gs://my-bucket/runs/x", "--workdir")
    said = str(error.value)
    assert "gcsfuse --implicit-dirs my-bucket /mnt/my-bucket; then --workdir=/mnt/my-bucket/runs/x" in said
    assert "\n" not in said
    with pytest.raises(UserError, match="mount b as /mnt/b"):
        check_mounted("s3://b", "data.dir")
    for path in ("runs/x", "/mnt/my-bucket/runs", ""):
        check_mounted(path, "--workdir")
