import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

import mi_contrast
from mi_contrast.evaluation.feature_cache import compute_digest, describe_split, load_or_extract
from tests import devices
from tests.evaluation.fake import image_set

KEY = {"set": "folder:/a b", "split": "train[:9]", "variables": "ab"}


class Counted:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return np.arange(12, dtype=np.float32).reshape(4, 3)


def test_features_are_taken_once_a_key(tmp_path):
    take = Counted()
    one, two = (load_or_extract(tmp_path / "features", KEY, take) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert take.calls == 1 and one.dtype == np.float32
    load_or_extract(tmp_path / "features", KEY | {"variables": "ac"}, take)
    load_or_extract(tmp_path / "features", KEY | {"layer": "map"}, take)
    assert take.calls == 3 and len(list((tmp_path / "features").iterdir())) == 3
    load_or_extract(None, KEY, take)
    assert take.calls == 4


def test_features_of_another_version_are_taken_anew(tmp_path, monkeypatch):
    take = Counted()
    load_or_extract(tmp_path, KEY, take)
    with monkeypatch.context() as patched:
        patched.setattr(mi_contrast, "__version__", "0.1.0")
        load_or_extract(tmp_path, KEY, take)
    assert take.calls == 2
    load_or_extract(tmp_path, KEY, take)
    assert take.calls == 2, "control: those of this version are there"


def test_features_of_files_that_changed_are_taken_anew():
    """Neither the labels nor the images that are looked at tell these apart; the fingerprint of the files does."""
    images = image_set(40, "train", name="folder:photos", seed=0)
    before = replace(images, fingerprint={"count": 40, "sum": "a", "sizes": [1]})
    assert describe_split(before) == describe_split(
        replace(before, fingerprint={"count": 40, "sum": "a", "sizes": [2]})
    )
    assert describe_split(before) != describe_split(
        replace(before, fingerprint={"count": 40, "sum": "b", "sizes": [1]})
    )


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another", "rewritten"])
def test_a_damaged_file_is_taken_anew_with_one_line(tmp_path, capsys, damage):
    take = Counted()
    expected = load_or_extract(tmp_path, KEY, take)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        at = data.find(expected.tobytes())
        data[at + 5] ^= 64
        path.write_bytes(data)
    elif damage == "rewritten":  # whole as a file, with other numbers
        with np.load(path) as file:
            np.savez(path, values=file["values"] + 1, key=file["key"], sha256=file["sha256"])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        load_or_extract(tmp_path, KEY | {"variables": "other"}, lambda: expected + 1)
        next(p for p in tmp_path.iterdir() if p != path).replace(path)
    np.testing.assert_array_equal(load_or_extract(tmp_path, KEY, take), expected)
    assert take.calls == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "damaged" in said and path.name in said
    load_or_extract(tmp_path, KEY, take)
    assert take.calls == 2 and capsys.readouterr().err == ""


def test_every_bit_of_the_variables_and_every_change_of_the_data_counts():
    tree = {"params": {"a": np.zeros(3, np.float32)}, "batch_stats": {"a": np.ones(3, np.float32)}}
    other = jax.tree.map(np.array, tree)
    assert compute_digest(tree) == compute_digest(jax.tree.map(jax.numpy.asarray, other))
    other["batch_stats"]["a"][2] = np.nextafter(np.float32(1), np.float32(2))
    assert compute_digest(tree) != compute_digest(other)
    assert compute_digest(tree) != compute_digest({"params": tree["batch_stats"], "batch_stats": tree["params"]})
    images = image_set(40)
    changed = [
        replace(images, split="other"),
        image_set(40, seed=1),
        image_set(40, size=9),
        replace(images, labels={"colour": np.roll(images.labels["colour"], 1)}),
        replace(images, classes={"colour": tuple("abce")}),
    ]
    found = {str(describe_split(each)) for each in (images, *changed)}
    assert len(found) == 6 and str(describe_split(image_set(40))) in found


SHARDED = """
import jax, numpy as np
from mi_contrast.evaluation.features import encode_all
from mi_contrast.core.mesh import make_mesh, replicated
from mi_contrast.models import representation, towers
from dataclasses import replace
from tests.evaluation.fake import image_set
model = dict(backbone="tiny", width=8)
variables = towers.build(model).init(jax.random.key(0), (8, 8, 3))
one = representation.from_tower(variables, model, mean=(.5,) * 3, std=(.25,) * 3, size=8)
four = replace(one, variables=jax.device_put(one.variables, replicated(make_mesh())))
images = image_set(21)
a, b = (encode_all(e, images, batch_size=8) for e in (one, four))
assert jax.device_count() == 4 and representation.find_data_mesh(four.variables) is not None
np.testing.assert_allclose(a, b, atol=1e-6)
print("alike")
"""


@pytest.mark.slow
def test_features_over_four_devices_are_those_of_one(tmp_path):
    command, environment = [sys.executable, "-c", SHARDED], devices.environment(4)
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "alike", found.stderr
