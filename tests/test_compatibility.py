"""Runs, exports and configs that 0.1.0 left behind: they load, evaluate and go on as 0.1.0 would have."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mi_contrast
from mi_contrast import evaluate
from mi_contrast import main as trainer
from mi_contrast.core import checkpoint, legacy
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import USER_ERROR, run_job
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training import starts
from mi_contrast.training.metrics import read

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "v0_1_0"
COMMON = [
    "--config.data.dir=.cache/data", "--config.data.batch=32", "--config.data.options.length=2",
    "--config.model.width=8", "--config.model.head.hidden=16", "--config.model.head.dim=16", "--config.steps=8",
    "--config.optim.warmup=2", "--config.eval.every=8", "--config.eval.pairs=16", "--config.eval.knn_bank=64",
    "--config.checkpoint.every=100", "--config.checkpoint.keep=1", "--config.log.every=1",
    "--config.log.tensorboard=False",
]  # fmt: skip


@pytest.fixture
def old(tmp_path):
    def copy(name):
        return Path(shutil.copytree(FIXTURES / name, tmp_path / name))

    return copy


def command(name, workdir, *more):
    queue = ["--config.method.pools.queue.size=64"] if name == "moco" else []
    return [f"--config=configs/{name}.py", *COMMON, *queue, f"--workdir={workdir}", *more]


def test_a_stopped_run_goes_on_with_the_same_command_as_0_1_0_would_have(old):
    run = old("moco")
    assert run_job(trainer.main, command("moco", run)) == 0
    expected = [json.loads(line) for line in (FIXTURES / "moco_uninterrupted.jsonl").read_text().splitlines()]
    rows = {(row["step"], "mi_nats" in row): row for row in read(RunDirectory(run))}
    for row in expected:
        for name in {"lr", "objective", "mi_nats", "knn_top1"} & set(row):
            found = rows[row["step"], "mi_nats" in row][name]
            assert found == pytest.approx(row[name], abs=5e-3 if row["step"] > 4 else 1e-6), (row["step"], name)
    _, leaves = checkpoint.read(RunDirectory(run).checkpoints)
    assert "optimiser.2.count" not in checkpoint.flatten(leaves), "the rate's own count of steps"
    assert run_job(trainer.main, command("moco", run)) == 0, "and once more: it is finished"


TURNED, DRAWN, GROUPED = "EXIF orientation", "drawn by another generator", "keys change groups"


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("moco", {}, []),
        ("ir", {}, [DRAWN]),
        ("moco", {"data": {"name": "folder:photos"}}, [TURNED]),
        ("moco", {"model": {"norm": {"groups": 8}}}, [GROUPED]),
        ("ir", {"data": {"name": "folder:photos"}}, [TURNED, DRAWN]),
    ],
)
def test_newer_rules_that_matter_for_a_run_are_said_in_one_line(old, capsys, name, changes, said):
    run = RunDirectory(old(name))
    stored = json.loads(run.config.read_text())
    for section, fields in changes.items():
        stored["config"][section] |= fields
    run.config.write_text(json.dumps(stored))
    for again in (stored, stored | {"version": "0.2.0"}):
        run.config.write_text(json.dumps(again))
        starts.claim_config(run, legacy.complete(stored["config"]), name, None)
        lines = [line for line in capsys.readouterr().out.splitlines() if "0.1.0" in line]
        if "version" in again:
            assert lines == [], "control: a run of a later version"
        else:
            assert len(lines) == bool(said)
            assert [words in "".join(lines) for words in (TURNED, DRAWN, GROUPED)] == [
                words in said for words in (TURNED, DRAWN, GROUPED)
            ]


def test_what_the_user_changes_is_refused_still(old, capsys):
    run = old("moco")
    assert run_job(trainer.main, command("moco", run, "--config.optim.decay_all=False")) == USER_ERROR
    assert "optim.decay_all" in capsys.readouterr().err


def test_a_finished_run_is_left_alone_and_its_networks_load(old):
    run = old("ir")
    before = (run / "run.json").read_text()
    assert run_job(trainer.main, command("ir", run)) == 0
    assert (run / "run.json").read_text() == before and (run / "report.html").is_file()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    features = mi_contrast.load(run).encode(images)
    np.testing.assert_allclose(mi_contrast.load(run / "export").encode(images), features, atol=1e-6)


def test_exports_load():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert np.isfinite(mi_contrast.load(FIXTURES / "moco_export").encode(images)).all()


@pytest.mark.slow
def test_runs_and_exports_of_0_1_0_are_judged(old, tmp_path):
    """Twice each, the second time by the kept features; the export is judged in a process of its own."""
    task = ["--config=configs/evaluate/knn.py", "--config.task.k=9"]
    digits = ["--config.data.name=moving_digits", "--config.data.dir=.cache/data"]
    digits.append("--config.data.options=dict(length=2)")
    for name in ("moco", "ir"):
        run = old(name)
        for _ in range(2):
            assert run_job(evaluate.main, [*task, f"--backbone={run}"]) == 0
        (result,) = (json.loads(path.read_text()) for path in (run / "results").glob("*.json"))
        assert result["step"] == {"moco": 4, "ir": 8}[name] and 0.1 < result["top1"] <= 1.0
    command = [sys.executable, "-m", "mi_contrast.evaluate", *task, *digits, f"--workdir={tmp_path / 'out'}"]
    done = subprocess.run(
        [*command, f"--backbone={FIXTURES / 'moco_export'}"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "top-1" in done.stdout


def test_a_config_takes_the_values_that_its_run_began_with():
    stored = {"config": {"optim": {"decay_all": True, "lr": 0.1}, "model": {"norm": {"groups": 8}}}}
    now = {"optim": {"decay_all": None, "lr": 0.1, "decay_after_warmup": True}, "model": {"norm": {"groups": 1}}}
    adopted = legacy.adopt(stored, now)
    assert adopted["optim"] == {"decay_all": True, "lr": 0.1, "decay_after_warmup": False}
    assert adopted["model"]["norm"]["groups"] == 8
    assert legacy.adopt({"version": "0.2.0", **stored}, now) == now
    mine = {**now, "model": {"norm": {"groups": 4}}}
    assert legacy.adopt(stored, mine)["model"]["norm"]["groups"] == 4


def test_a_run_keeps_the_head_that_it_began_with():
    old = {"kind": "mlp", "hidden": None, "dim": 64}
    now = {"model": {"head": {"kind": "mlp_bn", "hidden": None, "dim": 64, "layers": 2}}}
    assert legacy.adopt({"config": {"model": {"head": old}}}, now)["model"]["head"] == old
    deep = {"model": {"head": {"kind": "mlp_bn", "hidden": 512, "dim": 64, "layers": 3}}}
    assert legacy.adopt({"config": deep}, deep) == deep, "a method that had such a head already"
    linear = {"kind": "linear", "dim": 64}
    adopted = legacy.adopt({"config": {"model": {"head": linear}}}, now)["model"]["head"]
    assert adopted != linear, "the user changed it: what compares the two refuses"


def test_a_run_of_digits_keeps_its_network_length_and_rate():
    config = to_plain_data(load_config(str(ROOT / "configs" / "ring_moco.py"))[0])
    before = {**config, "steps": 3000}
    for section, field, value in (
        ("model", "width", 64), ("eval", "every", 1000), ("checkpoint", "every", 1000),
        ("optim", "weight_decay", 1e-4),
        ("optim", "lr", {"kind": "cosine", "a": 0.003, "b": 0.0, "start": 0.0, "end": 1.0}),
        ("model", "head", {"kind": "mlp", "hidden": None, "dim": 128}),
    ):  # fmt: skip
        assert config[section][field] != value
        before = {**before, section: {**before[section], field: value}}
    adopted = legacy.adopt({"config": before}, config)
    assert {name: adopted[name] for name in before} == {**before, "optim": adopted["optim"], "data": adopted["data"]}
    assert all(adopted["optim"][name] == before["optim"][name] for name in ("lr", "weight_decay"))
    mine = {**config, "steps": 500}
    assert legacy.adopt({"config": before}, mine)["steps"] == 500, "set by the user"


def test_a_run_keeps_the_terms_that_its_row_had(capsys):
    stored = {"name": "cave_ir", "config": {"method": {"terms": [1]}, "optim": {}}}
    now = {"method": {"terms": [2]}, "optim": {"decay_after_warmup": True}}
    assert legacy.adopt(stored, now)["method"] == {"terms": [1]}
    assert "keeps its terms" in capsys.readouterr().out
    assert legacy.adopt({**stored, "name": "ir"}, now)["method"] == {"terms": [2]}, "other methods are compared"


def test_a_config_without_a_newer_field_takes_its_old_value():
    completed = legacy.complete({"optim": {"lr": 0.1}, "seed": 0})
    assert completed == {"optim": {"lr": 0.1, "decay_after_warmup": False}, "seed": 0}
