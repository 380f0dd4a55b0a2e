import errno

import pytest

from mi_contrast.core.errors import (
    BadNumbersError,
    InterruptedSavedError,
    StoppedError,
    UserError,
    nearest,
    run_job,
    unknown,
)


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
