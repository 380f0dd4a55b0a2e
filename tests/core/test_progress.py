import io
import re
import sys
import time

import pytest

from mi_contrast.core import progress as progress_module
from mi_contrast.core.progress import ProgressBar, format_duration


def test_clock():
    assert [format_duration(s) for s in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]


def test_plain_lines_where_there_is_no_terminal(capsys):
    progress = ProgressBar("training", 10, start=4, each=32, seconds_between=0.0)
    progress.advance()
    progress.advance(note="objective 1.0")
    progress.close()
    first, second = capsys.readouterr().err.splitlines()
    assert first == "training 5/10 steps, 0:00 so far"  # the first may have compiled: no rate yet
    assert re.fullmatch(r"training 6/10 steps, [\d,]+ images/s, 0:00 left  objective 1\.0", second)


def test_lines_are_far_between(capsys):
    progress = ProgressBar("training", 10, seconds_between=60.0)
    for _ in range(10):
        progress.advance()
    assert capsys.readouterr().err == ""


def test_units_that_are_done_at_once_give_no_rate_before_others_follow(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = ProgressBar("features", 1000, seconds_between=1e9)
    now[0] += 5.0  # compiles
    progress.advance(by=64)
    assert progress.rate == 0
    now[0] += 2.0
    progress.advance(by=64)
    assert progress.rate == 32.0


@pytest.mark.parametrize("compiles, word", [(True, "compiling, "), (False, "")])
def test_what_has_no_rate_yet_shows_the_time_so_far(monkeypatch, capsys, compiles, word):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = ProgressBar("encoding", 600, unit="picture", seconds_between=10.0, compiles=compiles)
    now[0] += 65.0
    progress.advance(by=256)
    now[0] += 10.0
    progress.advance(by=256)
    now[0] += 10.0
    progress.advance(by=88)
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        f"encoding 256/600 pictures, {word}1:05 so far",
        "encoding 512/600 pictures, 26 pictures/s, 0:03 left",
        "encoding 600/600 pictures, 17 pictures/s, 0:00 left",
    ]


def test_work_that_ends_with_its_first_unit_has_no_time_left_to_know(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    progress = ProgressBar("encoding", 48, unit="picture", compiles=True)
    now[0] += 12.0
    progress.advance(by=48)
    progress.close()
    assert capsys.readouterr().err == "encoding 48/48 pictures, in 0:12\n"


def test_a_compiler_that_takes_long_is_told_of_until_a_unit_is_timed(monkeypatch, capsys):
    monkeypatch.setitem(progress_module.BEAT, "lines", 0.05)
    progress = ProgressBar("training", 538, each=32, compiles=True)
    said = ""
    for _ in range(200):
        time.sleep(0.05)
        said += capsys.readouterr().err
        if said.count("\n") >= 2:
            break
    assert said.startswith("training 0/538 steps, compiling, 0:00 so far\n")
    progress.advance()
    progress.advance()
    time.sleep(0.2)
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
    progress.close()


def test_in_a_terminal_the_time_to_compile_is_no_part_of_the_rate(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, now = Terminal(), [100.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    progress = ProgressBar("training", 538, compiles=True)
    now[0] += 100.0  # compiles
    progress.advance()
    assert "training: 1/538 steps, compiling, 01:40 so far" in terminal.getvalue()
    assert "?" not in terminal.getvalue() and "it/s" not in terminal.getvalue()
    for _ in range(4):
        now[0] += 2.0
        progress.advance(note="objective 1.0")
    shown = terminal.getvalue().rpartition("\r")[2]
    assert "5/538" in shown and "objective 1.0" in shown and re.search(r"2\.0\d?s/step", shown)
    progress.close()
