"""The public figures of accelerators: one table for plans and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GB, GIB, TERA = 1e9, 2**30, 1e12


@dataclass(frozen=True)
class Chip:
    """Public figures of one chip.

    Attributes:
      name: the word for it in a topology such as 'v5e:4x4'; '' for a chip that no topology names.
      kind: a part of its device_kind in lower case.
      peaks: operations per second of dense matrix products by their inputs: 'bfloat16'; 'float32', which both kinds of
        chip round to fewer bits by default; and 'exact', float32 at the highest precision.
      memory: bytes.
      bandwidth: bytes per second between the chip and its memory.
      link: bytes per second that a chip sends to others of its slice or host, in one direction.
      network: bytes per second that a host sends to other hosts; 0 where the links reach all chips of a slice.
      a_host: chips on one host.
      target: XLA's description of a GPU; '' for a TPU.
    """

    name: str
    kind: str
    peaks: Mapping[str, float]
    memory: float = 0.0
    bandwidth: float = 0.0
    link: float = 0.0
    network: float = 0.0
    a_host: int = 8
    target: str = field(default="", repr=False)


def _tpu(name: str, kind: str, peak: float, memory: float, bandwidth: float, link: float, a_host: int) -> Chip:
    """Returns a TPU. Its float32 products are one pass in bfloat16 by default, and six at the highest precision."""
    peaks = {"bfloat16": peak * TERA, "float32": peak * TERA, "exact": peak / 6 * TERA}
    return Chip(name, kind, peaks, memory * GIB, bandwidth * GB, link * GB, 0.0, a_host)


def _gpu(
    name: str,
    kind: str,
    peaks: tuple[float, float, float],
    memory: float,
    bandwidth: float,
    link: float,
    network: float,
    target: str,
) -> Chip:
    """Returns a GPU. Its float32 products are TF32 by default."""
    by_input = dict(zip(("bfloat16", "float32", "exact"), (peak * TERA for peak in peaks), strict=True))
    return Chip(name, kind, by_input, memory * GB, bandwidth * GB, link * GB, network * GB, 8, target)


def _describe_gpu(name: str, cores: int, lanes: int, shared: int, cache: int, clock: float, capability: int) -> str:
    """Returns the part of XLA's description that differs between generations, as protocol buffer text.

    Args:
      cores, lanes: multiprocessors, and float32 units of each.
      shared: bytes of shared memory of a multiprocessor. cache: bytes of the second level cache.
    """
    return (
        f"threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 "
        f"shared_memory_per_core: {shared} threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {lanes} "
        "block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 "
        f"l2_cache_size: {cache} clock_rate_ghz: {clock} shared_memory_per_block_optin: {shared - 1024} "
        f"cuda_compute_capability {{ major: {capability} }} registers_per_core_limit: 65536 "
        f"registers_per_block_limit: 65536|{name}"
    )


_H200 = _describe_gpu("NVIDIA H200", 132, 128, 233472, 52428800, 1.98, 9)
_H100 = _describe_gpu("NVIDIA H100 80GB HBM3", 132, 128, 233472, 52428800, 1.98, 9)
_A100_40 = _describe_gpu("NVIDIA A100-SXM4-40GB", 108, 64, 167936, 41943040, 1.41, 8)
_A100_80 = _describe_gpu("NVIDIA A100-SXM4-80GB", 108, 64, 167936, 41943040, 1.41, 8)

# v5e is from docs.cloud.google.com/tpu/docs/v5e. The others are recalled: TPUs from the same pages on v4, v5p and v6e,
# GPUs from NVIDIA's data sheets (half of their figures "with sparsity"; NVLink one way; eight network cards a host of
# 400 Gb/s, of 200 Gb/s with the A100). The first chip whose kind is in a device_kind counts.
CHIPS = (
    _gpu("h200", "h200", (989, 494.5, 67), 141, 4800, 450, 400, _H200),
    Chip("", "h100 pcie", {"bfloat16": 756 * TERA}),
    Chip("", "h100 nvl", {"bfloat16": 835 * TERA}),
    _gpu("h100", "h100", (989, 494.5, 67), 80, 3350, 450, 400, _H100),
    _gpu("a100-80", "a100-sxm4-80gb", (312, 156, 19.5), 80, 2039, 300, 200, _A100_80),
    _gpu("a100-40", "a100", (312, 156, 19.5), 40, 1555, 300, 200, _A100_40),
    _tpu("v4", "tpu v4", 275, 32, 1228, 300, 4),
    _tpu("v5e", "tpu v5 lite", 197, 16, 819, 200, 8),
    _tpu("", "tpu v5e", 197, 16, 819, 200, 8),
    _tpu("v5p", "tpu v5", 459, 95, 2765, 600, 4),
    _tpu("v6e", "tpu v6", 918, 32, 1640, 448, 8),
)
NAMES = tuple(chip.name for chip in CHIPS if chip.name)


def look_up_chip(kind: str) -> Chip | None:
    """Returns the chip of a device_kind, or None if it is not in the table."""
    return next((chip for chip in CHIPS if chip.kind in kind.lower()), None)


def write_target(chip: Chip) -> str:
    """Returns XLA's GpuTargetConfig of a GPU as protocol buffer text, from which it compiles without that GPU."""
    information, _, name = chip.target.partition("|")
    return (
        f"gpu_device_info {{ {information} memory_bandwidth: {int(chip.bandwidth)} "
        f"device_memory_size: {int(chip.memory)} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 minor: 0 patch: 0 } '
        f'device_description_str: "{name}"'
    )
