"""The doors: the command, the call from Python, the table of methods, and what a run leaves behind."""

import json

import numpy as np
import pytest

import mi_contrast
from mi_contrast import main
from mi_contrast.core import config
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory
from tests.training import small


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return mi_contrast.train(
        small.config(), tmp_path_factory.mktemp("main") / "run", name="ring_moco", variant="digits"
    )


def test_a_run_leaves_what_it_promises(trained):
    run = RunDirectory(trained)
    for path in (run.config, run.starts, run.metrics, run.report, run.export / "manifest.json",
                 run.export / "backbone.safetensors", run.pictures / "pairs.png"):  # fmt: skip
        assert path.is_file(), path
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    first = next(row for row in rows if row["step"] == 0)
    assert {"mi_nats", "mi_ceiling", "knn_top1", "probe_top1", "alignment", "uniformity", "effective_rank"} <= set(
        first
    )
    logged = next(row for row in rows if row["step"] == 12 and "objective" in row)
    assert {
        "objective", "objective_ceiling", "bound_share", "bound_gap", "queue_fill", "same_class", "same_instance", "lr",
        "temperature", "lower", "upper", "images_per_second", "grad_norm", "bad_steps",
    } <= set(logged)  # fmt: skip
    assert json.loads((run.export / "manifest.json").read_text())["step"] == 12


def test_load_gives_the_trained_backbone_from_a_run_and_from_its_export(trained):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    of_run = mi_contrast.load(trained).encode(images)
    of_export = mi_contrast.load(trained / "export").encode(images)
    assert of_run.shape == (5, 8)
    np.testing.assert_array_equal(of_run, of_export)


def test_a_finished_run_says_so(trained, capsys):
    again = mi_contrast.train(small.config(), trained)
    assert again == trained


def test_the_table_names_every_method(capsys):
    main.main(["--list"])
    table = capsys.readouterr().out
    for name in ("moco", "ball_moco", "ring_moco"):
        assert f"\n{name} " in table
    assert "ring" in table


def test_the_run_directory_is_named_after_the_config_and_its_variant():
    call = config.parse(["--config=configs/infoaug.py:simclr/digits"], main.FLAGS)
    assert str(main._choose_workdir(call)) == "runs/infoaug-simclr-digits"
    assert str(main._choose_workdir(config.parse(["--config=configs/ir.py"], main.FLAGS))) == "runs/ir-digits"
    assert str(main._choose_workdir(config.parse(["--config=configs/ir.py", "--workdir=a/b"], main.FLAGS))) == "a/b"


def test_from_python_a_mistake_is_an_exception(tmp_path):
    with pytest.raises(UserError, match="optim"):
        config = small.config()
        del config["optim"]
        mi_contrast.train(config, tmp_path / "run")
    with pytest.raises(UserError, match="did you mean 'steps'"):
        mi_contrast.train(small.config() | {"step": 3}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_doors_are_attribute_errors():
    with pytest.raises(AttributeError, match="trian"):
        _ = mi_contrast.trian
