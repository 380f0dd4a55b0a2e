import math

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import write_json
from mi_contrast.reporting.run import read_run
from mi_contrast.reporting.study_runs import (
    MEASURES,
    Spread,
    compare_settings,
    compute_gain,
    find_result,
    list_failures,
    read_state,
    read_study,
    subtract,
)
from tests.reporting import fake_study


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    fake_study.write(folder)
    return folder


@pytest.fixture(scope="module")
def study(root):
    return read_study(root)


def by_label(study):
    return {setting.label: setting for setting in study.settings}


def test_every_run_has_its_state(study):
    words = {setting.label: [state.word for *_, state in setting.runs] for setting in study.settings}
    assert words == {
        "all": ["done"] * 3, "ring a": ["done"] * 3, "ring b": ["done", "failed", "begun"], "ring c": ["waiting"]
    }  # fmt: skip
    assert [str(state) for *_, state in by_label(study)["ring b"].runs] == [
        "done", "failed: numbers went bad: 20 | in a row <b>", "at step 4 of 10",
    ]  # fmt: skip
    assert [where for where, *_ in list_failures(study)] == ["ring b, seed 1"]


def test_a_run_is_done_when_every_task_judged_it_and_its_twin(tmp_path):
    fake_study.write_run(tmp_path, top1=0.5)
    assert read_state(tmp_path, [fake_study.KNN]).word == "trained"
    assert read_state(tmp_path, []).word == "done"
    fake_study.write_run(tmp_path, top1=0.5, untrained=0.3)
    assert read_state(tmp_path, [fake_study.KNN]).word == "done"
    other = fake_study.KNN | {"settings": {"kind": "knn", "k": 21, "seed": 0}}  # judged by other settings: not judged
    assert read_state(tmp_path, [other]).word == "trained"
    assert find_result(read_run(tmp_path), fake_study.KNN | {"dataset": "cifar10"}, False) is None
    assert find_result(read_run(tmp_path), fake_study.KNN, True)["top1"] == 0.3


def test_mean_and_spread_are_over_the_seeds_that_have_the_number(study):
    found = by_label(study)
    spread = found["all"].values["knn"]
    values = [0.5, 0.52, 0.51]
    np.testing.assert_allclose([spread.mean, spread.low, spread.high], [np.mean(values), 0.5, 0.52], rtol=1e-12)
    assert spread.n == 3
    assert found["ring b"].values["knn"].n == 1  # what failed or runs still has no number
    assert found["ring b"].values["mi_nats"].values == {0: 1.0}
    assert found["ring c"].values == {}
    assert found["all"].values["mi_ceiling"].mean == pytest.approx(math.log(1024), abs=1e-3)


def test_what_is_not_finite_is_no_value(tmp_path):
    write_json(tmp_path / "study.json", fake_study.told({"all": (0, 1)}))
    fake_study.write_run(tmp_path / "runs/all-seed0", top1=0.5, untrained=0.3, mi=math.nan)
    fake_study.write_run(tmp_path / "runs/all-seed1", top1=0.5, untrained=0.3, mi=2.0)
    (setting,) = read_study(tmp_path).settings
    assert setting.values["mi_nats"].values == {1: 2.0}


def test_differences_are_paired_by_seed(study):
    found = by_label(study)
    assert compute_gain(found["all"], "knn").values == pytest.approx({0: 0.2, 1: 0.21, 2: 0.19})
    assert compute_gain(found["ring c"], "knn") is None
    assert subtract(Spread({0: 1.0, 2: 5.0}), Spread({1: 1.0, 2: 3.0})).values == {2: 2.0}
    assert subtract(Spread({0: 1.0}), Spread({1: 1.0})) is None


def test_one_seed_claims_nothing_and_more_say_how_sure(study):
    (said,) = compare_settings(study)
    assert (said.label, said.verdict) == ("ring a", "above in each of 3 seeds (by luck alone: 1 in 4)")
    assert str(said).replace("\u202f", " ") == "+2.0 points (+1.0 to +3.0)"


def test_seeds_that_disagree_claim_nothing(tmp_path):
    write_json(tmp_path / "study.json", fake_study.told({"all": (0, 1), "ring a": (0, 1)}))
    for seed, top1 in ((0, 0.6), (1, 0.4)):
        fake_study.write_run(tmp_path / f"runs/all-seed{seed}", top1=0.5, untrained=0.3)
        fake_study.write_run(tmp_path / f"runs/ring-a-seed{seed}", top1=top1, untrained=0.3)
    (said,) = compare_settings(read_study(tmp_path))
    assert said.verdict == "above in 1 of 2 seeds: no difference is claimed"


def test_every_measure_has_words():
    assert all(title for title, _ in MEASURES.values())
    assert MEASURES["same_instance"] == ("same instance", "%") and MEASURES["mi_nats"] == ("MI", "nats")


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"study.json does not exist"):
        read_study(tmp_path)
