"""The tables of `--list`: they fit a terminal, and show what the tables in code and the config files hold."""

import re

import pytest

from mi_contrast import evaluate, export, main, study, tables
from mi_contrast.core.config import package_configs
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.interchange import FORMATS
from mi_contrast.methods.recipes import OWN, VARIANTS
from mi_contrast.views import policies


@pytest.fixture(scope="module")
def written():
    return {kind: tables.write_table(kind) for kind in tables.TABLES}


def names_in(table):
    """The first words of the lines that begin a row of the first table."""
    lines = table.partition("\n\n")[0].splitlines()[1:]
    return [line.split()[0] for line in lines if not line.startswith(" ")]


def test_every_table_fits_a_hundred_columns(written):
    assert {kind: max(map(len, table.splitlines())) for kind, table in written.items() if max(
        map(len, table.splitlines())) > 100} == {}  # fmt: skip
    assert all(line == line.rstrip() for table in written.values() for line in table.splitlines())


def test_the_tables_hold_what_the_code_holds(written):
    for kind, folder in (("methods", ""), ("tasks", "evaluate"), ("studies", "studies")):
        assert names_in(written[kind]) == sorted(p.stem for p in (package_configs() / folder).glob("*.py")), kind
    assert names_in(written["formats"]) == list(FORMATS)
    variants = [f":{name}" for name in (*VARIANTS, *OWN)]
    assert names_in(written["variants"])[: len(variants)] == variants
    made = {name for name in policies.__all__ if hasattr(getattr(policies, name), "__code__")}
    others = {"build", "check", "normalise", "plain", "plain_channels", "unnormalise"}
    assert set(names_in(written["views"])) == made - others
    assert {"moving_digits", "folder:PATH", "pairs:PATH"} <= set(names_in(written["data"]))


def test_papers_and_times_are_those_of_the_config_files(written):
    (ring,) = re.findall(r"^ring_moco .*$", written["methods"], re.M)
    assert "Wu et al. 2021" in ring and " 4 min " in ring
    assert "about 4 minutes on two cores" in (package_configs() / "ring_moco.py").read_text()
    without = [about.name for about in map(tables.describe_config, package_configs().glob("*.py")) if not about.paper]
    assert without == ["cmc_in_batch"], "no paper has it"
    untimed = [about.name for about in map(tables.describe_config, package_configs().glob("*.py")) if not about.time]
    assert sorted(untimed) == ["infoaug_ir", "infoaug_simclr"], "other names of infoaug"


def test_a_file_of_the_users_is_described(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text('"""Mine, as in Wu et al. 2021: a ball. More.\n\nVariants: :digits (about 3 to 4 minutes)."""\n')
    assert tables.describe_config(file) == ("mine", "Mine, as in Wu et al. 2021: a ball.", "", "3-4 min")
    file.write_text("")
    assert tables.describe_config(file) == ("mine", "", "", "")


def test_rows_are_wrapped_below_their_last_cell():
    table = tables.format_table(("a", "b"), [("x", "word " * 30), ("long name", "one\ntwo")])
    assert table.splitlines()[0] == "a          b"
    assert table.splitlines()[2].startswith(" " * 11 + "word")
    assert table.splitlines()[-2:] == ["long name  one", " " * 11 + "two"]


@pytest.mark.parametrize(
    ("job", "arguments", "kind"),
    [
        (main, ["--list"], "methods"),
        (main, ["--list=views"], "views"),
        (evaluate, ["--list"], "tasks"),
        (export, ["--list"], "formats"),
        (study, ["--list"], "studies"),
    ],
)
def test_jobs_print_their_tables(capsys, written, job, arguments, kind):
    job.main(arguments)
    assert capsys.readouterr().out == written[kind] + "\n"


def test_an_unknown_table_names_the_nearest(capsys):
    with pytest.raises(UserError, match="did you mean 'data'"):
        tables.write_table("dat")
    assert run_job(main.main, ["--list=viewes"]) == 2
    assert "unknown table 'viewes'; did you mean 'views'" in capsys.readouterr().err
