"""launch/local.sh with a stand-in for Python: what it starts, when it goes on, and with which code it ends."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mi_contrast.core.cluster import find_membership, read_flags
from mi_contrast.core.config import parse
from mi_contrast.main import FLAGS

ROOT = Path(__file__).parents[1]
LAUNCHER = ROOT / "launch" / "local.sh"
# Notes its arguments, then does what the next word in the file of its process says: ends with a code or by a signal, or
# waits for a signal that it was sent.
STAND_IN = """#!/usr/bin/env bash
[ "$1" = -c ] && echo 4567 && exit 0
index=0
for word in "$@"; do case "$word" in --process=*) index=${word#*=};; esac; done
echo "$@" >>"$STARTS/arguments.$index"
count=$(wc -l <"$STARTS/arguments.$index")
word=$(sed -n "${count}p" "$STARTS/words.$index")
case "$word" in
  -*) kill "$word" $$ ;;
  wait) trap 'exit 130' INT; trap 'exit 75' TERM HUP; touch "$STARTS/waiting.$index"; while :; do sleep .05; done ;;
  *) exit "$word" ;;
esac
"""


@pytest.fixture
def start(tmp_path):
    """Starts the launcher; words: for each process, what it does at each start."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(STAND_IN)
    (tmp_path / "bin" / "python").chmod(0o755)
    jobs = []

    def start_launcher(*arguments, **words):
        for name, text in words.items():
            (tmp_path / f"words.{name[-1]}").write_text("\n".join(text.split()) + "\n")
        environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "STARTS": str(tmp_path)}
        environment.pop("JAX_LOCAL_DEVICE_IDS", None)
        command = ["bash", str(LAUNCHER), *arguments]
        jobs.append(subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True))
        return jobs[-1]

    yield start_launcher
    for job in jobs:
        job.kill()


def starts_of(folder, index=0):
    file = folder / f"arguments.{index}"
    return [line.split() for line in file.read_text().splitlines()] if file.is_file() else []


def test_one_process_goes_on_after_75(start, tmp_path):
    job = start("--config=configs/moco.py", p0="75 75 3")
    out, err = job.communicate(timeout=60)
    assert job.returncode == 3 and out == "stopped after saving; going on\n" * 2 and err == ""
    assert starts_of(tmp_path) == [["-m", "mi_contrast.main", "--config=configs/moco.py"]] * 3


def test_two_processes_get_flags_that_the_job_reads(start, tmp_path):
    job = start("2", "--config=configs/moco.py", "--workdir=runs/x", p0="75 0", p1="75 0")
    out, _ = job.communicate(timeout=60)
    assert job.returncode == 0 and out == "stopped after saving; going on\n"
    for index in (0, 1):
        first, second = starts_of(tmp_path, index)
        assert first == second and first[:2] == ["-m", "mi_contrast.main"]
        assert parse(first[2:], FLAGS).flags["workdir"] == "runs/x"
        place = find_membership(read_flags(first[2:]), {"JAX_LOCAL_DEVICE_IDS": str(index)})
        assert (place.coordinator, place.count, place.index) == ("127.0.0.1:4567", 2, index)
        assert place.devices == (index,)


@pytest.mark.parametrize(
    ("first", "second", "code", "says"),
    [
        ("2", "2", 2, False),
        ("130", "130", 130, False),
        ("-9", "1", 1, False),  # the other process has said why already
        ("-9", "-6", 1, True),  # JAX's runtime ended the other one
        ("-6", "-9", 1, True),
        ("0", "-9", 1, True),
    ],
)
def test_the_code_with_which_all_end(start, first, second, code, says):
    job = start("2", p0=first, p1=second)
    _, err = job.communicate(timeout=60)
    assert job.returncode == code
    lines = [line for line in err.splitlines() if line.startswith("mi_contrast:")]
    died = "mi_contrast: error: a process has died, so all have ended; run the same command to resume from the last "
    assert lines == ([died + "checkpoint"] if says else [])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)])
def test_a_signal_to_the_launcher_reaches_all_and_stops_for_good(start, tmp_path, number, code):
    job = start("2", p0="wait", p1="wait")
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("waiting.*"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    job.send_signal(number)
    job.communicate(timeout=60)
    assert job.returncode == code
    assert [len(starts_of(tmp_path, index)) for index in (0, 1)] == [1, 1]
