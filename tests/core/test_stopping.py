import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from mi_contrast.core.errors import InterruptedSavedError, StoppedError
from mi_contrast.core.stopping import SIGNALS, catch_stop_signals


@pytest.mark.parametrize(
    ("number", "cause", "kind"),
    [
        (signal.SIGTERM, "SIGTERM", StoppedError),
        (signal.SIGHUP, "SIGHUP", StoppedError),
        (signal.SIGINT, "Ctrl-C", InterruptedSavedError),
    ],
)
def test_a_signal_sets_the_request_and_says_how_to_end(number, cause, kind):
    before = signal.getsignal(number)
    with catch_stop_signals(*SIGNALS) as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), number)
        assert asked.is_set() and asked.cause == cause and type(asked.error("saved")) is kind
    assert signal.getsignal(number) is before
    assert issubclass(InterruptedSavedError, KeyboardInterrupt)


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), catch_stop_signals(*SIGNALS) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert not asked.at_once
        os.kill(os.getpid(), signal.SIGINT)
    assert asked.at_once


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with catch_stop_signals(*SIGNALS) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_meet_a_request_being_set_are_no_deadlock():
    code = (
        "import signal\nfrom mi_contrast.core.stopping import catch_stop_signals\n"
        "with catch_stop_signals(signal.SIGALRM) as request:\n"
        "    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)\n"
        "    for _ in range(1_000_000):\n"
        "        request.set()\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "print(request.cause)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "SIGALRM"


def test_another_thread_can_only_be_told_by_nobody():
    seen = []

    def listen():
        with catch_stop_signals(*SIGNALS) as asked:
            seen.append(asked.is_set())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_terminal_that_goes_away_does_not_stop_the_saving(tmp_path):
    code = (
        "import signal, sys, time\nfrom pathlib import Path\nfrom mi_contrast.core.stopping import *\n"
        "from mi_contrast.core.errors import run_job\n"
        "def job(_):\n"
        "    with catch_stop_signals(*SIGNALS) as asked:\n"
        "        print('ready', flush=True)\n"
        "        began = time.monotonic()\n"
        "        while not asked.is_set():\n"
        "            assert time.monotonic() < began + 60\n"
        "            time.sleep(0.05)\n"
        "        print('saving', flush=True)\n"
        f"        Path({str(tmp_path / 'saved')!r}).write_text(asked.cause)\n"
        "        raise asked.error('saved')\n"
        "sys.exit(run_job(job, []))"
    )
    master, slave = pty.openpty()
    of_terminal = "import os; os.close(os.open(os.ttyname(0), os.O_RDWR))\n"  # it becomes the controlling one
    process = subprocess.Popen(
        [sys.executable, "-c", of_terminal + code], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    assert os.read(master, 5) == b"ready"
    os.close(master)  # the connection drops
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:  # the kernel's own signal was seen to be missed on a busy machine
        process.send_signal(signal.SIGHUP)
        code = process.wait(30)
    assert code == 75
    assert (tmp_path / "saved").read_text() == "SIGHUP"
