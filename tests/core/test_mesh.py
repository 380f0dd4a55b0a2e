import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mi_contrast.core import mesh


def test_axes_are_auto_and_placements_named():
    made = mesh.make_mesh()
    assert made.axis_names == ("data",)
    assert made.axis_types == (AxisType.Auto,)
    assert made.size == len(jax.devices())
    assert mesh.replicated(made).spec == PartitionSpec()
    assert mesh.batch_sharding(made).spec == PartitionSpec("data")


@pytest.mark.parametrize("count", [1, 7, 8])
def test_shares_of_several_processes_are_of_one_size_and_cover_all(monkeypatch, count):
    shares = []
    for index in range(3):
        monkeypatch.setattr(mesh.processes, "count", lambda: 3)
        monkeypatch.setattr(mesh.processes, "index", lambda index=index: index)
        shares.append(mesh.share_rows(count))
    assert {len(share) for share in shares} == {-(-count // 3)}
    assert np.concatenate(shares)[:count].tolist() == list(range(count))


def test_one_process_has_all_rows_and_all_arrays():
    assert mesh.share_rows(5).tolist() == list(range(5))
    rows = np.arange(6.0).reshape(3, 2)
    assert mesh.gather_rows(rows, 3) is rows
    tree = {"a": jnp.ones(3), "b": 2}
    taken = mesh.take_local(tree)
    assert taken["a"] is tree["a"] and taken["b"] == 2
    assert mesh.local_mesh() == mesh.make_mesh()


def test_place_commits_an_array():
    placed = mesh.place(np.arange(4, dtype=np.int32), mesh.replicated(mesh.make_mesh()))
    assert placed.committed and placed.dtype == jnp.int32 and placed.tolist() == [0, 1, 2, 3]
