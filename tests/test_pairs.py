import json

import numpy as np
import pytest
from PIL import Image

from mi_contrast import pairs
from mi_contrast.core.errors import run_job
from mi_contrast.data import pair_sets, partners, sets

FAST = ("--frames=28", "--window=9", "--camera=none", "--tolerance=1.5", "--cover=.1")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve clips of moving digits as a pair set, and the command that made it."""
    pytest.importorskip("cv2", reason="OpenCV, the extra [video], is not installed")
    folder = tmp_path_factory.mktemp("pairs") / "set"
    command = ["--clips=moving_digits", f"--workdir={folder}", "--limit=12", "--pictures=2", *FAST]
    assert run_job(pairs.main, command) == 0
    return folder, command


def test_a_pair_set_is_made_and_is_a_data_set(made):
    folder, _ = made
    patches, columns, facts = pair_sets.read(folder)
    assert patches.shape == (12 * 16, 16, 16, 3) and facts["states"]["tracked"] > 60
    assert sorted(p.name for p in (folder / "pictures").iterdir()) == ["00000.png", "00001.png"]
    clip, where = columns["clip"], columns["state"] == 0
    for word in pair_sets.TABLE_WORDS:  # partners are others, tracked, of the same clip; who has none is its own
        partner = columns[word]
        has = partner != np.arange(len(clip))
        assert (clip[partner] == clip).all() and where[has].all() and where[partner[has]].all()
    has = columns["twin"] != np.arange(len(clip))
    assert (np.isfinite(columns["nats"]) == has).all() and (columns["accepted"] == (columns["p"] <= 0.05)).all()
    apart = np.hypot(*(np.diff([columns[n], columns[n][columns["twin"]]], axis=0)[0] for n in ("row", "column")))
    np.testing.assert_allclose(columns["distance"][has], apart[has], rtol=1e-6)
    images = sets.load(f"pairs:{folder}", "train")
    assert len(images) == 192 and set(images.labels) == {"digit", "background", "object"}
    assert (images.partners["twin"] != np.arange(192)).sum() == facts["accepted"] > 20


def test_twins_lie_on_one_object_more_often_than_others_at_their_distance(made):
    shares = json.loads((made[0] / "pairs.json").read_text())["same_object"]["on_object"]
    assert shares["patches"] > 20 and shares["twin"] > shares["at_twin"] + 0.2
    # The control: partners that know nothing of motion are no better than others at their distance.
    assert abs(shares["random"] - shares["at_random"]) < 0.15


def test_the_same_command_says_that_it_is_done_and_another_is_refused(made, capsys):
    folder, command = made
    before = (folder / "pairs.npz").stat().st_mtime_ns
    assert run_job(pairs.main, command) == 0
    out, err = capsys.readouterr()
    assert "is finished" in err and "accepted at level" in out and "at_twin" in out
    assert run_job(pairs.main, [*command, "--k=4"]) == 2
    assert "other options (k)" in capsys.readouterr().err
    assert (folder / "pairs.npz").stat().st_mtime_ns == before


def test_it_is_the_same_set_again_and_colours_and_positions_serve_as_well(made, tmp_path):
    _, command = made
    first = None
    few = [word for word in command if not word.startswith(("--workdir", "--limit", "--pictures"))]
    for name, flags in (("a", ()), ("b", ()), ("c", ("--of=colour", "--series=displacement"))):
        assert run_job(pairs.main, [*few, "--limit=2", "--pictures=0", f"--workdir={tmp_path / name}", *flags]) == 0
        _, columns, _ = pair_sets.read(tmp_path / name)
        if name == "b":
            for column, values in columns.items():
                np.testing.assert_array_equal(values, first[column])
        elif name == "c":
            assert (columns["nats"] != first["nats"]).any()
        first = first or columns
    assert partners.RING == 6 and not list((tmp_path / "a" / "pictures").iterdir())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--clips=moving_digits",), "no --workdir"),
        (("--workdir=x",), "no --clips"),
        (("--clips=moving_digit", "--workdir=x"), "did you mean 'moving_digits'"),
        (("--clips=moving_digits", "--workdir=x", "--series=prewhitend"), "did you mean 'prewhitened'"),
        (("--clips=moving_digits", "--workdir=x", "--camera=homographic"), "did you mean 'homography'"),
        (("--clips=moving_digits", "--workdir=x", "--estimator=3kl"), "three_kl"),
        (("--clips=moving_digits", "--workdir=x", "--of=depth"), "colour, motion"),
        (("--clips=moving_digits", "--workdir=x", "--patch=big"), "--patch takes a int"),
        (("--clips=moving_digits", "--workdir=x", "--limit=0"), "--limit=0"),
        (("--clips=moving_digits", "--workdir=x", "--patches=8"), "did you mean '--patch'"),
        (("--clips=moving_digits", "--workdir=x", "--frames=20"), "clip 00000: 19 circular shifts of 18 samples"),
        (("--clips=moving_digits", "--workdir=x", "--shifts=5"), "give 19 shifts or more"),
    ],
)
def test_mistakes_are_one_line(flags, said, tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2", reason="OpenCV, the extra [video], is not installed")
    monkeypatch.chdir(tmp_path)
    assert run_job(pairs.main, list(flags)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and error.startswith("mi_contrast: error:")
    assert not list(tmp_path.iterdir())


def test_pictures_are_pictures(made):
    with Image.open(made[0] / "pictures" / "00001.png") as picture:
        assert picture.size[1] > 600 and np.asarray(picture).std() > 20
