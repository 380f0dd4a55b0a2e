"""Wrong inputs: each ends in one clear line, exit 2, and nothing already on disk is lost."""

import hashlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mi_contrast import evaluate, main, report
from mi_contrast.core.errors import run_job
from mi_contrast.core.layout import RunDirectory, hold_lock
from mi_contrast.training import loop
from tests.training import small

RING = "--config=configs/ring_moco.py"
SMALL = [
    RING, f"--config.data.dir={small.DATA}", "--config.data.batch=32", "--config.data.options.length=2",
    "--config.model.width=8", "--config.eval.pairs=16", "--config.eval.knn_bank=64", "--config.steps=12",
    "--config.eval.every=12", "--config.checkpoint.every=100", "--config.log.every=1",
    "--config.log.tensorboard=False", "--config.method.pools.queue.size=100",
]  # fmt: skip


def fingerprint(folder):
    """Every file's bytes, but for the lock."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def refused(capsys, job, arguments, said):
    code = run_job(job, [str(a) for a in arguments])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("mi_contrast: error:")]
    assert code == 2, err
    assert len(lines) == 1 and "Traceback" not in err, err
    assert said in lines[0], lines[0]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished small run."""
    folder = tmp_path_factory.mktemp("drills") / "run"
    loop.run(small.config(), folder, name="ring_moco", variant="digits")
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--confg=configs/ring_moco.py"], "did you mean '--config'"),
        ([], "no --config given"),
        (["--config=configs/ring_mocco.py"], "did you mean 'configs/ring_moco.py'"),
        ([f"{RING}:digit"], "did you mean 'digits'"),
        ([RING, "--config.optim.learning_rate=1"], "no field 'learning_rate'"),
        ([RING, "--config.modell.width=8"], "did you mean 'model'"),
        ([RING, "--config.steps=lots"], "takes a int"),
        ([RING, "--config.steps=0"], "config.steps is 0"),
        ([RING, "--stop_at=soon"], "is not a step"),
        ([RING, "--config.method.terms.0.support.lower=.995"], "lower 0.995 >= upper"),
        ([RING, "--config.method.terms.0.support.kind=rign"], "did you mean 'ring'"),
        ([RING, "--config.method.terms.0.temperature=0"], "above 0"),
        ([RING, "--config.method.pools.queue.size=-4"], "above 0"),
        ([RING, "--config.model.backbone=resnet81"], "did you mean 'resnet18'"),
        ([RING, "--config.views.query.jitter.p=1.5"], "views.query.jitter.p"),
        ([RING, "--config.optim.kind=sgdd"], "did you mean 'sgd'"),
        ([RING, "--config.data.name=moving_digit"], "did you mean 'moving_digits'"),
        ([RING, "--config.data.shared=('digits',)"], "did you mean 'digit'"),
        ([RING, "--config.data.label=digits"], "did you mean 'digit'"),
        ([RING, "--config.data.split=train[95%:95%]"], "empty"),
        ([RING, "--config.data.batch=1000000"], "1000000"),
        (["--config=configs/ring_moco.py:cifar10", "--config.data.dir=/nowhere"], "/nowhere"),
        ([RING, "--config.model.norm.groups=7"], "not a multiple of the 7 groups"),
        ([RING, "--config.checkpoint.start_from=/nowhere"], "no checkpoint in"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    given = [*arguments, f"--config.data.dir={small.DATA}"] if arguments[:1] == [RING] else arguments
    refused(capsys, main.main, [*given, "--workdir=run"], said)


@pytest.mark.slow
def test_another_config_in_a_run_directory(capsys, trained):
    before = fingerprint(trained)
    refused(capsys, main.main, [*SMALL, f"--workdir={trained}", "--config.optim.momentum=.5"], "optim.momentum differ")
    assert fingerprint(trained) == before


@pytest.mark.slow
def test_fewer_steps_on_a_finished_run_train_nothing(capsys, trained):
    before = fingerprint(trained)
    before.pop("report.html", None)
    assert run_job(main.main, [*SMALL, f"--workdir={trained}", "--config.steps=6"]) == 0
    out = capsys.readouterr().out
    assert "nothing is trained" in out and "config.json stays, though steps differ" in out
    after = fingerprint(trained)
    after.pop("report.html", None)
    assert after == before


@pytest.mark.slow
def test_a_section_that_can_not_be_allowed(capsys, trained):
    refused(capsys, main.main, [*SMALL, f"--workdir={trained}", "--allow=optimiser"], "did you mean 'optim'")


@pytest.mark.slow
def test_a_run_directory_in_use(capsys, trained):
    before = fingerprint(trained)
    command = [sys.executable, "-m", "mi_contrast.main", *SMALL, f"--workdir={trained}"]
    with hold_lock(RunDirectory(trained)):
        out = subprocess.run(command, capture_output=True, text=True, check=False, cwd=small.ROOT)
    assert out.returncode == 2 and f"in use by process {os.getpid()}" in out.stderr
    assert fingerprint(trained) == before


@pytest.mark.slow
def test_a_truncated_checkpoint(capsys, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "export")
    for file in (tmp_path / "run" / "checkpoints").rglob("d/*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:16])
    before = fingerprint(tmp_path / "run")
    refused(capsys, main.main, [*SMALL, f"--workdir={tmp_path / 'run'}"], "can't be read")
    after = fingerprint(tmp_path / "run")
    assert {name: after[name] for name in before if "checkpoints" in name or "metrics" in name} == {
        name: sha for name, sha in before.items() if "checkpoints" in name or "metrics" in name
    }


@pytest.mark.slow
def test_a_checkpoint_of_another_network(capsys, trained, tmp_path):
    changes = [f"--config.checkpoint.start_from={trained}", "--config.model.width=16"]
    refused(capsys, main.main, [*SMALL, f"--workdir={tmp_path / 'run'}", *changes], "leaves match")


def test_a_file_where_the_run_directory_should_be(capsys, tmp_path):
    (tmp_path / "run").write_text("mine")
    refused(capsys, main.main, [*SMALL, f"--workdir={tmp_path / 'run'}"], "is a file")
    assert (tmp_path / "run").read_text() == "mine"


def test_no_write_permission(capsys):
    refused(capsys, main.main, [*SMALL, "--workdir=/proc/nowhere/run"], "can't write")


def test_a_corrupt_image(capsys, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(60):
            pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i:02d}.png")
    bad = tmp_path / "images" / "a" / "07.png"
    bad.write_bytes(bad.read_bytes()[:60])
    given = [
        RING, f"--config.data.name=folder:{tmp_path / 'images'}", "--config.data.shared=()", "--config.data.batch=32",
        "--config.data.options={}", f"--workdir={tmp_path / 'run'}", "--config.eval.pairs=4", "--config.model.width=8",
    ]  # fmt: skip
    refused(capsys, main.main, given, "07.png")


@pytest.mark.slow
def test_wrong_backbones_and_runs(capsys, trained, tmp_path):
    linear = "--config=configs/evaluate/linear.py"
    refused(capsys, evaluate.main, [linear, "--backbone=/nowhere"], "/nowhere")
    refused(capsys, evaluate.main, [linear], "--backbone")
    refused(capsys, report.main, ["/nowhere"], "/nowhere")
    shutil.copytree(trained / "export", tmp_path / "export")
    weights = tmp_path / "export" / "backbone.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"12345678")
    refused(capsys, evaluate.main, [linear, f"--backbone={tmp_path / 'export'}", f"--workdir={tmp_path}"], "sha256")
