from dataclasses import replace

import jax
import numpy as np
import pytest

from mi_contrast.core import schedules
from mi_contrast.core.config import load_config
from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.data import sets
from mi_contrast.evaluation.heads import read_head
from mi_contrast.evaluation.judge import judge
from mi_contrast.interchange import LoadedBackbone, load
from mi_contrast.models import representation, towers
from tests.evaluation.fake import image_set

MODEL = dict(backbone="tiny", width=8, stem="small")
TASK = dict(kind="finetune", lr=schedules.cosine(0.03, 0.0), head_factor=3.0, epochs=8, batch_size=32, views=None)
DATA = dict(name="blobs", dir=None, split=None, test_split=None, options=None, label=None)


def made(tmp_path, **model):
    model = MODEL | model
    variables = towers.build(model).init(jax.random.key(99), (8, 8, 3))
    found = representation.from_tower(variables, model, mean=(0.5,) * 3, std=(0.25,) * 3, size=8)
    config = dict(model=model, seed=5, data=dict(batch=16))
    return LoadedBackbone(found, tmp_path / "run", len(jax.tree.leaves(found.variables)), 300, config)


@pytest.fixture(autouse=True)
def blobs(monkeypatch):
    monkeypatch.setattr(sets, "load", lambda name, split, **_: image_set(300 if split == "train" else 120, split))


def config(**task):
    return dict(task=TASK | task, data=DATA, batch_size=64, seed=0)


@pytest.mark.parametrize("split", [None, "lab"])
def test_the_network_learns_and_is_saved_and_the_one_given_stays(tmp_path, split):
    backbone = made(tmp_path, split=split)
    before = jax.tree.map(np.array, backbone.representation.variables)
    found = judge(config(), backbone)
    assert found.result["top1"] > 0.65 and found.result["solved"]["steps"] == 8 * (300 // 32)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, backbone.representation.variables))
    tuned = load(found.path.with_suffix(""))
    for part in ("params", "batch_stats"):
        same = jax.tree.map(np.array_equal, before[part], jax.tree.map(np.array, tuned.variables[part]))
        assert not any(jax.tree.leaves(same)), f"all {part} move"
    head, test = read_head(found.path.with_suffix(".safetensors")), image_set(120, "test")
    guess = np.argmax(head.scores(tuned.encode(test.images(np.arange(120)))), axis=1)
    assert np.mean(guess == test.labels["colour"]) == pytest.approx(found.result["top1"], abs=1e-6)


def test_frozen_statistics_stay(tmp_path):
    backbone = made(tmp_path)
    found = judge(config(statistics="frozen", epochs=1), backbone)
    tuned, given = load(found.path.with_suffix("")).variables, backbone.representation.variables
    assert jax.tree.all(jax.tree.map(np.array_equal, given["batch_stats"], tuned["batch_stats"]))
    assert not jax.tree.all(jax.tree.map(np.array_equal, given["params"], tuned["params"]))


@pytest.mark.nightly
def test_a_transformer_is_tuned_whole_its_patch_embedding_too(tmp_path):
    backbone = made(tmp_path, backbone="vit_tiny", depth=1, patch=4)
    given = backbone.representation.variables
    tuned = load(judge(config(epochs=1), backbone).path.with_suffix("")).variables
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, given["params"], tuned["params"])))
    assert not jax.tree.leaves(tuned["batch_stats"])


@pytest.mark.parametrize("variant", ["sgd", "adamw", "frozen"])
def test_every_variant_runs(tmp_path, variant):
    chosen, _, _ = load_config(f"configs/evaluate/finetune.py:{variant}")
    chosen.data.name = "blobs"
    chosen.task.epochs = 1
    found = judge(chosen, made(tmp_path))
    assert found.result["settings"]["views"] == "crops" and "the network in" in str(found)
    again = judge(chosen, made(tmp_path / "again"))
    assert found.result["top1"] == again.result["top1"]


def test_a_loss_that_goes_bad_is_said(tmp_path):
    with pytest.raises(BadNumbersError, match=r"lower task\.lr"):
        judge(config(lr=1e30), made(tmp_path))


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (dict(optimiser="adam"), "did you mean 'adamw'"),
        (dict(statistics="batches"), "did you mean 'batch'"),
        (dict(views="crop"), "did you mean 'crops'"),
        (dict(epochs=0), "epochs is 0"),
        (dict(views="train"), "config has no views"),
    ],
)
def test_mistakes_are_one_line(tmp_path, task, says):
    with pytest.raises(UserError, match=says):
        judge(config(**task), made(tmp_path))
    with pytest.raises(UserError, match="0 of the network's"):
        judge(config(), replace(made(tmp_path), tensors=0))
