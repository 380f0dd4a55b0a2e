"""The README: its length, its order, its links, its address, and the drill that runs its commands."""

import re
import subprocess
from pathlib import Path

import pytest

from docs import generate, links
from tests.docs.blocks import DOCS, ROOT, list_pages
from tests.drills import readme

TEXT = (ROOT / "README.md").read_text()
MOST_WORDS = 900
METHODS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def test_it_is_short_and_in_order():
    assert len(TEXT.split()) <= MOST_WORDS
    headings = re.findall(r"^## (.*)$", TEXT, re.M)
    assert headings == [
        "Start", "Your photos", "From Python", "Mutual information of your own columns", "Methods", "Results",
        "Why trust it", "More",
    ]  # fmt: skip
    first = TEXT.split("\n\n")[1]
    assert first.count(".") == 1 and f"{len(METHODS)} methods" in first
    assert f"{len(METHODS)} methods" in (DOCS / "index.md").read_text()


def test_every_method_is_in_the_table_with_its_config():
    table = TEXT.partition("## Methods")[2].partition("## Results")[0]
    assert sorted(re.findall(r"\[(\w+)\]\(configs/\1\.py\)", table)) == METHODS


def test_the_tests_are_started_as_the_build_starts_them():
    command = 'python -m pytest -n auto --dist loadfile -m "not slow"'
    assert command in TEXT.splitlines()
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_address_is_one_constant():
    pages = {**list_pages(), "README.md": TEXT}
    for page, text in pages.items():
        for address in re.findall(r"https://github\.com/[\w-]+/[\w-]+", text):
            assert address == links.REPOSITORY, page
    assert f"url = {{{links.REPOSITORY}}}" in TEXT


def test_the_citation_is_that_of_the_citation_file():
    citation = (ROOT / "CITATION.cff").read_text()
    for field in ("title", "version"):
        value = re.search(rf'^{field}: "?([^"\n]*)"?$', citation, re.M)[1]
        assert f"{field} = {{{value}}}" in TEXT


def relative_links(text):
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    return [link.partition("#") for link in targets if not re.match(r"[a-z]+:", link)]


def anchors_of(text):
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in list_pages() if page.endswith(".md")])
def test_links_lead_somewhere(page):
    text = list_pages()[page]
    for target, _, anchor in relative_links(text):
        file = (ROOT / page).parent / target if target else ROOT / page
        if "generated" in Path(target).parts:
            name = Path(target).stem
            assert name in generate.GENERATORS, target
            if anchor:
                assert anchor in anchors_of(generate.GENERATORS[name]()), target
            continue
        assert file.exists(), f"{page}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file.read_text()), f"{page}: {target}#{anchor}"


def test_a_link_out_of_the_folder_leads_to_the_repository():
    made = links.resolve_links("[a](../configs/moco.py) [b](speed.md#x) [c](../README.md)", "docs", "index.md")
    assert made == f"[a]({links.REPOSITORY}/blob/main/configs/moco.py) [b](speed.md#x) [c](index.md)"
    with pytest.raises(FileNotFoundError):
        links.resolve_links("[a](../configs/none.py)", "docs", "index.md")


def test_the_drill_has_every_command(capsys):
    assert readme.main(["--dry"]) == 0
    listed = capsys.readouterr().out
    for line in TEXT.splitlines():
        if re.match(r"(pip|git|python|mi-contrast) ", line):
            assert f"[sh] {line}" in listed
    assert listed.count("[python]") == TEXT.count("```python")
    steps = readme.list_steps("```sh\na\n# b\n\nc\n```\n```bibtex\nd\n```\n```python\ne\nf\n```\n")
    assert steps == [("sh", "a"), ("sh", "c"), ("python", "e\nf\n")]


def test_inputs_of_the_drill_are_made(tmp_path):
    readme.write_inputs(tmp_path, photos=4)
    assert len(list(tmp_path.glob("photos/*/*.jpg"))) == 4
    assert (tmp_path / "data.csv").read_text().startswith("x,y\n")
    assert (tmp_path / "plots.csv").read_text().startswith("rain,yield,slope,soil\n")
    assert readme.run_step(readme.Step("sh", "test -f data.csv"), tmp_path)[0] == 0
    assert readme.run_step(readme.Step("python", "raise SystemExit(3)"), tmp_path)[0] == 3


def test_the_drill_runs_in_a_clone_and_counts_failures(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text('[project.urls]\nRepository = "https://example.org/house"\n')
    clone = "git clone https://example.org/house && cd house && touch made"
    (source / "README.md").write_text(
        f"```sh\n{clone}\ntest -f made\n```\n```sh\nfalse\n```\n```python\nprint(1)\n```\n"
    )
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "A"]):
        subprocess.run(["git", *words], cwd=source, check=True, timeout=60)
    monkeypatch.setattr(readme, "ROOT", source)
    monkeypatch.setattr(readme, "write_inputs", lambda folder: None)
    (tmp_path / "work").mkdir()
    assert readme.main([f"--folder={tmp_path / 'work'}"]) == 1
    codes = re.findall(r"^== code (\d+)", capsys.readouterr().out, re.M)
    assert codes == ["0", "0", "1", "0"]
