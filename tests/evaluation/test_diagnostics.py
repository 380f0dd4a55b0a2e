import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.config import load_config
from mi_contrast.core.errors import UserError
from mi_contrast.data import sets
from mi_contrast.evaluation.augmentation import make_policy, make_view, make_view_rngs
from mi_contrast.evaluation.diagnostics import (
    draw_neighbours,
    make_single_op_policies,
    measure_invariance,
    sample_images,
)
from mi_contrast.evaluation.information import estimate_information
from mi_contrast.evaluation.judge import judge
from mi_contrast.interchange import LoadedBackbone
from mi_contrast.models import representation, towers
from mi_contrast.views import policies
from tests.evaluation.fake import image_set

MODEL = dict(backbone="tiny", width=8, stem="small")


def gaussians(count, correlation, width=8, seed=0):
    random = np.random.default_rng(seed)
    x, noise = random.normal(size=(2, count, width))
    y = correlation * x + np.sqrt(1 - correlation**2) * noise
    return x.astype(np.float32), y.astype(np.float32), -0.5 * width * np.log(1 - correlation**2)


def test_the_lower_bounds_lie_below_the_truth_and_above_nothing():
    x, y, truth = gaussians(1024, 0.7)
    found = estimate_information(x, y)
    assert set(found) == {"info_nce", "nwj", "smile", "ksg"}
    for name in ("info_nce", "nwj"):
        nats, error = found[name]["nats"], found[name]["standard_error"]
        assert 0.3 * truth < nats < truth + 3 * error and 0 < error < 0.3
    assert found["info_nce"]["ceiling"] == pytest.approx(np.log(512)) and found["nwj"]["ceiling"] is None
    four = 4 / 8 * truth
    assert abs(found["ksg"]["nats"] - four) < 0.15 * four + 3 * found["ksg"]["standard_error"]


def test_views_that_share_nothing_read_about_zero():
    x, y, _ = gaussians(1024, 0.0)
    for name, each in estimate_information(x, y).items():
        assert abs(each["nats"]) < 0.08 + 4 * each["standard_error"], name
    moved = estimate_information(*gaussians(1024, 0.7)[:2])
    rolled = estimate_information(gaussians(1024, 0.7)[0], np.roll(gaussians(1024, 0.7)[1], 1, axis=0))
    assert all(rolled[name]["nats"] < 0.3 * moved[name]["nats"] for name in moved)


def test_info_nce_is_the_equation_on_the_half_that_chose_nothing():
    from mi_contrast.data.order import permutation

    x, y, _ = (np.float64(part) for part in gaussians(64, 0.9))
    found = estimate_information(np.float32(x), np.float32(y))["info_nce"]
    order = permutation(64, 1, 0)
    fit, read = order[:32], order[32:]
    centre = np.concatenate([x[fit], y[fit]]).mean(axis=0)
    a, b = ((v - centre) / np.linalg.norm(v - centre, axis=1, keepdims=True) for v in (x[read], y[read]))
    temperature = float(found["what"].split("cos / ")[1].split(",")[0])
    scores = a @ b.T / temperature
    each = np.diag(scores) - np.log(np.exp(scores).mean(axis=1))
    assert found["nats"] == pytest.approx(each.mean(), abs=1e-4)
    left = []
    for part in range(16):
        own = np.flatnonzero(np.arange(32) % 16 != part)
        few = scores[own][:, own]
        left.append(np.mean(np.diag(few) - np.log(np.exp(few).mean(axis=1))))
    expected = np.sqrt(15 / 16 * np.sum(np.square(left - np.mean(left))))
    assert found["standard_error"] == pytest.approx(expected, abs=1e-4)


def test_errors_are_the_spread_over_draws():
    rows = [estimate_information(*gaussians(512, 0.8, width=32, seed=seed)[:2]) for seed in range(24)]
    for name, lowest in (("info_nce", 0.75), ("smile", 0.6)):
        nats, errors = (np.array([row[name][part] for row in rows]) for part in ("nats", "standard_error"))
        assert lowest < np.sqrt(np.mean(errors**2)) / nats.std(ddof=1) < 1.6, name
    assert sum(row["nwj"]["standard_error"] is None for row in rows) > 12  # a few pairs carry its mean
    assert all("error unknown" in r["nwj"]["what"] for r in rows if r["nwj"]["standard_error"] is None)
    easy = [estimate_information(*gaussians(512, 0.5, width=4, seed=seed)[:2]) for seed in range(24)]
    for name in ("info_nce", "nwj", "smile"):
        nats, errors = (np.array([row[name][part] for row in easy]) for part in ("nats", "standard_error"))
        assert 0.7 < np.sqrt(np.mean(errors**2)) / nats.std(ddof=1) < 1.5, name


def test_invariance_of_what_does_nothing_and_of_what_destroys():
    plain = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    same = measure_invariance(plain, plain)
    assert same["cosine"] == pytest.approx(1, abs=1e-5) and same["found"] == 1 and same["median_rank"] == 1
    gone = measure_invariance(plain, np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32))
    assert abs(gone["cosine"]) < 0.15 and gone["found"] < 0.1 and 30 < gone["median_rank"] < 70
    collapsed = measure_invariance(plain, np.repeat(plain[:1], 100, axis=0))
    assert collapsed["found"] == 0.01


@pytest.mark.slow
def test_one_op_alone_is_that_op_alone():
    images = image_set(6, size=16).images(np.arange(6))
    made = {
        name: np.asarray(make_view(p, images, make_view_rngs(np.arange(6), 0), 0))
        for name, p in make_single_op_policies("simclr", 16).items()
    }
    assert set(made) == {"crop", "flip", "jitter", "grey", "blur"}
    pixels = images / np.float32(255)
    np.testing.assert_allclose(made["flip"], pixels[:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(made["grey"][..., 0], made["grey"][..., 2], atol=1e-6)
    assert all(np.abs(made[name] - pixels).max() > 0.02 for name in made)


def test_views_named_train_are_the_backbone_s_own():
    config = {"views": policies.moco_v2(8) | {"mean": (0.3,) * 3}}
    own = make_policy("train", 8, config)
    assert own["query"] == config["views"]["query"] and own["mean"] == (0.0,) * 3
    channels = make_policy("train", 8, {"views": policies.cmc(8)})
    assert channels["query"] == policies.cmc(8)["both"]
    with pytest.raises(UserError, match="config has no views"):
        make_policy("train", 8, {})
    with pytest.raises(UserError, match="views are patches of images; choose a policy: crops"):
        make_policy("train", 8, {"views": policies.patches(8, 8)})


def test_the_picture_frames_neighbours_by_class():
    images = image_set(40, noise=0.0)
    features = np.eye(4, dtype=np.float32)[images.labels["colour"]]
    picture = np.asarray(draw_neighbours(images, features, images.labels["colour"], 3, 4))
    assert (picture.reshape(-1, 3) == (46, 125, 50)).all(axis=1).any()
    assert not (picture.reshape(-1, 3) == (183, 28, 28)).all(axis=1).any()
    shuffled = np.asarray(draw_neighbours(images, features, np.arange(40), 3, 4))
    assert (shuffled.reshape(-1, 3) == (183, 28, 28)).all(axis=1).any()


@pytest.mark.filterwarnings("ignore:a value repeats:UserWarning")  # plain colours have features that repeat
@pytest.mark.slow
def test_the_job_writes_numbers_and_a_picture_and_moves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "load", lambda name, split, **_: image_set(300 if split == "train" else 150, split))
    variables = towers.build(MODEL).init(jax.random.key(99), (8, 8, 3))
    found = representation.from_tower(variables, MODEL, mean=(0.5,) * 3, std=(0.25,) * 3, size=8)
    config = dict(model=MODEL, seed=5, data=dict(name="blobs", batch=16), views=policies.moco_v2(8))
    backbone = LoadedBackbone(found, tmp_path / "run", len(jax.tree.leaves(found.variables)), 300, config)
    before = jax.tree.map(np.array, found.variables)
    chosen, _, _ = load_config("configs/evaluate/diagnostics.py")
    judged = judge(replace_images(chosen, 128), backbone)
    result = json.loads(judged.path.read_text())
    assert result["images"] == 128 and set(result["invariance"]) == {"crop", "flip", "jitter", "grey", "blur"}
    assert 1 <= result["geometry"]["effective_rank"] <= 8
    with Image.open(judged.path.with_suffix(".png")) as picture:
        assert picture.size[1] > 300
    assert "nats between two views (train) of each of 128 images" in str(judged)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, jax.tree.map(np.array, found.variables)))
    with pytest.raises(UserError, match="did you mean 'simclr'"):
        chosen.task.strength = "simcrl"
        judge(chosen, backbone)
    with pytest.raises(UserError, match="config has no views"):
        judge(
            replace_images(load_config("configs/evaluate/diagnostics.py")[0], 64),
            replace(backbone, config={"data": config["data"]}),
        )


def replace_images(config, count):
    config.task.images = count
    return config


def test_some_images_are_the_same_each_time_and_keep_their_labels():
    images = image_set(50)
    part, rows = sample_images(images, 20)
    assert len(part) == 20 and len(set(rows)) == 20
    np.testing.assert_array_equal(part.images(np.arange(20)), images.images(rows))
    np.testing.assert_array_equal(part.labels["colour"], images.labels["colour"][rows])
    assert len(sample_images(images, 99)[0]) == 50
