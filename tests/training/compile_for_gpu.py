"""Compiles true training steps for an NVIDIA H200 that need not be there, and prints what the programs hold as JSON.

  python tests/training/compile_for_gpu.py RECIPE [field=value ...] [--text=FILE]

It needs jax's CUDA plugin, without cuDNN or a driver. Nothing is tuned on the device, so that times are not known.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # unset, the plugin asks for cuDNN and fails

from jax.experimental import topologies

from mi_contrast.benchmarks.programs import peak_bytes, read_program
from mi_contrast.benchmarks.steps import abstract_arguments, make_recipe_step
from mi_contrast.core.mesh import make_mesh

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 149000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H200"
"""


def compile_step(recipe, changes, devices=1):
    """Returns the compiled step of a recipe for so many H200s."""
    topology = topologies.get_topology_desc(platform="cuda", target_config=H200, topology=f"1x1x{devices}")
    step = make_recipe_step(recipe, changes, make_mesh(topology.devices[:devices]))
    return step.call.lower(*abstract_arguments(step)).compile()


def main(arguments):
    recipe, *rest = arguments
    changes = dict(word.split("=", 1) for word in rest if not word.startswith("--"))
    began = time.perf_counter()
    program = compile_step(recipe, changes)
    found = read_program(program.as_text()) | {"peak_mib": peak_bytes(program) / 2**20}
    for word in rest:
        if word.startswith("--text="):
            Path(word.removeprefix("--text=")).write_text(program.as_text())
    print(json.dumps({"recipe": recipe, **changes, "seconds": time.perf_counter() - began, **found}))


if __name__ == "__main__":
    main(sys.argv[1:])
