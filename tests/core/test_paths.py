"""Fields by dotted paths, against a plain reading of the tree."""

import pytest

from mi_contrast.core.paths import drop_field, get_field, has_field, is_none, set_field

TREE = {"a": 1, "b": {"c": None, "d": {"e": 5}}, "terms": ({"w": 2}, {"w": 3})}


def test_fields_are_read_by_path():
    assert [has_field(TREE, path) for path in ("", "a", "b.c", "b.d.e", "b.x", "a.b")] == [True] * 4 + [False] * 2
    assert (get_field(TREE, "b.d.e"), get_field(TREE, "terms.1.w")) == (5, 3)
    assert [is_none(TREE, path) for path in ("b.c", "a", "b.x")] == [True, False, False]
    with pytest.raises(KeyError):
        get_field(TREE, "b.x")


def test_changes_are_made_to_a_copy():
    before = repr(TREE)
    assert set_field(TREE, "b.d.e", 6) == {**TREE, "b": {"c": None, "d": {"e": 6}}}
    assert set_field(TREE, "new", 1) == {**TREE, "new": 1}
    assert drop_field(TREE, "b.d") == {**TREE, "b": {"c": None}}
    assert drop_field(TREE, "a") == {"b": TREE["b"], "terms": TREE["terms"]}
    assert repr(TREE) == before
