import json

import jax
import jax.numpy as jnp
import pytest

from mi_contrast import bench
from mi_contrast.benchmarks import accelerator, loop, programs, steps
from mi_contrast.benchmarks.accelerator import Measurement, measure
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.core.mesh import make_mesh

LOOP = {"loop": {"min": 1.0, "median": 2.0, "max": 3.0}}
LOOP |= {"bare_step": LOOP["loop"], "loop_over_bare": LOOP["loop"]}


@pytest.fixture
def figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "run", lambda repeats, small: LOOP)
    bench.main(["--case=accelerator", "--small", "--repeats=1", f"--out={tmp_path}"])
    return json.loads((tmp_path / "accelerator.json").read_text()), capsys.readouterr()


def test_every_row_has_its_figures_in_the_table_and_the_file(figures):
    found, said = figures
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 8 and found["small"] and "no shares" in found["peak"]
    for name, row in rows.items():
        assert name in said.out
        assert "failed" not in row, row
        assert "share_of_peak" not in row
        if not name.startswith(("loop", "torch")):
            assert row["seconds"]["median"] > 0 and row["program"]["launched"] > 0 and row["peak_mib"] > 0
            assert row["program"]["float64"] == row["program"]["callbacks"] == 0
    step, losses = rows["step, tiny, 16 px, batch 8"], [row for name, row in rows.items() if name.startswith("loss")]
    assert step["images_per_second"]["median"] == pytest.approx(8 / step["seconds"]["median"])
    assert sum(step["program"]["convolutions"].values()) > 0
    # the scores, and one product on the way back: the pool is constant
    assert {row["gflop"] for row in losses} == {2 * 2 * 16 * 512 * 16 / 1e9}
    assert said.err.count("gone, about") == 8


def test_a_row_that_fails_holds_its_reason_and_the_others_go_on(capsys):
    def exhausted():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long report")

    def absent():
        raise accelerator.NotRunError("torch is not installed")

    asked = [Measurement("big", 1, exhausted), Measurement("peer", 1, absent), Measurement("good", 1, lambda: {"x": 1})]
    big, peer, good = measure(asked)
    assert big == {"name": "big", "failed": "JaxRuntimeError: RESOURCE_EXHAUSTED: out of memory"}
    assert peer == {"name": "peer", "not_run": "torch is not installed"}
    assert good == {"name": "good", "x": 1}
    assert "big: failed, JaxRuntimeError" in capsys.readouterr().err


def test_rows_that_the_time_does_not_allow_are_named():
    asked = [Measurement(name, expected, dict) for name, expected in (("a", 99), ("b", 99), ("c", 1))]
    a, b, c = measure(asked, budget=10)
    assert a == {"name": "a"} and c == {"name": "c"}  # the first runs whatever it takes
    assert "of 10 seconds are spent" in b["not_run"]


def test_a_whole_run_fits_its_time_and_has_what_it_promises():
    rows = accelerator.list_measurements(5)
    assert sum(row.expected for row in rows) < 480
    names = " ".join(row.name for row in rows)
    for what in ("ResNet-18, 32 px, batch 512", "batch 1,024", "ResNet-50, 224 px", "torch step", "65,536", "1,281,167",
                 "drawn from a ring", "views, 32 px", "views, 224 px", "loop"):  # fmt: skip
        assert what in names


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA L4", None),
        ("cpu", None),
    ],
)
def test_the_peak_is_of_the_device(kind, peak):
    assert accelerator.look_up_peak(kind) == peak


def test_shares_are_of_all_devices_and_torchs_row_counts_our_products():
    seconds = lambda s: {"min": s, "median": s, "max": s}  # noqa: E731
    rows = [
        {"name": "step, x", "seconds": seconds(0.5), "gflop": 1000.0, "tflop_per_second": 2.0},
        {"name": "torch step, x", "seconds": seconds(1.0)},
        {"name": "torch step, y", "seconds": seconds(1.0)},
    ]
    accelerator.add_shares(rows, 100.0)
    assert rows[0]["share_of_peak"] == pytest.approx(0.02 / jax.device_count())
    assert rows[1]["tflop_per_second"] == 1.0 and rows[1]["ours_over_torch"] == 2.0
    assert "ours_over_torch" not in rows[2]
    assert "ours 2.00 x as fast" in accelerator.describe(rows[1])


def test_a_cpu_is_refused_in_one_line(capsys, tmp_path):
    assert run_job(bench.main, ["--case=accelerator", f"--out={tmp_path}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "the only device here is a CPU" in said[0] and "--small" in said[0]


def test_among_all_cases_one_that_cannot_run_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    given = []

    def stub(case, repeats, small, **files):
        given.append((case, sorted(files)))
        if case == "peer":
            raise UserError("lightly is not installed")
        return {"case": case}, object()

    monkeypatch.setattr(bench, "run", stub)
    bench.main(["--case=all", f"--out={tmp_path}"])
    assert [case for case, _ in given] == list(bench.CASES)
    assert {case for case, files in given if files} == {"coverage"}  # its rows are no other case's
    assert "peer was not run: lightly is not installed" in capsys.readouterr().err
    assert not (tmp_path / "peer.json").exists() and (tmp_path / "accelerator.json").exists()
    with pytest.raises(UserError):
        bench.main(["--case=peer", f"--out={tmp_path}"])


def test_the_abstract_step_is_the_one_that_runs():
    changes = {"model.backbone": "tiny", "model.width": 4, "views.size": 16, "data.batch": 8}
    step = steps.make_recipe_step("configs/ring_moco.py:cifar10", changes, make_mesh())
    asked = jax.tree.map(lambda x: (x.shape, x.dtype), steps.abstract_arguments(step))
    given = steps.random_arguments(step)
    assert asked == jax.tree.map(lambda x: (x.shape, x.dtype), given)
    state, scalars = step.call(*given)
    assert int(state.step) == 1 and jnp.isfinite(scalars["objective"]) and not int(scalars["bad_steps"])
    assert programs.peak_bytes(step.call.lower(*steps.abstract_arguments(step)).compile()) > 0


@pytest.mark.nightly
def test_the_loops_case_runs():
    found = loop.run(1, small=True)
    assert found["loop_over_bare"]["median"] > 0
