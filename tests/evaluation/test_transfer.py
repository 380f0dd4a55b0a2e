import json
import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.data import sets
from mi_contrast.evaluation.judge import judge
from mi_contrast.interchange import LoadedBackbone
from mi_contrast.models import representation, towers
from tests.evaluation.fake import image_set

MODEL = dict(backbone="tiny", width=8, stem="small")
TRAINING = dict(model=MODEL, seed=5, data=dict(batch=16))


@pytest.fixture
def backbone(tmp_path):
    variables = towers.build(MODEL).init(jax.random.key(99), (8, 8, 3))
    found = representation.from_tower(variables, MODEL, mean=(0.5,) * 3, std=(0.25,) * 3, size=8)
    return LoadedBackbone(found, tmp_path / "run", len(jax.tree.leaves(found.variables)), 300, TRAINING)


@pytest.fixture
def three_sets(monkeypatch):
    """The sets blobs (4 classes) and spots (3) are there; any other set isn't."""
    asked = []

    def load(name, split, *, data_dir=None, **_):
        asked.append((name, split, data_dir))
        if name not in ("blobs", "spots"):
            raise UserError(f"{name} is not in {data_dir}")
        images = image_set(120 if "train" in split else 60, split, name=name, classes=4 if name == "blobs" else 3)
        return replace(images, labels={"colour": images.labels["colour"]})

    monkeypatch.setattr(sets, "load", load)
    return asked


def config(*names, **more):
    each = {"blobs": 4, "spots": 3}
    return dict(
        task=dict(
            kind="transfer",
            by=dict(kind="knn", k=9, temperature=0.07),
            sets=tuple(dict(name=name, classes=each.get(name, 7)) for name in names),
            **more,
        ),
        data=dict(dir="/there"),
        batch_size=64,
        seed=0,
    )


def test_every_set_is_judged_beside_its_twin(backbone, three_sets):
    found = judge(config("blobs", "spots"), backbone)
    assert found.path == backbone.source / "results" / "transfer-knn.json"
    result = json.loads(found.path.read_text())
    assert [row["dataset"] for row in result["rows"]] == ["blobs", "spots"]
    for row, classes in zip(result["rows"], (4, 3), strict=True):
        assert row["classes"] == classes and row["chance"] == pytest.approx(1 / classes)
        assert row["fit"] == {"split": "train", "examples": 120}
        alone = {u: judge(one(row["dataset"]), backbone, untrained=u).result["top1"] for u in (False, True)}
        assert row["trained"]["top1"] == alone[False] and row["untrained"]["top1"] == alone[True]
        low, high = row["trained"]["interval95"]
        assert low < row["trained"]["top1"] <= high
    assert all(where == "/there" for _, _, where in three_sets)


def one(name):
    data = dict(name=name, dir="/there", split=None, test_split=None, options=None, label=None)
    return dict(task=dict(kind="knn", k=9, temperature=0.07), data=data, batch_size=64, seed=0)


def test_missing_sets_are_all_named_before_any_work_or_stand_in_the_table(backbone, three_sets):
    with pytest.raises(UserError, match=r"2 of 3 sets can't be read: birds, signs \(birds is not in /there\)"):
        judge(config("birds", "blobs", "signs"), backbone)
    assert not (backbone.source / "results").exists()
    found = judge(config("birds", "blobs", missing="skip", twin=False), backbone)
    birds, blobs = found.result["rows"]
    assert birds == {"dataset": "birds", "classes": 7, "missing": "birds is not in /there"}
    assert "trained" in blobs and "untrained" not in blobs
    assert "1 sets, 1 missing (birds)" in str(found)
    with pytest.raises(UserError, match="1 of 1 sets"):
        judge(config("birds", missing="skip"), backbone)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(sets=(dict(name="blobs", classes=5),)), "blobs has 4 classes by 'colour', the config says 5"),
        (dict(sets=(dict(name="blobs", classes=4, splt="x"),)), "did you mean 'split'"),
        (dict(sets=(dict(name="blobs", classes=4, test_split="train"),)), "both 'train'"),
        (dict(by=dict(kind="finetune")), "unknown task of a transfer 'finetune'"),
        (dict(missing="skp"), "did you mean 'skip'"),
    ],
)
def test_mistakes_are_one_line_before_any_work(backbone, three_sets, change, says):
    wrong = config("blobs")
    wrong["task"] |= change
    with pytest.raises(UserError, match=re.escape(says)):
        judge(wrong, backbone)
    with pytest.raises(UserError, match="its twin"):
        judge(config("blobs"), replace(backbone, config={}))
    for keyword in ("untrained", "twin"):  # the second is the name of 0.1.0
        with pytest.raises(UserError, match="leave out --untrained"):
            judge(config("blobs"), backbone, **{keyword: True})
    assert not (backbone.source / "results").exists()


def test_batch_statistics_stay_as_training_left_them(backbone, three_sets):
    before = jax.tree.map(np.array, backbone.representation.variables)
    judge(config("blobs"), backbone)
    after = jax.tree.map(np.array, backbone.representation.variables)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
