"""Images by index, in memory or in threads."""

from dataclasses import replace

import numpy as np
import pytest

from mi_contrast.data.imageset import CHUNK, Lazy, cache_in_memory
from tests.data.toys import tell_index, toy_set


@pytest.mark.parametrize("count", [0, 1, CHUNK, 3 * CHUNK + 5])
def test_images_come_in_the_order_asked(count):
    images = toy_set(2000)
    asked = np.random.default_rng(0).integers(0, 2000, count)
    found = images.images(asked)
    assert found.dtype == np.uint8 and found.shape == (count, 4, 4, 3)
    assert np.array_equal(found, tell_index(asked))


@pytest.mark.parametrize("index", [-1, 2000])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match=r"outside 0 \.\. 1999 of toy train"):
        toy_set(2000).images([0, index])


def test_in_memory_reads_once():
    calls = []
    images = replace(toy_set(300), read=lambda i: calls.append(len(i)) or tell_index(i))
    kept = cache_in_memory(images)
    before = len(calls)
    assert np.array_equal(kept.images([5, 299, 5]), tell_index([5, 299, 5]))
    assert len(calls) == before == 2 and len(kept) == 300


def test_an_error_in_a_thread_is_raised():
    def read(indices):
        if 1500 in indices:
            raise ValueError("here")
        return tell_index(indices)

    with pytest.raises(ValueError, match="here"):
        replace(toy_set(2000), read=read).images(np.arange(2000))


def test_lazy_reads_when_first_asked_and_only_then():
    calls = []
    lazy = Lazy(("a", "b"), lambda: calls.append(1) or {"a": np.arange(3), "b": np.ones(3)})
    assert list(lazy) == ["a", "b"] and len(lazy) == 2 and "a" in lazy and not calls
    assert lazy["a"].tolist() == [0, 1, 2] and lazy["b"].sum() == 3 and len(calls) == 1
    with pytest.raises(KeyError):
        lazy["c"]
