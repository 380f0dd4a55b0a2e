"""Turns the config of a study into a plan of its runs and tasks, and finds every mistake before anything is run.

A study's config is plain data:

  question    a sentence for the page
  data_dir    data.dir of every run, and of every task that names a set but no folder; None leaves them as they are
  steps       number of steps of every run; None leaves them as they are
  reference   label of the setting that others are compared with, or None
  runs        the settings, a dict each:
                label
                config    the file of a method
                variant   of that file; None by default
                changes   {'dotted.field': value}, as --config.* takes them; {} by default
                seeds     one run for each; (0,) by default
                group     a heading; '' by default
              The change 'generator.start_from': 'study:LABEL' refers to the run of that label with the same seed, which
              must be listed before
  evaluate    the tasks that judge each run and its untrained twin: dicts with config, variant and changes
  columns     metrics of the runs' logs whose last values are shown
  figure      tasks and columns to draw
  curve       optional: a column that accuracy is drawn against, one curve for each group
  order       optional: 'settings', all seeds of a setting before the next (default), or 'seeds', all settings of a seed
              before the next, so that a study that ends early has whole seeds
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core.config import change, check_section, differences, load_config, to_plain_data
from mi_contrast.core.errors import UserError, add_place, unknown
from mi_contrast.core.layout import RunDirectory, read_json
from mi_contrast.reporting.study_runs import MEASURES

STUDY_FIELDS = ("question", "data_dir", "steps", "reference", "runs", "evaluate", "columns", "figure")
OPTIONAL_FIELDS = ("curve", "order")
ORDERS = ("settings", "seeds")
REQUIRED_OF_RUN, REQUIRED_OF_TASK = ("label", "config"), ("config",)
TASK_DEFAULTS: dict[str, Any] = {"variant": None, "changes": {}}
RUN_DEFAULTS: dict[str, Any] = {**TASK_DEFAULTS, "seeds": (0,), "group": ""}
STUDY_PREFIX = "study:"  # of generator.start_from, before the label of another run
MAY_DIFFER = ("log", "checkpoint")  # sections of a run's config that may change when the study is resumed


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    label: of its setting.
    folder: relative to the study's folder.
    name, variant: of the file that its config is from.
    config: resolved.
    """

    label: str
    seed: int
    folder: str
    name: str
    variant: str | None
    config: Mapping[str, Any]


@dataclass(frozen=True)
class StudyPlan:
    """The plan of a study.

    runs: all runs, in order.
    tasks: config of the evaluation of each task.
    record: content of study.json.
    """

    runs: tuple[StudyRun, ...]
    tasks: tuple[Mapping[str, Any], ...]
    record: Mapping[str, Any]


def make_plan(config: ConfigDict | Mapping[str, Any], name: str = "study", variant: str | None = None) -> StudyPlan:
    """Returns the plan of a study, every field of its config checked. Raises UserError on a mistake; writes nothing."""
    study = to_plain_data(config)
    check_section("config", study, STUDY_FIELDS, OPTIONAL_FIELDS)
    tasks, task_records = _read_tasks(study["evaluate"], study["data_dir"])
    allowed = {"columns": MEASURES, "figure": (*(task["name"] for task in task_records), *study["columns"])}
    for field, columns in allowed.items():
        for column in study[field]:
            if column not in columns:
                raise unknown(f"column in config.{field}", column, columns)
    if (curve := study.get("curve")) is not None and curve not in study["columns"]:
        raise unknown("column in config.curve", curve, study["columns"])
    if (order := study.get("order", ORDERS[0])) not in ORDERS:
        raise unknown("config.order", order, ORDERS)
    runs: list[StudyRun] = []
    settings = []
    for i, section in enumerate(study["runs"]):
        check_section(f"config.runs.{i}", section, REQUIRED_OF_RUN, RUN_DEFAULTS)
        runs_of_setting, record = _read_setting(study, {**RUN_DEFAULTS, **section})
        runs += runs_of_setting
        settings.append(record)
    if order == "seeds":
        runs.sort(key=lambda run: run.seed)
    labels = [setting["label"] for setting in settings]
    _check_unique("label", labels)
    _check_unique("folder", [run.folder for run in runs])
    _check_sources(runs)
    if not labels:
        raise UserError("config.runs is empty", fix="give at least one run")
    if study["reference"] is not None and study["reference"] not in labels:
        raise unknown("label in config.reference", study["reference"], labels)
    presentation = {field: study[field] for field in ("question", "columns", "figure", "reference")} | {"curve": curve}
    record = {"name": name, "variant": variant, **presentation, "tasks": task_records, "settings": settings}
    return StudyPlan(tuple(runs), tuple(tasks), record)


def _read_tasks(evaluate: Sequence[Any], data_dir: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the config of each task's evaluation, and the record of each task for study.json."""
    tasks, records = [], []
    for i, section in enumerate(evaluate):
        path = f"config.evaluate.{i}"
        check_section(path, section, REQUIRED_OF_TASK, TASK_DEFAULTS)
        task, *_ = _load_config(path, {**TASK_DEFAULTS, **section})
        check_section(f"{path}: {section['config']}", task, ("task", "data", "seed"), ("batch_size", "features"))
        if task["data"]["name"] is not None and task["data"]["dir"] is None:
            task["data"]["dir"] = data_dir
        parts = (task["task"]["kind"], task["data"]["name"], task["data"]["label"])
        words = [str(part) for part in parts if part is not None]
        settings = {**task["task"], "seed": task["seed"]}
        tasks.append(task)
        data = {"dataset": task["data"]["name"], "label": task["data"]["label"]}
        records.append({"name": "-".join(words), **data, "settings": settings})
    _check_unique("task", [record["name"] for record in records])
    for record in records:
        similar = [o for o in records if o is not record and o["name"].startswith(f"{record['name']}-") and o["label"]]
        if record["label"] is None and any(o["dataset"] == record["dataset"] for o in similar):
            what = f"task {record['name']!r} names no label, and {similar[0]['name']!r} does"
            raise UserError(what, fix="name the label of each: data.label")
    return tasks, records


def _read_setting(study: Mapping[str, Any], setting: Mapping[str, Any]) -> tuple[list[StudyRun], dict[str, Any]]:
    """Returns the runs of one setting, one for each seed, and the record of the setting for study.json."""
    label, seeds = str(setting["label"]), setting["seeds"]
    common = {"data.dir": study["data_dir"], "steps": study["steps"]}
    changes = {**setting["changes"], **{path: value for path, value in common.items() if value is not None}}
    config, name, variant = _load_config(f"run {setting['label']!r}", {**setting, "changes": changes})
    slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")
    runs: list[StudyRun] = []
    if not seeds or not isinstance(seeds, tuple):
        raise UserError(f"run {setting['label']!r} has seeds {seeds!r}", fix="give whole numbers: seeds=(0, 1, 2)")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise UserError(f"run {setting['label']!r} has seed {seed!r}", fix="give whole numbers: seeds=(0, 1, 2)")
        runs.append(StudyRun(label, seed, f"runs/{slug}-seed{seed}", name, variant, {**config, "seed": seed}))
    spec = f"{setting['config']}:{setting['variant']}" if setting["variant"] else setting["config"]
    command = ["python -m mi_contrast.main", f"--config={spec}", f"--config.seed={runs[0].seed}"]
    command += [shlex.quote(f"--config.{path}={_to_text(value)}") for path, value in changes.items()]
    record = {
        "label": label,
        "group": setting["group"],
        "changes": setting["changes"],
        "command": " ".join(command),
        "runs": [{"seed": run.seed, "folder": run.folder} for run in runs],
    }
    return runs, record


def _load_config(path: str, section: Mapping[str, Any]) -> tuple[dict[str, Any], str, str | None]:
    """Returns the config of a file and a variant with changes, and the file's name and variant.

    Raises UserError that begins with `path`.
    """
    try:
        config, name, variant = load_config(":".join(word for word in (section["config"], section["variant"]) if word))
        for field, value in section["changes"].items():
            config = change(config, field, _to_text(value))
    except UserError as error:
        raise add_place(path, error) from None
    return to_plain_data(config), name, variant


def _to_text(value: Any) -> str:
    """Returns a value as it is written on the command line."""
    return value if isinstance(value, str) else repr(value)


def _check_unique(what: str, words: Sequence[str]) -> None:
    for word in words:
        if words.count(word) > 1:
            raise UserError(f"{what} {word!r} is there twice", fix=f"give each {what} once")


def _check_sources(runs: Sequence[StudyRun]) -> None:
    """Raises UserError if a run starts from one that is not listed before it with the same seed."""
    for i, run in enumerate(runs):
        if (label := _read_source_label(run)) is None:
            continue
        labels = [other.label for other in runs[:i] if other.seed == run.seed]
        if label not in labels:
            raise unknown(f"label of seed {run.seed} before run {run.label!r}", label, labels)


def _read_source_label(run: StudyRun) -> str | None:
    """Returns the label of the study's run whose generator this run starts from, or None."""
    source = run.config.get("generator", {}).get("start_from")
    return source.removeprefix(STUDY_PREFIX) if isinstance(source, str) and source.startswith(STUDY_PREFIX) else None


def find_source(plan: StudyPlan, run: StudyRun) -> StudyRun | None:
    """Returns the study's run whose generator this run starts from, or None."""
    label = _read_source_label(run)
    return next((other for other in plan.runs if (other.label, other.seed) == (label, run.seed)), None)


def locate_source(plan: StudyPlan, run: StudyRun, root: Path) -> Mapping[str, Any]:
    """Returns the config of a run, with 'study:LABEL' replaced by the folder of that run.

    root: the study's folder.
    """
    if (source := find_source(plan, run)) is None:
        return run.config
    generator = {**run.config["generator"], "start_from": str(root.resolve() / source.folder)}
    return {**run.config, "generator": generator}


def refuse_other_configs(plan: StudyPlan, root: Path) -> None:
    """Raises UserError if the folder of a run has a run of another config."""
    for run in plan.runs:
        file = RunDirectory(root / run.folder).config
        if file.is_file():
            different = differences(read_json(file)["config"], locate_source(plan, run, root))
            forbidden = [name for name in different if name.split(".")[0] not in MAY_DIFFER]
            if forbidden:
                raise UserError(
                    f"{root / run.folder} holds a run of another config: {', '.join(forbidden[:6])} differ",
                    fix="give the changed setting a label of its own, remove that folder, or give another --workdir",
                )


def select_runs(plan: StudyPlan, only: str | None) -> list[StudyRun]:
    """Returns the runs of one label, those whose labels match a pattern such as 'ring*', or all runs for None.

    Raises UserError if there are none.
    """
    labels = dict.fromkeys(run.label for run in plan.runs)
    chosen = [label for label in labels if only in (None, label)]
    chosen = chosen or [label for label in labels if fnmatchcase(label, only or "*")]
    if not chosen:
        raise unknown("label", only, labels)
    return [run for run in plan.runs if run.label in chosen]
