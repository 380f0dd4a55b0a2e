"""The trainer: takes the steps of a run, and logs, measures, saves and stops where that is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from mi_contrast.core import processes
from mi_contrast.core.checkpoint import Checkpoints
from mi_contrast.core.errors import BadNumbersError, InterruptedSavedError, StoppedError
from mi_contrast.core.mesh import take_local
from mi_contrast.core.progress import ProgressBar
from mi_contrast.core.stopping import StopRequest
from mi_contrast.data.readers import Reader
from mi_contrast.readout.accuracy import FEWEST
from mi_contrast.training import adaptive
from mi_contrast.training.assemble import Job
from mi_contrast.training.candidates import refresh_clusters
from mi_contrast.training.diagnostics import make_support_statistics
from mi_contrast.training.forecast import Pace, describe_pace
from mi_contrast.training.held_out_record import HeldOutRecord
from mi_contrast.training.metrics import Log, NoLog
from mi_contrast.training.state import State, to_tree
from mi_contrast.training.step import Scalars, make_step


class Pending(NamedTuple):
    """The scalars of the latest step, which the device may still be computing, and whether they are to be logged."""

    step: int
    scalars: Scalars
    is_log_step: bool


class Trainer:
    """A run in progress. `state` is the state after the latest step.

    Args:
      config: the run's config as plain data.
      checkpoints, log, progress: where states, numbers and messages go.
      start: the number of steps already taken.
      last: the step to stop after.
      record: keeps held-out images for the page; None in a process that writes nothing.
    """

    def __init__(
        self,
        job: Job,
        reader: Reader,
        config: Mapping[str, Any],
        checkpoints: Checkpoints,
        log: Log | NoLog,
        progress: ProgressBar,
        state: State,
        start: int,
        last: int,
        record: HeldOutRecord | None = None,
    ):
        self.job, self.reader, self.config = job, reader, config
        self.checkpoints, self.log, self.progress_bar = checkpoints, log, progress
        self.state, self.last, self.record = state, last, record
        self._train_step, self._describe_support = make_step(job.parts), make_support_statistics(job.parts)
        self._pending: Pending | None = None
        self._note = ""
        self._asked_to_stop = False
        self._pace = Pace()
        self._began = time.perf_counter()
        self._logged_step, self._logged_time = start, self._began

    def train(self, start: int, request: StopRequest, profile: Callable[[int], None]) -> None:
        """Takes the steps after `start`.

        Args:
          request: set when the run is asked to stop.
          profile: called before each step with its number, the first step being 1.
        Raises:
          StoppedError, KeyboardInterrupt: the run was asked to stop, or ran out of time; it is saved.
          BadNumbersError: too many steps in a row were not finite.
        """
        for step in range(start + 1, self.last + 1):
            profile(step)
            began = time.perf_counter()
            self._take_step(step)
            if (seconds := self._pace.add(time.perf_counter() - began)) is not None:
                self.progress_bar.say(describe_pace(seconds, self._pace.count, self.last - step))
            overtime, stopping = self._decide_to_stop(step, request)
            measuring, saving = self._is_due("eval", step), stopping or self._is_due("checkpoint", step)
            if measuring or saving:
                self._read_pending()
            if measuring:
                self.measure(step)
            if saving:
                self._save(step)
            if stopping:
                self._stop(step, request, overtime)
        self.checkpoints.wait()

    def measure(self, step: int) -> None:
        """Measures the state on held-out examples, logs the numbers and gives them to adaptive schedules."""
        state = take_local(self.state)
        measured = [judge(state) for judge in self.job.judges]
        numbers = {name: value for part in measured for name, value in part.numbers.items()}
        numbers = processes.agree(numbers)  # their last bits may differ from host to host
        self.log.write(step, time.perf_counter() - self._began, numbers)
        if self.record is not None:
            self.record.write(step, state, {name: value for part in measured for name, value in part.details.items()})
        shown = [f"mi {numbers['mi_nats']:.3f} of {numbers['mi_ceiling']:.2f} nats"]
        shown += [f"{name} {100 * numbers[name]:.1f} %" for name in ("knn_top1", "probe_top1") if name in numbers]
        count = len(self.job.held_out_ids)
        noise = f" (of {count} images, too few to tell)" if count < FEWEST else ""
        self.progress_bar.say(f"step {step}: {', '.join(shown)}{noise}")
        carried = adaptive.add_measurements(self.job.parts.method, self.state.carried, numbers)
        self.state = replace(self.state, carried=carried)

    def _take_step(self, step: int) -> None:
        """Takes one step, and reads the scalars of the step before: the device never waits for the host."""
        parts, tables = self.job.parts, self.job.tables
        # The loop counts steps from 1; `state.step` and the reader count the steps that were taken, from 0.
        epoch, step_in_epoch = divmod(step - 1, self.reader.steps_per_epoch)
        if step_in_epoch == 0:
            carried = refresh_clusters(parts.method, self.state.pools, self.state.carried, epoch, parts.mesh)
            self.state = replace(self.state, carried=carried)
        batch = self.reader.batch(step - 1)
        is_log_step = step % self.config["log"]["every"] == 0 or step == self.last
        support_statistics = self._describe_support(self.state, batch, tables) if is_log_step else {}
        self.state, scalars = self._train_step(self.state, batch, tables)
        self._read_pending()
        self._pending = Pending(step, scalars | support_statistics, is_log_step)
        self.progress_bar.advance(1, self._note)

    def _is_due(self, section: str, step: int) -> bool:
        """Whether measuring ('eval') or saving ('checkpoint') is due: every so many steps, and at the end."""
        end = self.job.parts.total_steps if section == "eval" else self.last
        return step % self.config[section]["every"] == 0 or step == end

    def _read_pending(self) -> None:
        """Reads the scalars of the latest step, logs them where that is due, and checks that they are good."""
        if self._pending is None:
            return
        (step, scalars, is_log_step), self._pending = self._pending, None
        bad = int(scalars["bad_steps"])
        if is_log_step:
            self._write(step, {name: float(value) for name, value in scalars.items()})
        if bad >= self.config["optim"]["patience"]:
            raise BadNumbersError(_explain_bad_steps(bad, step, self.checkpoints.latest()))

    def _write(self, step: int, numbers: dict[str, float]) -> None:
        now = time.perf_counter()
        images = (step - self._logged_step) * self.job.batch_size
        numbers["images_per_second"] = images / (now - self._logged_time)
        self._logged_step, self._logged_time = step, now
        self.log.write(step, now - self._began, numbers)
        self.checkpoints.check()
        ceiling = numbers.get("objective_ceiling")
        unit = "nats" if ceiling is None else f"of {ceiling:.2f} nats"
        self._note = f"objective {numbers['objective']:.3f} {unit}"

    def _save(self, step: int) -> None:
        if self.checkpoints.latest() != step:
            self.checkpoints.save(step, to_tree(self.state), {"step": step})

    def _decide_to_stop(self, step: int, request: StopRequest) -> tuple[bool, bool]:
        """Returns whether the time limit is over, and whether to stop after this step, though it is not the last."""
        limit = self.config["checkpoint"]["time_limit"]
        overtime = limit is not None and time.perf_counter() - self._began > limit
        if processes.count() == 1:
            return overtime, step < self.last and (overtime or request.is_set())
        if overtime and processes.is_first() and not self._asked_to_stop:
            self._asked_to_stop = True
            processes.request_stop()
        return self._asked_to_stop, step < self.last and processes.reached_stop(step)

    def _stop(self, step: int, request: StopRequest, overtime: bool) -> None:
        """Raises what ends the run, when the state is on disk."""
        self.checkpoints.wait()
        place = f"at step {step} of {self.job.parts.total_steps}. The state is saved; run the same command to resume"
        cause = "the time limit" if overtime and not request.is_set() else request.cause
        cause = processes.agree(cause, _choose_cause)
        kind = InterruptedSavedError if cause == "Ctrl-C" else StoppedError
        raise kind(f"stopped by {cause} {place}")


def _choose_cause(causes: list[str]) -> str:
    """Returns why all processes stop, of what each knows. A process that knows no cause, or all, had a SIGTERM."""
    known = [cause for cause in ("Ctrl-C", "SIGHUP", "the time limit") if cause in causes]
    return known[0] if known else "SIGTERM"


def _explain_bad_steps(bad: int, step: int, newest: int | None) -> str:
    """Returns the text of a BadNumbersError: what happened, what is kept, and how to resume."""
    saved = "no checkpoint was written yet" if newest is None else f"the newest checkpoint is of step {newest}"
    return (
        f"{bad} steps in a row up to step {step} had a loss or gradient that is not finite; the network is as it was "
        f"before them, {saved}. The same command stops here again: look for bad values in the data, or resume with a "
        "lower rate (--allow=optim --config.optim.lr=VALUE) or other temperatures (--allow=method)"
    )
