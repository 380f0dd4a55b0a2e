import copy

import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.schedules import linear
from mi_contrast.methods import method as methods

METHOD = dict(
    views="two_crops",
    target="ema",
    momentum=0.999,
    pools=dict(queue=dict(size=16)),
    terms=(
        dict(
            anchor="query", positive="key", pool="queue", form="softmax", temperature=0.2, weight=1.0,
            support=dict(kind="ring", lower=linear(0.0, 0.9, end=0.5), upper=linear(0.9, 0.99, end=0.5)),
        ),
    ),
)  # fmt: skip


def changed(path, value):
    method = copy.deepcopy(METHOD)
    at = method
    *way, last = path
    for name in way:
        at = at[name]
    at[last] = value
    return method


def test_a_good_method_is_read():
    method = methods.build(METHOD)
    assert dict(method.source_index) == {"query": 0, "key": -1}
    assert method.terms[0].support["kind"] == "ring"
    assert method.pools["queue"].size == 16


TERM = ("terms", 0)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("views",), "two_crop", "did you mean 'two_crops'"),
        (("target",), "emma", "did you mean 'ema'"),
        (("momentum",), 1.5, "at most 1"),
        (("pools",), dict(queu=dict(size=3)), "did you mean 'queue'"),
        (("pools", "queue"), dict(sise=3), "did you mean 'size'"),
        (("pools", "queue", "size"), 0, "a whole number above 0"),
        (("pools", "queue", "size"), 2.5, "a whole number above 0"),
        (("terms",), (), "at least one term"),
        (("terms",), (dict(anchor="query"),), "has no 'positive'"),
        ((*TERM, "anchor"), "qeury", "did you mean 'query'"),
        ((*TERM, "positive"), "query", "as anchor and positive"),
        ((*TERM, "pool"), "bank", "unknown pool"),
        ((*TERM, "form"), "sofmax", "did you mean 'softmax'"),
        ((*TERM, "temperature"), 0.0, "above 0"),
        ((*TERM, "weight"), -1.0, "at least 0"),
        ((*TERM, "support"), dict(kind="rign", lower=0.1, upper=0.9), "did you mean 'ring'"),
        ((*TERM, "support"), dict(kind="ring", lower=0.1), "has no 'upper'"),
        ((*TERM, "support"), dict(kind="ball", lower=0.1, upper=0.2), "unknown field"),
        ((*TERM, "support"), dict(kind="ring", lower=0.9, upper=0.9), "lower 0.9 >= upper 0.9"),
        ((*TERM, "support"), dict(kind="ring", lower=-0.1, upper=0.9), "at least 0"),
        ((*TERM, "support"), dict(kind="ball", lower=1.0), "lower 1 >= upper 1"),
        (
            (*TERM, "support"),
            dict(kind="ring", lower=linear(0.0, 0.9), upper=linear(0.5, 0.95, end=0.9)),
            None,
        ),
        (
            (*TERM, "support"),
            dict(kind="ring", lower=linear(0.0, 0.9, end=0.2), upper=linear(0.5, 0.95)),
            "at progress",
        ),
    ],
)
def test_mistakes_are_named(path, value, said):
    if said is None:
        methods.build(changed(path, value))
        return
    with pytest.raises(UserError) as error:
        methods.build(changed(path, value))
    assert said in str(error.value)
