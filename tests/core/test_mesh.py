import jax
from jax.sharding import AxisType, PartitionSpec

from mi_contrast.core import mesh


def test_axes_are_auto_and_placements_named():
    made = mesh.make_mesh()
    assert made.axis_names == ("data",)
    assert made.axis_types == (AxisType.Auto,)
    assert made.size == len(jax.devices())
    assert mesh.replicated(made).spec == PartitionSpec()
    assert mesh.batch_sharding(made).spec == PartitionSpec("data")
