"""A study settled: from its config to its runs and tasks, every mistake found before anything is run.

A study's config is plain data:

  question    a sentence, for the page
  data_dir    data.dir of every run, and of a task that names a set but no folder; or None: as their own config and
              changes have it
  steps       steps of every run, or None
  reference   the label others are compared with, or None
  runs        dicts: label; config, a method's file; variant of it; changes, {'dotted.field': value}, as --config.*
              takes them; seeds, a run each, (0,) by default; group, a heading, '' by default. A change
              'generator.start_from': 'study:LABEL' names the run of that label and the same seed, listed before
  evaluate    dicts: config, a task's file; variant; changes: what judges each run, and its untrained twin
  columns     metrics of the runs' logs to show, last values
  figure      tasks and columns to draw
  curve       a column that accuracy is drawn against, group by group; may be left out
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_contrast.core.config import change, check_section, differences, load_config, plain
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.layout import RunDirectory, read_json
from mi_contrast.reporting.study_runs import MEASURES

STUDY_FIELDS = ("question", "data_dir", "steps", "reference", "runs", "evaluate", "columns", "figure")
RUN_NEEDED, TASK_NEEDED = ("label", "config"), ("config",)
TASK_DEFAULTS: dict[str, Any] = {"variant": None, "changes": {}}
RUN_DEFAULTS: dict[str, Any] = {**TASK_DEFAULTS, "seeds": (0,), "group": ""}
OF_STUDY = "study:"
FREE = ("log", "checkpoint")  # sections of a run's config that may differ between starts of the study


@dataclass(frozen=True)
class Start:
    """One run of the study: its setting's label, its seed, its folder in the study's, its config with that config
    file's name and variant.
    """

    label: str
    seed: int
    folder: str
    name: str
    variant: str | None
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """A study settled: its runs; each task's evaluation config; what study.json says."""

    starts: tuple[Start, ...]
    tasks: tuple[Mapping[str, Any], ...]
    told: Mapping[str, Any]


def settle(config: Any, name: str = "study", variant: str | None = None) -> Plan:
    """Every run and task of a study's config, checked field by field. UserError on any mistake; touches no disk."""
    study = plain(config)
    check_section("config", study, STUDY_FIELDS, ("curve",))
    tasks, told_tasks = _tasks(study["evaluate"], study["data_dir"])
    tables = {"columns": MEASURES, "figure": (*(task["name"] for task in told_tasks), *study["columns"])}
    for field, table in tables.items():
        for column in study[field]:
            if column not in table:
                raise unknown(f"column in config.{field}", column, table)
    if (curve := study.get("curve")) is not None and curve not in study["columns"]:
        raise unknown("column in config.curve", curve, study["columns"])
    starts: list[Start] = []
    settings = []
    for at, given in enumerate(study["runs"]):
        check_section(f"config.runs.{at}", given, RUN_NEEDED, RUN_DEFAULTS)
        made, told = _setting(study, {**RUN_DEFAULTS, **given})
        starts += made
        settings.append(told)
    labels = [row["label"] for row in settings]
    _once("label", labels)
    _once("folder", [start.folder for start in starts])
    _sources(starts)
    if not labels:
        raise UserError("config.runs is empty", fix="give at least one run")
    if study["reference"] is not None and study["reference"] not in labels:
        raise unknown("label in config.reference", study["reference"], labels)
    told = {field: study[field] for field in ("question", "columns", "figure", "reference")} | {"curve": curve}
    told = {"name": name, "variant": variant, **told, "tasks": told_tasks, "settings": settings}
    return Plan(tuple(starts), tuple(tasks), told)


def _tasks(evaluate: Sequence[Any], data_dir: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each task's evaluation config, and what study.json says of it."""
    tasks, told = [], []
    for at, given in enumerate(evaluate):
        where = f"config.evaluate.{at}"
        check_section(where, given, TASK_NEEDED, TASK_DEFAULTS)
        task, *_ = _resolve(where, {**TASK_DEFAULTS, **given})
        check_section(f"{where}: {given['config']}", task, ("task", "data", "seed"), ("batch_size", "features"))
        if task["data"]["name"] is not None and task["data"]["dir"] is None:
            task["data"]["dir"] = data_dir
        named = (task["task"]["kind"], task["data"]["name"], task["data"]["label"])
        words = [str(word) for word in named if word is not None]
        settings = {**task["task"], "seed": task["seed"]}
        tasks.append(task)
        data = {"dataset": task["data"]["name"], "label": task["data"]["label"]}
        told.append({"name": "-".join(words), **data, "settings": settings})
    _once("task", [row["name"] for row in told])
    for row in told:
        beside = [o for o in told if o is not row and o["name"].startswith(f"{row['name']}-") and o["label"]]
        if row["label"] is None and any(o["dataset"] == row["dataset"] for o in beside):
            said = f"task {row['name']!r} names no label, and {beside[0]['name']!r} does"
            raise UserError(said, fix="name the label of each: data.label")
    return tasks, told


def _setting(study: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[list[Start], dict[str, Any]]:
    """The starts of one setting, a seed each, and what study.json says of it."""
    common = {"data.dir": study["data_dir"], "steps": study["steps"]}
    changes = {**run["changes"], **{path: value for path, value in common.items() if value is not None}}
    config, name, variant = _resolve(f"run {run['label']!r}", {**run, "changes": changes})
    slug = re.sub(r"[^a-z0-9.]+", "-", str(run["label"]).lower()).strip("-.")
    starts: list[Start] = []
    if not run["seeds"] or not isinstance(run["seeds"], tuple):
        raise UserError(f"run {run['label']!r} has seeds {run['seeds']!r}", fix="give whole numbers: seeds=(0, 1, 2)")
    for seed in run["seeds"]:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise UserError(f"run {run['label']!r} has seed {seed!r}", fix="give whole numbers: seeds=(0, 1, 2)")
        starts.append(
            Start(str(run["label"]), seed, f"runs/{slug}-seed{seed}", name, variant, {**config, "seed": seed})
        )
    spec = f"{run['config']}:{run['variant']}" if run["variant"] else run["config"]
    command = ["python -m mi_contrast.main", f"--config={spec}", f"--config.seed={starts[0].seed}"]
    command += [shlex.quote(f"--config.{path}={_text(value)}") for path, value in changes.items()]
    told = {"label": str(run["label"]), "group": run["group"], "changes": run["changes"], "command": " ".join(command),
            "runs": [{"seed": start.seed, "folder": start.folder} for start in starts]}  # fmt: skip
    return starts, told


def _resolve(where: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], str, str | None]:
    """The config that a file, a variant and changes make, with the file's name and variant."""
    try:
        config, name, variant = load_config(":".join(word for word in (given["config"], given["variant"]) if word))
        for path, value in given["changes"].items():
            config = change(config, path, _text(value))
    except UserError as error:
        raise UserError(f"{where}: {error.what}", nearest=error.nearest, fix=error.fix) from None
    return plain(config), name, variant


def _text(value: Any) -> str:
    """A value as the command line would give it."""
    return value if isinstance(value, str) else repr(value)


def _once(what: str, words: Sequence[str]) -> None:
    for word in words:
        if words.count(word) > 1:
            raise UserError(f"{what} {word!r} is there twice", fix=f"give each {what} once")


def _sources(starts: Sequence[Start]) -> None:
    """UserError where a run starts from one that isn't listed before it with its seed."""
    for at, start in enumerate(starts):
        if (label := _named(start)) is None:
            continue
        before = [other for other in starts[:at] if other.seed == start.seed]
        if label not in [other.label for other in before]:
            raise unknown(f"label of seed {start.seed} before run {start.label!r}", label, [o.label for o in before])


def _named(start: Start) -> str | None:
    """The label of the study's run whose generator this one starts from, if it does."""
    named = start.config.get("generator", {}).get("start_from")
    return named.removeprefix(OF_STUDY) if isinstance(named, str) and named.startswith(OF_STUDY) else None


def source_of(plan: Plan, start: Start) -> Start | None:
    """The study's run whose generator this one starts from, if it does."""
    wanted = _named(start), start.seed
    return next((other for other in plan.starts if (other.label, other.seed) == wanted), None)


def placed(plan: Plan, start: Start, root: Path) -> Mapping[str, Any]:
    """The config of a run of the study that lies at `root`: another run of the study is named by its folder there."""
    if (source := source_of(plan, start)) is None:
        return start.config
    return {
        **start.config,
        "generator": {**start.config["generator"], "start_from": str(root.resolve() / source.folder)},
    }


def refuse_others(plan: Plan, root: Path) -> None:
    """UserError where a run's folder holds a run of another config: a study's rows are of one config each."""
    for start in plan.starts:
        file = RunDirectory(root / start.folder).config
        if file.is_file():
            different = differences(read_json(file)["config"], placed(plan, start, root))
            fixed = [name for name in different if name.split(".")[0] not in FREE]
            if fixed:
                raise UserError(
                    f"{root / start.folder} holds a run of another config: {', '.join(fixed[:6])} differ",
                    fix="give the changed setting a label of its own, remove that folder, or give another --workdir",
                )


def chosen_starts(plan: Plan, only: str | None) -> list[Start]:
    """The plan's starts, or those of one label. UserError where there is no such label."""
    labels = dict.fromkeys(start.label for start in plan.starts)
    if only is not None and only not in labels:
        raise unknown("label", only, labels)
    return [start for start in plan.starts if only in (None, start.label)]
