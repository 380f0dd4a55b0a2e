"""The command `mi-contrast`: which job and which flags its words stand for."""

import importlib
import subprocess
import sys

import pytest

from mi_contrast import __main__ as jobs
from mi_contrast import bench, main
from mi_contrast.core.config import find_config, load_config, parse
from mi_contrast.core.errors import UserError


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("train ring_moco:digits --steps=3", ["--config=ring_moco:digits", "--steps=3"]),
        ("train simclr photos/ --steps=3", ["--config=simclr:folder", "--config.data.name=folder:photos", "--steps=3"]),
        ("train --config configs/ir.py", ["--config", "configs/ir.py"]),
        ("evaluate linear runs/x --untrained", ["--config=linear", "--backbone=runs/x", "--untrained"]),
        ("export runs/x torchvision,timm --workdir out",
         ["--backbone=runs/x", "--format=torchvision,timm", "--workdir", "out"]),
        ("encode runs/x photos/ --out=f.npz", ["--backbone=runs/x", "--pictures=photos/", "--out=f.npz"]),
        ("report runs/x", ["--workdir=runs/x"]),
        ("bench", []),
    ],
)  # fmt: skip
def test_words_stand_for_flags(words, flags):
    name, *rest = words.split()
    assert jobs.expand(jobs.JOBS[name], rest) == flags


@pytest.mark.parametrize("name", jobs.JOBS)
def test_every_job_has_the_flags_of_its_words(name):
    job = jobs.JOBS[name]
    module = importlib.import_module(job.module)
    flags = {f"{flag}=" for flag in job.flags}
    if name == "train":  # its second word stands for a variant and a field of the config
        flags.remove("pictures=")
    assert flags <= set(module.FLAGS)
    assert f"mi-contrast {name} " in jobs.__doc__


def test_mistakes_name_the_nearest_word(capsys, tmp_path):
    with pytest.raises(UserError, match="unknown job 'trian'; did you mean 'train'"):
        jobs.start(["trian"])
    with pytest.raises(UserError, match="unexpected argument '3'; the words are CONFIG PICTURES"):
        jobs.start(["train", "moco", "photos", "3"])
    with pytest.raises(UserError, match="unknown config 'ring_moca'; did you mean 'ring_moco'"):
        jobs.start(["train", "ring_moca"])
    with pytest.raises(UserError, match="is a folder, not a task; name the task first: mi-contrast evaluate linear"):
        jobs.start(["evaluate", str(tmp_path)])
    with pytest.raises(UserError, match="unknown config 'lineer'; did you mean 'linear'"):
        jobs.start(["evaluate", "lineer", "runs/x"])
    with pytest.raises(UserError, match="unknown case 'ring_los'; did you mean 'ring_loss'"):
        jobs.start(["bench", "ring_los"])
    with pytest.raises(UserError, match="unknown job on data 'statistic'; did you mean 'statistics'"):
        jobs.start(["data", "statistic"])
    with pytest.raises(UserError, match="unknown table 'view'; did you mean 'views'"):
        jobs.start(["--list=view"])
    (tmp_path / "ring_moco-digits").mkdir()
    with pytest.raises(UserError, match="did you mean 'ring_moco-digits'"):
        jobs.start(["report", str(tmp_path / "ring_moco-digit")])
    jobs.start(["data"])
    assert "mi-contrast data statistics" in capsys.readouterr().out
    with pytest.raises(UserError, match="no --out is given"):
        jobs.start(["data", "prepare", "photos/"])
    jobs.start([])
    assert "mi-contrast evaluate linear" in capsys.readouterr().out


def test_a_name_finds_its_config_in_the_folder_of_the_job(tmp_path, monkeypatch):
    assert find_config("moco") == find_config("configs/moco.py")
    assert find_config("learned_views") == find_config("configs/learned_views.py")
    assert find_config("learned_views", "studies") == find_config("configs/studies/learned_views.py")
    assert load_config("linear", "evaluate")[1] == "linear"
    call = parse(["--config=simclr:cifar10", "--config.steps=3"], main.FLAGS)
    assert (call.name, call.variant, call.config.steps) == ("simclr", "cifar10", 3)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "moco.py").write_text("def get_config(): ...")
    monkeypatch.chdir(tmp_path)
    assert find_config("moco").resolve() == tmp_path / "configs" / "moco.py"  # the working folder's own comes first


def test_tables_fit_a_terminal(capsys):
    jobs.start(["train", "--list"])
    jobs.start(["bench"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    words = {line.split()[0] for line in lines if line.strip()}
    assert {"ring_moco", "supcon"} <= words
    assert {f"--case={case}" for case in bench.CASES} <= words


@pytest.mark.slow
def test_the_module_is_a_command():
    run = [sys.executable, "-m", "mi_contrast"]
    assert subprocess.run([*run, "estimte"], capture_output=True, text=True, check=False).returncode == 2
    done = subprocess.run([*run, "--help"], capture_output=True, text=True, check=True)
    assert "mi-contrast train" in done.stdout
