import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mi_contrast.core.config import load_config
from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.evaluation import feature_tasks
from mi_contrast.evaluation.heads import read_head
from mi_contrast.evaluation.judge import judge
from mi_contrast.evaluation.task_config import make_file_name, resolve_data
from mi_contrast.interchange import LoadedBackbone
from mi_contrast.readout.accuracy import interval95
from tests.evaluation.fake import MeanColour, image_set

TRAINING = dict(
    name="blobs", dir="/there", split="train[:90%]", test_split="test", options={"size": 8}, label="dark", broken=0.0
)
OWN = dict(labels=None, group=None, test_share=0.0)  # what an older run says of one's own pictures
NOTHING = dict.fromkeys(("name", "dir", "split", "test_split", "options", "label"))


class Spied(MeanColour):
    def __init__(self):
        super().__init__()
        self.spec = {"size": 8}


@pytest.fixture
def asked(monkeypatch):
    """Replaces the door to data sets; keeps what was asked of it."""
    calls = []

    def load(name, split, *, data_dir=None, size=None, options=None, broken=0.0, labels=None, group=None, test_share=0):
        assert (labels, group, test_share) == (None, None, 0)  # of one's own pictures alone
        calls.append((name, split, data_dir, size, options))
        return image_set(300 if "train" in split else 120, split, name=name, seed=len(split))

    monkeypatch.setattr(feature_tasks.sets, "load", load)
    return calls


def loaded(root, *, sha256=None, **config):
    return LoadedBackbone(Spied(), root, 1, 700, {"data": TRAINING | {"batch": 32}, **config}, sha256)


def knn_config(**data):
    return dict(task=dict(kind="knn", k=9, temperature=0.07), data=NOTHING | data, batch_size=64, seed=0)


def test_a_result_says_all_that_is_needed_to_read_it(tmp_path, asked):
    found = judge(knn_config(), loaded(tmp_path))
    assert asked == [("blobs", split, "/there", 8, {"size": 8}) for split in ("train[:90%]", "test")]
    assert found.path == tmp_path / "results" / "knn-blobs-dark.json"
    result = json.loads(found.path.read_text())
    assert result == json.loads(json.dumps(found.result))
    assert result["label"] == "dark" and result["classes"] == 2 and result["step"] == 700
    assert result["fit"] == {"split": "train[:90%]", "examples": 300}
    assert result["test"] == {"split": "test", "examples": 120}
    assert result["backbone"] == str(tmp_path) and result["untrained"] is False
    assert tuple(result["interval95"]) == interval95(result["top1"], 120)
    assert 0.8 < result["top1"] <= 1.0 and result["seconds"] > 0
    assert f"{100 * result['top1']:.2f} %" in str(found) and str(found.path) in str(found)


def test_the_interval_of_frames_of_few_objects_is_wider(tmp_path, asked, monkeypatch):
    plain = judge(knn_config(label="colour"), loaded(tmp_path)).result
    load = feature_tasks.sets.load

    def load_frames(*arguments, **keywords):
        images = load(*arguments, **keywords)
        return replace(images, groups=np.arange(len(images)) // 5)

    monkeypatch.setattr(feature_tasks.sets, "load", load_frames)
    monkeypatch.setattr(feature_tasks, "effective_count", lambda hits, groups: float(len(np.unique(groups))))
    grouped = judge(knn_config(label="colour"), loaded(tmp_path)).result
    assert (plain["independent_examples"], grouped["independent_examples"]) == (120, 24)
    assert plain["top1"] == grouped["top1"]
    assert np.ptp(grouped["interval95"]) > 1.2 * np.ptp(plain["interval95"])


def test_the_main_label_needs_no_place_in_the_name(tmp_path, asked):
    assert judge(knn_config(label="colour"), loaded(tmp_path)).path.name == "knn-blobs.json"


def test_another_set_has_its_own_splits_options_and_main_label(tmp_path, asked):
    found = judge(knn_config(name="other", dir="/here"), loaded(tmp_path))
    assert asked == [("other", split, "/here", 8, {}) for split in ("train", "test")]
    assert found.path.name == "knn-other.json" and found.result["label"] == "colour"


def test_an_export_s_result_goes_to_the_workdir_and_names_the_weights(tmp_path, asked):
    export = loaded(tmp_path / "export", sha256="ab" * 32)
    with pytest.raises(UserError, match="is no run directory; say where results go with --workdir"):
        judge(knn_config(), export)
    assert asked == []
    found = judge(knn_config(), export, tmp_path / "out")
    assert found.path.parent == tmp_path / "out" / "results" and found.result["backbone"] == "ab" * 32


def test_the_same_judgement_twice_is_the_same(tmp_path, asked):
    config = knn_config() | {"task": dict(kind="linear", solver="sgd", lr=0.1, epochs=3, batch_size=32)}
    one, two = (judge(config, loaded(tmp_path / name)).result for name in "ab")
    assert one["top1"] == two["top1"]


def test_scores_that_are_not_finite_are_no_result(tmp_path, asked):
    config = knn_config() | {
        "task": dict(kind="linear", solver="sgd", lr=1e30, weight_decay=1e10, standardise=False, epochs=2)
    }
    with pytest.raises(BadNumbersError, match="not finite"):
        judge(config, loaded(tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_chosen_data_takes_the_training_set_where_none_is_given():
    assert resolve_data(NOTHING, TRAINING) == TRAINING | OWN
    assert resolve_data(NOTHING | {"label": "colour", "split": "train"}, TRAINING) == TRAINING | OWN | {
        "label": "colour",
        "split": "train",
    }
    assert resolve_data(NOTHING | {"name": "blobs", "dir": "/d"}, TRAINING) == TRAINING | {"dir": "/d"} | OWN
    assert resolve_data(NOTHING, {"name": "x"})["test_split"] == "test"


def test_chosen_data_refuses_what_makes_no_judgement():
    with pytest.raises(UserError, match="no data set"):
        resolve_data(NOTHING, {})
    with pytest.raises(UserError, match="both 'test'"):
        resolve_data(NOTHING | {"split": "test"}, TRAINING)
    with pytest.raises(UserError, match="did you mean 'split'"):
        resolve_data({"splt": "test"}, TRAINING)


def test_unknown_fields_refuse(tmp_path, asked):
    with pytest.raises(UserError, match="unknown field of the config 'batchsize'; did you mean 'batch_size'"):
        judge(knn_config() | {"batchsize": 1}, loaded(tmp_path))


def test_a_place_that_can_not_be_written_is_said_before_any_work(tmp_path, asked, monkeypatch):
    (tmp_path / "results").write_text("a file")
    backbone = loaded(tmp_path)
    with pytest.raises(UserError, match="can't write in"):
        judge(knn_config(), backbone)
    assert backbone.representation.batches == []


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("knn", "cifar10", None, False), "knn-cifar10.json"),
        (("linear", "folder:/data/my birds", None, True), "linear-my_birds-untrained.json"),
        (("linear", "moving_digits", "position", False), "linear-moving_digits-position.json"),
        (("knn", "ds/config:1.0.0", None, False), "knn-ds_config_1.0.0.json"),
    ],
)
def test_file_names(parts, expected):
    assert make_file_name(*parts) == expected


@pytest.mark.parametrize(
    "spec",
    [
        "knn.py",
        "fewshot.py:one_shot",
        "fewshot.py:cosine",
        *(f"linear.py:{name}" for name in ("standard", "grid", "ring", "moco", "moco_grid", "logistic")),
    ],
)
def test_every_shipped_config_judges(tmp_path, asked, spec):
    config, _, _ = load_config(f"configs/evaluate/{spec}")
    for name, value in (("k", 9), ("epochs", 2), ("ways", 2), ("episodes", 20)):
        if name in config.task:
            config.task[name] = value
    assert judge(config, loaded(tmp_path)).result["top1"] > 0.5


def test_an_unknown_variant_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'logistic'"):
        load_config("configs/evaluate/linear.py:logistc")


def test_results_fold_no_state_into_the_backbone(tmp_path, asked):
    backbone = loaded(tmp_path)
    same = replace(backbone)
    judge(knn_config(), backbone)
    assert backbone == same and Path(backbone.source) == tmp_path
    assert np.all([size == 64 for size in backbone.representation.batches])


def test_features_are_kept_for_the_next_task(tmp_path, asked):
    backbone = loaded(tmp_path)
    first = judge(knn_config(), backbone)
    encoded = list(backbone.representation.batches)
    second = judge(linear_config(), backbone)
    assert backbone.representation.batches == encoded and len(list((tmp_path / "features").iterdir())) == 2
    judge(knn_config() | {"features": {"keep": False}}, backbone, tmp_path / "elsewhere")
    assert len(backbone.representation.batches) == 2 * len(encoded)
    assert not (tmp_path / "elsewhere" / "features").exists()
    assert first.result["settings"]["layer"] == second.result["settings"]["layer"] == "pooled"


def linear_config(**more):
    return knn_config() | {"task": dict(kind="linear", solver="sgd", lr=0.1, epochs=3, batch_size=32), **more}


def test_the_fitted_head_lies_beside_the_result_and_makes_its_score(tmp_path, asked):
    backbone = loaded(tmp_path)
    found = judge(linear_config(), backbone)
    head = read_head(found.path.with_suffix(".safetensors"))
    test = image_set(120, "test", name="blobs", seed=4)
    scores = head.scores(backbone.representation.encode(test.images(np.arange(120))))
    assert np.mean(np.argmax(scores, axis=1) == test.labels["dark"]) == pytest.approx(found.result["top1"])
    assert head.classes == ("no", "yes") and head.about["backbone"] == str(tmp_path)
    assert not list((tmp_path / "results").glob("knn*.safetensors"))


def test_fit_on_one_set_test_on_another(tmp_path, asked):
    found = judge(knn_config(label="colour", test_name="other", test_dir="/here"), loaded(tmp_path))
    assert asked == [("blobs", "train[:90%]", "/there", 8, {"size": 8}), ("other", "test", "/here", 8, {})]
    assert found.path.name == "knn-blobs-on_other.json" and found.result["tested_on"] == "other"
    assert "blobs, tested on other" in str(found)
    with pytest.raises(UserError, match="test_dir without"):
        judge(knn_config(test_dir="/here"), loaded(tmp_path))


def second_set(monkeypatch, images):
    """Lets every name but 'blobs' load these images."""
    load = feature_tasks.sets.load
    monkeypatch.setattr(
        feature_tasks.sets, "load", lambda name, *a, **k: load(name, *a, **k) if name == "blobs" else images
    )


def cross_domain_config(variant="knn", **data):
    config, _, _ = load_config(f"configs/evaluate/cross_domain.py:{variant}")
    config.data.update(data)
    if variant == "knn":
        config.task.k = 9
    return config


def test_a_second_set_of_other_classes_is_refused_by_name_before_any_encoding(tmp_path, asked, monkeypatch):
    backbone = loaded(tmp_path)
    second_set(monkeypatch, image_set(60, classes=3))
    message = r"has 4 classes and blobs train has 3; only blobs train\[:90%\] has d; give two splits"
    with pytest.raises(UserError, match=message):
        judge(cross_domain_config(label="colour", test_name="other"), backbone)
    renamed = image_set(60)
    second_set(monkeypatch, replace(renamed, classes={**renamed.classes, "colour": tuple("xbcd")}))
    with pytest.raises(UserError, match=r"only blobs train\[:90%\] has a; only blobs train has x"):
        judge(cross_domain_config(label="colour", test_name="other"), backbone)
    assert backbone.representation.batches == []


@pytest.mark.parametrize("variant", ["logistic", "knn"])
def test_classes_of_a_second_set_are_matched_by_name(tmp_path, asked, monkeypatch, variant):
    """The same test images score the same when their classes are numbered in another order, or their label renamed."""
    data = dict(label="colour", test_name="other", test_split="test")
    images = image_set(120, "test", seed=4)
    second_set(monkeypatch, images)
    same_order = judge(cross_domain_config(variant, **data), loaded(tmp_path / "a")).result
    order = np.array([2, 0, 3, 1])  # the class that each new number stands for
    labels = np.argsort(order)[images.labels["colour"]].astype(np.int32)
    other = replace(images, name="other", labels={"hue": labels}, classes={"hue": tuple("abcd"[i] for i in order)})
    second_set(monkeypatch, other)
    backbone = loaded(tmp_path / "b")
    with pytest.raises(UserError, match=r"other has no label 'colour', it has hue; give --config\.data\.test_label"):
        judge(cross_domain_config(variant, **data), backbone)
    result = judge(cross_domain_config(variant, **data, test_label="hue"), backbone).result
    assert result["top1"] == same_order["top1"] > 0.6
    assert (result["tested_on"], result["label"], result["test_label"]) == ("other", "colour", "hue")
    if variant == "logistic":  # against labels compared by name, without the package's renumbering
        head = read_head(tmp_path / "b" / "results" / "linear-blobs-on_other.safetensors")
        guesses = np.argmax(head.scores(backbone.representation.encode(images.images(np.arange(120)))), axis=1)
        names = [other.classes["hue"][i] for i in other.labels["hue"]]
        assert np.mean([head.classes[g] == name for g, name in zip(guesses, names, strict=True)]) == pytest.approx(
            result["top1"]
        )


def test_the_cross_domain_config_needs_a_second_set(tmp_path, asked):
    with pytest.raises(UserError, match=r"no data\.test_name; give --config\.data\.test_name=NAME"):
        judge(cross_domain_config(), loaded(tmp_path))
    with pytest.raises(UserError, match=r"data\.test_label without a data\.test_name"):
        judge(knn_config(test_label="hue"), loaded(tmp_path))
    judge(cross_domain_config(label="colour", test_name="other", test_options={"size": 8}), loaded(tmp_path))
    assert asked[-1] == ("other", "test", "/there", 8, {"size": 8})


def test_views_to_fit_on_are_a_linear_task_s_alone(tmp_path, asked):
    views = {"features": dict(views="crops", copies=3)}
    backbone = loaded(tmp_path)
    found = judge(linear_config(**views), backbone)
    assert found.result["fit"]["examples"] == 300 and found.result["settings"]["copies"] == 3
    assert sum(backbone.representation.batches) == 5 * 64 * 3 + 2 * 64  # the last batches filled up
    with pytest.raises(UserError, match="the knn task is fitted on images as they are"):
        judge(knn_config() | views, loaded(tmp_path))
    for wrong, says in (
        (dict(views="crosp"), "did you mean 'crops'"),
        (dict(copies=2), "copies is 2"),
        (dict(layr=1), "did you mean 'layer'"),
    ):
        with pytest.raises(UserError, match=says):
            judge(linear_config(features=wrong), loaded(tmp_path / "fresh"))


def test_a_backbone_that_was_not_loaded_is_never_judged(tmp_path, asked):
    with pytest.raises(UserError, match="0 of the network's 1 tensors were loaded"):
        judge(knn_config(), replace(loaded(tmp_path), tensors=0))
    assert asked == []


def test_an_unknown_task_names_the_nearest(tmp_path, asked):
    with pytest.raises(UserError, match="unknown task 'transfr'; did you mean 'transfer'"):
        judge(knn_config() | {"task": dict(kind="transfr")}, loaded(tmp_path))
