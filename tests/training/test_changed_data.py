"""A run goes on only with the data it began with; what changed is named."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mi_contrast import evaluate
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.core.layout import RunDirectory
from mi_contrast.data import fingerprint, folders, pictures
from mi_contrast.training.loop import run
from tests.data.test_records import TinySet
from tests.test_compatibility import FIXTURES
from tests.training.small import config

CHANGES = {
    "data__name": "folder:photos", "data__options": {}, "data__shared": (), "data__size": 32, "steps": 3,
    "eval__every": 3, "eval__pairs": 2, "method__pools": {"queue": {"size": 64}},
}  # fmt: skip


def asked(root):
    return config("moco", **CHANGES, data__dir=str(root))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with photos/ and run/, stopped at step 2 of 3."""
    root = tmp_path_factory.mktemp("changed")
    for i in range(80):
        file = root / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    run(asked(root), root / "run", stop_at=2)
    return root


@pytest.fixture
def there(begun, tmp_path):
    """(the place of photos/, which a run names; a copy of run/): photos/ is put back afterwards."""
    shutil.copytree(begun / "run", tmp_path / "run")
    shutil.copytree(begun / "photos", tmp_path / "photos")
    yield begun, tmp_path / "run"
    shutil.rmtree(begun / "photos")
    shutil.copytree(tmp_path / "photos", begun / "photos")


def remove(photos):
    (photos / "cat" / "3.png").unlink()


def rename(photos):
    (photos / "cat" / "3.png").rename(photos / "cat" / "4.png")


def resize(photos):
    Image.new("RGB", (32, 32)).save(photos / "cat" / "3.png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove, "has 79 files, the run began with 80: cat/3.png is missing"),
        (rename, "has 80 files, the run began with 80: cat/3.png is missing, cat/4.png is new"),
        (resize, "has 80 files, the run began with 80: cat/3.png is of another size"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_changed_data_are_refused_in_one_line(there, change, said, named):
    root, folder = there
    if not named:
        record = json.loads((folder / "data.json").read_text())
        del record["sizes"]  # as of a larger set
        (folder / "data.json").write_text(json.dumps(record))
        said = said.partition(":")[0]
    change(root / "photos")
    with pytest.raises(UserError, match=said) as caught:
        run(asked(root), folder)
    assert "\n" not in str(caught.value)


def test_unchanged_data_go_on(there):
    root, folder = there
    (root / "photos" / ".DS_Store").write_bytes(b"x")
    assert run(asked(root), folder).complete


@pytest.mark.parametrize("hidden", [False, True])
def test_a_run_without_a_fingerprint_goes_on_where_the_files_are_those_of_0_1_0(there, hidden):
    root, folder = there
    (folder / "data.json").unlink()
    if not hidden:
        assert run(asked(root), folder).complete and (folder / "data.json").is_file()
        return
    (root / "photos" / "@eaDir").mkdir()
    shutil.copy(root / "photos" / "cat" / "3.png", root / "photos" / "@eaDir")
    with pytest.raises(UserError, match=r"began under 0.1.0, which lists other files"):
        run(asked(root), folder)


def test_the_sum_has_no_order_and_sees_every_name_and_size():
    sizes = {f"{i}.jpg": i for i in range(50)}
    first = fingerprint.fingerprint_files(sizes, ("a",), "x")
    assert (
        fingerprint.describe_change(first, fingerprint.fingerprint_files(dict(reversed(sizes.items())), ("a",), "y"))
        is None
    )
    for other in ({**sizes, "3.jpg": 4}, {**sizes, "new": 1}, {k: v for k, v in sizes.items() if v}):
        assert fingerprint.describe_change(first, fingerprint.fingerprint_files(other, ("a",), "x"))
    of_info = {"set": "mnist/3.0.1", "version": "3.0.1", "splits": {"train": {"shards": [9, 9], "bytes": 5}}}
    assert "mnist/3.0.1 has version" in str(fingerprint.describe_change({**of_info, "version": "3.0.0"}, of_info))


@pytest.mark.slow
def test_a_set_of_records_that_was_prepared_anew_is_refused(tmp_path):
    TinySet(data_dir=tmp_path, file_format="array_record").download_and_prepare(download_dir=tmp_path / "none")
    asked = config("moco", **CHANGES | {"data__name": "tiny_set", "data__dir": str(tmp_path)})
    run(asked, tmp_path / "run", stop_at=2)
    shutil.copytree(tmp_path / "tiny_set" / "1.2.0", tmp_path / "tiny_set" / "1.3.0")
    info = tmp_path / "tiny_set" / "1.3.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("1.2.0", "1.3.0"))
    before = RunDirectory(tmp_path / "run").metrics.read_bytes()
    with pytest.raises(UserError, match=r"has version 1\.3\.0, the run began with 1\.2\.0; restore the data") as caught:
        run(asked, tmp_path / "run")
    assert "\n" not in str(caught.value) and RunDirectory(tmp_path / "run").metrics.read_bytes() == before
    shutil.rmtree(tmp_path / "tiny_set" / "1.3.0")
    assert run(asked, tmp_path / "run").complete, "control: with the set as it was it goes on"


@pytest.mark.slow
def test_a_run_with_broken_images_resumes_on_its_list_without_a_scan(there, monkeypatch, capsys):
    root, _ = there
    spoiled = [root / "photos" / "cat" / f"{i}.png" for i in (3, 5, 7)]

    def spoil(file):
        whole = file.read_bytes()
        file.write_bytes(whole[:45] + bytes(len(whole) - 45))

    for file in spoiled[:2]:
        spoil(file)
    config = asked(root)
    config["data"]["broken"] = 0.05
    folder = RunDirectory(root / "with_broken")
    shutil.rmtree(folder.root, ignore_errors=True)
    run(config, folder.root, stop_at=2)
    assert json.loads(folder.data.read_text())["broken"] == ["cat/3.png", "cat/5.png"]
    assert "2 of 80 images" in capsys.readouterr().err
    spoil(spoiled[2])  # of the same size: it breaks after the scan, keeps its index, and another stands in for it

    def scan(*_):
        raise AssertionError("scanned again")

    monkeypatch.setattr(folders, "find_broken", scan)
    pictures.say_once.cache_clear()  # as in a new process
    assert run(config, folder.root).complete
    said = capsys.readouterr().err
    assert "2 of 80 images" in said and "cat/7.png: not a readable image" in said and "stands in" in said
    assert json.loads(folder.data.read_text())["broken"] == ["cat/3.png", "cat/5.png"]
    with pytest.raises(AssertionError, match="scanned again"):
        run(config, root / "another", stop_at=1)  # control: a run that begins does scan


@pytest.mark.slow
def test_kept_features_of_a_folder_that_changed_are_taken_anew(tmp_path):
    """Of 40 images, `describe_split` looks at 16; another one of the same size in bytes changes, and a label moves."""
    for split, count in (("train", 40), ("test", 12)):
        for i in range(count):
            file = tmp_path / "photos" / split / ("cat" if i % 2 else "dog") / f"{i:02d}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    command = [
        "--config=configs/evaluate/knn.py", "--config.task.k=3", f"--backbone={FIXTURES / 'moco_export'}",
        f"--config.data.name=folder:{tmp_path / 'photos'}", f"--workdir={tmp_path / 'out'}",
    ]  # fmt: skip

    def judged():
        assert run_job(evaluate.main, command) == 0
        return {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "features").glob("*.npz")}

    first = judged()
    assert judged() == first and len(first) == 2, "control: unchanged, so nothing is encoded again"
    (tmp_path / "photos" / "train" / "cat" / "03.bmp").rename(tmp_path / "photos" / "train" / "cat" / "new.bmp")
    second = judged()
    assert len(set(second) - set(first)) == 1 and all("train" in name for name in set(second) - set(first))
    (tmp_path / "photos" / "test" / "cat" / "03.bmp").unlink()
    assert len(set(judged()) - set(second)) == 1
