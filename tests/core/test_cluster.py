"""Whether a process is one of several is read from flags and the environment as schedulers set it."""

import pytest

from mi_contrast.core import cluster
from mi_contrast.core.cluster import Membership, find_membership, read_flags
from mi_contrast.core.errors import UserError

# What srun sets in the second of four tasks on two nodes.
STEP = {
    "SLURM_JOB_ID": "4100", "SLURM_STEP_NODELIST": "node[03,07]", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}  # fmt: skip
MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
}  # fmt: skip


@pytest.mark.parametrize(
    "environment",
    [
        {},  # a laptop
        {"COLAB_RELEASE_TAG": "release-colab"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # a notebook in a cluster
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        # an interactive step of an allocation of four tasks, which JAX itself takes for one of four processes
        STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {name: value for name, value in STEP.items() if name not in ("SLURM_STEP_NODELIST", "SLURM_PROCID")},  # salloc
        MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    ],
)
def test_a_process_that_works_alone(environment):
    assert find_membership({}, environment) is None


def place_in(patch, environment):
    """Sets variables, which JAX's own classes read from the process's environment, and returns the place found."""
    for name, value in environment.items():
        patch.setenv(name, value)
    return find_membership({}, environment)


def test_slurm(monkeypatch):
    # 4100 % 4096 = 4, and the ports begin at 65535 - 4096 + 1
    assert place_in(monkeypatch, STEP) == Membership("node03:61444", 4, 1, (1,))


@pytest.mark.parametrize(
    ("changes", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "5"}, None),  # bound to a GPU of its own, which it sees as its device 0
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, (1,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_LOCALID": "0"}, None),  # one process for the GPUs of a node
    ],
)
def test_the_devices_of_a_task(changes, devices, monkeypatch):
    found = place_in(monkeypatch, STEP | changes)
    assert found is not None and found.devices == devices


def test_open_mpi(monkeypatch):
    # 1531576320 / 4096 = 373920, which is 1184 modulo 4096
    assert place_in(monkeypatch, MPI) == Membership("10.96.0.1:62624", 3, 2, (2,))


def test_open_mpi_that_names_no_coordinator_is_told_what_to_do():
    without = {name: value for name, value in MPI.items() if not name.startswith("OMPI_MCA")}
    with pytest.raises(UserError, match="add --coordinator=HOST:PORT"):
        find_membership({}, without)
    found = find_membership({"coordinator": "head:9000"}, without)
    assert found == Membership("head:9000", 3, 2)


def test_a_slice_of_tpu_hosts_and_one_host(monkeypatch):
    from jax._src.clusters import cloud_tpu_cluster

    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr("socket.gethostbyname", lambda name: "10.0.0.1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "tpu-0,tpu-1,tpu-2,tpu-3")
    monkeypatch.setenv("TPU_WORKER_ID", "2")
    monkeypatch.setenv("MEGASCALE_COORDINATOR_ADDRESS", "tpu-0")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "1")
    monkeypatch.setenv("MEGASCALE_SLICE_ID", "0")
    assert find_membership({}) == Membership("tpu-0:8482", 4, 2)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    assert find_membership({}) is None


def test_flags_come_first():
    arguments = ["--config=configs/moco.py", "--coordinator=a.b:1", "--processes=2", "--process=0", "--list"]
    flags = read_flags(arguments)
    assert flags == {"coordinator": "a.b:1", "processes": "2", "process": "0"}
    assert find_membership(flags, STEP) == Membership("a.b:1", 2, 0)
    assert find_membership(flags, {"JAX_LOCAL_DEVICE_IDS": "2,3"}) == Membership("a.b:1", 2, 0, (2, 3))
    assert find_membership({"processes": "1", "process": "0"}, {}) is None


def test_a_flag_and_its_value_may_be_two_words():
    """`parse` takes both forms; a job that overlooked one would train alone."""
    arguments = ["--config=configs/moco.py", "--coordinator", "a.b:1", "--processes=2", "--process", "0"]
    assert read_flags(arguments) == {"coordinator": "a.b:1", "processes": "2", "process": "0"}
    assert read_flags(["--processes"]) == {"processes": ""}  # refused as no number


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"processes": "2"}, "--processes without --process; give --coordinator=HOST:PORT --processes=N --process=I"),
        ({"coordinator": "a:1"}, "--coordinator without --processes"),
        ({"processes": "2", "process": "1"}, "--processes without --coordinator"),
        ({"processes": "two", "process": "1"}, "--processes=two; give a whole number"),
        ({"processes": "2", "process": "2", "coordinator": "a:1"}, "--process=2 of --processes=2"),
        ({"processes": "2", "process": "1", "coordinator": "a"}, "--coordinator=a; give HOST:PORT"),
    ],
)
def test_wrong_flags(flags, said):
    with pytest.raises(UserError) as error:
        find_membership(flags, {})
    assert said in str(error.value)


def test_the_rules_beside_jax_s_own():
    """Control: JAX's class for SLURM takes the interactive step above for one of four processes."""
    from jax._src.clusters.slurm_cluster import SlurmCluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (STEP | {"SLURM_STEP_NUM_TASKS": "1"}).items():
            patch.setenv(name, value)
        assert SlurmCluster.is_env_present() and SlurmCluster.get_process_count() == 4
    assert cluster.find_membership({}, STEP | {"SLURM_STEP_NUM_TASKS": "1"}) is None
