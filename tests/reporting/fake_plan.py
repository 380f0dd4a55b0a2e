"""A plan as `mi_contrast.plan` writes it, of two slices, the second of which does not fit."""

from typing import Any

GIB = 2**30
CHIP = {
    "name": "v5e", "kind": "tpu v5 lite", "peaks": {"bfloat16": 197e12, "float32": 197e12, "exact": 33e12},
    "memory": 16.0 * GIB, "bandwidth": 819e9, "link": 200e9, "network": 0.0, "a_host": 8,
}  # fmt: skip
HELD = {"parameters": 94 * 2**20, "target network": 94 * 2**20, "optimiser": 94 * 2**20, "pools": 32 * 2**20,
        "batch": 48 * 2**20, "labels and groups": 10 * 2**20}  # fmt: skip


def make_prediction(topology: str = "v5e:4x4", chips: int = 16, **more: Any) -> dict[str, Any]:
    head = {
        "topology": topology, "chips": chips, "chip": CHIP, "batch": 256 * chips, "batch_a_chip": 256,
        "products": {"bfloat16": 10e12, "exact": 1e9}, "held": HELD, "pools": {"queue": [65536, 65536]},
        "seconds": 700.0,
    }  # fmt: skip
    if "reason" in more:
        return head | {"compiles": False} | more
    return head | {
        "compiles": True,
        "memory": {"peak": 9.2 * GIB, "arguments": 0.42 * GIB, "temporaries": 8.8 * GIB, "code": 0.14 * GIB,
                   "of": 16.0 * GIB},
        "reported": {"flops": 8.3e12, "bytes accessed": 158e9},
        "traffic": 126e9,
        "collectives": {
            "all-reduce": {"count": 152, "runs": 152, "bytes": 74 * 2**20, "sent": 139e6, "in_open_loops": 0},
            "all-gather": {"count": 3, "runs": 14, "bytes": 2 * 2**20, "sent": 2e6, "in_open_loops": 1},
        },
        "verdicts": [
            {"fault": "float64", "count": 0, "examples": [], "passed": True},
            {"fault": "float32 convolution", "count": 2, "examples": ["jit(step)/<conv>"], "passed": False},
        ],
        "program": {"launched": 5301, "fusions": 1451, "copies": 43, "loops": 2, "branches": 0},
        "roofline": {
            "seconds": {"compute": 0.054, "bandwidth": 0.154, "network": 0.001}, "largest": "bandwidth",
            "at_least": 0.154, "at_most": 0.209, "missing": [],
        },
    } | more  # fmt: skip


def make_plan(**more: Any) -> dict[str, Any]:
    row = lambda step, whole: {"step": step, "whole": whole, "share": (step - whole) / step}  # noqa: E731
    full = {
        "reason": "it needs more memory than a chip has",
        "needed": 20.5 * GIB,
        "limit": 15.75 * GIB,
        "message": "Used 20",
    }
    return {
        "title": "Predicted by compiling, not measured",
        "name": "ring_moco", "variant": "imagenet", "backbone": "resnet50", "dtype": "bfloat16",
        "versions": {"jax": "0.12.0"},
        "config": {"seed": 0, "data": {"batch": 4096}, "model": {"backbone": "resnet50"}},
        "examples": 1_281_167, "classes": 1000,
        "predictions": [make_prediction(), make_prediction("v5e:2x2", 4, **full)],
        "estimator": {"rows": {"compute": row(0.054, 0.053), "bandwidth": row(0.154, 0.150),
                               "network": row(0.001, 0.001),
                               "peak memory": row(9.2 * GIB, 9.1 * GIB), "bytes sent": row(141e6, 141e6),
                               "launches": row(5301.0, 5000.0)}},
    } | more  # fmt: skip
