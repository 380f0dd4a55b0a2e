"""The studies of patches and of strengths, settled and put together; nothing is trained."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.config import change, differences, load_config, plain
from mi_contrast.evaluation.judge import chosen_data
from mi_contrast.studies import work
from mi_contrast.studies.plan import settle
from mi_contrast.training import assemble
from tests.studies.test_plan import KNN, study
from tests.studies.test_work import Answer

NUMBERS = {  # what each study moves, read back from the settled configs
    "patch_distance": lambda views: views["distance"],
    "strengths": lambda views: (views["query"]["crop"]["area"][0], views["query"].get("jitter", {}).get("hue", 0.0)),
}


def settled(name, variant=None, **changes):
    config, *named = load_config(f"configs/studies/{name}.py" + (f":{variant}" if variant else ""))
    for path, value in changes.items():
        config = change(config, path, value)
    return settle(config, *named)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_setting_is_put_together_and_moves_its_number_alone(name):
    plan = settled(name)
    assert {start.config["steps"] for start in plan.starts} == {600}
    assert len({start.config["data"]["name"] for start in plan.starts}) == 1
    mesh = assemble.make_mesh()
    first = [start for start in plan.starts if start.seed == 0]
    for start in first:
        parts = assemble.make_parts(assemble.check(start.config), 0, mesh)
        assert parts.views.size == 32 and set(parts.row.source) == {"query", "key"}
    without = [{n: v for n, v in start.config.items() if n not in ("views", "seed")} for start in plan.starts]
    assert all(each == without[0] for each in without)
    moved = [NUMBERS[name](start.config["views"]) for start in first]
    assert len(set(moved)) == len(moved)
    assert {NUMBERS[name](start.config["views"]) for start in plan.starts} == set(moved)
    if name == "strengths":
        areas, hues = moved[:6], moved[6:]
        assert [low for low, _ in areas] == [0.05, 0.1, 0.2, 0.4, 0.6, 0.8] and {hue for _, hue in areas} == {0.2}
        assert [hue for _, hue in hues] == pytest.approx([0.0, 0.05, 0.1, 0.2, 0.3]) and {low for low, _ in hues} == {
            0.08
        }
        assert plan.starts[0].config["views"]["mean"] == (0.4914, 0.4822, 0.4465)
    else:
        assert moved == [8, 16, 32, 64, 96, 128, 192]
        assert moved[-1] + 32 <= plan.starts[0].config["data"]["options"]["tile"]


def test_patches_are_judged_on_other_sets_in_the_same_folder():
    plan = settled("patch_distance", data_dir="/sets")
    assert [task["name"] for task in plan.told["tasks"]] == ["linear-cifar10", "linear-dtd10"]
    judged = [chosen_data(task["data"], plan.starts[0].config["data"]) for task in plan.tasks]
    assert [(data["name"], data["dir"], data["options"]) for data in judged] == [
        ("cifar10", "/sets", {}),
        ("dtd10", "/sets", {}),
    ]
    assert {start.config["data"]["dir"] for start in plan.starts} == {"/sets"}
    assert {task["data"]["dir"] for task in settled("patch_distance").tasks} == {None}


def test_a_task_keeps_its_own_folder_and_one_of_the_runs_set_takes_the_runs():
    tasks = (KNN, KNN | {"changes": {"data.name": "mnist", "data.dir": "/own"}})
    plan = settle(study(evaluate=tasks, data_dir="/sets", figure=("knn",)))
    assert [task["data"]["dir"] for task in plan.tasks] == [None, "/own"]
    assert chosen_data(plan.tasks[0]["data"], plan.starts[0].config["data"])["dir"] == "/sets"


def test_tiles_of_photographs_are_looked_over_before_anything_is_run(tmp_path):
    (tmp_path / "kodak24").mkdir()
    Image.fromarray(np.zeros((230, 240, 3), np.uint8)).save(tmp_path / "kodak24" / "1.png")
    config = plain(load_config("configs/studies/patch_distance.py")[0]) | {"data_dir": str(tmp_path)}
    plan, answer = settle(config), Answer()
    work._look(plan.starts, replace(plan, tasks=()), answer)
    assert answer.found is None
    Image.fromarray(np.zeros((200, 240, 3), np.uint8)).save(tmp_path / "kodak24" / "2.png")
    work._look(plan.starts, replace(plan, tasks=()), answer)
    assert "run '8 pixels'" in answer.found[0] and "2.png: 240 x 200 pixels, smaller than a tile" in answer.found[0]
    work._look(plan.starts, plan, answer)  # the run's own set comes first
    assert "kodak24" in answer.found[0]


def test_an_untrained_twin_does_not_depend_on_the_distance_but_on_how_pixels_are_prepared():
    first, *others = (start.config for start in settled("patch_distance").starts if start.seed == 0)
    assert {work._birth(config) for config in others} == {work._birth(first)}
    for views in ({"size": 24}, {"mean": (0.5, 0.5, 0.5)}):
        assert work._birth(first | {"views": first["views"] | views}) != work._birth(first)


@pytest.mark.parametrize("variant", ["digits", "digits_moco", "davis", "tiny"])
def test_partners_alone_differ_and_untrained_networks_do_not(variant):
    plan = settled("pairs", variant)
    seeds = {start.seed for start in plan.starts}
    assert plan.told["reference"] in {start.label for start in plan.starts}
    without, *others = (start.config for start in plan.starts if start.seed == 0)
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
    assert parts.row.has_twins and parts.tower.twin is not None
    for seed in seeds:
        assert len({work._birth(start.config) for start in plan.starts if start.seed == seed}) == 1
    assert len({work._birth(start.config) for start in plan.starts}) == len(seeds)
