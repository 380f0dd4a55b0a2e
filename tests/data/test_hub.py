"""Sets of Hugging Face's `datasets`, from folders and files on this machine."""

import io

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import own, sets
from tests.data.test_own import look

datasets = pytest.importorskip("datasets", reason="needs the extra [hf]")
pytestmark = pytest.mark.filterwarnings("default")  # of `datasets` and what it imports


@pytest.fixture(autouse=True)
def stay_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def picture(number):
    return Image.fromarray(np.full((20, 30, 3), (number * 6, 255 - number, number), np.uint8))


def make_table(count, shift=0, label=True):
    cells, words = [], []
    for number in range(shift, shift + count):
        stream = io.BytesIO()
        picture(number).save(stream, "PNG")
        cells.append({"bytes": stream.getvalue(), "path": f"pic_{number:02d}.png"})
        words.append(number % 2 if label else -1)
    kinds = datasets.Features(image=datasets.Image(), kind=datasets.ClassLabel(names=["even", "odd"]))
    return datasets.Dataset.from_dict({"image": cells, "kind": words}, features=kinds)


def check_pixels(images, count=40):
    rows = images.images(np.arange(len(images)))
    numbers = rows[:, 0, 0, 2].tolist()
    assert sorted(numbers) == list(range(count))
    assert [images.classes["label"][i] for i in images.labels["label"]] == ["odd" if n % 2 else "even" for n in numbers]


def test_parquet_in_a_folder_and_as_a_file(tmp_path):
    (tmp_path / "set").mkdir()
    make_table(40).to_parquet(str(tmp_path / "set" / "train-00000-of-00001.parquet"))
    for path in (tmp_path / "set", tmp_path / "set" / "train-00000-of-00001.parquet"):
        check_pixels(sets.load(f"hf:{path}", "train", labels="label"))
    seen = look(f"hf:{tmp_path / 'set'}")
    assert seen.data["labels"] == "label" and seen.data["test_share"] == 0.2
    assert seen.train + seen.held_out + seen.test == 40 and seen.short_side == 20
    assert "pic_07.png" in " ".join(own.collect("hf", str(tmp_path / "set"), "none").names)


def test_an_image_folder(tmp_path):
    for number in range(40):
        file = tmp_path / "set" / "train" / ("odd" if number % 2 else "even") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    check_pixels(sets.load(f"hf:{tmp_path / 'set'}", "train", labels="label"))


def test_what_save_to_disk_writes_keeps_its_test_part_and_drops_one_without_labels(tmp_path):
    parts = {"train": make_table(30), "validation": make_table(10, 30), "test": make_table(5, 40, label=False)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    seen = look(f"hf:{tmp_path / 'set'}")
    assert seen.data["test_split"] == "validation" and seen.data["test_share"] == 0
    assert (seen.train + seen.held_out, seen.test) == (30, 10)


def test_mistakes_end_in_a_line(tmp_path):
    make_table(4).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(UserError, match=r"unknown column of labels .*'knd'; did you mean 'kind'"):
        sets.load(f"hf:{tmp_path / 'a.parquet'}", "train", labels="knd")
    with pytest.raises(UserError, match="datasets can't load nobody/none"):
        sets.load("hf:nobody/none", "train")
    datasets.Dataset.from_dict({"x": [1, 2]}).to_parquet(str(tmp_path / "b.parquet"))
    with pytest.raises(UserError, match="has no column of images, but x"):
        sets.load(f"hf:{tmp_path / 'b.parquet'}", "train")
