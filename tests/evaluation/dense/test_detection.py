import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import BadNumbersError, StoppedError, UserError
from mi_contrast.evaluation import dense
from mi_contrast.evaluation.judge import judge
from mi_contrast.interchange.torch_build import MissingToolError
from tests.evaluation.dense.fake import SMALL, backbone, write

torch = pytest.importorskip("torch")
fitting = pytest.importorskip("mi_contrast.evaluation.dense.fitting")
pytest.importorskip("pycocotools")

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def asked(folder, **task):
    data = dict(dir=str(folder), fit="fit.json", test="test.json", fit_images="images", test_images="images")
    return dict(task=dict(kind="detection") | SMALL | task, data=data | {"sigmas": None}, batch_size=4, seed=0)


@pytest.fixture
def small(tmp_path):
    write(tmp_path / "cells")
    return tmp_path / "cells"


def state(workdir, name="detection-cells"):
    return torch.load(workdir / "detection" / name / "checkpoint.pt", weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.nightly
def test_a_stopped_fitting_goes_on_as_if_it_had_not_been(tmp_path, small, monkeypatch):
    network = backbone(tmp_path)
    task = dict(norm="batch", flip=True, measure_every=2, head_norm="group")
    judge(asked(small, **task), network, tmp_path / "whole")
    with pytest.raises(StoppedError, match=r"the time limit at iteration 1 of 4\. The state is saved"):
        judge(asked(small, **task, time_limit=0.0), network, tmp_path / "parts")
    step = fitting.take_step

    def interrupted(*arguments):
        if arguments[5] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(fitting, "take_step", interrupted)
    with pytest.raises(StoppedError, match=r"SIGTERM at iteration 3 of 4\. The state is saved"):
        judge(asked(small, **task), network, tmp_path / "parts")
    monkeypatch.undo()
    found = judge(asked(small, **task), network, tmp_path / "parts")
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert same(whole["detector"], parts["detector"]), "bit for bit"
    momenta = [s["optimiser"]["state"] for s in (whole, parts)]
    assert all(torch.equal(momenta[0][i]["momentum_buffer"], momenta[1][i]["momentum_buffer"]) for i in momenta[0])
    assert [each["iteration"] for each in parts["curve"]] == [0, 2, 4]
    assert whole["curve"] == parts["curve"] == list(found.result["curve"])
    other = judge(asked(small, **task) | {"seed": 1}, network, tmp_path / "other")
    assert not same(state(tmp_path / "other")["detector"], whole["detector"]), "another seed, other weights"
    again = judge(asked(small, **task), network, tmp_path / "parts")
    assert again.result["ap"] == found.result["ap"] and other.result["ap"] is not None


def test_another_config_is_refused_and_so_is_a_damaged_checkpoint(tmp_path, small):
    network = backbone(tmp_path)
    judge(asked(small, iterations=1, pictures=0), network, tmp_path / "out")
    with pytest.raises(UserError, match=r"another config: task\.iterations, task\.lr differ"):
        judge(asked(small, lr=0.02, pictures=0), network, tmp_path / "out")
    other = replace(network, representation=backbone(tmp_path, width=16).representation)
    with pytest.raises(UserError, match="another config: backbone differ"):
        judge(asked(small, iterations=1), replace(other, tensors=network.tensors), tmp_path / "out")
    place = tmp_path / "out" / "detection" / "detection-cells" / "checkpoint.pt"
    place.write_bytes(place.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged"):
        judge(asked(small, iterations=1, pictures=0), network, tmp_path / "out")


def test_a_result_is_a_file_a_table_and_a_picture(tmp_path, small, capsys):
    found = judge(asked(small, iterations=1), backbone(tmp_path), tmp_path / "out")
    assert found.path.name == "detection-cells.json"
    result = json.loads(found.path.read_text())
    assert result["fit"] == {"annotations": "fit.json", "images": 6, "left_out": 2}
    assert result["test"]["images"] == 6 and result["categories"] == 2
    assert result["tensors"]["in_the_detector"] == result["tensors"]["of_the_backbone"] == 100
    assert set(result["ap"]["bbox"]["start"]) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "by_category"}
    table = found.path.with_suffix(".md").read_text()
    assert "| boxes | start |" in table and "| boxes | end |" in table and "| red |" in table
    with Image.open(found.path.with_suffix(".png")) as picture:
        assert np.asarray(picture).std() > 20
    assert "100 of 100 tensors of the backbone are in the detector" in capsys.readouterr().out
    assert str(found).startswith("detection on cells (faster): boxes AP 0.0 -> ")


@pytest.mark.nightly
@pytest.mark.parametrize(("model", "kind"), [("mask", "segm"), ("keypoint", "keypoints")])
def test_masks_and_keypoints_are_judged_by_the_same_command(tmp_path, model, kind):
    write(tmp_path / "cells", keypoints=True)
    config = asked(tmp_path / "cells", model=model, iterations=2)
    config["data"]["sigmas"] = (0.1,) * 3 if model == "keypoint" else None
    found = judge(config, backbone(tmp_path, stem="small"), tmp_path / "out")
    assert found.path.name == f"detection-cells-{model}.json" and set(found.result["ap"]) == {"bbox", kind}
    config["data"]["sigmas"] = None
    if model == "keypoint":
        with pytest.raises(UserError, match="has 3 keypoints, and there are 17 sigmas"):
            judge(config, backbone(tmp_path), tmp_path / "out")


@pytest.mark.nightly
def test_the_twin_is_another_network_and_lies_beside(tmp_path, small):
    network = backbone(tmp_path)
    trained = judge(asked(small, iterations=1), network, tmp_path / "out")
    twin = judge(asked(small, iterations=1), network, tmp_path / "out", untrained=True)
    assert twin.path.name == "detection-cells-untrained.json" and twin.result["untrained"] and twin.result["step"] == 0
    held = [state(tmp_path / "out", p.path.stem)["detector"]["backbone.body.conv1.weight"] for p in (trained, twin)]
    assert not torch.equal(*held)


@pytest.mark.nightly
def test_a_detector_learns_coloured_rectangles(tmp_path):
    write(tmp_path / "cells", fit=26, test=14)
    task = dict(iterations=120, steps=(100,), warmup=10, lr=0.04, batch_size=4, norm="batch", anchor=4.0, pictures=0)
    task |= dict(samples=32, proposals=64, hidden=64)
    found = judge(asked(tmp_path / "cells", **task), backbone(tmp_path, stem="small"), tmp_path / "out")
    boxes = found.result["ap"]["bbox"]
    assert boxes["start"]["AP50"] < 0.05 and boxes["end"]["AP50"] > 0.12


@pytest.mark.nightly
def test_a_published_set_runs_by_its_config(tmp_path):
    path = SHARED / "bccd_cells.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    config, _, _ = load_config("configs/evaluate/detection.py:bccd")
    config = to_plain_data(config)
    config["data"] |= {"dir": str(path), "fit": "annotations/instances_val.json"}
    config["task"] |= {"iterations": 1, "sizes": (48,), "max_size": 64, "pictures": 1, "proposals": 16, "samples": 8}
    found = judge(config, backbone(tmp_path, stem="small"), tmp_path / "out")
    assert list(found.result["ap"]["bbox"]["end"]["by_category"]) == ["RBC", "WBC", "Platelets"]
    assert found.result["dataset"] == "bccd_cells" and found.result["fit"]["images"] == 87


def test_a_loss_that_goes_bad_is_said_and_not_saved(tmp_path, small):
    with pytest.raises(BadNumbersError, match=r"lower task\.lr"):
        judge(asked(small, lr=1e25, warmup=0, norm="batch"), backbone(tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("checkpoint.pt"))


def test_every_variant_is_a_config():
    import runpy

    from mi_contrast.evaluation.dense.settings import Detection, DetectionData

    module = runpy.run_path(str(Path(__file__).parents[3] / "configs" / "evaluate" / "detection.py"))
    for name, (task, data) in module["variants"]().items():
        Detection(**{k: v for k, v in (module["ONE_X"] | task).items() if k != "kind"})
        DetectionData.read(data | {"dir": "x"})
        assert name.startswith(task.get("model", "faster")) or name.startswith("bccd")
    with pytest.raises(UserError, match="did you mean 'mask'"):
        module["get_config"]("masks")


def test_mistakes_are_one_line(tmp_path, small, monkeypatch):
    network = backbone(tmp_path)
    with pytest.raises(UserError, match="did you mean 'iterations'"):
        judge(asked(small, iteration=3), network, tmp_path / "out")
    with pytest.raises(UserError, match="takes no features"):
        judge(asked(small) | {"features": {"layer": "map"}}, network, tmp_path / "out")
    with pytest.raises(UserError, match="two networks"):
        judge(asked(small), backbone(tmp_path, split="lab"), tmp_path / "out")
    with pytest.raises(UserError, match=r"task\.device 'tpu9'"):
        judge(asked(small, device="tpu9"), network, tmp_path / "out")
    tree = json.loads((small / "test.json").read_text())
    tree["categories"][0]["name"] = "green"
    (small / "test.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match="different categories"):
        judge(asked(small), network, tmp_path / "out")
    tree["categories"], tree["annotations"] = json.loads((small / "fit.json").read_text())["categories"], []
    (small / "fit.json").write_text(json.dumps(tree))

    def fail(name):
        raise MissingToolError("torch is not installed")

    monkeypatch.setattr(dense, "import_tool", fail)
    with pytest.raises(UserError, match=r"torch is not installed; pip install 'mi-contrast\[torch\]'"):
        judge(asked(small), network, tmp_path / "out")


def test_torchvision_without_its_operators_is_said(monkeypatch):
    import torchvision

    def absent(*arguments):
        raise RuntimeError("Couldn't load custom C++ ops")

    monkeypatch.setattr(torchvision.ops, "nms", absent)
    with pytest.raises(UserError, match=r"has no operators for torch .*; install the two together"):
        dense.check_tools()
