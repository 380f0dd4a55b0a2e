"""The compile cache: where it is, that it is found again, that several processes may share it, and that it heals."""

import os
import subprocess
import sys

import pytest

from mi_contrast.core import user_cache
from tests import devices as virtual

# A process that compiles a program and says whether it was read from the cache.
COMPILE = """
import sys
import jax, jax.numpy as jnp
from mi_contrast.core.user_cache import use_compile_cache
seen = []
jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))
folder = use_compile_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
for size in range(2, 8):
    jax.jit(lambda x: jnp.cumsum(jnp.sort(x)) @ x).lower(jnp.ones(size)).compile()
names = [name.rpartition("/")[2] for name in seen]
print(folder, names.count("cache_hits"), names.count("cache_misses"))
"""


def start(tmp_path, **environment):
    kept = {n: v for n, v in virtual.environment(1).items() if n != "JAX_COMPILATION_CACHE_DIR"}
    kept |= {"XDG_CACHE_HOME": str(tmp_path)} | environment
    command = [sys.executable, "-W", "error", "-c", COMPILE]
    return subprocess.Popen(command, env=kept, stdout=-1, stderr=-1, text=True)


def said(job):
    try:
        out, err = job.communicate(timeout=120)
    finally:
        job.kill()
    assert job.returncode == 0, err
    folder, hits, misses = out.split()
    return folder, int(hits), int(misses), err


def test_the_cache_is_in_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache.user_cache() == tmp_path / "mi_contrast"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache.user_cache() == tmp_path / ".cache" / "mi_contrast"


def test_a_cache_that_the_user_has_set_is_left_alone(monkeypatch, tmp_path):
    import jax

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.values[user_cache.SETTING]
    assert before is not None and user_cache.use_compile_cache() is None
    assert jax.config.values[user_cache.SETTING] == before and not list(tmp_path.iterdir())


def test_unfinished_programs_are_removed(tmp_path):
    for name in ("whole-cache", "whole-atime", "half-cache"):
        (tmp_path / name).write_bytes(b"x")
    user_cache.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["whole-atime", "whole-cache"]


@pytest.mark.slow
def test_processes_share_the_cache_and_a_killed_writer_does_no_harm(tmp_path):
    together = [said(job) for job in [start(tmp_path) for _ in range(3)]]
    folders = {folder for folder, *_ in together}
    (folder,) = folders
    assert folder.startswith(str(tmp_path / "mi_contrast" / "compiled"))
    assert said(start(tmp_path))[1:3][1] == 0  # nothing is compiled again
    (program, *_) = sorted(name for name in os.listdir(folder) if name.endswith("-cache"))
    path = os.path.join(folder, program)
    with open(path, "r+b") as file:  # as a process leaves it that was killed while it wrote
        file.truncate(10)
    os.remove(path.removesuffix("-cache") + "-atime")
    _, hits, misses, err = said(start(tmp_path))
    assert misses == 1 and hits > 0 and "rror" not in err
    assert said(start(tmp_path))[2] == 0
    off = start(tmp_path, MI_CONTRAST_COMPILE_CACHE="0")
    assert said(off)[:3] == ("None", 0, 0)
