import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.planning import topologies
from mi_contrast.planning.chips import CHIPS, NAMES, look_up_chip, write_target
from mi_contrast.planning.collectives import Collective, estimate_seconds
from mi_contrast.planning.hlo import Array
from mi_contrast.planning.roofline import estimate_step
from mi_contrast.planning.topologies import describe_devices, parse_topology


@pytest.mark.parametrize(
    "text, name, size",
    [("v5e:4x4", "v5e", 16), ("v4:2x2x2", "v4", 8), ("V5P:2x2x4", "v5p", 16), ("h200:8", "h200", 8),
     ("a100-40:4", "a100-40", 4), ("h100:16", "h100", 16)],
)  # fmt: skip
def test_a_topology_is_read(text, name, size):
    found = parse_topology(text)
    assert found.chip.name == name and found.size == size and found.name == text.lower()


@pytest.mark.parametrize(
    "text, words",
    [
        ("v5:4x4", "unknown chip in --topology 'v5'; did you mean"),
        ("v5e", "has no size; write it as one of: v5e:4x4"),
        ("v5e:4x", "has no size"),
        ("v5e:0x4", "has no size"),
        ("v5e:16", "has 1 sides, and a slice of v5e has 2 sides"),
        ("v4:4x4", "has 2 sides, and a slice of v4 has 3 sides"),
        ("h200:2x4", "has 2 sides, and a slice of h200 has a number"),
        ("h100:12", "is no whole number of hosts of 8"),
    ],
)
def test_a_wrong_topology_is_one_line(text, words):
    with pytest.raises(UserError) as error:
        parse_topology(text)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text, extra", [("v5e:2x2", "[tpu]"), ("h200:1", "[cuda13]")])
def test_a_compiler_that_is_not_installed_is_named(text, extra, monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        describe_devices(parse_topology(text))
    assert f"mi-contrast{extra}" in str(error.value)


def test_every_named_chip_has_all_figures_and_is_found_by_its_kind():
    assert len(set(NAMES)) == len(NAMES)
    for chip in CHIPS:
        assert look_up_chip(f"NVIDIA {chip.kind.upper()}") is chip or not chip.name
        if chip.name:
            assert set(chip.peaks) == {"bfloat16", "float32", "exact"}
            assert min(*chip.peaks.values(), chip.memory, chip.bandwidth, chip.link) > 0
    assert look_up_chip("NVIDIA A100-SXM4-80GB").name == "a100-80"
    assert look_up_chip("NVIDIA A100-SXM4-40GB").name == "a100-40"


def test_a_gpus_description_has_balanced_braces_and_its_figures():
    text = write_target(parse_topology("h200:8").chip)
    assert text.count("{") == text.count("}") and 'device_description_str: "NVIDIA H200"' in text
    assert "memory_bandwidth: 4800000000000" in text and "device_memory_size: 141000000000" in text


def collective(kind, floats, group):
    return Collective(kind, (Array("f32", (floats,)),), group, 1, False, "")


def test_seconds_of_collectives_are_those_of_a_ring():
    v5e = parse_topology("v5e:4x4").chip  # 200 GB/s one way
    assert estimate_seconds([collective("all-reduce", 10**6, 16)], v5e, 16) == pytest.approx(2 * 15 / 16 * 4e6 / 200e9)
    h100 = parse_topology("h100:16").chip  # 450 GB/s inside a host, 400 GB/s out of it
    gather, move = collective("all-gather", 10**6, 8), collective("collective-permute", 10**6, 8)
    assert estimate_seconds([gather], h100, 8) == pytest.approx(7 / 8 * 4e6 / 450e9)
    assert estimate_seconds([gather], h100, 16) == pytest.approx(7 / 8 * 4e6 / 400e9)
    assert estimate_seconds([move], h100, 16) == pytest.approx(4e6 / 50e9)  # a network card each


def test_the_roofline_is_work_over_rate():
    v5e = parse_topology("v5e:4x4").chip
    found = estimate_step(v5e, {"bfloat16": 197e9, "exact": 197e9}, 819e6, [], 16)
    assert found["seconds"] == pytest.approx({"compute": 1e-3 + 6e-3, "bandwidth": 1e-3, "network": 0.0})
    assert found["largest"] == "compute" and found["at_least"] == pytest.approx(7e-3)
    assert found["at_most"] == pytest.approx(8e-3) and found["missing"] == []


def test_what_the_table_lacks_is_named():
    pcie = look_up_chip("NVIDIA H100 PCIe")
    found = estimate_step(pcie, {"bfloat16": 756e9}, 1e9, [collective("all-reduce", 10, 2)], 2)
    assert found["seconds"] == pytest.approx({"compute": 1e-3}) and found["missing"] == ["bandwidth", "network"]
