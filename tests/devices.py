"""Processes with several devices on one CPU."""

import os


def environment(count: int, **more: str) -> dict[str, str]:
    """Returns the variables for a process of `count` virtual devices: this process's, its XLA flags included, and
    `more`.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu", **more}
