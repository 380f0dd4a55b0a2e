import json
import shlex

import pytest

from mi_contrast.core.config import load_config, parse, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory, write_json
from mi_contrast.core.schedules import linear
from mi_contrast.methods.method import build
from mi_contrast.studies.plan import locate_source, make_plan, refuse_other_configs, select_runs
from mi_contrast.views import policies

LOWER = "method.terms.0.support.lower"
KNN = dict(config="configs/evaluate/knn.py", changes={"task.k": 20})
BALL = dict(label="Ball 90-100 %", config="configs/ball_moco.py", variant="digits", changes={LOWER: 0.9}, seeds=(0, 3))


def study(**changes):
    return {
        "question": "", "data_dir": None, "steps": None, "reference": "all", "columns": ("mi_nats",),
        "figure": ("knn", "mi_nats"), "evaluate": (KNN,), "runs": (dict(label="all", config="configs/moco.py"), BALL),
    } | changes  # fmt: skip


def test_a_run_starts_from_another_of_its_seed(tmp_path):
    learn = dict(label="learned", config="configs/learn_views.py", seeds=(0, 1))
    onto = dict(label="on it", config="configs/learned_views.py", seeds=(1, 0))
    onto["changes"] = {"generator.start_from": "study:learned"}
    plan = make_plan(study(runs=(learn, onto), reference=None))
    found = {start.seed: locate_source(plan, start, tmp_path)["generator"]["start_from"] for start in plan.runs[2:]}
    assert found == {seed: str(tmp_path / f"runs/learned-seed{seed}") for seed in (0, 1)}
    assert locate_source(plan, plan.runs[0], tmp_path) is plan.runs[0].config
    for runs, message in (
        ((onto, learn), "unknown label of seed 1 before run 'on it' 'learned'"),
        ((learn | {"seeds": (0,)}, onto), "unknown label of seed 1"),
        ((learn | {"label": "learnt"}, onto), "did you mean 'learnt'"),
    ):
        with pytest.raises(UserError) as caught:
            make_plan(study(runs=runs, reference=None))
        assert message in str(caught.value)


def test_a_task_may_be_of_a_label():
    tasks = tuple(KNN | {"changes": {"data.label": label}} for label in ("digit", "position"))
    told = make_plan(study(evaluate=tasks, figure=("knn-digit",))).record["tasks"]
    assert [(task["name"], task["label"]) for task in told] == [("knn-digit", "digit"), ("knn-position", "position")]


def test_a_task_without_a_label_beside_one_with_is_refused():
    tasks = (KNN, KNN | {"changes": {"data.label": "position"}})
    with pytest.raises(UserError, match="task 'knn' names no label, and 'knn-position' does"):
        make_plan(study(evaluate=tasks))


def test_every_setting_has_a_run_a_seed_with_its_own_config():
    plan = make_plan(study(), "negatives", "digits")
    assert [(s.label, s.seed, s.folder) for s in plan.runs] == [
        ("all", 0, "runs/all-seed0"),
        ("Ball 90-100 %", 0, "runs/ball-90-100-seed0"),
        ("Ball 90-100 %", 3, "runs/ball-90-100-seed3"),
    ]
    untouched = to_plain_data(load_config("configs/ball_moco.py:digits")[0])
    untouched["seed"] = 3
    untouched["method"]["terms"][0]["support"]["lower"] = 0.9
    assert plan.runs[2].config == untouched
    assert (plan.runs[2].name, plan.runs[2].variant) == ("ball_moco", "digits")
    assert json.loads(json.dumps(plan.record))["settings"][1]["runs"][1]["seed"] == 3


def test_steps_and_data_of_the_study_are_those_of_every_run():
    run = BALL | {"changes": {"steps": 600}}
    plan = make_plan(study(steps=50, data_dir="/data", runs=(run,), reference=None))
    assert {(s.config["steps"], s.config["data"]["dir"]) for s in plan.runs} == {(50, "/data")}


def test_the_order_of_seeds_has_all_settings_of_a_seed_before_the_next():
    rows = tuple(dict(label=label, config="configs/moco.py", seeds=(2, 0)) for label in ("all", "again"))
    named = [f"{run.label}{run.seed}" for run in make_plan(study(runs=rows, order="seeds")).runs]
    assert named == ["all0", "again0", "all2", "again2"]
    assert [run.label for run in make_plan(study(runs=rows)).runs] == ["all", "all", "again", "again"]
    with pytest.raises(UserError, match="did you mean 'seeds'"):
        make_plan(study(runs=rows, order="seed"))


def test_a_pattern_selects_the_settings_that_it_matches():
    rows = tuple(dict(label=label, config="configs/moco.py") for label in ("ir", "ring_ir", "moco", "all", "*"))
    plan = make_plan(study(runs=rows))
    for only, labels in (("*ir", ["ir", "ring_ir"]), ("ir", ["ir"]), ("*", ["*"]), (None, [r["label"] for r in rows])):
        assert [run.label for run in select_runs(plan, only)] == labels
    with pytest.raises(UserError, match="did you mean 'ring_ir'"):
        select_runs(plan, "ring_is")


def test_the_command_told_makes_the_same_config():
    changes = {LOWER: linear(0.0, 0.5), "data.shared": (), "optim.kind": "sgd", "optim.clip": None}
    plan = make_plan(study(runs=(BALL | {"changes": changes},), reference=None))
    words = shlex.split(plan.record["settings"][0]["command"])
    assert words[:3] == ["python", "-m", "mi_contrast.main"]
    assert to_plain_data(parse(words[3:], {"config=": ""}).config) == plan.runs[0].config


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(runs=(BALL | {"config": "configs/bal_moco.py"},)), "did you mean 'configs/ball_moco.py'"),
        (dict(runs=(BALL | {"variant": "digit"},)), "did you mean 'digits'"),
        (dict(runs=(BALL | {"changes": {"optim.momentun": 0.5}},)), "run 'Ball 90-100 %': no field 'momentun'"),
        (dict(runs=(BALL | {"changes": {"optim.momentun": 0.5}},)), "did you mean 'momentum'"),
        (dict(runs=(BALL | {"changes": {"steps": "many"}},)), "takes a int"),
        (dict(runs=(BALL, BALL)), "label 'Ball 90-100 %' is there twice"),
        (dict(runs=(BALL, BALL | {"label": "ball 90 100"})), "folder 'runs/ball-90-100-seed0' is there twice"),
        (dict(runs=(BALL | {"seeds": (0, 0)},)), "is there twice"),
        (dict(runs=(BALL | {"seeds": ()},)), "has seeds ()"),
        (dict(runs=(BALL | {"seeds": (0.5,)},)), "has seed 0.5"),
        (dict(runs=(BALL | {"sedes": (0,)},)), "did you mean 'seeds'"),
        (dict(runs=(dict(label="x"),)), "has no 'config'"),
        (dict(runs=(), reference=None), "config.runs is empty"),
        (dict(reference="al"), "did you mean 'all'"),
        (dict(columns=("mi_nat",), figure=()), "did you mean 'mi_nats'"),
        (dict(figure=("linear",)), "unknown column in config.figure 'linear'"),
        (dict(evaluate=(KNN, KNN)), "task 'knn' is there twice"),
        (dict(evaluate=(dict(config="configs/evaluate/kn.py"),)), "did you mean 'configs/evaluate/knn.py'"),
        (dict(evaluate=(dict(config="configs/moco.py"),)), "unknown field of config.evaluate.0: configs/moco.py"),
        (dict(evaluate=(KNN | {"changes": {"task.kk": 3}},)), "no field 'kk'"),
        (dict(runz=()), "did you mean 'runs'"),
    ],
)
def test_a_mistake_is_named_before_anything_is_run(changes, said):
    with pytest.raises(UserError) as caught:
        make_plan(study(**changes))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_changed_setting_is_refused_and_a_new_one_is_welcome(tmp_path):
    before = make_plan(study())
    for start in before.runs[1:]:
        write_json(RunDirectory(tmp_path / start.folder).config, {"config": start.config})
    refuse_other_configs(before, tmp_path)
    refuse_other_configs(make_plan(study(runs=(*study()["runs"], BALL | {"label": "new", "changes": {}}))), tmp_path)
    logged = BALL | {"changes": BALL["changes"] | {"log.every": 7, "checkpoint.every": 9}}
    refuse_other_configs(make_plan(study(runs=(study()["runs"][0], logged))), tmp_path)
    changed = make_plan(study(runs=(study()["runs"][0], BALL | {"changes": {LOWER: 0.8}})))
    with pytest.raises(UserError, match=r"seed0 holds a run of another config: method.terms.0.support.lower"):
        refuse_other_configs(changed, tmp_path)
    with pytest.raises(UserError, match="steps differ"):
        refuse_other_configs(make_plan(study(steps=7)), tmp_path)


def test_one_label_alone():
    plan = make_plan(study())
    assert [start.seed for start in select_runs(plan, "Ball 90-100 %")] == [0, 3]
    with pytest.raises(UserError, match="did you mean 'all'"):
        select_runs(plan, "alll")


STUDIES = (
    "generators:cifar10_small",
    "generators:digits",
    "learned_views:cifar10_small",
    "learned_views:digits",
    "methods:cifar10_small",
    "methods:digits",
    "negatives:cifar10_small",
    "negatives:digits",
    "negatives:omniglot8",
    "negatives:tiny",
    "pairs:davis",
    "pairs:digits",
    "pairs:digits_moco",
    "pairs:tiny",
    "patch_distance:kodak24",
    "shared_factors:digits",
    "shared_factors:tiny",
    "splits:cifar10_small",
    "splits:digits",
    "strengths:cifar10_small",
    "views:cifar10_small",
    "views:digits",
)


@pytest.mark.parametrize("spec", STUDIES)
def test_the_studies_that_come_with_the_package_settle(spec):
    plan = make_plan(*load_config("configs/studies/{}.py:{}".format(*spec.split(":"))))
    configs = {json.dumps(start.config, sort_keys=True) for start in plan.runs}
    assert len(configs) == len(plan.runs)  # no two settings are the same under two labels
    assert len({start.config["steps"] for start in plan.runs}) == 1
    for start in plan.runs:
        policies.check(start.config["views"])


@pytest.mark.slow
def test_every_ring_of_the_study_of_negatives_is_open_throughout():
    plan = make_plan(*load_config("configs/studies/negatives.py:digits"))
    methods = {start.label: start.config["method"] for start in plan.runs}
    for method in methods.values():
        build(method)
    ring, own = methods["ring 90-99"], to_plain_data(load_config("configs/ring_moco.py:digits")[0])["method"]
    for end in ("lower", "upper"):
        assert ring["terms"][0]["support"][end] == pytest.approx(own["terms"][0]["support"][end])
