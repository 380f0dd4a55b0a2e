"""Generators in a run: what each objective moves and by how much, and that a frozen one stays and travels."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.core.schedules import adaptive, linear
from mi_contrast.data import sets
from mi_contrast.evaluation.twin import make_untrained_twin
from mi_contrast.interchange import load, open_source
from mi_contrast.interchange.export import write_export
from mi_contrast.training import assemble, loop
from mi_contrast.training.candidates import StepContext
from mi_contrast.training.encoding import Encodings, make_crops
from mi_contrast.training.step import make_step, score_term
from tests.training import rows, small


def learner(objective="unsupervised", flow="additive", **learn):
    """configs/learn_views.py, small: 16 images of noise, half of them labelled."""
    config = rows.without_head_norm(rows.small("learn_views"))  # slopes by differences want few curves
    for section in ("model", "views"):
        config[section]["split"]["flow"] = flow
    config["generator"]["learn"] |= dict(objective=objective, labelled=0.5, lr=0.01) | learn
    config["generator"]["learn"]["classifier"] |= dict(width=8)
    return config


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def nats_of(parts, state, tables, at, params):
    """The method's objective as the step has it, by the generator's parameters, networks as they are."""
    batch = rows.batch(at)
    views = parts.augmentation.divide(make_crops(parts.augmentation, parts.seed, jnp.int32(at), batch), params)
    online, _ = parts.encoder.encode_views(state.online, views, parts.method.online_views)
    encodings = Encodings(online, {})
    context = StepContext(parts.method, 0.0, state, batch, tables, parts.mesh)
    nats = [score_term(i, parts, context, encodings)[0] for i in range(2)]
    return 0.5 * (jnp.mean(nats[0]) + jnp.mean(nats[1]))


@pytest.mark.nightly
@pytest.mark.parametrize("flow", ["additive", "affine", "free"])
def test_an_unsupervised_generator_descends_the_nats_that_networks_climb(flow):
    config = learner(flow=flow)
    parts, state, tables = rows.begin(config)
    before = jax.tree.map(np.array, state.generator)
    nats = jax.jit(jax.value_and_grad(lambda params: nats_of(parts, state, tables, 0, params)))
    _, slope = nats(before["params"])
    flat = max(range(len(leaves(slope))), key=lambda i: np.abs(leaves(slope)[i]).max())
    spot = np.unravel_index(np.abs(leaves(slope)[flat]).argmax(), leaves(slope)[flat].shape)

    def nudged(by):
        moved = leaves(before["params"])
        moved[flat] = moved[flat].copy()
        moved[flat][spot] += by
        return jax.tree.unflatten(jax.tree.structure(before["params"]), moved)

    rise = [float(nats(nudged(by))[0]) for by in (1e-2, -1e-2)]
    assert (rise[0] - rise[1]) / 2e-2 == pytest.approx(leaves(slope)[flat][spot], rel=0.2), "a slope, by differences"
    expected, _ = optax.adam(0.01).update(slope, before["optimiser"], before["params"])
    after, scalars = make_step(parts)(state, rows.batch(0), tables)
    for found, new, wanted in zip(*map(leaves, (before["params"], after.generator["params"], expected)), strict=True):
        certain = np.abs(wanted) > 0.0099  # Adam's first step is a sign where the slope is not lost in rounding
        np.testing.assert_allclose((new - found)[certain], wanted[certain], rtol=1e-2)
    assert scalars["generator_norm"] == pytest.approx(float(optax.tree.norm(slope)), rel=1e-3)
    assert "classifiers" not in after.generator


@pytest.mark.nightly
def test_labels_alone_move_a_supervised_generator():
    config = learner("supervised")
    config["generator"]["learn"]["classifier"]["lr"] = 0.01
    parts, state, tables = rows.begin(config)
    first, step = jax.tree.map(np.array, state.generator["params"]), make_step(parts)
    state, scalars = step(state, rows.batch(0), tables)
    assert scalars["generator_norm"] == 0 and scalars["class_first"] == pytest.approx(np.log(10), rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, first, state.generator["params"])  # classifiers begin at 0, no slope
    losses = []
    for _ in range(12):
        state, scalars = step(state, rows.batch(0), tables)
        losses.append(float(scalars["class_first"] + scalars["class_second"]))
    assert losses[-1] < losses[0] - 0.1, "classifiers learn their batch"
    assert any((a != b).any() for a, b in zip(leaves(first), leaves(state.generator["params"]), strict=True))


@pytest.mark.nightly
def test_only_labelled_examples_are_looked_at():
    config = learner("semi_supervised")
    parts, state, tables = rows.begin(config)
    labelled = parts.generator_training.labelled
    assert labelled.sum() == rows.EXAMPLES // 2 == 32
    hidden = np.where(labelled, np.asarray(tables.labels), 9 - np.asarray(tables.labels))
    told = tables._replace(labels=jnp.asarray(hidden, jnp.int32))
    step = make_step(parts)
    ends = []
    for known in (tables, told):
        now = jax.tree.map(jnp.array, state)
        for at in range(3):
            now, _ = step(now, rows.batch(at), known)
        ends.append(now.generator)
    jax.tree.map(np.testing.assert_array_equal, *ends)
    given = parts.generator_training.find_labels(tables.labels, rows.batch(0).index[:, 0])
    assert set(np.asarray(given)[~labelled[np.asarray(rows.batch(0).index[:, 0])]]) == {-1}


@pytest.mark.nightly
def test_it_moves_at_every_so_many_steps_and_the_networks_always():
    parts, state, tables = rows.begin(learner(every=2))
    step, moved = make_step(parts), []
    for at in range(4):
        before = jax.tree.map(np.array, (state.generator["params"], state.online["params"]))
        state, _ = step(state, rows.batch(at), tables)
        after = state.generator["params"], state.online["params"]
        moved.append([any((a != b).any() for a, b in zip(leaves(x), leaves(y), strict=True))
                      for x, y in zip(before, after, strict=True)])  # fmt: skip
    assert moved == [[True, True], [False, True], [True, True], [False, True]]


def test_its_rate_follows_the_steps_however_seldom_it_moves():
    config = learner(every=4, lr=linear(1.0, 0.0))
    parts, *_ = rows.begin(config | {"steps": 40})
    found = [float(parts.generator_training.learning_rate(jnp.int32(step))) for step in (0, 20, 40)]
    assert found == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.nightly
def test_labels_that_are_all_hidden_are_refused(tmp_path):
    config = rows.whole("learn_views")
    config["generator"]["learn"] |= dict(objective="supervised", labelled=1e-6)
    with pytest.raises(UserError, match="may be looked at has a label"):
        loop.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_a_frozen_generator_stays_and_travels_with_the_networks(tmp_path):
    config = rows.small("learned_views")
    parts, state, _ = rows.train(config, 2)
    there = load(config["generator"]["start_from"])
    jax.tree.map(np.testing.assert_array_equal, state.generator["params"], there.variables["generator"])
    views = {name: config["views"][name] for name in ("mean", "std", "size")}
    made = assemble.from_tower(state.online, config["model"], **views, generator=state.generator["params"])
    write_export(tmp_path / "export", made, config=config, commit=None)
    again, images = load(tmp_path / "export"), np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(again.encode(images), made.encode(images))
    pixels = (images / np.float32(255) - np.float32(views["mean"])) / np.float32(views["std"])
    divided = parts.tower.split.generator.forward(state.generator["params"], pixels)
    by_hand = [
        parts.tower.encode(state.online, seen, train=False, view=view).features
        for view, seen in (("first", divided[..., :1]), ("second", divided[..., 1:]))
    ]
    np.testing.assert_allclose(again.encode(images), np.concatenate(by_hand, axis=1), atol=1e-5)
    other = jax.tree.map(lambda x: x + 0.3, state.generator["params"])
    changed = assemble.from_tower(state.online, config["model"], **views, generator=other)
    assert np.abs(changed.encode(images) - made.encode(images)).max() > 1e-3, "the generator counts"


@pytest.mark.nightly
def test_a_run_leaves_its_views_to_another(tmp_path):
    config = rows.whole("learn_views")
    config["generator"]["learn"]["classifier"]["width"] = 8
    found = loop.run(config, tmp_path / "learned", name="learn_views", variant="digits")
    logged = [json.loads(line) for line in (tmp_path / "learned/metrics.jsonl").read_text().splitlines()]
    errors = [row["inverse_error"] for row in logged if "inverse_error" in row]
    assert found.complete and len(errors) == 2 and max(errors) < 1e-5
    with Image.open(tmp_path / "learned/pictures/channels.png") as picture:
        assert picture.size[1] == 10 * 96, "an image, its channels, YDbDr's and those that were learned"
    after = rows.whole("learned_views")
    after["generator"]["start_from"] = str(tmp_path / "learned")
    loop.run(after, tmp_path / "fresh")
    learned, fresh, exported = (load(tmp_path / name) for name in ("learned", "fresh", "learned/export"))
    born = rows.begin(config)[1].generator["params"]
    digits = sets.load("moving_digits", "train", data_dir=str(small.DATA), size=32, options=config["data"]["options"])
    for run, theirs in (("learned", born), ("fresh", learned.variables["generator"])):
        twin = make_untrained_twin(open_source(tmp_path / run), digits)
        jax.tree.map(np.testing.assert_array_equal, twin.representation.variables["generator"], theirs)
    for other in (fresh, exported):
        jax.tree.map(np.testing.assert_array_equal, learned.variables["generator"], other.variables["generator"])
    assert any(
        np.abs(a - b).max() > 0 for a, b in zip(leaves(learned.variables["generator"]), leaves(born), strict=True)
    )
    shutil.rmtree(tmp_path / "learned")
    assert loop.run(after, tmp_path / "fresh").step == 6, "a run that has begun holds its generator"
    after["generator"]["start_from"] = str(tmp_path / "fresh")
    assert loop.run(after | {"steps": 7}, tmp_path / "again").complete, "a run on frozen views hands them on as well"


def frozen(**views):
    config = rows.small("learned_views")
    config["views"] |= views
    return config


def classified(**words):
    config = learner("supervised")
    config["generator"]["learn"]["classifier"] |= words
    return config


def plainly(name, **generator):
    config = rows.small(name)
    config["generator"] |= generator
    return config


MISTAKES = {
    "neither": (lambda: plainly("learned_views", start_from=None), "neither is given"),
    "both": (lambda: plainly("learn_views", start_from="x"), "both is given"),
    "none divides": (lambda: plainly("simclr", start_from="x"), "no generator divides"),
    "no such run": (lambda: plainly("learned_views", start_from="runs/nowhere"), "runs/nowhere does not exist"),
    "another mean": (lambda: frozen(mean=(0.1, 0.2, 0.3)), "differs in mean.0, mean.1, mean.2"),
    "objective": (lambda: learner("unsupervized"), "did you mean 'unsupervised'"),
    "field": (lambda: learner(nat=1.0), "did you mean 'nats'"),
    "labelled": (lambda: learner(labelled=0.0), "config.generator.learn.labelled is 0"),
    "a schedule": (lambda: learner(nats=linear(0.0, 1.0)), "config.generator.learn.nats is a schedule"),
    "adaptive": (lambda: learner(lr=adaptive(0.1, 0.0, on="objective", every=2, by=0.1, window=2)), "lr is adaptive"),
    "a path": (lambda: plainly("learned_views", start_from=3), "config.generator.start_from is 3"),
    "a classifier": (lambda: classified(width=30), "config.generator.learn.classifier: config.model.width"),
    "a seed": (lambda: learner() | {"seed": -1}, "config.seed is -1"),
    "every": (lambda: learner(every=0), "config.generator.learn.every is 0"),
}


@pytest.mark.parametrize("made, message", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(made, message):
    with pytest.raises(UserError) as caught:
        rows.begin(made())
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_row_that_keeps_a_network_still_is_refused():
    config = learner()
    config["method"] = rows.small("cmc")["method"]
    with pytest.raises(UserError, match="keeps one of them still"):
        rows.begin(config)
