"""What all tests of studies need."""

import signal

import pytest


@pytest.fixture(autouse=True)
def ctrl_c_as_before():
    """The process that looks over a study's runs ignores Ctrl-C; here that process is the tests' own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
