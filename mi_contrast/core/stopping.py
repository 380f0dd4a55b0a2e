"""Turns signals such as Ctrl-C and SIGTERM into a request to stop, which a loop checks between steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mi_contrast.core.errors import InterruptedSavedError, StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # from a scheduler, from Ctrl-C, from a closed terminal


class StopRequest:
    """A flag that the first signal sets.

    It takes no lock. A `threading.Event` would: a signal that arrives while the main thread is inside one of its
    methods would then wait for ever for a lock that the main thread itself holds.

    Attributes:
      signal: the first signal, or None.
      at_once: whether Ctrl-C came a second time. The loop then stops without waiting for anything.
    """

    def __init__(self, notify: Callable[[], None] | None = None) -> None:
        self._notify = notify
        self._is_set = False
        self.signal: signal.Signals | None = None
        self.at_once = False

    def is_set(self) -> bool:
        """Returns whether a stop was requested, by a signal or by `set`."""
        return self._is_set

    def set(self) -> None:
        """Requests a stop without a signal, as at the end of a time limit."""
        self._is_set = True

    @property
    def cause(self) -> str:
        """The name of the first signal: 'Ctrl-C', 'SIGTERM' or 'SIGHUP'."""
        if self.signal is None:
            return "a signal"
        return "Ctrl-C" if self.signal is signal.SIGINT else self.signal.name

    def error(self, text: str) -> StoppedError | InterruptedSavedError:
        """Returns the error to raise after saving: a KeyboardInterrupt for Ctrl-C, else a StoppedError."""
        return InterruptedSavedError(text) if self.signal is signal.SIGINT else StoppedError(text)

    def receive(self, number: int, _: FrameType | None) -> None:
        """Handles a signal. A second Ctrl-C raises KeyboardInterrupt at once, wherever the program is."""
        is_second = self.is_set() and number == signal.SIGINT
        if self.signal is None:
            self.signal = signal.Signals(number)
        self.set()
        if number == signal.SIGHUP:
            mute_lost_terminal()
        if self._notify is not None and not is_second:
            self._notify()
        if is_second:
            self.at_once = True
            raise KeyboardInterrupt


@contextmanager
def catch_stop_signals(*signals: signal.Signals, notify: Callable[[], None] | None = None) -> Iterator[StopRequest]:
    """Yields a request that any of the signals sets while the block runs.

    If `notify` is given, it is called for each of them, to pass the request on to other processes.

    A signal that the process ignores stays ignored, as SIGHUP does under `nohup`. Only the main thread can receive
    signals; in another thread the request is never set.
    """
    request = StopRequest(notify)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous_handlers = {
        number: signal.signal(number, request.receive)
        for number in signals
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield request
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def mute_lost_terminal() -> None:
    """Redirects stdout and stderr to /dev/null if their terminal is closed. Else printing could fail before a save."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
