"""The user's cache folder, and JAX's compile cache in it."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

COMPILED_BYTES = 10 * 2**30  # of compiled programs; those that were not used for longest are removed first
SETTING = "jax_compilation_cache_dir"
LOCK = ".lockfile"  # as JAX names it
OFF = "MI_CONTRAST_COMPILE_CACHE"  # an environment variable: 0 compiles everything anew


def user_cache() -> Path:
    """Returns the folder in which this package keeps what it can make again: $XDG_CACHE_HOME/mi_contrast or
    ~/.cache/mi_contrast.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "mi_contrast"


def use_compile_cache(folder: Path | None = None) -> Path | None:
    """Lets JAX keep compiled programs, so that the next start of the same run compiles nothing. Returns the folder.

    Nothing is changed if a cache is set already, by JAX_COMPILATION_CACHE_DIR or in Python, or if the environment has
    MI_CONTRAST_COMPILE_CACHE=0; then None is returned. Several processes may use the folder at a time: JAX locks it
    while it reads or writes. Programs of processors with other instructions have folders of their own, because homes
    are shared between machines. If the folder can't be written, a line says so and nothing is kept.

    Args:
      folder: the default is `compiled` in the user's cache folder.
    """
    import jax
    from filelock import FileLock

    if jax.config.values[SETTING] is not None or os.environ.get(OFF) == "0":
        return None
    folder = (user_cache() / "compiled" if folder is None else folder) / describe_processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            remove_unfinished(folder)
    except (OSError, NotImplementedError) as error:  # not every network file system can lock
        print(f"{folder} can't be written ({error}): compiled programs are not kept", file=sys.stderr)
        return None
    jax.config.update(SETTING, str(folder))
    jax.config.update("jax_compilation_cache_max_size", COMPILED_BYTES)  # with a limit, JAX locks the folder
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder


def remove_unfinished(folder: Path) -> None:
    """Removes the programs that a killed process has not written to their end. The caller must hold the lock.

    JAX writes the time of the last use after the program. Where it is missing, JAX would neither read the program nor
    write any other.
    """
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
            program.unlink(missing_ok=True)


def describe_processor() -> str:
    """Returns a name for the kind of processor: its architecture, and a checksum of its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        features = platform.processor()
    words = " ".join(sorted(features.partition(":")[2].split()))
    return f"{platform.machine()}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
