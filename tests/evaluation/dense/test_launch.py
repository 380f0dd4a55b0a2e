"""Detectron2's configs, which nothing here can run: they can be read, and say what the papers say."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "launch" / "detectron2"
CONFIGS = sorted(p.stem for p in FOLDER.glob("*.yaml") if not p.stem.startswith("base"))


def merged(name):
    """The config with those it is based on, Detectron2's way: the nearer wins, sections are merged."""
    own = yaml.safe_load((FOLDER / name).read_text())

    def over(below, above):
        both = {**below, **above}
        return {
            k: over(below[k], v) if k in below and isinstance(v, dict) and isinstance(below[k], dict) else v
            for k, v in both.items()
        }

    base = own.pop("_BASE_", None)
    return over(merged(base), own) if base else own


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_what_its_name_says(name):
    config = merged(f"{name}.yaml")
    model, solver = config["MODEL"], config["SOLVER"]
    data, task, _, depth, kind, how, long = name.split("_")
    assert model["RESNETS"]["DEPTH"] == int(depth) and model["RESNETS"]["STRIDE_IN_1X1"] is False
    assert model["BACKBONE"]["FREEZE_AT"] == {"frozen": 5, "tuned": 0}[how]
    assert model["RESNETS"]["NORM"] == {"frozen": "FrozenBN", "tuned": "SyncBN"}[how]
    assert (model["BACKBONE"].get("NAME") == "build_resnet_fpn_backbone") == (kind == "FPN")
    assert (model["ROI_HEADS"]["NAME"] == "Res5ROIHeadsExtraNorm") == (kind == "C4")
    assert model.get("MASK_ON", False) == (task == "mask") and model.get("KEYPOINT_ON", False) == (task == "keypoint")
    assert config["INPUT"]["FORMAT"] == "RGB" and model["PIXEL_MEAN"] == [123.675, 116.28, 103.53]
    steps, total = eval(solver["STEPS"]), solver["MAX_ITER"]
    assert (
        steps == tuple(sorted(steps)) and steps[-1] < total and solver["IMS_PER_BATCH"] * 0.02 / 16 == solver["BASE_LR"]
    )
    assert total == {"1x": 90_000, "2x": 180_000, "24k": 24_000, "18k": 18_000, "5k": 5_450}[long]
    assert all(data.rstrip("0712") in name for name in eval(config["DATASETS"]["TRAIN"]))
    if kind == "FPN" and how == "tuned":
        assert model["FPN"]["NORM"] == model["ROI_BOX_HEAD"]["NORM"] == "SyncBN"
        assert (model["ROI_BOX_HEAD"]["NUM_CONV"], model["ROI_BOX_HEAD"]["NUM_FC"]) == (4, 1)
        assert config["TEST"]["PRECISE_BN"]["ENABLED"] is True
    if depth == "18":
        assert model["RESNETS"]["RES2_OUT_CHANNELS"] == 64


def test_the_table_of_the_readme_has_them_all():
    text = (FOLDER / "README.md").read_text()
    named = [name for name in CONFIGS if not name.endswith("_2x")]
    assert all(f"`{name}`" in text for name in named) and text.count("`_2x`") == len(CONFIGS) - len(named)


def test_run_gives_the_backbones_own_fields(tmp_path):
    own = {
        "INPUT.FORMAT": "RGB", "MODEL.PIXEL_MEAN": [1.5, 2.0, 3.0], "MODEL.WEIGHTS": "backbone.pkl",
        "MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.STRIDE_IN_1X1": False,
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps({"config_of_detectron2": own}))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "train_net.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))")

    def run(name, *more):
        command = [str(FOLDER / "run.sh"), str(tmp_path), name, "out", *more]
        environment = {"DETECTRON2": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    said = json.loads(run("coco_mask_R_18_FPN_frozen_1x", "--num-gpus", "2", "SOLVER.BASE_LR", "0.01").stdout)
    assert said[:4] == ["--config-file", str(FOLDER / "coco_mask_R_18_FPN_frozen_1x.yaml"), "--num-gpus", "2"]
    options = dict(zip(said[4::2], said[5::2], strict=True))
    assert options["MODEL.PIXEL_MEAN"] == "[1.5, 2.0, 3.0]" and options["MODEL.RESNETS.STRIDE_IN_1X1"] == "False"
    assert options["MODEL.WEIGHTS"] == str(tmp_path / "backbone.pkl") and options["INPUT.FORMAT"] == "RGB"
    assert options["OUTPUT_DIR"] == "out" and options["SOLVER.BASE_LR"] == "0.01"
    other = run("coco_mask_R_50_FPN_tuned_1x")
    assert other.returncode == 2 and "is for a ResNet-50" in other.stderr
    assert run("coco_R_50").returncode == 2
    assert "give TRAIN_NET" in run("voc0712_faster_R_50_C4_tuned_24k").stderr
