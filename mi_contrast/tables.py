"""The tables of `--list`: what a command line may name, each with its paper, its time and what it is for.

Nothing is written here twice. A method, a task and a study say what they are in their config file: the first sentence
of its header, `PAPER`, and the minutes of the variant that runs by default. The other tables are read from the
docstrings of the functions that they list.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mi_contrast.core.config import load_config, package_configs, to_plain_data
from mi_contrast.core.errors import unknown

WIDTH = 100  # columns of a terminal
PAPER = re.compile(r"[A-Z][\w-]+(?:,? (?:and )?[A-Z][\w-]+| and van der [A-Z]\w+)*(?: et al\.)? (?:19|20)\d\d")
MINUTES = re.compile(r"(\d+(?: to \d+)? (?:minutes|seconds))(?! of)")


class About(NamedTuple):
    """What a config file says of itself."""

    name: str
    sentence: str
    paper: str
    time: str


def describe_config(file: Path) -> About:
    """Returns what a config file says of itself, without running it: the header's first sentence, paper and time."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    header = ast.get_docstring(tree) or ""
    constants = {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    variants = " ".join((header.partition("Variants:")[2] or header).split())
    time = constants.get("TIME") or next(iter(MINUTES.findall(variants)), "")
    return About(
        file.stem,
        first_sentence(header.partition("\n\n")[0]),
        str(constants.get("PAPER", "")),
        _shorten_time(str(time)),
    )


def first_sentence(text: str) -> str:
    """Returns the first sentence of a text. A dot after 'al' or inside a number ends none."""
    text = " ".join(text.split())
    return re.split(r"(?<!al\.)(?<=[.?])\s+(?=[A-Z(])", text, maxsplit=1)[0]


def _shorten_time(text: str) -> str:
    return text.replace("minutes", "min").replace("seconds", "s").replace(" to ", "-")


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns lines of at most 100 columns: the last cell of a row is wrapped below itself."""
    widths = [max(len(head), *(len(row[i]) for row in rows)) for i, head in enumerate(heads[:-1])]
    indent = sum(width + 2 for width in widths)
    lines = []
    for cells in (heads, *rows):
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(cells[:-1], widths, strict=True))
        for paragraph in cells[-1].split("\n"):
            lines.append(textwrap.fill(paragraph, WIDTH, initial_indent=start, subsequent_indent=" " * indent))
            start = " " * indent
    return "\n".join(line.rstrip() for line in lines)


def list_methods() -> str:
    """Returns the table of methods: each config of the package, and the terms of its objective."""
    rows = []
    for file in sorted(package_configs().glob("*.py")):
        about, config = describe_config(file), load_config(str(file))[0]
        terms = to_plain_data(config.method)["terms"]
        words = [f"{t['anchor']} x {t['pool']}, {_name(t['support'])}, {_name(t['form'])}" for t in terms]
        rows.append(
            (about.name, about.paper, about.time, "\n".join([about.sentence, *(f"- {word}" for word in words)]))
        )
    return (
        f"{format_table(('method', 'paper', 'time', 'what it is; its terms: anchor x pool, support, form'), rows)}\n\n"
        "Times are those of the variant :digits on two cores. mi-contrast train METHOD[:VARIANT] starts one."
    )


def _name(section: Any) -> str:
    """Returns the name of a support or a form, such as 'drawn of ring'."""
    if isinstance(section, str):
        return section
    return section["kind"] + (f" of {_name(section['of'])}" if "of" in section else "")


def list_variants() -> str:
    """Returns the table of variants, which set data and sizes, and of papers' recipes, which set the optimiser too."""
    from mi_contrast.methods import papers, recipes

    rows = [_describe_recipe(f":{name}", make) for name, make in {**recipes.VARIANTS, **recipes.OWN}.items()]
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(package_configs().glob("*.py"))}
    by_recipe: dict[tuple[str, ...], list[str]] = {}
    for table, recipes_of_paper in vars(papers).items():
        users = [name for name, text in texts.items() if re.search(rf"\bpapers\.{table}\b", text)]
        if users and isinstance(recipes_of_paper, Mapping):
            for name, make in recipes_of_paper.items():
                row = _describe_recipe(f":{name}", make)
                by_recipe.setdefault(row[:-1], []).extend(users)
    rows += [(*row, f"as in the paper, for {', '.join(users)}") for row, users in by_recipe.items()]
    heads = ("variant", "data", "network", "batch", "steps", "what it is")
    return f"{format_table(heads, rows)}\n\nmi-contrast train METHOD:VARIANT starts one; METHOD alone is METHOD:digits."


def _describe_recipe(name: str, make: Callable[[], Any]) -> tuple[str, ...]:
    config, function = make().config, getattr(make, "func", make)
    model, data, what = config.model, config.data, first_sentence(function.__doc__ or "")
    if config.steps is None:  # open until the pictures are seen
        return (name, "your pictures", *["fitted"] * 3, what)
    sizes = f"{data.batch:,}", f"{config.steps:,}"
    return (name, f"{data.name}, {config.views.size} px", f"{model.backbone} x {model.width}", *sizes, what)


def list_data() -> str:
    """Returns the tables of data: the kinds of names that `data.name` takes, and the sets that variants name."""
    from mi_contrast.data import sets
    from mi_contrast.methods import recipes

    kinds = [(name, sentence) for name, sentence in read_items(sets.load.__doc__ or "")]
    users: dict[tuple[str, str], list[str]] = {}
    for variant, make in recipes.VARIANTS.items():
        data = make().config.data
        users.setdefault((data.name, data.split), []).append(f":{variant}")
    named = [(name, split, _count_images(name, split), ", ".join(of)) for (name, split), of in users.items()]
    return (
        f"{format_table(('data.name', 'what it is'), kinds)}\n\n"
        f"{format_table(('set', 'split', 'images', 'variants that name it'), named)}\n\n"
        "--config.data.name=NAME and --config.data.dir=FOLDER choose another for any variant."
    )


def _count_images(name: str, split: str) -> str:
    from mi_contrast.methods.recipes import EXAMPLES

    short = name.removesuffix("2012")
    count = EXAMPLES.get(f"{short}_unlabelled" if split == "unlabelled" else short)
    return "" if count is None else f"{count:,}"


def read_items(docstring: str) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of each item of a docstring's list, written as "- 'name': text" or "- text 'name' ..."."""
    for item in re.findall(r"^ *- (.*(?:\n(?! *-)(?! {0,8}[A-Za-z]+(?: \w+)*:)(?! {0,6}\S).*\S)*)", docstring, re.M):
        text = " ".join(item.split()).rstrip(";.")
        names = re.findall(r"'([^' ]+)'", text)
        text = re.sub(r"^'[^']*'(?: or '[^']*')*[,:]? *(?:which )?", "", text)
        yield names[0] if names else "", text


def list_views() -> str:
    """Returns the table of view policies: functions of `views.policies`."""
    from mi_contrast.views import policies

    rows = []
    for name in policies.__all__:
        function = getattr(policies, name)
        text = inspect.getdoc(function) or ""
        if "polic" in first_sentence(text) and function.__module__ == policies.__name__:
            source = " ".join(text.partition("Source:")[2].split())
            sentence = re.sub(r"^Returns (?:the|a|InfoMin's) ", "the ", first_sentence(text))
            rows.append((name, next(iter(PAPER.findall(source)), ""), sentence[:1].lower() + sentence[1:]))
    return (
        f"{format_table(('policy', 'paper', 'what it is'), rows)}\n\nEach is a function of mi_contrast.views.policies."
    )


def list_tasks() -> str:
    """Returns the table of tasks that judge a backbone: configs/evaluate."""
    heads = ("task", "paper", "time", "what it does")
    return (
        f"{format_table(heads, _describe_folder('evaluate'))}\n\n"
        "Times are those that a task's file states, on two cores; others take seconds to minutes.\n"
        "mi-contrast evaluate TASK[:VARIANT] RUN starts one."
    )


def list_studies() -> str:
    """Returns the table of studies: configs/studies."""
    heads = ("study", "paper", "time a run", "what it asks")
    return f"{format_table(heads, _describe_folder('studies'))}\n\nmi-contrast study STUDY[:VARIANT] starts one."


def _describe_folder(folder: str) -> list[tuple[str, ...]]:
    abouts = [describe_config(file) for file in sorted((package_configs() / folder).glob("*.py"))]
    return [(about.name, about.paper, about.time, about.sentence) for about in abouts]


def list_formats() -> str:
    """Returns the table of export formats: `interchange.FORMATS`."""
    from mi_contrast.interchange import formats

    lines = re.findall(r"^    (\w+) +(\S.*(?:\n {6,}\S.*)*)", formats.__doc__ or "", re.M)
    texts = {name: " ".join(text.split()) for name, text in lines}
    rows = [(name, form.file, texts.get(name, "")) for name, form in formats.FORMATS.items()]
    table = format_table(("format", "file of weights", "what it is"), rows)
    return f"{table}\n\nmi-contrast export RUN FORMAT[,FORMAT] --workdir=FOLDER writes one."


TABLES: Mapping[str, Callable[[], str]] = {
    "methods": list_methods,
    "variants": list_variants,
    "data": list_data,
    "views": list_views,
    "tasks": list_tasks,
    "formats": list_formats,
    "studies": list_studies,
}


def write_table(kind: str) -> str:
    """Returns the table of a kind: 'methods', 'variants', .. as in `TABLES`. Raises UserError if there is none."""
    if kind not in TABLES:
        raise unknown("table", kind, TABLES)
    return TABLES[kind]()
