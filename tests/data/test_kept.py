"""What was read from a large set is kept: once read, found again, made anew where the set or the file has changed."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from mi_contrast.benchmarks.records import write_records
from mi_contrast.data import broken, kept, records, sets

FACTS = {"shards": [3], "split": "train"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_counter():
    calls = []

    def make():
        calls.append(1)
        return {"label": np.arange(5, dtype=np.int32), "names": np.array(["a", "bc"])}

    return calls, make


def test_arrays_are_made_once_and_anew_for_other_facts(tmp_path):
    calls, make = make_counter()
    for _ in range(3):
        arrays = kept.keep_arrays(str(tmp_path / "set"), "labels", FACTS, make)
        assert arrays["label"].tolist() == list(range(5)) and arrays["names"].tolist() == ["a", "bc"]
        assert arrays["label"].dtype == np.int32
    assert len(calls) == 1 and len(list((tmp_path / "set" / ".mi_contrast").glob("labels-*.npz"))) == 1
    kept.keep_arrays(str(tmp_path / "set"), "labels", FACTS | {"shards": [4]}, make)
    assert len(calls) == 2


def test_a_set_that_cannot_be_written_is_kept_in_the_users_cache(tmp_path, cache):
    calls, make = make_counter()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".mi_contrast").write_text("a file where the folder would be")
    for root in (str(tmp_path / "set"), "gs://bucket/set"):
        calls.clear()
        for _ in range(2):
            kept.keep_arrays(root, "labels", FACTS, make)
        assert len(calls) == 1
    assert len(list(cache.glob("mi_contrast/data/*/labels-*.npz"))) == 2 and not os.path.exists("gs:")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-40], lambda b: b"", lambda b: b.replace(bytes([3, 0, 0, 0, 4]), bytes([9, 0, 0, 0, 4]))]
)
def test_a_damaged_file_is_made_anew(tmp_path, capsys, damage):
    calls, make = make_counter()
    kept.keep_arrays(str(tmp_path), "labels", FACTS, make)
    (file,) = (tmp_path / ".mi_contrast").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert kept.keep_arrays(str(tmp_path), "labels", FACTS, make)["label"].tolist() == list(range(5))
    assert len(calls) == 2 and "is damaged and is made anew" in capsys.readouterr().err
    kept.keep_arrays(str(tmp_path), "labels", FACTS, make)
    assert len(calls) == 2


def test_labels_of_a_large_set_are_read_once(tmp_path, monkeypatch):
    write_records(tmp_path, 60)
    monkeypatch.setattr(records, "LARGE", 60)
    read, columns = [], records.Records.columns
    monkeypatch.setattr(records.Records, "columns", lambda self, names: read.append(1) or columns(self, names))
    for split, count in (("train", 1), ("train", 1), ("train[:40]", 2), ("train[:40]", 3)):
        labels = sets.load("many", split, data_dir=tmp_path).labels["label"]
        assert labels.tolist() == [i % 10 for i in range(60)][: len(labels)]
        assert len(read) == count  # the part of 40 is small and is read each time
    whole = sets.load("many", "train", data_dir=tmp_path).labels["label"]
    np.testing.assert_array_equal(whole, columns(records_of(tmp_path), ("label",))["label"])


def records_of(folder):
    return records.open_records(records.find_directory("many", records.epath.Path(folder)), "many", "train")


def test_a_large_folder_is_scanned_once_and_again_where_a_file_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "LARGE_SCAN", 6)
    root = tmp_path / "photos"
    for i in range(6):
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9), (i, 2 * i, 3 * i)).save(buffer, "PNG")
        file = root / f"class_{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getvalue() if i else b"no image")
    scanned, find = [], broken.find_broken
    monkeypatch.setattr("mi_contrast.data.folders.find_broken", lambda *a: scanned.append(1) or find(*a))
    for _ in range(2):
        images = sets.load(f"folder:{root}", "train", broken=0.5)
        assert len(images) == 5 and images.fingerprint["broken"] == ["class_0/0.png"]
    assert len(scanned) == 1
    os.utime(root / "class_1" / "1.png", (1, 1))
    assert len(sets.load(f"folder:{root}", "train", broken=0.5)) == 5 and len(scanned) == 2
