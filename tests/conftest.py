"""One compile cache for all tests, so that a second run is quick; the slowest files first, so that no process waits."""

import gc
import os
import signal
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

CACHE = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or Path(__file__).parents[1] / ".cache" / "jax")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of a first run. Without LLVM's optimisations, XLA's newer emitters of fusions and parts compiled in
# parallel it takes a fifth of the time, and these programs are small. The nightly build, which sets flags of its own,
# tests what users get. jaxlib ends the process at a flag that it does not know, as 0.12 does at the third.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
if version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

MANY_MAPS = 10_000

# A shell that starts the tests in the background ignores these signals, and so would what the tests send them to.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# The same examples on every run: a failure is found by whoever wrote it, not by whoever comes next.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


def pytest_configure(config):
    """Processes take files in the order below; by their number of tests, a file of one long test would come last."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker("slow")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True, scope="module")
def drop_programs():
    """Frees compiled programs once they are many: each takes small maps of memory, and a process that holds as many as
    Linux allows (65,530, `vm.max_map_count`) ends with a segmentation fault.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        import jax  # not above: it reads the environment once, when it is imported

        jax.clear_caches()
        gc.collect()
