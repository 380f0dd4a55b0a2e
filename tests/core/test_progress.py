import re

from mi_contrast.core.progress import ProgressBar, format_duration


def test_clock():
    assert [format_duration(s) for s in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]


def test_plain_lines_where_there_is_no_terminal(capsys):
    progress = ProgressBar("training", 10, start=4, each=32, seconds_between=0.0)
    progress.advance()
    progress.advance(note="objective 1.0")
    progress.close()
    first, second = capsys.readouterr().err.splitlines()
    assert first == "training 5/10 steps, 0 images/s, ? left"  # the first may have compiled: no rate yet
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
