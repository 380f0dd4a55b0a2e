"""What `multi_crop` makes of a method: its views, its terms and their weights."""

from pathlib import Path

import numpy as np
import pytest

from mi_contrast.core import schedules
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.core.schedules import linear
from mi_contrast.methods import method as methods
from mi_contrast.methods import recipes
from mi_contrast.views import policies

LOCALS = ("local_0", "local_1", "local_2")


def cropped(name, variant="digits", count=3, **changes):
    """The config of a method with local crops, and the same without."""
    config = load_config(f"configs/{name}.py:{variant}")[0]
    before = to_plain_data(config)
    recipes.multi_crop(config, count, **changes)
    return to_plain_data(config), before


def built(config):
    return methods.build(config["method"], policies.build(config["views"]).source_index)


@pytest.mark.parametrize("name", ["moco", "simclr", "ring_moco", "moco_v3", "ir", "la", "supcon", "nnclr", "pirl"])
def test_every_term_is_shared_with_the_local_crops(name):
    after, before = cropped(name, size=14)
    new, old = built(after), built(before)
    assert dict(new.source_index) == {**old.source_index, **dict.fromkeys(LOCALS, 0)}
    assert new.measured_views == old.measured_views == ("query", "key")
    assert new.online_views[: len(old.online_views)] == old.online_views  # and in their order
    assert set(new.online_views) == {*old.online_views, *LOCALS}
    assert new.target_views == old.target_views  # the target sees no local crop
    assert new.pools == old.pools
    for progress in (0.0, 0.3, 1.0):
        weights = [sum(float(schedules.value(t.weight, progress)) for t in x.terms) for x in (new, old)]
        assert weights[0] == pytest.approx(weights[1])
    for term in old.terms:
        looked_up = term.look_up is not None
        views = [term.positive if looked_up else term.anchor, *LOCALS]
        if term.anchor == "jigsaw":
            views = ["jigsaw"]
        found = [
            t
            for t in new.terms
            if t.pool == term.pool
            and t.support == term.support
            and (t.anchor if looked_up else t.positive) == (term.anchor if looked_up else term.positive)
            and (t.positive if looked_up else t.anchor) in views
        ]
        if name != "pirl":  # whose two terms have one positive
            assert [t.positive if looked_up else t.anchor for t in found] == views
        assert all((t.support, t.form, t.temperature) == (term.support, term.form, term.temperature) for t in found)
    # The policy has as many crops as the method has names for.
    assert after["views"]["local"]["count"] == 3 and after["views"]["local"]["size"] == 14
    assert {n: v for n, v in after["views"].items() if n != "local"} == before["views"]


def test_terms_of_simclr_one_by_one():
    terms = built(cropped("simclr", count=2)[0]).terms
    assert [(t.anchor, t.positive) for t in terms] == [
        ("query", "key"), ("key", "query"),
        ("local_0", "key"), ("local_1", "key"), ("local_0", "query"), ("local_1", "query"),
    ]  # fmt: skip
    np.testing.assert_allclose([t.weight for t in terms], 1 / 6)


def test_a_moving_weight_is_shared_at_every_time():
    for weight in (
        linear(0.2, 0.8), schedules.step((1.0, 0.5), (0.5,)), schedules.constant(3.0), schedules.cosine(1.0, 0.0),
        schedules.exponential(1.0, 0.1, 2.0), 2.0,
    ):  # fmt: skip
        part = recipes.divide_schedule(weight, 4)
        schedules.check(part, "weight")
        for t in (0.0, 0.3, 0.5, 1.0):
            assert float(schedules.value(part, t)) == pytest.approx(float(schedules.value(weight, t)) / 4, rel=1e-6)
    assert recipes.divide_schedule(schedules.adaptive(1.0, 0.5), 2) == schedules.adaptive(0.5, 0.25)


def test_local_crops_of_views_that_are_no_two_crops():
    with pytest.raises(UserError, match="no two crops"):
        cropped("cmc")
    config = recipes.recipe("digits").config
    with pytest.raises(UserError, match="call it after"):
        recipes.multi_crop(config)


def test_a_row_over_a_policy_that_lacks_its_views():
    method = to_plain_data(load_config("configs/simclr.py:digits")[0].method)
    with pytest.raises(UserError, match="unknown view of the method 'query'"):
        methods.build(method, policies.build(policies.cmc(32)).source_index)
    method["terms"][0]["anchor"] = "local_3"
    sources = policies.build(policies.multi_crop(policies.moco_v2(32), 3)).source_index
    with pytest.raises(UserError, match="'local_3'; did you mean 'local_"):
        methods.build(method, sources)
    with pytest.raises(UserError, match="unknown view in"):
        methods.build({**method, "terms": ({**method["terms"][0], "anchor": "local_0"},)})  # no policy, no local crops
    with_jigsaw = policies.build(policies.infomin(32)).source_index
    moco = to_plain_data(load_config("configs/moco.py:digits")[0].method)
    assert tuple(methods.build(moco, with_jigsaw).source_index) == (
        "query",
        "key",
    )  # a jigsaw is for the methods that ask for it


def test_the_policy_says_which_source_a_view_is_of():
    method = to_plain_data(load_config("configs/moco.py:digits")[0].method)
    assert dict(methods.build(method).source_index) == {"query": 0, "key": -1}
    patches = policies.build(policies.patches(16, 8)).source_index
    assert dict(methods.build(method, patches).source_index) == {"query": 0, "key": 0}


SHUFFLED = ("moco", "ring_moco", "ball_moco", "infomin", "moco_v3", "infoaug")


@pytest.mark.parametrize("file", sorted(p.stem for p in (Path(__file__).parents[2] / "configs").glob("*.py")))
def test_batch_statistics_are_of_groups_only_where_keys_are_shuffled(file):
    """An anchor and its positive encoded by one network in one group would share their statistics."""
    config = to_plain_data(load_config(f"configs/{file}.py:imagenet")[0])
    assert config["model"]["norm"]["groups"] == (8 if file in SHUFFLED else 1)
    assert (config["method"]["target"] == "ema") == (file in SHUFFLED)


@pytest.mark.parametrize("name", ["cave_ir", "la"])
def test_aggregating_rows_begin_as_instance_discrimination(name):
    """Until a quarter of the run the objective is that of configs/ir.py over the whole bank."""
    terms = to_plain_data(load_config(f"configs/{name}.py")[0])["method"]["terms"]
    for progress in (0.0, 0.2499):
        value = lambda schedule, at=progress: float(schedules.value(schedule, at))  # noqa: E731
        (term,) = [term for term in terms if value(term["weight"]) > 0]
        assert value(term["weight"]) == 1.0
        support = term["support"]
        assert support["kind"] == "all" or (value(support["lower"]), value(support["upper"])) == (0.0, 1.0)
    (later,) = [term for term in terms if float(schedules.value(term["weight"], 0.6)) > 0]
    assert later["support"]["kind"] == ("cave" if name == "cave_ir" else "close")
