"""Being asked to stop: signals become a request that a loop looks at when it may."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mi_contrast.core.errors import InterruptedSavedError, StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # a scheduler, Ctrl-C, a terminal that has gone away


class StopRequest(threading.Event):
    """Set by the first signal that arrives.

    signal: that signal, or None. at_once: whether Ctrl-C came a second time, so that nothing is waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None
        self.at_once = False

    @property
    def cause(self) -> str:
        """What asked: 'Ctrl-C', 'SIGTERM', 'SIGHUP'."""
        if self.signal is None:
            return "a signal"
        return "Ctrl-C" if self.signal is signal.SIGINT else self.signal.name

    def error(self, text: str) -> StoppedError | InterruptedSavedError:
        """The error to raise after saving: a KeyboardInterrupt where Ctrl-C asked, else a StoppedError."""
        return InterruptedSavedError(text) if self.signal is signal.SIGINT else StoppedError(text)

    def receive(self, number: int, _: FrameType | None) -> None:
        """Handles a signal. A second Ctrl-C raises KeyboardInterrupt wherever the program is."""
        again = self.is_set() and number == signal.SIGINT
        if self.signal is None:
            self.signal = signal.Signals(number)
        self.set()
        if number == signal.SIGHUP:
            mute_lost_terminal()
        if again:
            self.at_once = True
            raise KeyboardInterrupt


@contextmanager
def catch_stop_signals(*signals: signal.Signals) -> Iterator[StopRequest]:
    """A request that any of the signals sets, while inside; only the main thread can listen.

    A signal that the process ignores stays ignored, as SIGHUP is under `nohup`.
    """
    asked = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {
        number: signal.signal(number, asked.receive)
        for number in signals
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def mute_lost_terminal() -> None:
    """Sends stdout and stderr nowhere if their terminal has gone away, so that printing doesn't fail before a save."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
