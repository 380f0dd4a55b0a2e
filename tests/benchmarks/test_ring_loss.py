import pytest

from mi_contrast.benchmarks import ring_loss


@pytest.mark.nightly
def test_draws_are_timed_beside_their_supports():
    seen = ring_loss.compare_draws(batch=4, size=64, dim=4, draws=8, repeats=2)
    names = {
        f"{name}, {pool}" for name in ("all", "ring", "drawn all", "drawn ring") for pool in ("pool cut", "pool whole")
    }
    assert set(seen["seconds"]) == names
    for name in names:
        ratio = seen.get(f"{name}, over its support")
        assert (ratio is not None) == name.startswith("drawn ")
        assert ratio is None or 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
