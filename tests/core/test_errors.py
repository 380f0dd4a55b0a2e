import errno
import pickle
from pathlib import Path

import jax.numpy as jnp
import pytest

import mi_contrast
from mi_contrast import estimators
from mi_contrast.core.config import load_config
from mi_contrast.core.errors import (
    BadNumbersError,
    DiskError,
    FileError,
    InterruptedSavedError,
    StoppedError,
    UserError,
    add_place,
    cannot_write,
    nearest,
    run_job,
    unknown,
)
from mi_contrast.samples import read_samples


def raising(error):
    def job(arguments):
        raise error

    return job


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            UserError("no ring", nearest="ring", fix="look"),
            2,
            "mi_contrast: error: no ring; did you mean 'ring'? look\n",
        ),
        (BadNumbersError("nan"), 3, "mi_contrast: numbers went bad: nan\n"),
        (StoppedError("stopped"), 75, "mi_contrast: stopped\n"),
        (InterruptedSavedError("saved"), 130, "mi_contrast: saved\n"),
        (KeyboardInterrupt(), 130, "mi_contrast: stopped at once by Ctrl-C; what was saved before is whole\n"),
        (
            OSError(errno.ENOSPC, "full", "/x"),
            2,
            "mi_contrast: error: can't write /x (No space left on device); free some space and give the same command "
            "again\n",
        ),
    ],
)
def test_errors_are_one_line_and_an_exit_code(capsys, error, code, said):
    assert run_job(raising(error), []) == code
    assert capsys.readouterr().err == said


def test_our_own_error_shows_its_traceback(capsys):
    assert run_job(raising(ZeroDivisionError("ours")), []) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_done_job_exits_0_and_gets_its_arguments():
    seen = []
    assert run_job(seen.extend, ["--a"]) == 0
    assert seen == ["--a"]


def test_nearest_and_unknown():
    assert nearest("rnig", ["ring", "ball"]) == "ring"
    assert nearest("zzz", ["ring", "ball"]) is None
    assert str(unknown("support", "rnig", ["ring", "ball"])) == (
        "unknown support 'rnig'; did you mean 'ring'? one of: ball, ring"
    )
    assert "\n" not in str(UserError("two\nlines", fix="a\nb"))


def test_other_errors_of_the_system_are_ours(capsys):
    assert run_job(raising(OSError(errno.EBADF, "bad")), []) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_user_error_about_a_value_is_a_value_error():
    with pytest.raises(ValueError, match="holds nothing") as caught:
        estimators.ring(jnp.zeros(2), jnp.zeros((2, 3)), 0.9, 0.1)
    assert isinstance(caught.value, UserError)
    assert not isinstance(caught.value, OSError)


def test_a_user_error_about_a_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="does not exist") as caught:
        mi_contrast.load(tmp_path / "nothing")
    assert isinstance(caught.value, UserError)
    with pytest.raises(OSError, match=r"no_such\.py' does not exist"):
        load_config("no_such.py")
    with pytest.raises(OSError, match="does not exist"):
        read_samples(tmp_path / "no.npz", ("x", "y"))


def test_a_disk_error_tells_its_number_and_file_and_prints_its_own_text():
    error = cannot_write(Path("/x"), errno.ENOSPC)
    assert (error.errno, error.filename) == (errno.ENOSPC, "/x")
    assert str(error).startswith("can't write /x (No space left on device); free some space")
    assert (FileError("lost").errno, str(FileError("lost", fix="find it"))) == (None, "lost; find it")


@pytest.mark.parametrize("kind", [UserError, FileError, DiskError])
def test_errors_survive_the_way_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("no ring", nearest="ring", fix="look")))
    assert type(error) is kind
    assert str(error) == "no ring; did you mean 'ring'? look"
    assert (error.nearest, error.fix) == ("ring", "look")


@pytest.mark.parametrize("kind", [UserError, FileError])
def test_a_place_in_front_keeps_the_kind(kind):
    error = add_place("clip a", kind("no ring", nearest="ring", fix="look"))
    assert type(error) is kind
    assert str(error) == "clip a: no ring; did you mean 'ring'? look"
