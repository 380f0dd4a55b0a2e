"""Trains the method of a config in a run directory:

  python -m mi_contrast.main --config=configs/ring_moco.py[:variant] [--workdir=runs/x] [--config.optim.lr=.03 ...]

The same command continues a run that was stopped; on a finished run it says so. The run directory contains
config.json, run.json, metrics.jsonl, checkpoints/, export/ (the backbone, with its manifest) and report.html.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mi_contrast import tables
from mi_contrast.core import processes
from mi_contrast.core.config import CommandLine, parse, set_short_flags, to_plain_data
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.core.layout import RunDirectory, check_mounted, default_workdir, read_json

FLAGS = {
    "config=": "a config file, optionally with :variant; --config.section.field=value changes a field",
    "workdir=": "the run directory; runs/<config>-<variant> by default",
    "labels=": "of one's own pictures: a table labels.csv with the columns file,label; short for --config.data.labels",
    "group=": "of one's own pictures: folder, or an expression, for what stays on one side of a split",
    "stop_at=": "save and stop after this step; schedules are unchanged",
    "allow=": "config sections that may differ from the earlier start, such as optim,method; recorded in run.json",
    "dry_run": "take a few steps, print memory, seconds a step, total time and disk, and stop; nothing is written",
    "list[=]": f"print a table and stop: {', '.join(tables.TABLES)}; methods by default",
    **processes.FLAGS,
}


def train(
    config: ConfigDict | Mapping[str, Any],
    workdir: str | Path,
    *,
    name: str = "",
    variant: str | None = None,
    stop_at: int | None = None,
    allow: Sequence[str] = (),
) -> Path:
    """Trains `config` in `workdir`, as the command does, and returns the run directory.

    Args:
      config: a ConfigDict as the `get_config` of a config file returns it, or the same as plain dicts.
      workdir: the run directory. If it has a run of this config, training continues from its newest checkpoint.
      name, variant: name and variant of the config file, for the record in run.json.
      stop_at: save and stop after this step.
      allow: sections of the config that may differ from the earlier start, such as ('optim',).
    Raises:
      UserError on a mistake in the config, its data or the directory; BadNumbersError where loss or gradient are not
      finite; StoppedError at a signal or a time limit, and KeyboardInterrupt at Ctrl-C, both after saving.
    """
    from mi_contrast.reporting.page import write_report
    from mi_contrast.training import loop

    processes.start(polls_stops=True)
    outcome = loop.run(to_plain_data(config), workdir, name=name, variant=variant, stop_at=stop_at, allow=allow)
    with processes.together():
        if processes.is_first():
            write_report(outcome.run.root)
    return outcome.run.root


def _choose_workdir(call: CommandLine) -> Path:
    """Returns the run directory: that of --workdir, or runs/<config>-<variant>, or runs/<config>-<name of a folder>."""
    variant, name = call.variant, (call.config or {}).get("data", {}).get("name")
    if variant == "folder" and name:
        from mi_contrast.data.own import shorten_name

        variant = shorten_name(name) or variant
    return Path(call.flags.get("workdir") or default_workdir(call.name, variant))


def say_how_to_judge(run: Path) -> str:
    """Returns the command that judges a run on its own data, or on their geometry where they have no labels."""
    with open(run / "metrics.jsonl", encoding="utf-8") as lines:
        task = "linear" if any('"probe_top1"' in line for line in lines) else "diagnostics"
    return f"mi-contrast evaluate {task} {shlex.quote(str(run))}"


def say_how_to_go_on(run: Path, total: int, arguments: list[str]) -> str:
    """Returns that a run had all its steps before, and the command that trains it for twice as many.

    Args:
      total: steps of the run.
      arguments: those of the command that found the run finished.
    """
    from mi_contrast.data.own import name_pictures

    words = [word for word in arguments if not word.startswith(("--config.steps=", "--stop_at="))]
    config, name = (word.partition("=")[2] for word in (*words, "", "")[:2])
    picture_path = name.partition(":")[2]
    if words[1:] and config.endswith(":folder") and words[1] == f"--config.data.name={name_pictures(picture_path)}":
        words[:2] = [config.removesuffix(":folder"), picture_path]  # as they were most likely typed
    command = shlex.join(["mi-contrast", "train", *words, f"--config.steps={2 * total}"])
    return f"{run} was trained before, nothing was trained now: it has all its {total:,} steps; for more: {command}"


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    from mi_contrast.core.checkpoint import latest_step
    from mi_contrast.reporting import ending

    processes.start(arguments, polls_stops=True)
    call = parse(arguments, FLAGS, usage=__doc__ or "")
    if "list" in call.flags:
        print(tables.write_table(call.flags["list"] or "methods"))
        return
    if call.config is None:
        raise UserError("no --config given", fix="try --config=configs/ring_moco.py, or --list")
    config = set_short_flags(call)
    stop_at = call.flags.get("stop_at")
    if stop_at is not None and not stop_at.isdigit():
        raise UserError(f"--stop_at={stop_at} is not a step", fix="give a whole number")
    workdir = _choose_workdir(call)
    check_mounted(str(call.flags.get("workdir", "")), "--workdir")
    if "dry_run" in call.flags:
        from mi_contrast.planning import here, saying

        print("\n".join(saying.say_here(here.plan_here(to_plain_data(config), workdir))))
        return
    name, before = call.name or "", latest_step(RunDirectory(workdir).checkpoints)
    run = train(
        config,
        workdir,
        name=name,
        variant=call.variant,
        stop_at=None if stop_at is None else int(stop_at),
        allow=[word.strip() for word in call.flags["allow"].split(",")] if "allow" in call.flags else (),
    )
    folder = RunDirectory(Path(run))
    step, total = latest_step(folder.checkpoints) or 0, int(read_json(folder.config)["config"]["steps"])
    if step < total:
        print(f"stopped at step {step} of {total}, saved\nlook at {folder.report}")
        return
    print(f"{run} is trained" if step != before else say_how_to_go_on(run, total, arguments))
    print("\n".join(ending.describe_end(folder.root, say_how_to_judge(folder.root))))


if __name__ == "__main__":
    sys.exit(run_job(main))
