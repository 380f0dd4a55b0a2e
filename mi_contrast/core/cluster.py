"""Finds out, from flags and the environment, whether this process is one of several that work together.

The environments are those that JAX knows: a Cloud TPU slice of several hosts, SLURM, Open MPI and Kubernetes. JAX's own
classes read them. What is added here is when *not* to start: on one TPU host, in a SLURM step of one task, in a
notebook or on a laptop, where `jax.distributed` would only change how signals are handled.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mi_contrast.core.errors import UserError

FLAGS = {
    "coordinator=": "HOST:PORT of the first of several processes; found by itself on TPU slices, SLURM and Open MPI",
    "processes=": "number of processes",
    "process=": "number of this process, from 0",
}
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")  # set in every task that srun starts


@dataclass(frozen=True)
class Membership:
    """The place of this process among several.

    Attributes:
      coordinator: HOST:PORT on which the first process serves the others.
      count: number of processes, 2 or more.
      index: of this process, from 0.
      devices: the local accelerators that this process uses; None for all.
    """

    coordinator: str
    count: int
    index: int
    devices: tuple[int, ...] | None = None


def read_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the flags of `FLAGS` in a command line, `--name=value` or `--name value`, as text by name."""
    names = {f"--{flag.rstrip('=')}": flag.rstrip("=") for flag in FLAGS}
    found: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, text = argument.partition("=")
        if name in names:
            found[names[name]] = text if equals else following
    return found


def find_membership(flags: Mapping[str, str], environment: Mapping[str, str] | None = None) -> Membership | None:
    """Returns the place of this process among several, or None where it works alone.

    Args:
      flags: as `read_flags` returns them. They come before the environment.
      environment: variables; this process's by default.
    Raises:
      UserError: flags that are wrong or incomplete.
    """
    environment = os.environ if environment is None else environment
    if flags:
        return _read_membership(flags, environment)
    local: tuple[int, ...] | None = None
    cluster: Any
    if _count_slurm_tasks(environment) > 1:
        from jax._src.clusters.slurm_cluster import SlurmCluster as cluster  # noqa: N813

        local = _choose_devices(environment, int(environment["SLURM_LOCALID"]), _count_tasks_on_node(environment))
        count, index = _count_slurm_tasks(environment), int(environment["SLURM_PROCID"])
    elif int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        from jax._src.clusters.ompi_cluster import OmpiCluster as cluster  # noqa: N813

        if not cluster.is_env_present():
            raise UserError(
                "Open MPI started several processes and does not say where the first one is",
                fix="add --coordinator=HOST:PORT, with the host of the first process and a free port",
            )
        count, index = _read_mpi(environment)
        local_count = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
        local = _choose_devices(environment, int(environment["OMPI_COMM_WORLD_LOCAL_RANK"]), local_count)
    else:
        cluster = _find_tpu_slice() or _find_kubernetes_job(environment)
        if cluster is None or (count := cluster.get_process_count()) < 2:
            return None
        index = cluster.get_process_id()
    port = environment.get("JAX_COORDINATOR_PORT")
    coordinator = environment.get("JAX_COORDINATOR_ADDRESS") or cluster.get_coordinator_address(300, port)
    return Membership(coordinator, count, index, local)


def _read_membership(flags: Mapping[str, str], environment: Mapping[str, str]) -> Membership | None:
    """Returns the place that flags give. Number and index may be left to SLURM or Open MPI."""
    count, index = _read_started(environment)
    for name, default in (("processes", count), ("process", index)):
        text = flags.get(name)
        if text is None and default is None:
            given = ", ".join(f"--{flag}" for flag in flags)
            raise UserError(f"{given} without --{name}", fix="give --coordinator=HOST:PORT --processes=N --process=I")
        if text is not None and not text.isdigit():
            raise UserError(f"--{name}={text}", fix="give a whole number")
    count, index = int(flags.get("processes", count or 0)), int(flags.get("process", index or 0))
    if count < 1 or index >= count:
        raise UserError(f"--process={index} of --processes={count}", fix="the first of N processes is 0, the last N-1")
    if count == 1:
        return None
    coordinator = flags.get("coordinator") or environment.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None:
        raise UserError("--processes without --coordinator", fix="give the first process's --coordinator=HOST:PORT")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator={coordinator}", fix="give HOST:PORT, such as 10.0.0.2:8476")
    ids = environment.get("JAX_LOCAL_DEVICE_IDS")
    return Membership(coordinator, count, index, tuple(map(int, ids.split(","))) if ids else None)


def _read_started(environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Returns number and index of this process as SLURM or Open MPI give them; None where neither started it."""
    if _count_slurm_tasks(environment):
        return _count_slurm_tasks(environment), int(environment["SLURM_PROCID"])
    return _read_mpi(environment) if "OMPI_COMM_WORLD_SIZE" in environment else (None, None)


def _read_mpi(environment: Mapping[str, str]) -> tuple[int, int]:
    return int(environment["OMPI_COMM_WORLD_SIZE"]), int(environment["OMPI_COMM_WORLD_RANK"])


def _count_slurm_tasks(environment: Mapping[str, str]) -> int:
    """Returns the number of tasks of this SLURM step; 0 outside of one.

    An interactive step has one task, whatever the allocation has (SLURM_NTASKS), so the step's own number comes first.
    """
    if any(name not in environment for name in SLURM):
        return 0
    return int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)


def _count_tasks_on_node(environment: Mapping[str, str]) -> int:
    """Returns the largest number of tasks on one node of the step, from a text such as '2(x3),1'."""
    counts = environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(",")
    return max(int(count.partition("(")[0]) for count in counts)


def _choose_devices(environment: Mapping[str, str], local_index: int, tasks_on_node: int) -> tuple[int, ...] | None:
    """Returns the accelerators of a task: one where several tasks of a node see them all, else all that it sees.

    JAX's own rule gives a task the device of its local number, also where the task sees its own device alone, or where
    it is the only task of a node with eight.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    sees_one = visible is not None and len([word for word in visible.split(",") if word]) == 1
    return None if tasks_on_node < 2 or sees_one else (local_index,)


def _find_tpu_slice() -> Any:
    """Returns JAX's class for the Cloud TPU slice that this host belongs to; None where there is none."""
    from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster, GkeTpuCluster

    for cluster in (GkeTpuCluster, GceTpuCluster):
        try:
            if cluster.is_env_present():
                return cluster
        except (OSError, RuntimeError):  # no metadata server, as in Colab: a single host
            continue
    return None


def _find_kubernetes_job(environment: Mapping[str, str]) -> Any:
    """Returns JAX's class for Kubernetes inside an indexed job; None elsewhere, or without the package `kubernetes`."""
    names = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
    if any(name not in environment for name in names) or importlib.util.find_spec("kubernetes") is None:
        return None
    from jax._src.clusters.k8s_cluster import K8sCluster

    return K8sCluster if K8sCluster.is_env_present() else None
