from dataclasses import replace

import jax
import numpy as np
import pytest

from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.evaluation.features import encode_all, labels_of, main_label
from mi_contrast.models import representation, towers
from tests.evaluation.fake import MeanColour, image_set


def test_a_last_smaller_batch_is_exact_and_has_the_same_shape():
    images, encoder = image_set(10), MeanColour()
    expected = images.images(np.arange(10)).astype(np.float64).mean(axis=(1, 2)) / 255
    found = encode_all(encoder, images, batch_size=4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert encoder.batches == [4, 4, 4] and found.shape == (10, 3)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_features_do_not_depend_on_the_batch(batch_size):
    images = image_set(10)
    found = encode_all(MeanColour(), images, batch_size=batch_size)
    np.testing.assert_array_equal(found, encode_all(MeanColour(), images, batch_size=10))


def test_a_network_is_read_in_eval_mode_and_left_as_it_was():
    tower = towers.build(dict(backbone="tiny", width=8, stem="small"))
    variables = tower.init(jax.random.key(0), (8, 8, 3))
    encoder = representation.from_tower(
        variables, dict(backbone="tiny", width=8, stem="small"), mean=(0.5,) * 3, std=(0.25,) * 3, size=8
    )
    before = jax.tree.map(np.array, encoder.variables)
    images = image_set(21)
    found = encode_all(encoder, images, batch_size=8)
    alone = np.concatenate([np.asarray(encoder.encode(images.images(np.array([i])))) for i in (0, 7, 20)])
    np.testing.assert_allclose(found[[0, 7, 20]], alone, atol=1e-5)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, jax.tree.map(np.array, encoder.variables)))


def test_features_that_are_not_finite_are_never_scored():
    class Broken(MeanColour):
        def encode(self, images, **how):
            return super().encode(images, **how) * np.where(np.arange(len(images)) == 2, np.nan, 1.0)[:, None]

    with pytest.raises(BadNumbersError, match="features of 2 of 8 images are not finite, first at 2"):
        encode_all(Broken(), image_set(8), batch_size=4)


def test_labels_are_the_set_s_own():
    images = image_set(12)
    assert main_label(images) == "colour"
    labels, classes = labels_of(images, "dark")
    np.testing.assert_array_equal(labels, images.labels["dark"])
    assert classes == ("no", "yes")


def test_unlabelled_or_unknown_is_one_line_before_anything_is_encoded():
    images, encoder = image_set(12), MeanColour()
    with pytest.raises(UserError, match=r"unknown label of blobs .color.; did you mean .colour."):
        labels_of(images, "color")
    with pytest.raises(UserError, match="has no labels"):
        main_label(replace(images, labels={}))
    hidden = replace(images, labels={"colour": np.full(12, -1, np.int32)})
    with pytest.raises(UserError, match="runs from -1 to -1"):
        labels_of(hidden, "colour")
    with pytest.raises(UserError, match="is empty"):
        encode_all(encoder, image_set(0), batch_size=5)
    assert encoder.batches == []
