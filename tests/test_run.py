"""A run from Python: a path that knows its numbers, pictures and backbone."""

import copy
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mi_contrast
from mi_contrast import near
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.data import sets
from mi_contrast.reporting.run import read_run
from mi_contrast.run import Run
from tests.reporting.fake import make_run
from tests.reporting.fake_held_out import make_held_out
from tests.training import small

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1_0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A made-up run with all files but a backbone."""
    root = make_run(tmp_path_factory.mktemp("runs") / "made")
    shutil.rmtree(root / "held_out")
    return mi_contrast.open(make_held_out(root))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps over embedded digits."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    return mi_contrast.train(small.config(steps=2, eval__every=2), folder)


def test_train_returns_a_run_that_is_the_path_of_0_1_0(trained):
    assert isinstance(trained, Run) and (trained / "export" / "manifest.json").is_file()
    assert os.fspath(trained) == str(trained) == f"{trained}"
    with open(trained / "config.json") as file:
        assert file.read().startswith("{")
    assert trained == Path(trained) and trained.name == "trained" and trained.is_dir() and trained.parent.exists()
    assert {trained} == {Run(trained.path)} and list(trained.glob("report.html"))
    with pytest.raises(AttributeError, match="a run has no 'histroy'"):
        trained.histroy  # noqa: B018


def test_a_run_can_be_copied_and_pickled(made):
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made


def test_history_has_every_logged_number_and_nan_elsewhere(made):
    history, curves = made.history, read_run(made.path).curves
    steps = np.asarray(history.index if hasattr(history, "index") else history["step"])
    for name, curve in curves.items():
        column = np.asarray(history[name])
        assert {int(s): v for s, v in zip(steps, column, strict=True) if not np.isnan(v)} == {
            int(s): v for s, v in zip(curve.steps, curve.values, strict=True) if not np.isnan(v)
        }


def test_without_pandas_history_is_a_dict_of_arrays(made, monkeypatch):
    monkeypatch.setattr(
        "mi_contrast.run.importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name))
    )
    history = made.history
    assert history["step"].dtype == np.int64 and history["mi_nats"].shape == history["step"].shape


def test_repr_is_a_line_and_html_has_the_numbers_and_a_picture(made):
    assert repr(made) == (
        f"Run({str(made.path)!r}: ring_moco:digits, step 3,000 of 3,000, mi 4.13 of 6.93 nats, kNN 79.3 % (n = 462))"
    )
    html = made._repr_html_()
    assert "Mutual information" in html and "http" not in html and "<script" not in html


def test_plot_draws_the_metrics_that_are_named(made):
    assert len(made.plot().to_dict()["concat"]) == 2
    text = made.plot("alignment").to_json()
    assert "alignment" in text
    with pytest.raises(UserError, match="did you mean 'alignment'"):
        made.plot("alignmant")


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_map_shows_both_networks(made, method):
    spec = made.map(method).to_dict()
    assert [part["title"]["text"] for part in spec["concat"]] == ["untrained", "trained"]
    (rows,) = spec["datasets"].values()
    held_out = read_run(made.path).held_out
    if method == "pca":
        np.testing.assert_allclose([row["trained x"] for row in rows], held_out.after.components[:, 0], atol=1e-4)
    assert len({(row["trained x"], row["trained y"]) for row in rows}) == len(rows) == len(held_out.pictures)


def test_map_refuses_what_it_can_not_draw(made, tmp_path):
    with pytest.raises(UserError, match="did you mean 'tsne'"):
        made.map("tnse")
    with pytest.raises(UserError, match="keeps no features of held-out images"):
        mi_contrast.open(make_run(tmp_path / "run", whole=False)).map()


def test_report_is_written_where_it_is_missing_or_old(made):
    assert made.report.read_text().startswith("<!doctype html>")
    made.report.write_text("stale")
    assert made.report.read_text() == "stale"  # as new as the numbers
    later = made.report.stat().st_mtime + 5
    os.utime(made / "metrics.jsonl", (later, later))
    assert made.report.read_text().startswith("<!doctype html>")


def test_encode_takes_arrays_files_and_folders(trained, tmp_path):
    from PIL import Image

    random = np.random.default_rng(0)
    images = random.integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    features = trained.encode(images)
    expected = np.asarray(mi_contrast.load(trained).encode(images))
    np.testing.assert_array_equal(features, expected)
    files = sorted(tmp_path.glob("*.png"))
    for given in (tmp_path, files, [str(file) for file in files], images / np.float32(255)):
        np.testing.assert_allclose(trained.encode(given), expected, atol=1e-5)
    np.testing.assert_allclose(trained.encode(images[1]), expected[1:2], atol=1e-5)
    with pytest.raises(FileError, match="has no images"):
        (tmp_path / "empty").mkdir()
        trained.encode(tmp_path / "empty")


def test_neighbours_are_those_of_a_loop_over_the_bank(trained):
    near = trained.neighbours(7, k=4)
    bank = trained._bank
    own = trained.encode(bank.images.images(np.array([7])))[0]
    cosines = {}
    for index in bank.index:
        other = trained.encode(bank.images.images(np.array([index])))[0] if len(cosines) < 40 else None
        if other is not None and index != 7:
            cosines[int(index)] = float(own @ other / np.linalg.norm(own) / np.linalg.norm(other))
    for index, cosine in cosines.items():  # none of these is nearer than the last that was found
        assert index in near.index or cosine <= near.similarity[-1] + 1e-5
    assert 7 not in near.index and list(near.similarity) == sorted(near.similarity, reverse=True)
    again = trained.neighbours(near.images[0], k=1)
    assert again.index[0] == near.index[0] and again.similarity[0] == pytest.approx(1.0, abs=1e-5)
    assert near.labels[0] in repr(near) and near._repr_html_().count("<img") == 5
    with pytest.raises(UserError, match="there is no training image"):
        trained.neighbours(10**9)


def test_neighbours_that_are_files_are_called_by_their_names(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    names = tuple(f"cats/tom_{number}.jpg" for number in range(6))
    features = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0].astype(np.float32)

    def find(batch):
        return [int(np.flatnonzero((images == image).all((1, 2, 3)))[0]) for image in batch]

    found = {}
    for files in (names, None):
        data = sets.ImageSet("x", "train", 6, (8, 8, 3), lambda index: images[index], names=files)
        network = SimpleNamespace(spec={"size": 8}, encode=lambda batch: features[find(batch)])
        bank = near.Bank(data, np.arange(6)[::-1].copy(), features[::-1].copy(), None, network)
        found[files] = bank.find(2, 3)
    named, unnamed = found[names], found[None]
    assert named.query_name == names[2] and list(named.names) == [names[i] for i in named.index]
    assert repr(named).startswith(f"NearImages({names[2]}: {names[named.index[0]]} ")
    assert all(name in named._repr_html_() for name in (names[2], *named.names))
    assert repr(unnamed).startswith(f"NearImages(example 2: example {unnamed.index[0]} ") and unnamed.names == ()


def test_evaluate_and_export_write_into_the_run(trained):
    judgement = trained.evaluate("knn", data={"options": {"size": 32, "length": 2}}, batch_size=64)
    assert judgement.path.parent == trained / "results" and 0 <= judgement.result["top1"] <= 1
    with pytest.raises(UserError, match="did you mean 'batch_size'"):
        trained.evaluate("knn", batchsize=64)
    with pytest.raises(UserError, match="did you mean 'linear'"):
        trained.evaluate("linaer")
    folder = trained.export("native")
    assert folder == trained / "exports" / "native"
    np.testing.assert_array_equal(
        mi_contrast.load(folder).encode(np.zeros((1, 32, 32, 3), np.uint8)),
        trained.encode(np.zeros((1, 32, 32, 3), np.uint8)),
    )


def test_compare_puts_runs_side_by_side(made, trained, tmp_path):
    comparison = made.compare(trained)
    assert [row["run"] for row in comparison.rows] == ["made", "trained"]
    assert comparison.rows[1]["mi_nats"] == read_run(trained.path).curves["mi_nats"].last
    assert "79.3" in comparison._repr_html_()
    assert comparison.write(tmp_path / "page.html").read_text().count("<h1>2 runs side by side</h1>") == 1
    with pytest.raises(UserError, match="name 2 to 8"):
        made.compare()


@pytest.mark.parametrize("name", ["ir", "moco"])
def test_runs_of_0_1_0_open_and_show_themselves(name, tmp_path):
    shutil.copytree(FIXTURES / name, tmp_path / name)
    run = mi_contrast.open(tmp_path / name)
    assert "of 8" in repr(run) and run.report.is_file() and run.plot() is not None
    assert run.encode(np.zeros((2, 32, 32, 3), np.uint8)).shape[0] == 2
    assert len(np.asarray(run.history["mi_nats"])) > 1


def test_what_is_no_run_is_refused_in_a_line(tmp_path):
    for path, says in ((tmp_path, "is not a run directory"), (tmp_path / "absent", "does not exist")):
        with pytest.raises(FileError, match=says):
            mi_contrast.open(path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(FileError, match="is not a run's config"):
        mi_contrast.open(tmp_path)


def test_broken_files_of_a_folder_have_no_row_and_are_named(trained, tmp_path, capsys):
    from PIL import Image

    for number, colour in (("b", 200), ("a", 100), ("c", 0)):
        Image.new("RGB", (40, 40), (colour, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    features = trained.encode(tmp_path)
    said = capsys.readouterr().err
    assert "1 file can't be read" in said and "b.png" in said and str(tmp_path) not in said
    np.testing.assert_allclose(features, trained.encode([tmp_path / "a.png", tmp_path / "c.png"]), atol=1e-5)
    with pytest.raises(UserError, match=r"b\.png"):
        trained.encode(tmp_path / "b.png")
    for name in "ac":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(UserError, match="none of 1 pictures can be read"):
        trained.encode(tmp_path)


def test_neighbours_are_found_by_a_config_of_0_1_0(trained):
    content = trained.content.config
    before = {**content, "eval": {name: value for name, value in content["eval"].items() if name != "held_out"}}
    assert "held_out" in content["eval"]
    assert np.array_equal(
        near.Bank.read(before, trained.representation).index, near.Bank.read(content, trained.representation).index
    )
