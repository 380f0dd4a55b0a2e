"""load: from exports and run directories, every tensor matched; each way to be wrong refuses in one clear line."""

import hashlib
import json
import logging
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import load, open_source, write_export
from tests.interchange.conftest import CONFIG, MODEL, SPLIT, YDBDR, make_run
from tests.models import twins

BYTES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)


def rewrite(export, change, *, relisted=True):
    """Changes the tensors of an export and mends the sum, and with `relisted` the manifest's list of tensors."""
    file, manifest = export / "backbone.safetensors", json.loads((export / "manifest.json").read_text())
    tensors = change(safetensors.numpy.load_file(file))
    data = safetensors.numpy.save(tensors)
    file.write_bytes(data)
    manifest["sha256"] = hashlib.sha256(data).hexdigest()
    if relisted:
        manifest["tensors"] = {n: {"shape": list(t.shape), "dtype": str(t.dtype)} for n, t in tensors.items()}
    (export / "manifest.json").write_text(json.dumps(manifest))


def refusal(path):
    with pytest.raises(UserError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_export_says_what_was_loaded(export, caplog):
    with caplog.at_level(logging.INFO, logger="mi_contrast"):
        loaded = open_source(export)
    assert str(loaded) == f"loaded 100 of 100 tensors from {export}" == caplog.messages[-1]
    assert (loaded.step, loaded.config["seed"], len(loaded.sha256)) == (7, 3, 64)


def test_the_file_inside_an_export_will_do(export, representation):
    found = load(str(export / "backbone.safetensors"))
    np.testing.assert_array_equal(found.encode(BYTES), representation.encode(BYTES))


def test_an_untouched_rewrite_loads(export, representation):
    """The control of the refusals below."""
    rewrite(export, lambda tensors: tensors)
    np.testing.assert_array_equal(load(export).encode(BYTES), representation.encode(BYTES))


def test_a_flipped_bit_is_refused(export):
    file = export / "backbone.safetensors"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    assert "sha256" in refusal(export) and "sha256" in refusal(file)


def test_a_truncated_file_is_refused(export):
    file = export / "backbone.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "sha256" in refusal(export)


@pytest.mark.parametrize("relisted", [True, False])
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: {n: x for n, x in t.items() if n != "layer3.0.conv2.weight"}, "lacks 'layer3.0.conv2.weight'"),
        (lambda t: t | {"fc.weight": np.zeros(3, np.float32)}, "has 'fc.weight'"),
        (
            lambda t: {n.replace("layer4.0.downsample", "layer4.0.shortcut"): x for n, x in t.items()},
            "did you mean 'layer4.0.shortcut.0.weight'?",
        ),
        (lambda t: t | {"conv1.weight": t["conv1.weight"][:2]}, "'conv1.weight' is float32[2, 3, 3, 3]"),
        (lambda t: t | {"conv1.weight": t["conv1.weight"].astype(np.float16)}, "'conv1.weight' is float16"),
    ],
)
def test_other_tensors_are_refused(export, change, word, relisted):
    rewrite(export, change, relisted=relisted)
    message = refusal(export)
    assert word in message and " of 1" in message, message


def test_a_broken_manifest_is_refused(export):
    path = export / "manifest.json"
    good = json.loads(path.read_text())
    for change, word in [
        ({"format": "another"}, "not a manifest"),
        ({"format_version": 99}, "format version 99"),
        ({"file": "../../backbone.safetensors"}, "outside its directory"),
        ({"file": "weights.safetensors"}, "can't read"),
        ({"model": MODEL | {"width": 8}}, "the network's is"),
        ({"model": MODEL | {"backbone": "resnet81"}}, "did you mean 'resnet18'"),
    ]:
        path.write_text(json.dumps(good | change))
        assert word in refusal(export)
    path.write_text(json.dumps({n: v for n, v in good.items() if n != "preprocessing"}))
    assert "no 'preprocessing'" in refusal(export)
    path.write_text("{")
    assert "not valid JSON" in refusal(export)


def test_weights_that_the_manifest_beside_them_does_not_name_are_refused(export):
    shutil.copy(export / "backbone.safetensors", export / "other.safetensors")
    assert "not the file that its manifest names" in refusal(export / "other.safetensors")


def test_other_paths_are_refused_with_the_nearest(export):
    message = refusal(export.parent / "exprot")
    assert "does not exist; did you mean 'export'?" in message and "give a run directory" in message
    assert "neither a run directory nor an export" in refusal(export.parent)
    (export.parent / "notes.txt").write_text("")
    assert "neither a run directory nor an export" in refusal(export.parent / "notes.txt")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "moco")


@pytest.mark.parametrize(("weights", "seed"), [("online", 0), ("target", 1)])
def test_a_run_directory_gives_the_weights_its_config_names(run, weights, seed):
    config = json.loads(run.config.read_text())
    config["config"]["export"]["weights"] = weights
    run.config.write_text(json.dumps(config))
    loaded = open_source(run.root)
    jax.tree.map(np.testing.assert_array_equal, loaded.representation.variables, twins.random_variables(MODEL, seed))
    assert (loaded.tensors, loaded.step, loaded.sha256) == (100, 40, None)
    assert loaded.representation.spec["size"] == 16 and loaded.config["seed"] == 3


def test_an_export_from_before_there_were_splits_still_loads(export, representation):
    path = export / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["split"], manifest["model"]["split"]
    path.write_text(json.dumps(manifest))
    found = load(export)
    assert found.spec == representation.spec
    np.testing.assert_array_equal(found.encode(BYTES), representation.encode(BYTES))


def test_a_run_directory_of_a_split_gives_both_networks(tmp_path, split):
    model = SPLIT | dict(head=dict(kind="mlp_bn"), predictor=dict(hidden=4), jigsaw=dict(dim=4))
    run = make_run(tmp_path / "cmc", CONFIG | dict(model=model, views=YDBDR), model=SPLIT)
    loaded = open_source(run.root)
    assert loaded.representation.spec == split.spec and loaded.tensors == 2 * 3 * 5
    np.testing.assert_array_equal(loaded.representation.encode(BYTES), split.encode(BYTES))


def test_one_network_is_not_taken_for_two_nor_two_for_one(tmp_path, split):
    single = {n: v for n, v in SPLIT.items() if n != "split"}
    run = make_run(tmp_path / "two", CONFIG | dict(model=single), model=SPLIT)
    assert "(0 of 15 tensors match); did you mean 'params.first.bn1.bias'?" in refusal(run.root)
    run = make_run(tmp_path / "one", CONFIG | dict(model=SPLIT, views=YDBDR), model=single)
    assert "lacks 'params.first.bn1.bias' (0 of 30 tensors match)" in refusal(run.root)
    write_export(tmp_path / "export", split, config={}, commit=None)
    rewrite(tmp_path / "export", lambda t: {n: x for n, x in t.items() if not n.startswith("second.")})
    assert "lacks 'second.bn1.bias' (15 of 30 tensors match)" in refusal(tmp_path / "export")


def test_a_run_of_another_network_is_refused(tmp_path):
    other = CONFIG | {"model": MODEL | {"width": 8}}
    message = refusal(make_run(tmp_path / "wide", other).root)
    assert "the network's is" in message and "of 100 tensors match" in message
    tiny = CONFIG | {"model": dict(backbone="tiny", width=4)}
    assert "tensors match)" in refusal(make_run(tmp_path / "tiny", tiny).root)


def test_a_run_without_its_parts_is_refused(tmp_path):
    run = make_run(tmp_path / "run", networks={"online": {"params": {"head": {"x": np.zeros(2, np.float32)}}}})
    assert "(0 of 100 tensors match)" in refusal(run.root)
    run.config.write_text(json.dumps({"config": {"model": MODEL}}))
    assert "not a run's config" in refusal(run.root)
    shutil.rmtree(run.checkpoints)
    run.config.write_text(json.dumps({"config": CONFIG}))
    assert "no checkpoint" in refusal(run.root)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(export, value):
    """The encoder may give finite features all the same, since a ReLU can swallow NaN at some sizes."""

    def spoil(tensors):
        changed = tensors["layer2.0.conv1.weight"].copy()
        changed[0, 0, 0, 0] = value
        return tensors | {"layer2.0.conv1.weight": changed}

    rewrite(export, spoil)
    assert "'layer2.0.conv1.weight' has 1 of " in refusal(export)
    (export / "manifest.json").unlink()
    assert "'layer2.0.conv1.weight' has 1 of " in refusal(export / "backbone.safetensors")


def test_a_checkpoint_that_is_not_finite_is_refused_by_name(tmp_path):
    variables = twins.random_variables(MODEL)
    variables["batch_stats"]["bn1"]["mean"] = np.full_like(variables["batch_stats"]["bn1"]["mean"], np.nan)
    tower = {name: {"backbone": part} for name, part in variables.items()}
    run = make_run(tmp_path / "bad", networks={"online": tower, "target": tower})
    assert "'bn1.running_mean' has 4 of 4" in refusal(run.root)
