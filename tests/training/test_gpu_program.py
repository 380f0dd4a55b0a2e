"""The true training step as an NVIDIA H200 would run it, compiled without one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLUGIN = any(importlib.util.find_spec(f"jax_{cuda}_plugin") for cuda in ("cuda12", "cuda13"))


@pytest.mark.nightly
@pytest.mark.skipif(not PLUGIN, reason="jax's CUDA plugin is not installed (extra [cuda13]; no GPU is needed)")
def test_nothing_in_the_step_makes_a_gpu_wait():
    command = [sys.executable, str(HERE / "compile_for_gpu.py"), "configs/ring_moco.py:cifar10", "model.dtype=bfloat16"]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["convolutions"]) == {"bf16"} and found["convolutions"]["bf16"] >= 79  # 20 + 20 + 39 gradients
    assert found["float64"] == found["callbacks"] == found["sorts"] == found["branches"] == 0
    assert found["loops"] == 1  # the search for the ring's thresholds
    assert found["launched"] < 900 and found["peak_mib"] < 1000
