"""Writes the results of a study into its folder: table.csv, table.json, table.md, figure.svg and study.html.

A study with a curve column also gets curves.svg.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import RunDirectory, write_text
from mi_contrast.reporting import charts, drawing, study_charts, study_runs, study_table, templates
from mi_contrast.reporting.story import Figure
from mi_contrast.reporting.study_runs import Column, Setting, Study
from mi_contrast.reporting.templates import say
from mi_contrast.reporting.words import THIN, number

PAGE, FIGURE, CURVES = "study.html", "figure.svg", "curves.svg"


@dataclass(frozen=True)
class Cell:
    """A number in the page's table: its mean, the ends of its spread or '', and a small remark below it."""

    mean: str
    ends: str = ""
    below: str = ""


@drawing.unvalidated
def write_study(root: Path) -> Study:
    """Writes the tables, the figure and the page into the study's folder, each whole or not at all. Returns the study.

    Raises:
      UserError: `root` holds no study, or cannot be written to.
    """
    study = study_runs.read_study(root)
    numbers, curves = list(study_charts.draw_numbers(study)), list(study_charts.draw_curves(study))
    title = study.name + (f" : {study.variant}" if study.variant else "")
    files = {
        "table.csv": study_table.as_csv(study),
        "table.json": study_table.dumps(study),
        "table.md": study_table.as_markdown(study),
        PAGE: render(study, numbers, curves, root),
    }
    for name, figures, note, columns in (
        (FIGURE, numbers, study_charts.say_marks(study), 3),
        (CURVES, curves, "", sum(column.task for column in study.columns)),
    ):
        if figures:
            panels = [(figure.title, figure.note, figure.chart) for figure in figures]
            files[name] = drawing.as_svg(charts.lay_out(panels, title=title, note=note, columns=columns))
    try:
        for name, text in files.items():
            write_text(root / name, text)
    except UserError:
        raise
    except OSError as error:
        raise FileError(f"can't write in {root} ({error.strerror})", fix="give another --workdir") from None
    return study


def render(study: Study, numbers: list[Figure], curves: list[Figure], root: Path) -> str:
    """Returns the page's HTML with these charts. Runs that have a report are linked."""
    states = [state.word for _, _, _, state in study.runs]
    shown = [column for column in study.columns if column.name not in study_runs.CEILINGS.values()]
    return templates.render(
        "study.html.j2",
        study=study,
        facts=[f"{len(study.settings)} settings", *_counted(states)],
        done=states.count("done") / max(len(states), 1),
        numbers=numbers,
        marks=study_charts.say_marks(study),
        curves=curves,
        columns=shown,
        groups=_groups(study, shown, root),
        comparisons=study_runs.compare_settings(study),
        failures=study_runs.list_failures(study),
        changes=[(s, [(name, say(value)) for name, value in s.changes.items()]) for s in study.settings],
    )


def _counted(states: list[str]) -> list[str]:
    words = {"done": "done", "failed": "failed", "trained": "to be judged", "begun": "begun", "waiting": "waiting"}
    counted = [(states.count(word), text) for word, text in words.items()]
    return [f"{count} of {len(states)} runs {text}" for count, text in counted if count]


def _groups(
    study: Study, shown: list[Column], root: Path
) -> list[tuple[str, list[tuple[Setting, list[tuple[int, str, str]], list[Cell]]]]]:
    """(group, rows) in order; a row is a setting, its seeds with link and state, and its cells."""
    groups: dict[str, list[tuple[Setting, list[tuple[int, str, str]], list[Cell]]]] = {}
    for setting in study.settings:
        seeds = [
            (seed, f"{folder}/report.html" if RunDirectory(root / folder).report.is_file() else "", state.word)
            for seed, folder, state in setting.runs
        ]
        cells = [_cell(setting, column) for column in shown]
        groups.setdefault(setting.group, []).append((setting, seeds, cells))
    return list(groups.items())


def _cell(setting: Setting, column: Column) -> Cell:
    spread = setting.values.get(column.name)
    if spread is None:
        return Cell("")
    mean = number(spread.mean, column.unit)
    low, high = (number(v, column.unit).removesuffix(THIN + column.unit) for v in (spread.low, spread.high))
    below, top = "", setting.values.get(study_runs.CEILINGS.get(column.name, ""))
    if top is not None:
        below = f"of {number(top.mean, 'nats')}"
    elif column.task and (twin := setting.untrained.get(column.name)):
        below = f"untrained {number(twin.mean, '%')}"
    return Cell(mean, f"{low} to {high}" if spread.n > 1 else "", below)
