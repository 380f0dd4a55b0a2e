import json

import numpy as np
import pytest

from mi_contrast import estimate
from mi_contrast import estimators as mi
from mi_contrast.core.errors import run_job

RNG = np.random.default_rng(2)
X = RNG.normal(size=(60, 2))
Y = X[:, 0] + RNG.normal(size=60)


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "pairs.npz", x=X, y=Y, left=X[:, :1], short=Y[:-1], words=np.array(["a"] * 60), cube=X[None])
    return tmp_path / "pairs.npz"


def test_the_table_holds_what_the_estimators_answer(file, capsys):
    assert run_job(estimate.main, [str(file), "--methods=ksg,cca", "--k=5", f"--json={file.parent / 'o.json'}"]) == 0
    heading, ksg, cca = capsys.readouterr().out.splitlines()
    assert heading.split()[:6] == ["method", "nats", "+-", "ceiling", "seconds", "samples"]
    expected = mi.ksg(X, Y, 5, standardise=True)
    assert ksg.split()[:4] == ["ksg", *(f"{v:.3f}" for v in expected)] and ksg.split()[5] == "60"
    assert "5 nearest neighbours" in ksg and cca.split()[3] == "none"
    rows = json.loads((file.parent / "o.json").read_text())["rows"]
    assert rows[0]["nats"] == float(expected.nats) and rows[1]["ceiling"] is None


def test_other_names_of_arrays_and_the_file_as_a_flag(file, capsys):
    assert run_job(estimate.main, [f"--file={file}", "--x=left", "--y=left", "--methods=ksg2"]) == 0
    assert "near its ceiling" in capsys.readouterr().out.splitlines()[1]


def test_copies_are_said(file, capsys):
    np.savez(file, x=X > 0, y=Y > 0)
    assert run_job(estimate.main, [str(file), "--methods=ksg"]) == 0
    assert "4 times or more" in capsys.readouterr().out


def test_every_method_is_an_estimator_of_the_package():
    from mi_contrast.estimators import learned

    assert set(learned.METHODS) <= set(estimate.METHODS)
    assert set(estimate.DEFAULT.split(",")) <= set(estimate.METHODS)


@pytest.mark.slow
def test_a_learned_method(file, capsys):
    assert run_job(estimate.main, [str(file), "--methods=info_nce", "--seed=3"]) == 0
    assert "lower bound" in capsys.readouterr().out


def test_mistakes_are_one_line_and_exit_2(file, capsys):
    folder = file.parent
    np.save(folder / "one.npy", X)
    (folder / "broken.npz").write_bytes(file.read_bytes()[:200])
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "nan.npz", x=np.where(X > 2, np.nan, X), y=Y)
    np.savez(folder / "objects.npz", x=np.array([{}] * 3), y=np.zeros(3))
    said = {
        (): "no file",
        (str(folder / "pair.npz"),): "did you mean 'pairs.npz'",
        (str(folder / "one.npy"),): "not an .npz file",
        (str(folder / "broken.npz"),): "not an .npz file",
        (str(folder / "empty.npz"),): "not an .npz file",
        (str(folder / "objects.npz"),): "not an .npz file",
        (str(folder / "nan.npz"),): "NaN or infinity in",
        (str(file), "--x=lift"): "did you mean 'left'",
        (str(file), "--y=short"): "x has 60 samples, short has 59",
        (str(file), "--y=words"): "give numbers",
        (str(file), "--y=cube"): "give numbers",
        (str(file), "--methods=kgs"): "did you mean 'ksg'",
        (str(file), "--k=60", "--methods=ksg"): "ksg: 60 samples are too few; give 61 at least",
        (str(file), "--k=0"): "--k=0",
        (str(file), "--seed=-1"): "--seed=-1",
        (str(file), "--sed=1"): "--seed",
    }
    for arguments, part in said.items():
        assert run_job(estimate.main, list(arguments)) == 2, arguments
        line = capsys.readouterr().err
        assert line.startswith("mi_contrast: error: ") and line.count("\n") == 1 and part in line, line
