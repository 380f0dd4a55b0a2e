import jax
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.heads import read_head, write_head
from mi_contrast.readout import linear
from tests.readout.test_knn import blobs


def test_a_head_read_back_scores_alike(tmp_path):
    features, labels = blobs(70)
    model = linear.fit(features, labels, jax.random.key(0), linear.SGD(epochs=4, batch_size=16), classes=5)
    path = tmp_path / "linear-blobs.safetensors"
    write_head(path, model, tuple("abcde"), {"layer": "pooled", "top1": 0.5})
    found = read_head(path)
    np.testing.assert_array_equal(found.scores(features), linear.scores(model, features))
    assert found.classes == tuple("abcde") and found.about == {"layer": "pooled", "top1": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_no_head_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="can't read the head"):
        read_head(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="can't read the head"):
        read_head(tmp_path / "absent.safetensors")
    import safetensors.numpy

    (tmp_path / "y.safetensors").write_bytes(safetensors.numpy.save({"weights": np.zeros(2)}))
    with pytest.raises(UserError, match="is not a head"):
        read_head(tmp_path / "y.safetensors")
