"""A config is fitted to one's own pictures: what is open is filled, what is set stays or is refused."""

import re
from dataclasses import replace

import jax
import pytest

from mi_contrast.core.config import change, load_config, package_configs, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.training import assemble, fitting
from mi_contrast.training.fitting import Facts, fit, is_open, take_stored

FACTS = Facts(
    train=152, held_out=8, classes=10, short_side=128, image_shape=None, backend="cpu", devices=1, cores=2, memory=2**34
)
ROWS = sorted(path.stem for path in package_configs().glob("*.py") if not path.stem.startswith("infoaug"))
KNOWN = dict(name="folder:x", split="train", test_split="test", broken=0.0, test_share=0.2, labels="folders")


def read_config(row, **data):
    config = to_plain_data(load_config(f"{row}:folder")[0])
    return {**config, "data": {**config["data"], **KNOWN, **data}}


def complete(config):
    fitted, reasons = fit(config, FACTS)
    return {**fitted, "views": {**fitted["views"], "mean": (0.4,) * 3, "std": (0.2,) * 3}}, reasons


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_fitted_and_can_be_built(row):
    fitted, reasons = complete(read_config(row))
    assert not is_open(fitted) and "None" not in str(fitted["method"]).replace("'momentum': None", "")
    checked = assemble.check(fitted)
    if row == "learned_views":  # its generator is that of another run
        checked["generator"]["learn"] = to_plain_data(load_config("learn_views")[0].generator.learn)
    parts = assemble.make_parts(checked, 10, make_mesh(jax.devices()[:1]))
    assert parts.total_steps == fitted["steps"] and parts.method.terms
    assert checked["data"]["batch"] <= FACTS.train and checked["eval"]["pairs"] <= FACTS.held_out
    assert {"steps", "data.batch", "views.size", "model.width", "eval.pairs"} <= set(reasons)


@pytest.mark.parametrize("row", ["infoaug_simclr", "infoaug_ir"])
def test_rows_of_twins_are_refused(row):
    with pytest.raises(UserError, match=r"pairs of patches from clips.*simclr:folder"):
        load_config(f"{row}:folder")


def test_a_config_that_was_not_fitted_is_refused_in_a_line():
    with pytest.raises(UserError, match=r"config\.steps is None: it is settled by the pictures"):
        assemble.check(read_config("simclr"))
    with pytest.raises(UserError, match=r"--config\.data\.name=folder:PATH"):
        assemble.check({**read_config("simclr", name=None), "steps": 3})


SET = {
    "steps": "77", "data.batch": "32", "views.size": "48", "model.width": "24", "data.size": "200", "eval.pairs": "5",
    "optim.warmup": "3", "model.backbone": "tiny", "data.resident": "False",
}  # fmt: skip


@pytest.mark.parametrize("path, value", SET.items())
def test_a_field_that_is_set_stays(path, value):
    config = to_plain_data(change(load_config("simclr:folder")[0], path, value))
    fitted, reasons = fit({**config, "data": {**config["data"], **KNOWN}}, FACTS)
    assert str(fitting.get_field(fitted, path)) == value and path not in reasons
    assert str(fitting.get_field(fit(read_config("simclr"), FACTS)[0], path)) != value


@pytest.mark.parametrize(
    "row, path, value, message",
    [
        ("simclr", "data.batch", "153", r"config\.data\.batch is 153, and 152 pictures are trained on; give 64 or"),
        ("simclr", "eval.pairs", "9", r"config\.eval\.pairs is 9, and 8 pictures are held out; give at most 8"),
    ],
)
def test_a_field_that_cannot_be_had_is_refused(row, path, value, message):
    config = to_plain_data(change(load_config(f"{row}:folder")[0], path, value))
    with pytest.raises(UserError, match=message):
        fit({**config, "data": {**config["data"], **KNOWN}}, FACTS)


def test_supcon_needs_labels_and_few_pictures_are_refused():
    with pytest.raises(UserError, match="has no labels; put each class in a folder"):
        fit(read_config("supcon"), replace(FACTS, classes=0))
    fit(read_config("simclr"), replace(FACTS, classes=0))
    uses = "2 can't be read, 5 to train on, 2 held out to measure training, 1 to test on"
    message = rf"5 pictures of folder:x are too few to train on \({uses}\); give at least 3 more, or smaller groups"
    with pytest.raises(UserError, match=message):
        fit(read_config("simclr"), replace(FACTS, train=5, held_out=2, uses=uses))
    with pytest.raises(UserError, match="1 pictures of folder:x are too few to measure training on"):
        fit(read_config("simclr"), replace(FACTS, train=12, held_out=1))
    assert fit(read_config("simclr"), replace(FACTS, train=8, held_out=2))[0]["steps"]


@pytest.mark.parametrize(
    "short, backend, size, backbone, width, dtype",
    [
        (32, "cpu", 64, "tiny", 64, "float32"),
        (128, "cpu", 96, "resnet18", 16, "float32"),
        (3000, "cpu", 96, "resnet18", 16, "float32"),
        (32, "gpu", 64, "resnet18", 64, "bfloat16"),
        (128, "gpu", 96, "resnet18", 64, "bfloat16"),
        (3000, "gpu", 224, "resnet50", 64, "bfloat16"),
    ],
)
def test_size_and_model_go_by_pictures_and_device(short, backend, size, backbone, width, dtype):
    fitted, _ = fit(
        read_config("simclr"), replace(FACTS, short_side=short, backend=backend, train=20_000, held_out=1000)
    )
    model = fitted["model"]
    assert (fitted["views"]["size"], model["backbone"], model["width"], model["dtype"]) == (
        size,
        backbone,
        width,
        dtype,
    )


@pytest.mark.parametrize("count, held", [(23, 2), (152, 8), (4750, 250), (285_000, 15_000)])
@pytest.mark.parametrize("short", [40, 128, 500])
def test_a_run_on_a_processor_takes_minutes(count, held, short):
    facts = replace(FACTS, train=count, held_out=held, short_side=short)
    fitted, _ = fit(read_config("moco"), facts)
    batch, steps = fitted["data"]["batch"], fitted["steps"]
    minutes = steps * batch / fitting.compute_rate(facts, fitted["views"]["size"], fitted["model"]) / 60
    assert minutes <= fitting.MINUTES + 0.1 and steps >= fitting.LEAST_STEPS
    assert fitted["method"]["pools"]["queue"]["size"] <= max(count, batch)


@pytest.mark.parametrize(
    "train, held, backend", [(43, 2, "cpu"), (152, 8, "cpu"), (152, 8, "gpu"), (20_000, 1000, "gpu")]
)
def test_the_epochs_that_are_told_are_how_often_each_picture_is_seen(train, held, backend):
    fitted, reasons = fit(read_config("simclr"), replace(FACTS, train=train, held_out=held, backend=backend))
    epochs, count = re.search(r"([\d,.]+) epochs of ([\d,]+) images", reasons["steps"]).groups()
    seen = fitted["steps"] * fitted["data"]["batch"] / train
    assert count == f"{train:,}" and float(epochs.replace(",", "")) == pytest.approx(seen, rel=0.005)


@pytest.mark.parametrize("train, held", [(43, 2), (152, 8), (4750, 250)])
def test_the_minutes_that_are_told_are_those_of_the_steps_and_of_what_is_beside_them(train, held):
    facts = replace(FACTS, train=train, held_out=held)
    fitted, reasons = fit(read_config("simclr"), facts)
    seconds = fitted["steps"] * fitted["data"]["batch"] / (2 * fitting.RESNET_RATE)  # at the size that was measured
    told = int(re.search(r"about (\d+) minutes on 2 cores", reasons["steps"])[1])
    assert abs(60 * told - seconds - fitting.OVERHEAD) <= 30 < seconds


def test_later_starts_take_what_the_first_has_settled():
    config = read_config("la")
    fitted, _ = complete(config)
    assert take_stored(config, fitted) == fitted
    assert take_stored({**config, "steps": 7}, fitted) == {**fitted, "steps": 7}


def test_weights_give_model_and_size():
    published = {"model": {"backbone": "resnet34", "width": 64, "stem": "imagenet", "dtype": "float32"}, "size": 224,
                 "mean": (0.5,) * 3, "std": (0.2,) * 3}  # fmt: skip
    fitted, _ = fit(read_config("simclr"), replace(FACTS, published=published))
    assert fitted["model"]["backbone"] == "resnet34" and fitted["views"]["size"] == 224
