"""The job that exports: from a run, an export or a checkpoint, several formats a call, every mistake in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from mi_contrast.core.errors import run_job
from mi_contrast.export import main
from mi_contrast.interchange import load, write_export
from mi_contrast.interchange.names import to_foreign
from mi_contrast.models.representation import Representation, make_spec
from tests.interchange.conftest import CONFIG, MODEL, PIXELS, SPLIT, YDBDR, make_run
from tests.models import twins

BYTES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A run directory, its export, and another trainer's file, of the same weights."""
    root = tmp_path_factory.mktemp("sources")
    run = make_run(root / "run")
    variables = twins.random_variables(MODEL)
    write_export(
        root / "export", Representation(variables, make_spec(MODEL, **PIXELS)), config=CONFIG, commit="abc", step=40
    )
    tensors = {f"module.encoder_q.{n}": t for n, t in to_foreign(variables).items()} | {"module.queue": np.ones(3)}
    (root / "moco.safetensors").write_bytes(safetensors.numpy.save(tensors))
    return {"run": run.root, "export": root / "export", "foreign": root / "moco.safetensors"}


def test_a_checkpoint_becomes_an_export_of_ours(sources, tmp_path, capsys):
    call = [f"--backbone={sources['foreign']}", "--format=native", f"--workdir={tmp_path}"]
    assert run_job(main, [*call, "--mean=0.4,.5,.6", "--std=.2,.25,.3", "--size=16"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"loaded 100 of 101 tensors from {sources['foreign']}; left out: module.queue; ")
    assert said[1].startswith(f"native: {tmp_path}/native/backbone.safetensors, features within 0.0e+00 of ours")
    weights = [folder / "backbone.safetensors" for folder in (tmp_path / "native", sources["export"])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.nightly
def test_a_run_an_export_and_a_checkpoint_leave_alike(sources, tmp_path, capsys):
    twins.torchvision()
    pixels = ["--mean=0.4,.5,.6", "--std=.2,.25,.3", "--size=16"]
    for name, source in sources.items():
        more = pixels if name == "foreign" else []
        call = [f"--backbone={source}", "--format=torchvision,native", f"--workdir={tmp_path / name}", *more]
        assert run_job(main, call) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith(f"loaded 100 of {101 if name == 'foreign' else 100} tensors from {source}")
        assert said[1].startswith(f"torchvision: {tmp_path / name}/torchvision/backbone.safetensors, features within ")
        assert "(torchvision " in said[1] and said[2].endswith("(mi_contrast 0.2.0.dev0)") and len(said) == 3
    files = {name: (tmp_path / name / "torchvision" / "backbone.safetensors").read_bytes() for name in sources}
    assert files["run"] == files["export"] == files["foreign"]
    expected = load(sources["export"]).encode(BYTES)
    for name in sources:
        np.testing.assert_array_equal(load(tmp_path / name / "torchvision").encode(BYTES), expected)
    manifest = json.loads((tmp_path / "foreign" / "native" / "manifest.json").read_text())
    assert manifest["remarks"][-1] == "preprocessing as given" and manifest["step"] is None
    assert json.loads((tmp_path / "run" / "native" / "manifest.json").read_text())["step"] == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": None}, "no --backbone; give"),
        ({"format": None}, "no --format; give"),
        ({"workdir": None}, "no --workdir; give"),
        ({"format": "onix"}, "unknown format 'onix'; did you mean 'onnx'?"),
        ({"format": "timm"}, "can't be written for timm: timm has no resnet18 of width 4"),
        ({"backbone": "nowhere"}, "nowhere does not exist"),
        ({"mean": "0.5,0.5,0.5"}, "tells its own preprocessing"),
        ({"mean": "a,b,c"}, "--mean=a,b,c; give three numbers"),
        ({"size": "-1"}, "--size=-1; give a whole number"),
        ({"formats": "onnx"}, "unknown flag '--formats'"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(sources, tmp_path, capsys, change, message):
    flags = {"backbone": sources["export"], "format": "native", "workdir": tmp_path / "out"} | change
    assert run_job(main, [f"--{n}={v}" for n, v in flags.items() if v is not None]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_two_numbers_for_three_colours_are_refused(sources, tmp_path, capsys):
    call = [f"--backbone={sources['foreign']}", "--format=native", f"--workdir={tmp_path}", "--mean=.5,.5"]
    assert run_job(main, call) == 2
    assert "three numbers each" in capsys.readouterr().err


def test_a_folder_that_is_no_export_is_left_alone(sources, tmp_path, capsys):
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "thesis.tex").write_text("dear")
    assert run_job(main, [f"--backbone={sources['export']}", "--format=native", f"--workdir={tmp_path}"]) == 2
    assert "is not an export" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "native").iterdir()] == ["thesis.tex"]


def test_a_split_is_refused_with_the_reason(tmp_path, capsys):
    split = Representation(twins.random_variables(SPLIT), make_spec(SPLIT, **YDBDR))
    write_export(tmp_path / "export", split, config={}, commit=None)
    assert run_job(main, [f"--backbone={tmp_path / 'export'}", "--format=onnx", f"--workdir={tmp_path / 'out'}"]) == 2
    assert "it is two networks, each of some channels of ydbdr" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_malicious_checkpoint_ends_the_job_with_2_and_nothing_runs(tmp_path):
    """In a process of its own, as a user calls it; and `evaluate` likewise."""
    import os
    import pickle

    class Strike:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'struck'}",)

    (tmp_path / "x.pth").write_bytes(pickle.dumps({"state_dict": Strike()}, 2))
    for job in (["export", "--format=native"], ["evaluate", "--config=configs/evaluate/knn.py"]):
        call = [sys.executable, "-m", f"mi_contrast.{job[0]}", *job[1:]]
        call += [f"--backbone={tmp_path / 'x.pth'}", f"--workdir={tmp_path / 'out'}"]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert f"{os.system.__module__}.system" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "struck").exists()


def test_the_formats_that_can_be_written_are_and_the_other_is_named(sources, tmp_path, capsys, monkeypatch):
    from mi_contrast.interchange import formats

    refusing = formats.FORMATS["stablehlo"]._replace(why_not=lambda model: "it has no such stem")
    monkeypatch.setitem(formats.FORMATS, "stablehlo", refusing)
    call = [f"--backbone={sources['export']}", "--format=stablehlo,native", f"--workdir={tmp_path}"]
    assert run_job(main, call) == 2
    said = capsys.readouterr().err
    assert "1 of 2 formats written; not written: stablehlo: " in said and "no such stem" in said
    assert (tmp_path / "native" / "manifest.json").is_file() and not (tmp_path / "stablehlo").exists()
