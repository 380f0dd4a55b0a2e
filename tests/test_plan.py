"""The job that plans: its flags, what it prints and writes, and what it refuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import main as train_job
from mi_contrast import plan
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.planning import here, predict
from mi_contrast.planning.topologies import parse_topology
from tests.reporting.fake_plan import make_prediction

ROOT = Path(__file__).parents[1]
SMALL = ["--config=configs/ring_moco.py:digits", "--config.model.width=4", "--config.data.batch=32",
         "--config.method.pools.queue.size=64", "--config.eval.pairs=32"]  # fmt: skip
LIBTPU = importlib.util.find_spec("libtpu") is not None


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--topology=v5e:4x4"], "no --config given"),
        ([*SMALL, "--topology=v7:4x4"], "unknown chip in --topology 'v7'"),
        ([*SMALL, "--sizes=4x4"], "--sizes without --topology; add --topology=v5e:4x4"),
        ([*SMALL, "--once"], "--once without --topology"),
        ([*SMALL, "--topology=v5e:4x4", "--sizes=4x4x4"], "a slice of v5e has 2 sides"),
        ([*SMALL, "--topology=v5e:4x4", "--examples=one"], "--examples=one; give a whole number of 2 or more"),
        ([*SMALL, "--topology=h200:24"], "config.data.batch is 32, not a multiple of the 24 chips of h200:24"),
        ([*SMALL, "--topologies=h200:8"], "unknown flag '--topologies'; did you mean '--topology'?"),
    ],
)
def test_a_mistake_is_one_line(flags, words, capsys):
    assert run_job(plan.main, flags) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("mi_contrast: error: ") and words in lines[0]


def test_a_plan_is_printed_and_written(monkeypatch, tmp_path, capsys):
    asked = []

    def pretend(config, wanted, examples, classes):
        supports = [term["support"]["kind"] for term in config["method"]["terms"]]
        asked.append((wanted.name, config["data"]["batch"], examples, classes, *supports))
        return make_prediction(wanted.name, wanted.size)

    monkeypatch.setattr(predict, "predict", pretend)
    flags = ["--config=configs/ring_moco.py:imagenet", "--topology=v5e:4x4", "--sizes=8x8,4x4", f"--out={tmp_path}"]
    assert run_job(plan.main, flags) == 0
    size = (1_281_167, 1000)
    assert asked == [("v5e:4x4", 256, *size, "ring"), ("v5e:8x8", 1024, *size, "ring"), ("v5e:4x4", 256, *size, "all")]
    printed = capsys.readouterr().out
    for what in ("Predicted by compiling, not measured: ring_moco:imagenet", "v5e:8x8", "2 of: float32 convolution",
                 "the estimator's share", "largest: bandwidth"):  # fmt: skip
        assert what in printed, what
    written = json.loads((tmp_path / "ring_moco-imagenet-v5e-4x4.json").read_text())
    assert [one["topology"] for one in written["predictions"]] == ["v5e:4x4", "v5e:8x8"]
    assert "Predicted by compiling" in (tmp_path / "ring_moco-imagenet-v5e-4x4.html").read_text()


def test_a_method_of_whole_supports_is_compiled_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(predict, "predict", lambda config, wanted, *size: make_prediction(wanted.name, wanted.size))
    run_job(plan.main, ["--config=configs/simclr.py:cifar10", "--topology=v5e:2x2", f"--out={tmp_path}"])
    assert "every support is 'all' already" in capsys.readouterr().out


def test_data_of_unknown_size_are_asked_for():
    config = to_plain_data(load_config("configs/simclr.py:cifar10")[0])
    assert predict.find_data_size(config, None, None) == (50_000, 10)
    assert predict.find_data_size(config, 7, None) == (7, 10)
    config["data"]["name"] = "folder:/nowhere/at/all"
    with pytest.raises(UserError, match="give --examples=N"):
        predict.find_data_size(config, None, None)
    assert predict.find_data_size(config, 7, 3) == (7, 3)


@pytest.mark.parametrize(
    "message, needed",
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded by",
            20.5 * 2**30,
        ),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 16.10G of 15.75G hbm.", 16.1 * 2**30),
        ("INTERNAL: something else", None),
    ],
)
def test_a_failure_to_compile_is_explained(message, needed):
    found = predict.explain_failure(message)
    assert found.get("needed") == (pytest.approx(needed) if needed else None)
    assert message in found.get("message", found["reason"])


def test_what_a_step_is_given_is_counted_a_device():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    leaf = jax.ShapeDtypeStruct((3, 4), jnp.float32, sharding=whole)
    state = predict.State(leaf, {"params": {"w": leaf}}, {}, {"m": leaf, "v": leaf}, {}, {}, leaf, {}, {})
    held = predict.count_held(state, leaf, {"labels": leaf})
    assert held == {"parameters": 48, "optimiser": 96, "probe, generator and the rest": 96, "batch": 48,
                    "labels and groups": 48}  # fmt: skip


@pytest.mark.slow
def test_a_true_step_is_predicted(monkeypatch):
    monkeypatch.setattr(predict, "describe_devices", lambda wanted: jax.devices()[:1])
    config = plan.parse(SMALL, plan.FLAGS).config
    found = plan.plan_slices(config, [parse_topology("h200:1")], examples=200, classes=10)
    (one,) = found["predictions"]
    assert one["compiles"] and one["memory"]["peak"] >= one["memory"]["arguments"] > 0
    assert one["pools"] == {"queue": (64, 64)} and one["held"]["pools"] == 64 * (128 + 1) * 4 + 4
    assert one["collectives"] == {} and one["roofline"]["seconds"]["network"] == 0
    assert {verdict["fault"]: verdict["count"] for verdict in one["verdicts"]}["float64"] == 0
    assert set(found["estimator"]["rows"]) >= {"compute", "bandwidth", "network", "launches"}
    assert found["estimator"]["rows"]["launches"]["share"] > 0  # a ring has to be searched for


@pytest.mark.slow
def test_a_dry_run_counts_what_a_run_would_need_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(here, "STEPS", 2)
    flags = [*SMALL, "--config.steps=1000", "--config.checkpoint.every=300", f"--workdir={tmp_path / 'run'}"]
    assert run_job(train_job.main, [*flags, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert "steps   1,000" in printed and "3 checkpoints of" in printed and "are free" in printed
    config = plan.parse(flags, train_job.FLAGS).config
    found = here.plan_here(to_plain_data(config), tmp_path / "run")
    seconds = found["seconds_a_step"]["median"]
    assert found["seconds"] == pytest.approx(1000 * seconds) and found["images_per_second"] == pytest.approx(
        32 / seconds
    )
    disk = found["disk"]
    assert disk["total"] == 3 * disk["checkpoint"] + disk["export"] and disk["export"] < disk["checkpoint"]
    assert found["held"]["batch"] == 32 * 2 * (32 * 32 * 3 + 4)  # two images an example, and their numbers


@pytest.mark.nightly
@pytest.mark.skipif(not LIBTPU, reason="libtpu is not installed (extra [tpu]; no TPU is needed)")
def test_a_step_is_compiled_for_a_slice_of_tpus(tmp_path):
    flags = [
        *SMALL,
        "--config.model.dtype=bfloat16",
        "--topology=v5e:2x4",
        "--once",
        "--examples=200",
        f"--out={tmp_path}",
    ]
    command = [sys.executable, "-m", "mi_contrast.plan", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-2000:]
    (one,) = json.loads((tmp_path / "ring_moco-digits-v5e-2x4.json").read_text())["predictions"]
    assert one["compiles"] and all(verdict["passed"] for verdict in one["verdicts"])
    assert one["collectives"]["all-reduce"]["bytes"] > 0
