"""The studies of patches and of strengths, planned and put together; nothing is trained."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.config import change, differences, load_config, to_plain_data
from mi_contrast.evaluation.judge import resolve_data
from mi_contrast.studies import work
from mi_contrast.studies.plan import make_plan
from mi_contrast.training import assemble
from tests.studies.test_plan import KNN, study
from tests.studies.test_work import Answer

NUMBERS = {  # what each study moves, read back from the plan
    "patch_distance": lambda views: views["distance"],
    "strengths": lambda views: (views["query"]["crop"]["area"][0], views["query"].get("jitter", {}).get("hue", 0.0)),
}


def plan_of(name, variant=None, **changes):
    config, *named = load_config(f"configs/studies/{name}.py" + (f":{variant}" if variant else ""))
    for path, value in changes.items():
        config = change(config, path, value)
    return make_plan(config, *named)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_setting_is_put_together_and_moves_its_number_alone(name):
    plan = plan_of(name)
    assert {start.config["steps"] for start in plan.runs} == {600}
    assert len({start.config["data"]["name"] for start in plan.runs}) == 1
    mesh = assemble.make_mesh()
    first = [start for start in plan.runs if start.seed == 0]
    for start in first:
        parts = assemble.make_parts(assemble.check(start.config), 0, mesh)
        assert parts.augmentation.size == 32 and set(parts.method.source_index) == {"query", "key"}
    without = [{n: v for n, v in start.config.items() if n not in ("views", "seed")} for start in plan.runs]
    assert all(each == without[0] for each in without)
    moved = [NUMBERS[name](start.config["views"]) for start in first]
    assert len(set(moved)) == len(moved)
    assert {NUMBERS[name](start.config["views"]) for start in plan.runs} == set(moved)
    if name == "strengths":
        areas, hues = moved[:6], moved[6:]
        assert [low for low, _ in areas] == [0.05, 0.1, 0.2, 0.4, 0.6, 0.8] and {hue for _, hue in areas} == {0.2}
        assert [hue for _, hue in hues] == pytest.approx([0.0, 0.05, 0.1, 0.2, 0.3]) and {low for low, _ in hues} == {
            0.08
        }
        assert plan.runs[0].config["views"]["mean"] == (0.4914, 0.4822, 0.4465)
    else:
        assert moved == [8, 16, 32, 64, 96, 128, 192]
        assert moved[-1] + 32 <= plan.runs[0].config["data"]["options"]["tile"]


def test_patches_are_judged_on_other_sets_in_the_same_folder():
    plan = plan_of("patch_distance", data_dir="/sets")
    assert [task["name"] for task in plan.record["tasks"]] == ["linear-cifar10", "linear-dtd10"]
    judged = [resolve_data(task["data"], plan.runs[0].config["data"]) for task in plan.tasks]
    assert [(data["name"], data["dir"], data["options"]) for data in judged] == [
        ("cifar10", "/sets", {}),
        ("dtd10", "/sets", {}),
    ]
    assert {start.config["data"]["dir"] for start in plan.runs} == {"/sets"}
    assert {task["data"]["dir"] for task in plan_of("patch_distance").tasks} == {None}


def test_a_task_keeps_its_own_folder_and_one_of_the_runs_set_takes_the_runs():
    tasks = (KNN, KNN | {"changes": {"data.name": "mnist", "data.dir": "/own"}})
    plan = make_plan(study(evaluate=tasks, data_dir="/sets", figure=("knn",)))
    assert [task["data"]["dir"] for task in plan.tasks] == [None, "/own"]
    assert resolve_data(plan.tasks[0]["data"], plan.runs[0].config["data"])["dir"] == "/sets"


def test_tiles_of_photographs_are_looked_over_before_anything_is_run(tmp_path):
    (tmp_path / "kodak24").mkdir()
    Image.fromarray(np.zeros((230, 240, 3), np.uint8)).save(tmp_path / "kodak24" / "1.png")
    config = to_plain_data(load_config("configs/studies/patch_distance.py")[0]) | {"data_dir": str(tmp_path)}
    plan, answer = make_plan(config), Answer()
    work._check_in_process(plan.runs, replace(plan, tasks=()), answer)
    assert answer.found is None
    Image.fromarray(np.zeros((200, 240, 3), np.uint8)).save(tmp_path / "kodak24" / "2.png")
    work._check_in_process(plan.runs, replace(plan, tasks=()), answer)
    assert "run '8 pixels'" in answer.found[0] and "2.png: 240 x 200 pixels, smaller than a tile" in answer.found[0]
    work._check_in_process(plan.runs, plan, answer)  # the run's own set comes first
    assert "kodak24" in answer.found[0]


def test_an_untrained_twin_does_not_depend_on_the_distance_but_on_how_pixels_are_prepared():
    first, *others = (start.config for start in plan_of("patch_distance").runs if start.seed == 0)
    assert {work._identify_twin(config) for config in others} == {work._identify_twin(first)}
    for views in ({"size": 24}, {"mean": (0.5, 0.5, 0.5)}):
        assert work._identify_twin(first | {"views": first["views"] | views}) != work._identify_twin(first)


@pytest.mark.parametrize("variant", ["digits", "digits_moco", "davis", "tiny"])
def test_partners_alone_differ_and_untrained_networks_do_not(variant):
    plan = plan_of("pairs", variant)
    seeds = {start.seed for start in plan.runs}
    assert plan.record["reference"] in {start.label for start in plan.runs}
    without, *others = (start.config for start in plan.runs if start.seed == 0)
    assert without["data"]["partner"] is None and without["model"]["twin"] is None
    words = [config["data"]["partner"] for config in others]
    assert words == ["twin", "random", "near", "alike", "self"][: len(words)] and len(words) >= 2
    for config in others:
        assert differences(config, others[0]) == ([] if config is others[0] else ["data.partner"])
        count = len(without["method"]["terms"])
        assert len(config["method"]["terms"]) == 2 * count
        assert config["method"]["terms"][:count] == without["method"]["terms"]
        assert {n for n, v in config["data"].items() if v != without["data"][n]} == {"partner"}
    parts = assemble.make_parts(assemble.check(others[0]), 0, assemble.make_mesh())
    assert parts.method.has_twins and parts.tower.twin is not None
    for seed in seeds:
        assert len({work._identify_twin(start.config) for start in plan.runs if start.seed == seed}) == 1
    assert len({work._identify_twin(start.config) for start in plan.runs}) == len(seeds)
