"""A run goes on only with the data it began with; what changed is named."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import fingerprint
from mi_contrast.training.loop import run
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
