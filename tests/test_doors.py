"""The public modules show what they export, and importing them takes few packages."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mi_contrast
from mi_contrast import estimators

DATA_AND_CHECKPOINTS = ("tensorflow_datasets", "array_record", "grain", "orbax")

# Lists the packages outside the standard library that importing `modules` adds to those that `before` needs.
LIST_PACKAGES = """
import importlib, json, sys
before, modules = json.loads(sys.argv[1])
for name in before:
    importlib.import_module(name)
known = {name.partition(".")[0] for name in sys.modules}
for name in modules:
    importlib.import_module(name)
packages = {name.partition(".")[0] for name in sys.modules} - known - set(sys.stdlib_module_names)
print(json.dumps(sorted(packages)))
"""

# Runs code in a process where importing any of the packages `blocked` fails.
RUN_BLOCKED = """
import json, sys
blocked, code = json.loads(sys.argv[1])
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
exec(code)
"""


def run_python(program: str, *values: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, json.dumps(values)], capture_output=True, text=True)


def packages_of(modules: list[str], before: tuple[str, ...] = ()) -> set[str]:
    answer = run_python(LIST_PACKAGES, before, modules)
    assert answer.returncode == 0, answer.stderr
    return set(json.loads(answer.stdout))


@pytest.mark.parametrize("module", [mi_contrast, estimators], ids=lambda m: m.__name__)
def test_dir_shows_the_public_names_alone(module):
    assert dir(module) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in dir(module))


def test_a_submodule_that_is_imported_does_not_show():
    import mi_contrast.estimators.scores

    assert "scores" in vars(estimators)  # negative control: Python does set the attribute
    assert "scores" not in dir(estimators)
    assert mi_contrast.estimators.scores.ring is estimators.ring


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mi_contrast.trian  # noqa: B018


def untyped_arguments(function: Callable) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.annotation in ("Any", Any, inspect.Parameter.empty)]


def test_public_arguments_have_types():
    functions = [getattr(estimators, name) for name in estimators.__all__]
    functions = [f for f in functions if callable(f)] + [mi_contrast.train, mi_contrast.load]
    assert len(functions) > 40
    assert {f.__name__: names for f in functions if (names := untyped_arguments(f))} == {}
    assert untyped_arguments(lambda x: x) == ["x"]  # negative control


def test_the_estimators_import_jax_numpy_optax_and_jaxtyping_alone():
    needs = ("jax", "numpy", "optax", "jaxtyping")
    assert packages_of(["mi_contrast.estimators"], before=needs) == {"mi_contrast"}


def test_data_and_checkpoint_libraries_are_imported_where_they_are_used():
    modules = (
        "main",
        "evaluate",
        "estimate",
        "export",
        "report",
        "pairs",
        "study",
        "training.loop",
        "interchange.load",
    )
    packages = packages_of([f"mi_contrast.{module}" for module in modules])
    assert "flax" in packages
    assert packages.isdisjoint(DATA_AND_CHECKPOINTS)


def test_the_list_of_packages_names_one_that_is_imported():
    assert "tqdm" in packages_of(["tqdm"])


ESTIMATE = """
import jax, numpy as np
from mi_contrast import estimators as mi
x, e = np.random.default_rng(0).normal(size=(2, 200, 1)).astype("float32")
print(float(mi.ksg(x, .8 * x + .6 * e, k=3).nats))
"""


def test_an_estimate_runs_without_data_and_checkpoint_libraries():
    blocked = (*DATA_AND_CHECKPOINTS, "flax", "ml_collections", "sklearn", "PIL", "dm_pix", "tensorboardX", "jinja2")
    answer = run_python(RUN_BLOCKED, blocked, ESTIMATE)
    assert answer.returncode == 0, answer.stderr
    assert 0.3 < float(answer.stdout) < 0.8  # -log(1 - .64) / 2 = .51 nats


def test_the_block_blocks():
    answer = run_python(RUN_BLOCKED, DATA_AND_CHECKPOINTS, "import mi_contrast.data.records")
    assert "tensorflow_datasets is blocked" in answer.stderr


SIGNATURES = json.loads((Path(__file__).parent / "fixtures" / "v0_1_0" / "signatures.json").read_text())


def broken_calls(before: dict[str, list[str]], value: Callable[..., Any]) -> list[str]:
    """Returns what calls of 0.1.0 a function or class no longer takes."""
    parameters = inspect.signature(value).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = {*positional, *(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)}
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    broken = [f"no {name}" for name in [*before["positional"], *before["keyword"]] if name not in names]
    if positional[: len(before["positional"])] != before["positional"]:
        broken.append(f"positions {positional}")
    return broken + [f"{name} is required" for name in required if name not in before["required"]]


@pytest.mark.parametrize("module", [mi_contrast, estimators], ids=lambda m: m.__name__)
def test_every_call_of_0_1_0_is_taken(module):
    """`signatures.json` holds the public names of 0.1.0 and the parameters of those that can be called."""
    broken = {}
    for name, before in SIGNATURES[module.__name__].items():
        assert name in module.__all__, name
        if before is not None and (why := broken_calls(before, getattr(module, name))):
            broken[name] = why
    assert broken == {}


def test_a_renamed_moved_or_newly_required_parameter_is_seen():
    before = {"positional": ["x", "y"], "keyword": ["key"], "required": ["x", "y"]}
    assert broken_calls(before, lambda x, y, *, key=None, more=0: None) == []
    assert broken_calls(before, lambda x, z, *, key=None: None) == ["no y", "positions ['x', 'z']", "z is required"]
    assert broken_calls(before, lambda y, x, *, key=None: None) == ["positions ['y', 'x']"]
    assert broken_calls(before, lambda x, y, *, key, more: None) == ["key is required", "more is required"]


def test_an_estimate_of_three_numbers_has_no_interval():
    estimate = estimators.Estimate(1.0, 0.1, 6.0)
    assert tuple(estimate) == (1.0, 0.1, 6.0) and estimate.low != estimate.low and estimate.high != estimate.high
