"""Several processes that work as one job. JAX's runtime connects them; this is the one door to it.

A job calls `start` first. After that it needs three words:

  is_first()       whether this process is the one that writes and prints
  agree(value)     the first process's value, on all of them
  together()       a block that all enter; it ends when all have left it, and an error of one is raised on all

With one process, all three cost nothing. Every process must call `agree` and `together` in the same order.

How a job ends. The first process to fail says why, in one line, and tells the others, which end with the same exit code
and say nothing (`report_failure`, `leave`). A process that dies is noticed by JAX's runtime, which ends the others.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

from mi_contrast.core import errors
from mi_contrast.core.cluster import FLAGS, Membership, find_membership, read_flags
from mi_contrast.core.errors import UserError

__all__ = ["FLAGS", "agree", "count", "is_first", "start", "together"]

T = TypeVar("T")
DAY = 24 * 60 * 60 * 1000  # milliseconds; the runtime, not a time limit, notices that another process has died
HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
CONNECTING = 300  # seconds in which all processes must have started
PATIENCE = 20  # seconds after which a process says that it waits for the others
POLL = 0.5  # seconds between two looks whether another process has failed
LINGERING = 1.0  # seconds from the last process's word that it ends until the first one ends
LEAVING = 45_000  # milliseconds that the first process waits for the others to read that the job has failed
# The same where one of them is gone for good: less than it takes JAX's runtime to miss it and to abort the others.
LEAVING_THE_LOST = 5_000
FAILURE, LEFT = "mi_contrast/failure", "mi_contrast/left"
# Words in the errors of collectives whose other end has gone: of Gloo, NCCL, and the coordination service.
LOST = ("gloo", "nccl", "connection closed", "connection reset", "coordination", "unhealthy", "socket closed")


class OtherProcessError(Exception):
    """Another process failed by an error that is not a user's mistake; it has printed its traceback."""


class _Local:
    """What this process knows of itself: how many agreements it has taken part in, and whether it is ending."""

    agreements = 0
    ending = False
    stopping_watch = threading.Event()
    watch: threading.Thread | None = None
    stderr: TextIO | None = None


def start(arguments: Sequence[str] = (), *, polls_stops: bool = False) -> None:
    """Connects this process with the others of its job, if the flags or the environment say that there are others.

    It must come before anything that starts JAX's devices. A second call does nothing. From then on, processes other
    than the first print nothing but their own errors.

    Args:
      arguments: the command line, of which `FLAGS` are read.
      polls_stops: whether the job asks `reached_stop` before each step. Else SIGTERM ends it at once, as it ends any
        program.
    Raises:
      UserError: the flags are wrong, or the first process can't be reached.
    """
    if _client() is None:
        membership = find_membership(read_flags(arguments))
        if membership is None:
            return
        _connect(membership, polls_stops)
    if _Local.watch is None and count() > 1:
        _Local.watch = threading.Thread(target=_watch_failures, daemon=True)
        _Local.watch.start()
        atexit.register(_stop_watch)
        if not is_first():
            _mute()


def _connect(membership: Membership, polls_stops: bool) -> None:
    import jax

    if membership.devices is not None:  # for children, which find their place by flags
        os.environ["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, membership.devices))
    jax.config.update("jax_enable_preemption_service", polls_stops)
    if jax.config.values["jax_logging_level"] in (None, "NOTSET"):  # hides the runtime's warning of every SIGTERM
        jax.config.update("jax_logging_level", "ERROR")
    place = f"process {membership.index} of {membership.count}"
    waiting = threading.Timer(PATIENCE, _say_waiting, (f"{place} waits for the others at {membership.coordinator}",))
    waiting.daemon = True
    waiting.start()
    try:
        if membership.index > 0:
            _wait_for_first(membership.coordinator, place)
        jax.distributed.initialize(
            membership.coordinator,
            membership.count,
            membership.index,
            local_device_ids=membership.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=CONNECTING,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except RuntimeError as error:
        raise UserError(f"{place} could not meet the others at {membership.coordinator} ({_shorten(error)})") from None
    finally:
        waiting.cancel()


def _say_waiting(text: str) -> None:
    print(f"{text}, for {CONNECTING} s at most", file=sys.stderr, flush=True)


def _wait_for_first(coordinator: str, place: str) -> None:
    """Waits until the first process listens. JAX would abort this process where it never does.

    Raises:
      UserError: it can't be reached.
    """
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + CONNECTING
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"{place} can't reach the first process at {coordinator} ({error})",
                    fix="look whether that process runs, and whether host and port are right and open",
                ) from None
            time.sleep(0.2)


def _state() -> Any:
    """Returns JAX's record of the connection. Its key-value store has no public door; Orbax uses this one too."""
    from jax._src import distributed

    return distributed.global_state


def _client() -> Any:
    return None if "jax" not in sys.modules else _state().client


def count() -> int:
    """Returns the number of processes of this job. It does not start JAX's devices."""
    return 1 if _client() is None else int(_state().num_processes)


def index() -> int:
    """Returns the number of this process, from 0."""
    return 0 if _client() is None else int(_state().process_id)


def is_first() -> bool:
    """Returns whether this is the process that writes and prints."""
    return index() == 0


def agree(value: T, choose: Callable[[list[T]], T] | None = None) -> T:
    """Returns the first process's value, on all processes.

    Args:
      value: plain data that JSON can hold. Floats come through unchanged, tuples as lists.
      choose: picks a value from those of all processes instead, in their order; for instance `max`.
    """
    if count() == 1:
        return value
    if choose is not None:
        return choose(_collect(value))
    key = _next_key()
    if is_first():
        _client().key_value_set(key, json.dumps(value))
        return value
    agreed: T = json.loads(_client().blocking_key_value_get(key, DAY))
    return agreed


@contextmanager
def together() -> Iterator[None]:
    """Runs a block on every process and waits until all have left it. An error of one process is raised on all.

    The error is the one of the process with the lowest number. On the others it is marked, so that it is printed once.
    A block that only the first process should run is written `with together(): if is_first(): ...`.
    """
    if count() == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except UserError as caught:
        error = caught
    except Exception as caught:
        error = caught
    reports = _collect(None if error is None else _describe(error))
    failed = next((i for i, report in enumerate(reports) if report is not None), None)
    if failed is None:
        return
    if failed == index():
        assert error is not None
        raise error
    raise _rebuild(reports[failed], failed) from error


def _next_key() -> str:
    _Local.agreements += 1
    return f"mi_contrast/agreement/{_Local.agreements}"


def _collect(value: Any) -> list[Any]:
    """Returns the values of all processes, in their order."""
    key, client = _next_key(), _client()
    client.key_value_set(f"{key}/{index():06d}", json.dumps(value))
    client.wait_at_barrier(key, DAY)
    return [json.loads(text) for _, text in sorted(client.key_value_dir_get(f"{key}/"))]


def _describe(error: Exception) -> dict[str, Any]:
    fields = {name: getattr(error, name, None) for name in ("what", "nearest", "fix", "errno")}
    return {"kind": type(error).__name__, "text": _shorten(error), **fields}


def _rebuild(report: dict[str, Any], process: int) -> Exception:
    """Returns the error that another process reported, marked as one that it prints itself."""
    kind = getattr(errors, report["kind"], None)
    error: Exception
    if isinstance(kind, type) and issubclass(kind, UserError):
        error = kind(report["what"], nearest=report["nearest"], fix=report["fix"])
        if isinstance(error, errors.DiskError):
            error.errno = report["errno"]
    elif isinstance(kind, type) and issubclass(kind, Exception):
        error = kind(report["text"])
    else:
        error = OtherProcessError(f"process {process} failed: {report['kind']}: {report['text']}")
    error.of_other_process = True  # type: ignore[attr-defined]
    return error


def _shorten(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def make_child_flags() -> list[str]:
    """Returns the flags with which a child of this process meets the children of the others; [] with one process.

    Every process must call it. The children need a port of their own on the first process's host.
    """
    if count() == 1:
        return []
    host = _state().coordinator_address.rpartition(":")[0]
    with socket.socket() as free:
        free.bind(("", 0))
        port = agree(free.getsockname()[1])
    return [f"--coordinator={host}:{port}", f"--processes={count()}", f"--process={index()}"]


# --- stopping and failing ---------------------------------------------------------------------------------------------


def reached_stop(step: int) -> bool:
    """Returns whether all processes are to stop after this step, because one of them was asked to.

    Every process must ask for every step. JAX's runtime takes the request (SIGTERM, see `request_stop`) and chooses a
    step that none has passed.
    """
    from jax.experimental import multihost_utils

    return count() > 1 and bool(multihost_utils.reached_preemption_sync_point(step))


def request_stop() -> None:
    """Asks all processes to stop, by the notice that JAX's runtime takes: SIGTERM to this process."""
    import signal

    os.kill(os.getpid(), signal.SIGTERM)


def report_failure(code: int, error: BaseException | None = None) -> bool:
    """Tells the other processes to end with this exit code. Returns whether this process is the one to say why."""
    if count() == 1:
        return True
    _Local.ending = True
    if getattr(error, "of_other_process", False):
        return False
    try:
        _client().key_value_set(FAILURE, json.dumps({"process": index(), "code": code}))
    except Exception as refused:  # another process failed before, or the first one is gone
        return "ALREADY_EXISTS" not in str(refused)
    return True


def is_lost(error: BaseException) -> bool:
    """Returns whether the error is that of a collective whose other end has gone."""
    text = str(error).lower()
    return count() > 1 and isinstance(error, RuntimeError) and any(word in text for word in LOST)


def find_failure(seconds: float = 0.0) -> int | None:
    """Returns the exit code that a failed process has reported, or None if there is no report within the time."""
    while True:
        with suppress(Exception):  # NOT_FOUND, or the first process is gone
            return int(json.loads(_client().key_value_try_get(FAILURE))["code"])
        if seconds <= 0:
            return None
        threading.Event().wait(POLL)
        seconds -= POLL


def leave(code: int, patience: int = LEAVING) -> None:
    """Ends this process at once, without waiting for its threads or for JAX's runtime.

    The first process serves the others, so it waits until they have read that the job has failed, and a little longer:
    JAX's runtime aborts a process that is still there when the first one has gone. It waits `patience` milliseconds at
    most for any of them.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    with suppress(Exception):
        _client().key_value_set(f"{LEFT}/{index()}", "")
        if is_first():
            for other in range(count()):
                _client().blocking_key_value_get(f"{LEFT}/{other}", patience)
            threading.Event().wait(LINGERING)
    os._exit(code)


def _watch_failures() -> None:
    """Ends this process when another one has reported that it failed."""
    while not _Local.stopping_watch.wait(POLL):
        code = find_failure()
        if code is not None and not _Local.ending:
            leave(code)


def _stop_watch() -> None:
    """Ends the watch before the interpreter does: a thread inside JAX's runtime would abort it."""
    _Local.stopping_watch.set()
    if _Local.watch is not None:
        _Local.watch.join()


def _mute() -> None:
    """Sends what this process prints to nowhere, Gloo's line about its connection too. `stderr` still reaches the user.

    Libraries that write to the file descriptor of stderr are not muted: that is where JAX's runtime says what is wrong.
    """
    _Local.stderr = sys.stderr
    sys.stdout.flush()
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    with suppress(OSError):
        os.dup2(sys.stdout.fileno(), 1)


def stderr() -> TextIO:
    """Returns the stream for a process's own errors, which are shown whichever process they happen in."""
    return sys.stderr if _Local.stderr is None else _Local.stderr
