"""The public modules show what they export, and importing them takes few packages."""

import pytest

import mi_contrast
from mi_contrast import estimators


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
