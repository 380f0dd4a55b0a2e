"""Every field of every variant of every config has a meaning in the reference, and every meaning is of a field."""

import pytest

from docs import fields as fields_script
from docs import generate, links
from mi_contrast.methods.recipes import VARIANTS
from tests.docs.blocks import DOCS

MEANINGS = fields_script.read_meanings()


def fields_of(folder):
    """Returns {field: where it is} of all variants of the configs in a folder."""
    return {
        field: f"{file.stem}:{variant}"
        for file in generate.list_configs(folder)
        for variant, config in fields_script.load_variants(file)
        for field, _ in fields_script.flatten(config)
    }


@pytest.fixture(scope="module")
def fields():
    return {"run": fields_of(""), "evaluation": fields_of("evaluate"), "study": fields_of("studies")}


@pytest.mark.parametrize("kind", MEANINGS)
def test_every_field_has_a_meaning(fields, kind):
    sections = MEANINGS[kind]
    missing = {field: where for field, where in fields[kind].items() if not has_meaning(field, sections)}
    assert missing == {}


def has_meaning(field, sections):
    while field:  # a dict of free fields, such as the changes of a study's run, has one meaning
        if fields_script.find_meaning(field, sections):
            return True
        field = field.rpartition(".")[0] if ".changes." in field else ""
    return False


def test_variants_are_found():
    found = dict(fields_script.load_variants(links.ROOT / "configs" / "ring_moco.py"))
    assert {*VARIANTS, "paper_cifar10", "paper_imagenet"} <= set(found)
    assert {"bccd", "mask_mini"} <= set(dict(fields_script.load_variants(links.ROOT / "configs/evaluate/detection.py")))
    assert list(dict(fields_script.load_variants(links.ROOT / "configs/evaluate/knn.py"))) == [""]


# Fields that a user may set and no config has.
FREE = {
    "evaluate.*.variant", "views.distance", "data.partner", "model.head.hidden", "method.pools.*.self_row",
    "method.pools.*.clusters",
}  # fmt: skip


@pytest.mark.parametrize("kind", MEANINGS)
def test_every_meaning_is_of_a_field(fields, kind):
    names = {pattern: text for section in MEANINGS[kind].values() for pattern, text in section.items()}
    names = {name for name in names if name not in FREE}
    parents = {field.rsplit(".", n)[0] for field in fields[kind] for n in range(field.count(".") + 1)}
    unused = [name for name in names if not any(fields_script._matches(field, name) for field in parents)]
    assert unused == []


def test_an_unknown_field_has_no_meaning():
    assert fields_script.find_meaning("data.bach", MEANINGS["run"]) is None
    assert fields_script.find_meaning("views.query.crop", MEANINGS["run"]) is None
    assert "mirror" in fields_script.find_meaning("views.local.flip", MEANINGS["run"])


def test_the_page_has_every_field_with_its_default():
    page = fields_script.fields_page()
    assert "| `data.batch` | `256` |" in page and "| `optim.lr` | `cosine(a=0.06, b=0.0, start=0.0, end=1.0)` |" in page
    for section in MEANINGS["run"].values():
        assert all(f"| `{field}` |" in page for field in section)
    assert (DOCS / "fields.toml").is_file()
