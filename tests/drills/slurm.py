"""Lets SLURM stop a run of two tasks at its time limit and queue it again until it ends:

  python -m tests.drills.slurm [--steps=4000] [--minutes=2] [--folder=DIRECTORY]

Starts munge and SLURM for this machine alone, in a folder of their own, and submits launch/slurm/train.sbatch with a
time limit of some minutes. The run must go on by itself after each stop and end with the parameters of an uninterrupted
run of two processes, bit for bit. Exits with 1 if it does not.

Needs root and Debian's packages slurm-wlm and munge. Takes about ten minutes: SLURM waits two before it starts a job
again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mi_contrast.core.layout import RunDirectory
from mi_contrast.training.metrics import read
from tests.drills.faults import ARGUMENTS, same_export
from tests.training import small

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODE = "localhost"  # a name that this machine surely resolves: the tasks meet at it
CONF = """
ClusterName=drill
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=drill Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
HOUR = 3600.0


def find_free_ports(count: int) -> list[int]:
    """Returns ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def start_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Starts munge and SLURM, and yields the environment in which its commands work. Stops all of them at the end."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    cpus = os.cpu_count() or 1
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(folder=folder, node=NODE, host=host, ports=find_free_ports(2), cpus=max(cpus, 2)))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    log = open(folder / "daemons.log", "wb")  # noqa: SIM115
    munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("key-file", "socket", "pid-file")]
    commands = (
        ["munged", "--foreground", "--force", *munge, f"--log-file={folder}/munge.log", f"--seed-file={folder}/seed"],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", NODE],
    )
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(2)
        wait_until(lambda: "idle" in ask(environment, "sinfo", "--noheader", "--format=%T"), 60, "the node to be idle")
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
        log.close()


def ask(environment: dict[str, str], *command: str) -> str:
    """Returns what a command of SLURM's prints."""
    done = subprocess.run(command, env=environment, cwd=small.ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def wait_until(condition, seconds: float, what: str) -> None:  # type: ignore[no-untyped-def]
    """Returns when the condition holds. Raises TimeoutError if it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(1)


def submit(environment: dict[str, str], workdir: Path, steps: int, minutes: int, output: Path) -> str:
    """Submits the run and returns its number."""
    tasks = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0"]
    limits = [f"--time={minutes}", "--signal=TERM@30", f"--output={output}"]
    said = ask(environment, "sbatch", *tasks, *limits, "launch/slurm/train.sbatch", *list_flags(workdir, steps))
    found = re.search(r"Submitted batch job (\d+)", said)
    if found is None:
        raise RuntimeError(f"sbatch: {said}")
    return found.group(1)


def list_flags(workdir: Path, steps: int) -> list[str]:
    """Returns the flags of the run."""
    return [*ARGUMENTS, f"--workdir={workdir}", f"--config.steps={steps}", "--config.checkpoint.every=100000"]


def find_problems(text: str, stops: int, state: str, workdir: Path, whole: Path, steps: int) -> list[str]:
    """Returns what of the run is not as it should be."""
    problems = [] if state == "COMPLETED" else [f"the job ended as {state}"]
    if not stops:
        problems.append("the run ended before its time limit: give more --steps")
    if text.count("is queued again") != stops or text.count("stopped by SIGTERM at step") != stops:
        problems.append(f"{stops} starts more, and not as many lines about a stop")
    if "Traceback" in text:
        problems.append("a traceback")
    logged = [row["step"] for row in read(RunDirectory(workdir)) if "objective" in row]
    if logged != list(range(1, steps + 1)):
        problems.append("metrics.jsonl lacks or repeats steps")
    if not same_export(workdir, whole):
        problems.append("another export than the uninterrupted run's")
    return problems


def main() -> int:
    """Runs the drill and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if lacking := [name for name in PROGRAMS if shutil.which(name) is None]:
        print(f"the drill needs {', '.join(lacking)}: install slurm-wlm and munge", file=sys.stderr)
        return 2
    folder = options.folder or Path(tempfile.mkdtemp(prefix="slurm_drill_"))
    folder.mkdir(parents=True, exist_ok=True)
    workdir, whole, output = folder / "run", folder / "whole", folder / "job.out"
    os.environ |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(small.ROOT)}
    print("training without a stop", flush=True)
    subprocess.run(["bash", "launch/local.sh", "2", *list_flags(whole, options.steps)], cwd=small.ROOT, check=True,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    with start_cluster(folder) as environment:
        number = submit(environment, workdir, options.steps, options.minutes, output)

        def show(field: str) -> str:
            found = re.search(rf"\b{field}=(\S+)", ask(environment, "scontrol", "show", "job", number))
            return found.group(1) if found else "unknown"

        state = ""

        def has_ended() -> bool:
            nonlocal state
            if (now := f"{show('JobState')}, {show('Restarts')} starts more") != state:
                state = now
                print(f"job {number}: {state}", flush=True)
            return show("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        wait_until(has_ended, HOUR, f"job {number}")
        stops, ended = int(show("Restarts")), show("JobState")
    text = output.read_text()
    print(*(f"    | {line[:200]}" for line in text.splitlines() if not line.startswith("training ")), sep="\n")
    problems = find_problems(text, stops, ended, workdir, whole, options.steps)
    print(f"{stops} stops; " + ("; ".join(problems) or "the export is the uninterrupted run's bit for bit"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
