"""What `with_twins` makes of a method: its views, its second head, pools and terms, and where it can't."""

import pytest

from mi_contrast.core import schedules
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.core.schedules import linear
from mi_contrast.methods import method as methods
from mi_contrast.methods import recipes
from mi_contrast.methods.two_branches import with_twins
from mi_contrast.pools.kinds import find_kind
from mi_contrast.views import policies


def twinned(name, weight=1.0, variant="digits"):
    """The config of a method with a second branch, the method that it makes, and the method without."""
    config = load_config(f"configs/{name}.py:{variant}")[0]
    before = methods.build(config.method, policies.build(to_plain_data(config.views)).source_index)
    with_twins(config, weight)
    found = to_plain_data(config)
    return found, methods.build(found["method"], policies.build(found["views"]).source_index), before


def told(terms):
    return [(t.anchor, t.positive, t.pool, t.head) for t in terms]


SECOND = {  # by hand: the terms that are added, and their pools as (kind, views or the view taken)
    "ring_moco": ([("query", "twin", "twins_queue", "twin")], {"twins_queue": ("queue", "twin")}),
    "simclr": (
        [("query", "twin", "twins_in_batch", "twin"), ("twin", "query", "twins_in_batch", "twin")],
        {"twins_in_batch": ("in_batch", ("query", "twin"))},
    ),
    "ir": ([("query", "twin", "twins_bank", "twin")], {"twins_bank": ("bank", "query")}),
    "moco_v3": (
        [("query", "twin", "twins_keys", "twin"), ("twin", "query", "twins_queries", "twin")],
        {"twins_keys": ("in_batch", ("twin",)), "twins_queries": ("in_batch", ("query",))},
    ),
    "nnclr": (
        [("query", "twin", "twins_keys", "twin"), ("twin", "query", "twins_queries", "twin")],
        {"twins_queue": ("queue", "query"), "twins_keys": ("in_batch", ("twin",)),
         "twins_queries": ("in_batch", ("query",))},
    ),
    "la": (2 * [("query", "twin", "twins_bank", "twin")], {"twins_bank": ("bank", "query")}),
}  # fmt: skip


@pytest.mark.parametrize("name", SECOND)
def test_a_branch_of_twins_is_added_and_the_first_stays(name):
    config, new, old = twinned(name, 0.5)
    count = len(old.terms)
    assert told(new.terms[count:]) == SECOND[name][0] and new.terms[:count] == old.terms
    assert dict(new.source_index) == {"query": 0, "key": 0, "twin": -1} and new.measured_views == ("query", "key")
    for term, first in zip(new.terms[count:], old.terms, strict=True):
        assert (term.support, term.form, term.temperature) == (first.support, first.form, first.temperature)
        for at in (0.0, 0.3, 1.0):
            weights = [float(schedules.value(t.weight, at)) for t in (term, first)]
            assert weights[0] == 0.5 * weights[1]
        assert term.look_up == (first.look_up and f"twins_{first.look_up}")
    made = {n: pool for n, pool in new.pools.items() if new.heads[n] == "twin"}
    assert {n: (find_kind(p), p.views or p.takes) for n, p in made.items()} == SECOND[name][1]
    assert {n: p for n, p in new.pools.items() if n not in made} == dict(old.pools)
    for pool_name, pool in made.items():  # of the same settings but for what it takes
        first = old.pools[pool_name.removeprefix("twins_")]
        settings = [(type(p), {f: v for f, v in vars(p).items() if f not in ("views", "takes")}) for p in (pool, first)]
        assert settings[0] == settings[1]
    assert config["model"]["twin"] == config["model"]["head"] and config["views"]["twin"] == config["views"]["query"]
    assert (config["data"]["partner"], config["data"]["shared"]) == ("twin", ())


def test_rows_that_are_an_anchors_own_are_those_of_its_heads_views():
    _, new, old = twinned("ring_moco")
    assert old.own_sources("head", 2) == [0, 1]  # a key of another frame of the example
    assert old.own_sources("head", 1) == [0] and new.own_sources("head", 2) == [0]
    assert new.own_sources("twin", 2) == [0, 1] and new.own_sources("twin", 1) == [0]
    method = to_plain_data(load_config("configs/infoaug.py:digits")[0].method)
    first = {**method["terms"][0], "positive": "twin"}  # where the first head pulls twins together, they are its own
    sources = {"query": 0, "key": 0, "twin": -1}
    assert methods.build({**method, "terms": (first, method["terms"][1])}, sources).own_sources("head", 2) == [0, 1]


def test_a_queue_that_says_what_it_takes_has_a_second_of_twins():
    config = load_config("configs/moco.py:digits")[0]
    config.method["pools"]["queue"]["takes"] = "key"
    with_twins(config)
    assert [config.method["pools"][name]["takes"] for name in ("queue", "twins_queue")] == ["key", "twin"]


def test_a_moving_weight_and_local_crops_go_with_it():
    config = load_config("configs/simclr.py:digits")[0]
    config.method["terms"][0]["weight"] = linear(0.2, 0.8)
    with_twins(config, 2.0)
    assert config.method["terms"][2]["weight"] == linear(0.4, 1.6)
    recipes.multi_crop(config, 2)
    found = to_plain_data(config)
    new = methods.build(found["method"], policies.build(found["views"]).source_index)
    assert ("local_1", "twin", "twins_in_batch", "twin") in told(new.terms)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cmc", "no second branch beside views of channels.*; take a method of two crops"),
        ("pirl", "no second branch beside a jigsaw: its head takes nine patches"),
        ("infomin", "no second branch beside a jigsaw"),
        ("infoaug", "has a second branch already"),
    ],
)
def test_a_row_that_can_have_none_says_why(name, said):
    with pytest.raises(UserError, match=said) as error:
        twinned(name)
    assert "\n" not in str(error.value)


def test_mistakes_are_named():
    for weight in (-1.0, float("inf"), True, "1"):
        with pytest.raises(UserError, match="the weight of the second branch is"):
            twinned("simclr", weight)
    config = load_config("configs/simclr.py:digits")[0]
    recipes.multi_crop(config, 2)
    with pytest.raises(UserError, match="call with_twins before multi_crop"):
        with_twins(config)
    with pytest.raises(UserError, match="call with_twins after"):
        with_twins(recipes.recipe("digits").config)

    method = to_plain_data(load_config("configs/infoaug.py:digits")[0].method)
    sources = {"query": 0, "key": 0, "twin": -1}
    first, second = method["terms"]
    for terms, wrong in (
        ((first, {**second, "head": "twins"}), "unknown head in .* 'twins'; did you mean 'twin'"),
        ((first, {**second, "pool": "queue"}), "queue has terms of both heads, which have different embedding spaces"),
        ((first, {**second, "look_up": "queue"}), "pools.queue has terms of both heads"),
        ((first, {**second, "positive": "twim"}), "did you mean 'twin'"),
    ):
        with pytest.raises(UserError, match=wrong):
            methods.build({**method, "terms": terms}, sources)
    with pytest.raises(UserError, match=r"unknown view in .* 'twin'"):
        methods.build(method)  # a policy without a twin
