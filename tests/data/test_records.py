"""TFDS sets on disk, against TFDS's own reading; every way in which a set can be missing or broken is one line."""

import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import fingerprint, sets
from tests.data.toys import SHARED

SIZES = [(8, 6)] * 39 + [(9, 6)]  # the last image of 'train' has another shape


def picture(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


class TinySet(tfds.core.GeneratorBasedBuilder):
    """40 train and 10 test images, two labels, and things that a reader must leave alone."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = epath.Path(__file__)

    def _info(self):
        features = {
            "colour": tfds.features.ClassLabel(names=["red", "green", "blue"]),
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "mask": tfds.features.Image(shape=(None, None, 1)),
            "caption": tfds.features.Text(),
            "boxes": tfds.features.Sequence({"box": tfds.features.BBoxFeature(), "area": np.int64}),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, SIZES), "test": self._generate_examples(100, SIZES[:10])}

    def _generate_examples(self, seed, shapes):
        for i, shape in enumerate(shapes):
            png = io.BytesIO()
            Image.fromarray(picture(seed + i, shape)).save(png, "PNG")
            yield (
                i,
                {
                    "colour": i % 3,
                    "image": io.BytesIO(png.getvalue()),
                    "label": i % 2,
                    "mask": io.BytesIO(b"never decoded"),
                    "caption": f"number {i}",
                    "boxes": [{"box": tfds.features.BBox(0.0, 0.0, 1.0, 1.0), "area": i}] * (i % 3),
                },
            )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tiny")
    builder = TinySet(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_dir=data_dir / "none")
    return data_dir


@pytest.fixture
def copy(made, tmp_path):
    """A copy to break."""
    shutil.copytree(made / "tiny_set", tmp_path / "tiny_set")
    return tmp_path


def version(data_dir):
    return data_dir / "tiny_set" / "1.2.0"


def test_images_and_labels_come_in_their_order(made):
    images = sets.load("tiny_set", "train[:39]", data_dir=made)
    assert len(images) == 39 and images.image_shape == (8, 6, 3)
    expected = np.stack([picture(i, (8, 6)) for i in range(39)])
    assert np.array_equal(images.images(np.arange(39)), expected)
    assert np.array_equal(images.images([7, 3, 7]), expected[[7, 3, 7]])
    assert list(images.labels) == ["label", "colour"]
    assert images.labels["colour"].tolist() == [i % 3 for i in range(39)] and images.labels["label"].dtype == np.int32
    assert images.classes == {"label": ("cat", "dog"), "colour": ("red", "green", "blue")}
    assert images.factors == {} and images.groups is None


def test_sub_splits_count_from_zero(made):
    for split, members in (
        ("train[25%:50%]", range(10, 20)),
        ("train[-3:-1]", range(37, 39)),
        ("train[:2]+train[30:33]", [0, 1, 30, 31, 32]),
        ("test[:1]+train[5:6]", [100, 5]),
    ):
        images = sets.load("tiny_set", split, data_dir=made)
        assert np.array_equal(images.images(np.arange(len(images))), np.stack([picture(i, (8, 6)) for i in members]))


def test_versions_and_configs_by_name(copy):
    shutil.copytree(version(copy), copy / "tiny_set" / "1.10.0")
    assert len(sets.load("tiny_set:1.2.0", "test", data_dir=copy)) == 10
    (version(copy) / "dataset_info.json").unlink()  # no longer a set: the newest alone is left
    assert len(sets.load("tiny_set", "test", data_dir=str(copy))) == 10
    with pytest.raises(UserError, match=r"tiny_set:1.2.0 is not in .*; tiny_set is there as 1\.10\.0"):
        sets.load("tiny_set:1.2.0", "test", data_dir=copy)
    for config in ("large", "small"):
        shutil.copytree(copy / "tiny_set" / "1.10.0", copy / "many" / config / "1.0.0")
    assert len(sets.load("many/small", "test", data_dir=copy)) == 10
    with pytest.raises(UserError, match="several configs; one of: many/large, many/small"):
        sets.load("many", "test", data_dir=copy)


def test_images_of_other_sizes_need_data_size(made):
    images = sets.load("tiny_set", "train", data_dir=made)
    images.images([38, 0])
    with pytest.raises(
        UserError, match=r"example 39 of tiny_set train: 6 x 9 pixels, where .* 6 x 8 pixels; give data.s"
    ):
        images.images([38, 39])
    assert sets.load("tiny_set", "train", data_dir=made, size=4).images([38, 39]).shape == (2, 4, 4, 3)
    for size in (0, -3, 2.5, True):
        with pytest.raises(UserError, match=r"data.size is"):
            sets.load("tiny_set", "train", data_dir=made, size=size)


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("tiny_sett", "train", "unknown data set 'tiny_sett'; did you mean 'tiny_set'. .* has tiny_set"),
        ("moving_digit", "train", "did you mean 'moving_digits'"),
        ("mnits", "train", "did you mean 'mnist'"),
        ("tiny_set", "trian", "unknown split of tiny_set 'trian'; did you mean 'train'"),
        ("tiny_set", "train+tets", "did you mean 'test'"),
        ("tiny_set", "train[40%:40%]", r"split 'train\[40%:40%\]' of tiny_set is empty"),
        ("tiny_set", "train[30:20]", "is empty"),
        ("tiny_set", "train[:1%]", "is empty"),
        ("tiny_set", "train[:50", r"split 'train\[:50' of tiny_set: Unrecognized"),
        ("tiny_set", "train[:5000]", "5000.* incompatible with 40"),
        ("tiny_set", "train[:120%]", "slice boundaries"),
    ],
)
def test_a_wrong_name_is_one_line(made, name, split, said):
    with pytest.raises(UserError, match=said) as caught:
        sets.load(name, split, data_dir=made)
    assert "\n" not in str(caught.value)


def test_options_belong_to_the_embedded_set(made):
    with pytest.raises(UserError, match=r"tiny_set takes no data.options, but has length"):
        sets.load("tiny_set", "train", data_dir=made, options={"length": 3})
    with pytest.raises(UserError, match=r"did you mean .tiny_set."):
        sets.load("tiny_sett", "train", data_dir=made, options={"length": 3})


def test_a_set_that_is_not_there_has_its_command(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cifar100/fine is not in") as caught:
        sets.load("cifar100/fine", "train", data_dir=tmp_path / "nowhere")
    command = re.search(r'python -c "(.*)" \(where that asks', str(caught.value)).group(1)
    asked = {}
    monkeypatch.setattr(tfds, "builder", lambda *a, **k: asked.update(a=a, k=k) or TinySet(data_dir=tmp_path, **FORMAT))
    monkeypatch.setattr(TinySet, "download_and_prepare", lambda self: asked.update(done=True))
    exec(command)
    assert asked == {
        "a": ("cifar100/fine",), "done": True, "k": {"data_dir": str(tmp_path / "nowhere"), **FORMAT}
    }  # fmt: skip


FORMAT = {"file_format": "array_record"}


def test_a_set_in_a_format_that_is_not_read(copy):
    info = version(copy) / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"riegeli"'))
    with pytest.raises(UserError, match=r"is stored as riegeli, not as ArrayRecord; prepare it elsewhere: python -c"):
        sets.load("tiny_set", "train", data_dir=copy)


@pytest.mark.parametrize("left", [100_000, 65_536, 10_000, 0])  # the first reads as 0 records, without an error
def test_a_truncated_file(copy, left):
    (file,) = version(copy).glob("*-train.*")
    assert len(file.read_bytes()) > left
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(
        UserError, match=r"holds 0 of the 40 records of tiny_set.*; it is missing, truncated or damaged"
    ):
        sets.load("tiny_set", "train", data_dir=copy)
    assert len(sets.load("tiny_set", "test", data_dir=copy)) == 10  # which is whole


def test_a_missing_file(copy):
    (file,) = version(copy).glob("*-train.*")
    file.unlink()
    with pytest.raises(UserError, match="array_record-00000-of-00001 holds 0 of the 40"):
        sets.load("tiny_set", "train", data_dir=copy)


def test_a_damaged_record_is_named(copy):
    (file,) = version(copy).glob("*-train.*")
    data = bytearray(file.read_bytes())
    data[data.index(b"number 17")] ^= 1
    file.write_bytes(data)
    images = sets.load("tiny_set", "train[:39]", data_dir=copy)
    assert len(images.images([16, 18])) == 2
    with pytest.raises(UserError, match=r"example 17 of tiny_set train\[:39\]: the record is damaged"):
        images.images([16, 17, 18])
    with pytest.raises(UserError, match="example 17"):
        len(images.labels["label"])


def test_damaged_records_follow_the_share(copy):
    whole = sets.load("tiny_set", "train[:39]", data_dir=copy)
    shown, truth = whole.images(np.arange(39)), np.asarray(whole.labels["label"])
    later = sets.load("tiny_set", "train[:39]", data_dir=copy, broken=0.1)
    (file,) = version(copy).glob("*-train.*")
    data = bytearray(file.read_bytes())
    data[data.index(b"number 17")] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"1 of 39 images of tiny_set train\[:39\] can't be read: 17: "):
        sets.load("tiny_set", "train[:39]", data_dir=copy, broken=0.01)
    left, keep = sets.load("tiny_set", "train[:39]", data_dir=copy, broken=0.1), np.delete(np.arange(39), 17)
    assert np.array_equal(left.images(np.arange(38)), shown[keep])
    assert np.array_equal(left.labels["label"], truth[keep]) and left.fingerprint["broken"] == ["17"]
    wanted = np.where(np.arange(39) == 17, 18, np.arange(39))
    for again in (later, sets.load("tiny_set", "train[:39]", data_dir=copy, broken=0.1, known_broken=())):
        assert np.array_equal(again.images(np.arange(39)), shown[wanted])
        assert np.array_equal(again.labels["label"], truth[wanted])


def test_a_set_without_pictures(copy):
    features = version(copy) / "features.json"
    features.write_text(
        features.read_text().replace('"image": {\n                "image"', '"picture": {\n                "image"')
    )
    with pytest.raises(
        UserError, match="tiny_set has no feature 'image'; its features: boxes, caption, colour, label, mask, picture"
    ):
        sets.load("tiny_set", "train", data_dir=copy)


@pytest.mark.slow
def test_cifar10_is_what_tfds_reads(cifar10):
    theirs = tfds.data_source("cifar10", split="train", data_dir=SHARED)
    assert len(cifar10) == len(theirs) == 25000 and cifar10.image_shape == (32, 32, 3)
    asked = np.random.default_rng(0).integers(0, 25000, 40)
    assert np.array_equal(cifar10.images(asked), np.stack([theirs[int(i)]["image"] for i in asked]))
    assert [cifar10.labels["label"][i] for i in asked] == [theirs[int(i)]["label"] for i in asked]
    assert np.bincount(cifar10.labels["label"]).tolist() == [2500] * 10 and cifar10.classes["label"][3] == "cat"


def test_grey_and_several_labels():
    if not (SHARED / "omniglot8").is_dir():
        pytest.skip("needs ../shared/data/tfds/omniglot8")
    images = sets.load("omniglot8", "test", data_dir=SHARED, size=35)
    found = images.images([0, 1])
    assert found.shape == (2, 35, 35, 3) and (found[..., :1] == found).all()
    assert list(images.labels) == ["label", "alphabet"] and len(images.classes["alphabet"]) == 8


@pytest.mark.slow
def test_tensorflow_is_never_imported(made):
    read = (
        "import sys; from mi_contrast.data import sets, readers, pairing;"
        f"images = sets.load('tiny_set', 'test', data_dir={str(made)!r}); images.images([0]); images.labels['label'];"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def rewrite_info(directory, change):
    """Changes a prepared set's dataset_info.json."""
    file = directory / "dataset_info.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def test_the_fingerprint_is_of_version_shards_and_bytes_of_the_splits_that_are_read(copy):
    directory = version(copy)
    read = lambda split="train": sets.load("tiny_set", split, data_dir=copy).fingerprint  # noqa: E731
    before, test = read(), read("test")
    assert before["set"] == "tiny_set/1.2.0" and before["version"] == "1.2.0"
    assert before["splits"]["train"]["shards"] == [40] and before["splits"]["train"]["bytes"] > 0
    assert read("train[:50%]") == before != test and set(read("train+test")["splits"]) == {"train", "test"}
    assert fingerprint.describe_change(before, read()) is None, "control: nothing changed"
    rewrite_info(directory, lambda info: info["splits"][0].update(numBytes="1"))
    first = info_of(directory)["splits"][0]["name"]
    changed, same = ("train", "test") if first == "train" else ("test", "train")
    old = {"train": before, "test": test}
    assert fingerprint.describe_change(old[same], read(same)) is None
    said = fingerprint.describe_change(old[changed], read(changed))
    assert said.startswith("tiny_set/1.2.0 has splits ") and "the run began with" in said and "\n" not in said
    rewrite_info(directory, lambda info: info.update(version="1.3.0"))
    assert "has version 1.3.0, the run began with 1.2.0" in fingerprint.describe_change(old[same], read(same))


def info_of(directory):
    return json.loads((directory / "dataset_info.json").read_text())
