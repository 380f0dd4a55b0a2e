"""The first change that CONTRIBUTING.md walks through works, word for word."""

import re
import tomllib
from pathlib import Path

import pytest

import mi_contrast
from mi_contrast.views import policies
from tests.views import test_policies

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture
def blocks(monkeypatch):
    """The three blocks of Python: the policy, which is added to its module here, its test, and a short run."""
    policy, test, run = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(policy, namespace := dict(vars(policies)))
    monkeypatch.setattr(policies, "crop_and_flip", namespace["crop_and_flip"], raising=False)
    return policy, test, run


def test_the_policy_passes_its_own_test_and_those_of_every_policy(blocks):
    exec(blocks[1], namespace := dict(vars(test_policies)))
    namespace["test_crop_and_flip_keeps_colours_and_moco_does_not"]()
    test_policies.test_every_policy_at_every_size(policies.crop_and_flip, 32)
    test_policies.test_a_policy_is_plain_data_that_a_config_holds(policies.crop_and_flip)


def test_the_run_gets_the_views_of_the_policy(blocks, monkeypatch):
    calls = []
    monkeypatch.setattr(mi_contrast, "train", lambda *call: calls.append(call), raising=False)
    monkeypatch.chdir(ROOT)
    exec(blocks[2], {})
    ((config, workdir),) = calls
    assert workdir == "runs/crop_and_flip"
    assert config.views.query.to_dict() == policies.crop_and_flip(config.views.size, low=0.6)["query"]


def test_the_names_that_the_page_mentions_exist():
    justfile = (ROOT / "justfile").read_text()
    for word in re.findall(r"`just (\w+)", TEXT):
        assert re.search(rf"^{word}\b.*:$", justfile, re.M), word
    assert not re.search(r"^deploy\b.*:$", justfile, re.M)  # negative control: a word that is not there
    for path in re.findall(r"`((?:mi_contrast|tests|configs)/[\w/]*\.\w+)`", TEXT):
        assert (ROOT / path).is_file(), path
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"dev", "reference"} <= set(extras)
