import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory, read_json, write_json
from mi_contrast.studies import work
from mi_contrast.studies.plan import make_plan
from tests.reporting import fake_study
from tests.studies.test_plan import BALL, LOWER, study
from tests.training import small


def test_a_twin_is_borrowed_from_a_run_of_the_same_birth_alone(tmp_path):
    for name in ("a", "b", "c", "d"):
        fake_study.write_run(tmp_path / name, top1=0.5, untrained=0.3 if name in ("a", "b") else None)
    file = RunDirectory(tmp_path / "a").config
    write_json(file, told := read_json(file))
    told["config"]["seed"] = 1  # another draw of weights: no twin of the others
    write_json(file, told)
    told["config"]["seed"], told["config"]["views"]["query"] = 0, {}  # other augmentations: the same network
    write_json(RunDirectory(tmp_path / "d").config, told)
    assert not work.copy_twin_result(tmp_path / "c", [tmp_path / "a", tmp_path / "absent"], fake_study.KNN)
    for name in ("c", "d"):
        assert work.copy_twin_result(tmp_path / name, [tmp_path / "a", tmp_path / "b"], fake_study.KNN)
        copied = RunDirectory(tmp_path / name).results / "knn-moving_digits-untrained.json"
        assert read_json(copied)["top1"] == 0.3
    other = fake_study.KNN | {"settings": {"kind": "knn", "k": 5, "seed": 0}}  # judged otherwise: no twin
    assert not work.copy_twin_result(tmp_path / "c", [tmp_path / "b"], other)


class Answer:
    def send(self, found):
        self.found = found


@pytest.mark.slow
def test_a_run_is_looked_over_beside_the_one_it_starts_from():
    small_data = {"data.dir": str(small.DATA), "data.options": {"size": 32, "length": 2}}
    learn = dict(label="learned", config="configs/learn_views.py", changes=small_data)
    onto = dict(label="on it", config="configs/learned_views.py")
    for mean, said in (((0.485, 0.456, 0.406), None), ((0.1, 0.2, 0.3), "starts from 'learned', whose views.mean are")):
        onto["changes"] = {**small_data, "generator.start_from": "study:learned", "views.mean": mean}
        answer, plan = Answer(), make_plan(study(runs=(learn, onto), reference=None))
        work._check_in_process(plan.runs, plan, answer)
        assert answer.found is None if said is None else said in answer.found[0]


def test_a_run_does_not_go_on_from_one_that_was_not_trained_to_its_end(tmp_path):
    learn = dict(label="learned", config="configs/learn_views.py")
    onto = dict(label="on it", config="configs/learned_views.py", changes={"generator.start_from": "study:learned"})
    plan = make_plan(study(runs=(learn, onto), reference=None))
    with pytest.raises(UserError, match="'learned', seed 0, which this starts from, is not trained to its end"):
        work.train_and_judge(plan.runs[1], plan, tmp_path, ())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({LOWER: 0.9}, None),
        ({LOWER: 1.5}, "run 'Ball 90-100 %': config.method.terms.0.support.lower is 1.5"),
        ({"data.name": "moving_digit"}, "unknown data set"),
        ({"data.dir": "/nowhere", "data.name": "cifar10"}, "/nowhere"),
        ({"data.test_split": "train"}, "split and test_split are both 'train'"),
    ],
)
def test_mistakes_deep_in_a_run_are_found_by_looking_it_over(changes, said):
    small_data = {"data.dir": str(small.DATA), "data.options": {"size": 32, "length": 2}}
    plan = make_plan(study(runs=(BALL | {"changes": small_data | changes},), reference=None))
    answer = Answer()
    work._check_in_process(plan.runs, plan, answer)
    if said is None:
        assert answer.found is None
    else:
        assert said in str(UserError(answer.found[0], nearest=answer.found[1], fix=answer.found[2]))


def test_the_second_set_of_a_cross_domain_task_is_looked_over_too():
    small_data = {"data.dir": str(small.DATA), "data.options": {"size": 32, "length": 2}}
    task = dict(config="configs/evaluate/cross_domain.py:knn", changes={"data.test_name": "folder:/nowhere"})
    run = BALL | {"changes": small_data}
    plan = make_plan(study(runs=(run,), reference=None, evaluate=(task,), figure=("knn",)))
    answer = Answer()
    work._check_in_process(plan.runs, plan, answer)
    assert answer.found is not None and "/nowhere" in answer.found[0]
