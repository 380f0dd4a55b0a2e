"""The three words of several processes, in processes that JAX connects, and how all of them end."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from mi_contrast.core import processes
from mi_contrast.core.errors import FileError, UserError, cannot_write, run_job
from tests import devices as virtual
from tests.training.small import ROOT

START = "import sys; from mi_contrast.core import processes, errors; processes.start(sys.argv[1:])\n"
WORDS = """
import json
from mi_contrast.core.errors import FileError, BadNumbersError, DamagedError
me = processes.index()
found = {"first": processes.is_first(), "count": processes.count()}
found["agreed"] = processes.agree({"number": [me, 0.1], "text": "ä" * me})
found["highest"] = processes.agree(me, max)
for kind in (FileError, BadNumbersError, DamagedError, KeyError):
    try:
        with processes.together():
            if me == 1:
                raise kind("broken")
    except Exception as error:
        found[kind.__name__] = [type(error).__name__, str(error), getattr(error, "of_other_process", False)]
print(json.dumps(found), file=processes.stderr())
print("muted")
"""
MISTAKE = """
import time
def job(arguments):
    with processes.together():
        pass
    if processes.index() == int(sys.argv[-1]):
        raise errors.UserError("a mistake", fix="mend it")
    time.sleep(100)
sys.exit(errors.run_job(job))
"""
SHARED = """
from pathlib import Path
from mi_contrast.core import layout
def job(arguments):
    with layout.hold_shared(layout.RunDirectory(Path(sys.argv[-1] + str(processes.index())))):
        pass
layout.SEEING = 1.0
sys.exit(errors.run_job(job))
"""


ARRAYS = """
import json
import numpy as np
from mi_contrast.core import mesh
all_devices = mesh.make_mesh()
whole = mesh.place(np.arange(6.0), mesh.replicated(all_devices))
cut = mesh.place(np.arange(8.0), mesh.batch_sharding(all_devices))
taken = mesh.take_local({"whole": whole, "cut": cut, "number": 1})
found = {
    "own": [np.asarray(shard.data).tolist() for shard in cut.addressable_shards],
    "left": taken["cut"] is cut and taken["number"] == 1,
    "reachable": [whole.is_fully_addressable, taken["whole"].is_fully_addressable, len(taken["whole"].devices())],
    "doubled": np.asarray(2 * taken["whole"]).tolist(),
}
print(json.dumps(found), file=processes.stderr())
"""
ROWS = """
import json
import numpy as np
from mi_contrast.core import mesh
mesh.GATHERED_BYTES = 32
gathered = mesh.gather_rows(np.stack([mesh.share_rows(11)] * 2, axis=1).astype(np.float32), 11)
print(json.dumps(gathered.tolist()), file=processes.stderr())
"""


def run(code, *arguments, count=2, devices=1):
    """Exit codes, outputs and error outputs of `count` processes that run the code, and the seconds they took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"]
    environment = virtual.environment(devices, PYTHONPATH=str(ROOT))
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", START + code, *flags, f"--process={i}", *map(str, arguments)],
            env=environment, stdout=-1, stderr=-1, text=True,
        )
        for i in range(count)
    ]  # fmt: skip
    began = time.monotonic()
    try:
        ended = [job.communicate(timeout=240) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    return [job.returncode for job in jobs], *zip(*ended, strict=True), time.monotonic() - began


def test_one_process_needs_nobody():
    assert processes.count() == 1 and processes.is_first() and processes.agree((1, 2)) == (1, 2)
    assert processes.agree(3, max) == 3 and not processes.reached_stop(1)
    with pytest.raises(KeyError), processes.together():
        raise KeyError("its own error, unchanged")
    processes.start([])  # nothing says that there are others


@pytest.mark.parametrize("error", [UserError("a", nearest="b", fix="c"), FileError("a"), cannot_write("/x", 28)])
def test_an_error_keeps_kind_and_text_on_its_way(error):
    made = processes._rebuild(json.loads(json.dumps(processes._describe(error))), 1)
    assert type(made) is type(error) and str(made) == str(error) and made.of_other_process
    assert getattr(made, "errno", None) == getattr(error, "errno", None)


@pytest.mark.slow
def test_three_words_in_two_processes():
    codes, out, err, _ = run(WORDS)
    assert codes == [0, 0], err
    assert [text.splitlines() for text in out] == [["muted"], []]  # only the first prints
    first, second = (json.loads(text) for text in err)
    assert (first["first"], second["first"]) == (True, False) and first["count"] == second["count"] == 2
    assert first["agreed"] == second["agreed"] == {"number": [0, 0.1], "text": ""}
    assert first["highest"] == second["highest"] == 1
    for kind in ("FileError", "BadNumbersError", "DamagedError"):
        assert first[kind] == [kind, "broken", True] and second[kind] == [kind, "broken", False]
    assert first["KeyError"] == ["OtherProcessError", "process 1 failed: KeyError: 'broken'", True]


@pytest.mark.slow
def test_arrays_that_several_processes_hold():
    codes, _, err, _ = run(ARRAYS, devices=2)
    assert codes == [0, 0], err
    for i, found in enumerate(map(json.loads, err)):
        assert found["own"] == [[4.0 * i, 4.0 * i + 1], [4.0 * i + 2, 4.0 * i + 3]]
        assert found["left"] and found["reachable"] == [False, True, 2]
        assert found["doubled"] == [0, 2, 4, 6, 8, 10]


@pytest.mark.slow
def test_rows_of_all_processes_come_in_order():
    codes, _, err, _ = run(ROWS)
    assert codes == [0, 0], err
    assert [json.loads(text) for text in err] == 2 * [[[float(i)] * 2 for i in range(11)]]


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_mistake_of_one_ends_all_with_one_line_and_one_exit_code(who):
    codes, _, err, seconds = run(MISTAKE, who, count=3)
    assert codes == [2, 2, 2] and seconds < 90
    lines = [line for text in err for line in text.splitlines() if line.startswith("mi_contrast:")]
    assert lines == ["mi_contrast: error: a mistake; mend it"]
    assert "Traceback" not in "".join(err)


@pytest.mark.slow
def test_a_run_directory_that_one_process_alone_sees_is_refused(tmp_path):
    codes, _, err, _ = run(SHARED, tmp_path / "run")
    assert codes == [2, 2], err
    assert "run1 is another directory to process 1 than to the first process" in "".join(err)
    assert not list(tmp_path.glob("*/.*"))
    (tmp_path / "run1").rmdir() if (tmp_path / "run1").exists() else None
    (tmp_path / "run1").symlink_to(tmp_path / "run0")  # control: the same directory by another name
    codes, _, err, _ = run(SHARED, tmp_path / "run")
    assert codes == [0, 0], err


@pytest.mark.slow
def test_a_first_process_that_never_comes_is_named_in_one_line():
    code = (
        "import sys; from mi_contrast.core import processes, errors; processes.CONNECTING = 1\n"
        "sys.exit(errors.run_job(lambda _: processes.start(sys.argv[1:])))"
    )
    flags = ["--coordinator=127.0.0.1:1", "--processes=2", "--process=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mi_contrast: error: process 1 of 2 can't reach the first process at 127.0.0.1:1")


def test_the_first_leaves_a_lost_process_before_the_runtime_aborts_it(monkeypatch, capsys):
    patience = []
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "find_failure", lambda seconds=0.0: None)
    monkeypatch.setattr(processes, "report_failure", lambda code, error: True)
    monkeypatch.setattr(processes, "leave", lambda code, wait=processes.LEAVING: patience.append(wait / 1000))

    def lose(arguments):
        raise RuntimeError("Gloo AllGather failed: connection closed by peer")

    def fail(arguments):
        raise UserError("a mistake")

    assert [run_job(job, []) for job in (lose, fail)] == [1, 2]
    assert patience[0] < processes.HEARTBEAT / 2 < patience[1]
    assert "another process of this job has ended" in capsys.readouterr().err
