"""A real network through the whole judgement: scikit-learn's figures on the same features, and nothing moved."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from mi_contrast.data import sets
from mi_contrast.evaluation.judge import judge
from mi_contrast.interchange import Loaded
from mi_contrast.models import representation, towers
from tests.evaluation.fake import image_set

MODEL = dict(backbone="tiny", width=16, stem="small")
DATA = dict(name="blobs", dir=None, split=None, test_split=None, options=None, label=None)
TASKS = {
    "knn": dict(kind="knn", k=15, temperature=0.07),
    "logistic": dict(kind="linear", solver="lbfgs", l2=1e-3),
    "logistic, chosen": dict(kind="linear", solver="lbfgs", l2=(1e-1, 1e-3)),
    "grid": dict(kind="linear", solver="sgd", lr=0.1, epochs=2, factors=(0.3, 1.0)),
    "fewshot": dict(kind="fewshot", ways=3, shots=2, queries=5, episodes=10),
}


@pytest.fixture
def backbone(tmp_path, monkeypatch):
    splits = {split: image_set(count, split, noise=80.0) for split, count in (("train", 700), ("test", 650))}
    monkeypatch.setattr(sets, "load", lambda name, split, **_: splits[split])
    tower = towers.build(MODEL)
    variables = tower.init(jax.random.key(99), (8, 8, 3))
    pixels = np.float32(splits["train"].images(np.arange(64)) / 255 - 0.5) / 0.25
    variables = towers.calibrate_statistics(tower, variables, pixels)
    found = representation.from_tower(variables, MODEL, mean=(0.5,) * 3, std=(0.25,) * 3, size=8)
    return Loaded(found, tmp_path / "run", len(jax.tree.leaves(found.variables)), 300, {}), splits


def config(task):
    return dict(task=TASKS[task], data=DATA, batch_size=128, seed=0)  # the last batches have 60 and 10 images


def one_by_one(backbone, images):
    """Features of each image alone: no batch, no padding of ours."""
    network = backbone.representation
    x = (images.images(np.arange(len(images))).astype(np.float64) / 255 - 0.5) / 0.25
    apply = jax.jit(lambda x: network.backbone.apply(network.variables, x[None], False)[0])
    return np.stack([apply(np.float32(each)) for each in x])


def test_scores_are_scikit_learns_on_the_same_features(backbone):
    backbone, splits = backbone
    fit, test = (one_by_one(backbone, splits[name]) for name in ("train", "test"))
    labels, truth = (splits[name].labels["colour"] for name in ("train", "test"))
    ours = {task: judge(config(task), backbone).result["top1"] for task in ("knn", "logistic")}
    near = KNeighborsClassifier(15, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    spread = fit.std(axis=0)
    spread[spread < 1e-6] = 1.0
    peers = {
        "knn": near.fit(fit, labels).score(test, truth),
        "logistic": LogisticRegression(C=1 / (1e-3 * 700), max_iter=5000)
        .fit(fit / spread, labels)
        .score(test / spread, truth),
    }
    assert 0.4 < ours["knn"] < 0.97
    for task, share in peers.items():
        assert abs(ours[task] - share) <= 0.002, task


@pytest.mark.parametrize("task", TASKS)
def test_no_task_on_features_moves_the_network(backbone, task):
    backbone, _ = backbone
    before = jax.tree.map(np.array, backbone.representation.variables)
    judge(config(task), backbone)
    after = jax.tree.map(np.array, backbone.representation.variables)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
