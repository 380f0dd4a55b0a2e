import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mi_contrast.core import checksums
from mi_contrast.core.checksums import _sum_on_devices, _sum_on_host
from mi_contrast.core.mesh import make_mesh
from tests import devices

RNG = np.random.default_rng(0)
ARRAYS = {
    "float32": RNG.normal(size=(8, 3, 5)).astype(np.float32),
    "bfloat16": RNG.normal(size=(8, 7)).astype(ml_dtypes.bfloat16),
    "int32": RNG.integers(-9, 9, (16,)).astype(np.int32),
    "uint8": RNG.integers(0, 255, (8, 3)).astype(np.uint8),
    "bool": RNG.integers(0, 2, (8,)).astype(bool),
    "scalar": np.float32(3.5),
}


def murmur(word):
    """MurmurHash3's finaliser in Python's integers, from its description."""
    word = ((word ^ (word >> 16)) * 0x85EBCA6B) % 2**32
    word = ((word ^ (word >> 13)) * 0xC2B2AE35) % 2**32
    return word ^ (word >> 16)


def in_python(array):
    words = [int(w) for w in np.frombuffer(np.ascontiguousarray(array).tobytes(), f"u{array.dtype.itemsize}")]
    sums = [0, 0]
    for at, word in enumerate(words):
        place = murmur(at)
        for lane, constant in enumerate((0x9E3779B9, 0x7F4A7C15)):
            place = murmur((place + constant) % 2**32)
            sums[lane] = (sums[lane] + murmur(word ^ place)) % 2**32
    return sums


@pytest.mark.parametrize("name", ARRAYS)
def test_host_and_devices_agree_with_plain_integers(name):
    array = ARRAYS[name]
    assert (
        in_python(np.asarray(array))
        == _sum_on_host(np.asarray(array)).tolist()
        == np.asarray(_sum_on_devices(array)).tolist()
    )


def check_every_mesh():
    """Asserts that the checksum of an array is one on 1, 2, 4 and all devices, whole on each or cut over them."""
    for name, array in ARRAYS.items():
        whole = checksums.compute_checksums({"a": array})["a"]
        for count in sorted({1, 2, 4, len(jax.devices())} & set(range(1, len(jax.devices()) + 1))):
            mesh = make_mesh(jax.devices()[:count])
            for spec in (PartitionSpec(), PartitionSpec("data"))[: 1 if name == "scalar" else 2]:
                placed = jax.device_put(array, NamedSharding(mesh, spec))
                assert checksums.describe(array, np.asarray(_sum_on_devices(placed))) == whole, (name, count, spec)
                assert checksums.compute_checksums({"a": placed})["a"] == whole, (name, count, spec)
        assert checksums.compute_checksums({"a": jnp.asarray(array)})["a"] == whole
    assert checksums.compute_checksums({"a": ARRAYS["float32"]})["a"].startswith("float32[8,3,5] ")


def test_an_array_has_one_checksum_on_every_mesh():
    check_every_mesh()


@pytest.mark.slow
def test_an_array_has_one_checksum_on_eight_devices():
    code = (
        "import jax; from tests.core.test_checksums import check_every_mesh\n"
        "assert len(jax.devices()) == 8; check_every_mesh(); print('alike')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=devices.environment(8), capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "alike\n", done.stderr


def test_every_single_flip_every_pair_of_flips_and_every_swap_is_seen():
    array = RNG.normal(size=64).astype(np.float32)
    right = _sum_on_host(array).tolist()
    bits = array.view(np.uint8)
    seen = set()
    for at in range(len(bits)):
        for bit in range(8):
            bits[at] ^= 1 << bit
            seen.add(tuple(_sum_on_host(array).tolist()))
            bits[at] ^= 1 << bit
    assert tuple(right) not in seen and len(seen) == 8 * len(bits)
    for at in range(63):  # the same flip in two elements cancels in a plain sum of bits
        changed = array.copy()
        words = changed.view(np.uint32)
        words[at], words[at + 1] = words[at] ^ 1, words[at + 1] ^ 1
        assert _sum_on_host(changed).tolist() != right
        swapped = array.copy()
        swapped[[at, at + 1]] = swapped[[at + 1, at]]
        assert _sum_on_host(swapped).tolist() != right


def test_long_arrays_are_summed_in_parts(monkeypatch):
    array = RNG.normal(size=1000).astype(np.float32)
    whole = _sum_on_host(array).tolist()
    monkeypatch.setattr(checksums, "CHUNK", 7)
    assert _sum_on_host(array).tolist() == whole


def test_eight_bytes_an_element():
    array = RNG.integers(0, 2**62, 9)
    before = _sum_on_host(array).tolist()
    array[3] ^= 1 << 40
    assert _sum_on_host(array).tolist() != before
