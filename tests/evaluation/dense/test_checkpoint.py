"""What a detector's training is resumed from: whole, of the same config, finite."""

import pytest

from mi_contrast.core.errors import UserError

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_detector_that_is_not_finite_is_no_start(tmp_path, value):
    from mi_contrast.evaluation.dense.checkpoint import Checkpoint

    checkpoint, device = Checkpoint(tmp_path), torch.device("cpu")
    weights = {"backbone.conv1.weight": torch.ones(2, 3), "norm.num_batches_tracked": torch.tensor(3)}
    state = {"iteration": 4, "detector": weights, "optimiser": {}, "curve": [], "seconds": 1.0}
    checkpoint.save(state)
    assert checkpoint.newest(device)["iteration"] == 4
    weights["backbone.conv1.weight"][1, 1] = value
    checkpoint.save(state)
    with pytest.raises(UserError, match=r"'backbone.conv1.weight' of the detector has numbers that are NaN") as caught:
        checkpoint.newest(device)
    assert "\n" not in str(caught.value)
