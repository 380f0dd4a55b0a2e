"""Small sets that tests share: embedded digits of two frames a clip, and CIFAR-10 where it is at hand."""

import socket

import pytest

from mi_contrast.data import sets
from tests.data.toys import SHARED, TWO_FRAMES


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A data directory that holds moving_digits with two frames a clip."""
    data_dir = tmp_path_factory.mktemp("tfds")
    sets.load("moving_digits", "train[:1]", data_dir=data_dir, options=TWO_FRAMES)
    return data_dir


@pytest.fixture(scope="session")
def digits(digits_dir):
    """The first 150 clips, 300 frames."""
    return sets.load("moving_digits", "train[:150]", data_dir=digits_dir, options=TWO_FRAMES)


@pytest.fixture(scope="session")
def cifar10():
    if not (SHARED / "cifar10").is_dir():
        pytest.skip("needs ../shared/data/tfds/cifar10")
    return sets.load("cifar10", "train", data_dir=SHARED)


@pytest.fixture
def free_address():
    """An address of this machine at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
