"""The study: what it runs and leaves, what it does of failures and stops; runs stand in for the real ones but in the
slow tests.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mi_contrast import study
from mi_contrast.core.errors import run_job
from mi_contrast.core.layout import RunDirectory, hold_lock, write_json
from mi_contrast.core.stopping import StopRequest
from mi_contrast.reporting.study_runs import read_study
from mi_contrast.studies.plan import StudyRun
from tests.reporting import fake_study
from tests.training import small

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(
        question="", data_dir=None, steps=None, reference="all", columns=("mi_nats",), figure=("knn",),
        evaluate=(dict(config="configs/evaluate/knn.py", changes={"task.k": 20}),),
        runs=(dict(label="all", config="configs/moco.py", changes={"steps": 10}, seeds=(0, 1)),
              dict(label="ring", config="configs/ring_moco.py", changes={"steps": 10}, seeds=(0, 1))),
    ))
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "check_runs", lambda plan, starts: None)
    (tmp_path / "mine.py").write_text(CONFIG)
    return [f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'study'}"]


def code_of(command):
    """The exit code of the job."""
    try:
        return run_job(study.main, command)
    except SystemExit as end:
        return end.code


class Stub:
    """Stands in for the process of a run: it ends at once, as it is told to."""

    def __init__(self, exitcode):
        self.exitcode, self.asked = exitcode, False

    def is_alive(self):
        return False

    def join(self, timeout=None):
        """Nothing to wait for."""


@pytest.fixture
def begun(monkeypatch):
    """The folders begun; outcomes: folder -> what its process does instead of ending well."""
    seen, outcomes = [], {}

    def start_process(start, plan, root):
        seen.append(Path(start.folder).name)
        if start.folder in outcomes:
            return Stub(outcomes[start.folder](root / start.folder))
        fake_study.write_run(root / start.folder, top1=0.5 + start.seed / 10, untrained=0.3)
        write_json(RunDirectory(root / start.folder).config, {"config": dict(start.config)})
        return Stub(0)

    monkeypatch.setattr(study, "start_process", start_process)
    return seen, outcomes


def test_it_runs_all_leaves_its_tables_and_says_when_it_is_finished(command, begun, tmp_path, capsys):
    assert code_of(command) == 0
    assert begun[0] == ["all-seed0", "all-seed1", "ring-seed0", "ring-seed1"]
    out = capsys.readouterr()
    assert "4 of 4 runs are done, 0 failed. The study is finished." in out.out
    assert "run 3 of 4: ring, seed 0: step 0 of 10" in out.err
    for name in ("study.json", "table.csv", "table.json", "table.md", "figure.svg", "study.html"):
        assert (tmp_path / "study" / name).is_file()
    assert code_of(command) == 0
    assert len(begun[0]) == 4 and "The study is finished." in capsys.readouterr().out


def test_a_failure_stops_nothing_is_told_and_tried_again_when_asked(command, begun, tmp_path, capsys):
    seen, outcomes = begun

    def fail(folder):
        with open(folder / "output.txt", "a") as output:
            output.write("step 3\nmi_contrast: numbers went bad: 20 steps\nsomething later\n")
        return 3

    outcomes["runs/all-seed1"] = fail
    outcomes["runs/ring-seed0"] = lambda folder: -signal.SIGKILL
    assert code_of(command) == 1
    assert len(seen) == 4
    out = capsys.readouterr().out
    assert "2 of 4 runs are done, 2 failed. The study is through; --retry tries them again." in out
    assert "all, seed 1 failed: numbers went bad: 20 steps" in out
    assert "ring, seed 0 failed: killed by SIGKILL (was memory short?)" in out
    table = json.loads((tmp_path / "study/table.json").read_text())
    assert table["settings"][0]["runs"][1]["reason"] == "numbers went bad: 20 steps"
    assert code_of(command) == 1 and len(seen) == 4  # as it was
    del outcomes["runs/ring-seed0"]
    assert code_of([*command, "--retry"]) == 1
    assert seen[4:] == ["all-seed1", "ring-seed0"]
    outcomes.clear()
    assert code_of([*command, "--retry"]) == 0


def test_a_run_that_was_stopped_stops_the_study_which_goes_on(command, begun, capsys):
    seen, outcomes = begun
    outcomes["runs/all-seed1"] = lambda folder: 75
    assert code_of(command) == 75
    assert "in all, seed 1, saved; 1 of 4 runs are done; run the same command to resume" in capsys.readouterr().err
    outcomes.clear()
    assert code_of(command) == 0
    assert seen == ["all-seed0", "all-seed1", "all-seed1", "ring-seed0", "ring-seed1"]


def test_a_time_limit_stops_between_runs_too(command, begun, capsys):
    def asked(folder):
        os.kill(os.getpid(), signal.SIGTERM)
        fake_study.write_run(folder, top1=0.5, untrained=0.3)
        return 0

    begun[1]["runs/all-seed0"] = asked
    assert code_of(command) == 75
    assert begun[0] == ["all-seed0"]
    assert "stopped by SIGTERM before all, seed 1" in capsys.readouterr().err


def test_only_and_list(command, begun, tmp_path, capsys):
    assert code_of([*command, "--only=ring"]) == 0
    assert begun[0] == ["ring-seed0", "ring-seed1"]
    assert "The study is finished" not in capsys.readouterr().out
    assert code_of([*command, "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "all   seed 0  10 steps  waiting", "all   seed 1  10 steps  waiting",
        "ring  seed 0  10 steps  done", "ring  seed 1  10 steps  done",
    ]  # fmt: skip


def test_list_leaves_no_trace(command, tmp_path):
    assert code_of([*command, "--list"]) == 0
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only=rings"], "did you mean 'ring'"),
        (["--config.runs.0.config=configs/moko.py"], "did you mean 'configs/moco.py'"),
        (["--config.reference=None"], "unknown label in config.reference"),
        (["--time_limit=soon"], "not a number of seconds"),
        (["--config.colums=()"], "no field 'colums'"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_run(command, begun, tmp_path, capsys, more, said):
    assert code_of([*command, *more]) == 2
    err = capsys.readouterr().err
    assert err.startswith("mi_contrast: error: ") and err.count("\n") == 1 and said in err
    assert begun[0] == [] and not (tmp_path / "study").exists()


@pytest.mark.nightly
def test_a_changed_setting_and_a_busy_folder_are_refused(command, begun, tmp_path, capsys):
    assert code_of(command) == 0
    assert code_of([*command, "--config.steps=11"]) == 2
    assert "holds a run of another config: steps differ" in capsys.readouterr().err
    (tmp_path / "study/runs/ring-seed0/export/manifest.json").unlink()
    with hold_lock(RunDirectory(tmp_path / "study/runs/ring-seed0")):
        pass
    lock = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f,2); print(1,flush=True);"
         "time.sleep(60)", str(tmp_path / "study/runs/ring-seed0/lock")], stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        lock.stdout.readline()
        assert code_of(command) == 2
        assert "is in use by process" in capsys.readouterr().err
    finally:
        lock.kill()
        lock.communicate()


def start(workdir, *changes):
    command = [sys.executable, "-m", "mi_contrast.study", "--config=configs/studies/negatives.py:tiny",
               f"--config.data_dir={small.DATA}", f"--workdir={workdir}", *changes]  # fmt: skip
    return subprocess.Popen(
        command, cwd=small.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONPATH": str(small.ROOT)},
    )  # fmt: skip


@pytest.mark.nightly
def test_a_real_study_is_stopped_and_goes_on(tmp_path):
    changes = ("--only=ring 90-99", "--config.steps=200", "--config.runs.2.seeds=(0,)")
    process = start(tmp_path / "study", *changes)
    metrics = RunDirectory(tmp_path / "study/runs/ring-90-99-seed0").metrics
    for _ in range(4000):
        if metrics.is_file() and len(metrics.read_text().splitlines()) > 4:
            break
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 75, out
    assert "stopped by SIGTERM in ring 90-99, seed 0, saved; 0 of 5 runs are done; run the same" in out
    process = start(tmp_path / "study", *changes)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert "1 of 5 runs are done, 0 failed." in out
    assert "resuming from step" in (metrics.parent / "output.txt").read_text()
    setting = next(s for s in read_study(tmp_path / "study").settings if s.label == "ring 90-99")
    assert setting.values["knn"].n == setting.untrained["linear"].n == 1
    assert (metrics.parent / "report.html").is_file()


@pytest.mark.nightly
def test_a_mistake_deep_in_a_run_is_one_line_before_anything_is_run(tmp_path):
    process = start(tmp_path / "study", "--config.data_dir=/proc/nowhere")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 2, out
    assert out.count("\n") == 1 and out.startswith("mi_contrast: error: run 'all':"), out
    assert not (tmp_path / "study").exists()


def test_before_a_step_is_logged_the_time_so_far_is_told_and_then_the_time_to_go(tmp_path, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    run = StudyRun("all", 0, "all-0", "moco", None, {"steps": 100})
    runner = study._Runner([run], tmp_path, StopRequest(), None)
    now[0] += 65
    runner.report_progress(0, run)
    (tmp_path / "all-0").mkdir()
    (tmp_path / "all-0" / "metrics.jsonl").write_text('{"step": 50, "objective": 1.0}\n')
    now[0] += 35
    runner.report_progress(0, run)
    assert capsys.readouterr().err.splitlines() == [
        "run 1 of 1: all, seed 0: step 0 of 100; starting and compiling, 1:05 so far",
        "run 1 of 1: all, seed 0: step 50 of 100; about 1:40 left for all",
    ]
