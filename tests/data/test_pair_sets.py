import json

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.data import pair_sets, sets

N = 8
PATCHES = np.arange(N * 4 * 4 * 3, dtype=np.uint32).astype(np.uint8).reshape(N, 4, 4, 3)


def columns(**changed):
    """Two clips of four patches; patches 0, 1 and 4, 5 are twins, accepted but for 5's."""
    made = {
        "clip": [0] * 4 + [1] * 4,
        "row": [2] * N,
        "column": range(N),
        "state": [0, 0, 0, 2, 0, 0, 1, 0],
        "twin": [1, 0, 0, 3, 5, 4, 6, 5],
        "nats": [1.0, 1.0, 0.1, np.nan, 0.8, 0.8, np.nan, 0.2],
        "null": [0.2] * N,
        "p": [0.05, 0.05, 0.5, 1.0, 0.05, 0.1, 1.0, 0.05],
        "distance": [4.0] * N,
        "accepted": [True, True, False, False, True, False, False, True],
        "random": [2, 2, 1, 3, 7, 7, 6, 4],
        "near": [1, 2, 1, 3, 5, 7, 6, 5],
        "alike": [2, 0, 0, 3, 7, 4, 6, 4],
        "label_digit": [7] * 4 + [1] * 4,
    }
    return {name: np.asarray(list(values)) for name, values in (made | changed).items()}


@pytest.fixture
def folder(tmp_path):
    facts = {"clips": ["a", "b"], "classes": {"digit": list("0123456789")}, "options": {}}
    pair_sets.write(tmp_path / "set", PATCHES, columns(), facts, {"a.png": b"png"})
    return tmp_path / "set"


def test_what_is_written_is_read_and_is_a_data_set(folder):
    images = sets.load(f"pairs:{folder}", "train")
    np.testing.assert_array_equal(images.images(np.array([6, 0])), PATCHES[[6, 0]])
    assert len(images) == N and images.image_shape == (4, 4, 3)
    assert images.labels["digit"].tolist() == [7] * 4 + [1] * 4 and images.classes["digit"][7] == "7"
    assert images.groups.tolist() == images.factors["clip"].tolist() == [0] * 4 + [1] * 4
    assert (folder / "pictures" / "a.png").read_bytes() == b"png"
    assert pair_sets.load(folder, "train", size=2).images(np.arange(3)).shape == (3, 2, 2, 3)


def test_words_differ_only_where_the_twin_was_accepted(folder):
    partners = pair_sets.load(folder, "train").partners
    assert set(partners) == {"twin", "random", "near", "alike", "self"}
    accepted = columns()["accepted"]
    for word, of in partners.items():
        assert of.dtype == np.int32
        expected = np.arange(N) if word == "self" else np.where(accepted, columns()[word], np.arange(N))
        np.testing.assert_array_equal(of, expected)


def test_a_range_counts_patches_and_keeps_partners_within_it(folder):
    part = pair_sets.load(folder, "train[1:7]")
    np.testing.assert_array_equal(part.images(np.arange(6)), PATCHES[1:7])
    # 1's twin is 0 and 4's random partner is 7, both outside: all words leave them alone.
    for of in part.partners.values():
        assert of.tolist() == list(range(6))
    part = pair_sets.load(folder, "train[:5]")
    assert part.partners["twin"].tolist() == [1, 0, 2, 3, 4] and part.partners["random"].tolist() == [2, 2, 2, 3, 4]
    joined = pair_sets.load(folder, "train[4:]+train[:4]")
    assert joined.partners["twin"].tolist() == [1, 1, 2, 1, 5, 4, 6, 7]


def test_nothing_is_left_of_what_could_not_be_written(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="give another --workdir"):
        pair_sets.write(folder, PATCHES, columns(), {}, {})
    assert json.loads((folder / "pairs.json").read_text())["clips"] == ["a", "b"]

    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pair_sets.np, "savez", broken)
    with pytest.raises(UserError, match="No space"):
        pair_sets.write(tmp_path / "other", PATCHES, columns(), {}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


def test_mistakes_are_said(folder, tmp_path):
    for call, said in (
        (lambda: pair_sets.load(tmp_path / "none", "train"), "mi_contrast.pairs"),
        (lambda: pair_sets.load(tmp_path, "train"), "holds no pairs.json"),
        (lambda: pair_sets.load(folder, "test"), "unknown split"),
        (lambda: pair_sets.load(folder, "train[8:]"), "is empty"),
    ):
        with pytest.raises(UserError, match=said):
            call()
    np.savez(folder / "pairs.npz", **{n: v for n, v in columns().items() if n != "alike"})
    with pytest.raises(UserError, match="lacks alike"):
        pair_sets.load(folder, "train")
    (folder / "patches.npy").write_bytes(b"short")
    with pytest.raises(UserError, match="is damaged"):
        pair_sets.load(folder, "train")
