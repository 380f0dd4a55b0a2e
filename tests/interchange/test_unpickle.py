"""The unpickling machine: equal to pickle on plain data, and nothing in a file is ever called but our own table."""

import argparse
import collections
import contextlib
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mi_contrast.interchange import torch_files, unpickle
from mi_contrast.interchange.unpickle import ForbiddenError, MalformedError

RAN = []


def strike(*arguments):
    """What a malicious file would call."""
    RAN.append(arguments)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def read(data, makers=torch_files.MAKERS):
    return unpickle.load(io.BytesIO(data), makers)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda x: st.lists(x) | st.tuples(x, x) | st.dictionaries(st.text() | st.integers(), x),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=40)
@given(PLAIN, st.integers(0, 5))
def test_plain_data_is_pickles(value, protocol):
    data = pickle.dumps(value, protocol)
    assert read(data) == pickle.loads(data) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers_arrays_and_scalars_are_pickles(protocol):
    shared = [1, 2]
    value = {
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "set": {1, 2},
        "frozen": frozenset((3,)),
        "shared": (shared, shared),
        "array": np.arange(6, dtype=">f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.float64(2.5),
    }
    value["ordered"]._metadata = {"version": 1}
    found = read(pickle.dumps(value, protocol))
    for name in ("array", "fortran"):
        np.testing.assert_array_equal(found.pop(name).array(), value.pop(name))
    assert found == value and found["shared"][0] is found["shared"][1] and list(found["ordered"]) == ["b", "a"]


def test_options_are_read_past():
    data = pickle.dumps({"args": argparse.Namespace(lr=0.1), "arch": "resnet18"}, 2)
    found = read(data)
    assert (
        found["arch"] == "resnet18" and found["args"].name == "argparse.Namespace" and not hasattr(found["args"], "lr")
    )


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("true",), f"{os.system.__module__}.system"),
        (strike, (), "strike"),
        (eval, ("1",), "eval"),
        (getattr, ({}, "get"), "getattr"),
        (np.load, ("x.npy",), "load"),
    ],
)
def test_a_call_is_refused_by_name_and_never_made(protocol, function, arguments, named):
    with pytest.raises(ForbiddenError, match=named):
        read(pickle.dumps({"a": Malicious(function, *arguments)}, protocol))
    assert not RAN


def test_the_same_bytes_do_run_in_pickle():
    """The control of the refusal above: the file is malicious indeed."""
    pickle.loads(pickle.dumps(Malicious(strike, "gone"), 2))
    assert RAN.pop() == ("gone",)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        # a name that looks allowed: attributes of what is allowed, the right module with another name, and the like
        (b"\x80\x04\x8c\x08argparse\x8c\x0a_os.system\x93\x8c\x04true\x85R.", "argparse._os.system"),
        (b"\x80\x04\x8c\x0ccollections.\x8c\x0bOrderedDict\x93)R.", "collections..OrderedDict"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93)R.", "OrderedDict.fromkeys"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n)R.", "__globals__"),
        (b"\x80\x02ctorch._utils\n_import_dotted_name\nX\x02\x00\x00\x00os\x85R.", "_import_dotted_name"),
        (b"\x80\x02cnumpy.core.multiarray\nfromfile\n)R.", "fromfile"),
        (b"(ios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\no.", "os.system"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"Pid\n.", "PERSID"),
        (b"\x80\x02U\x01aQ.", "BINPERSID"),
    ],
)
def test_names_that_look_allowed_are_refused(data, named):
    with pytest.raises(ForbiddenError, match=named.replace(".", r"\.")):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle at all",
        b"\x80\x02]",
        b"\x80\x02.",
        b"\x80\x02e.",
        b"\x80\x02K\x01K\x02s.",
        b"\x80\x02h\x07.",
        b"\x80\x02K\x01)R.",  # calls a number
        b"\x80\x02K\x01}b.",  # a state for a number
        b"\x80\x02}]Ns.",
        b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",  # a key nested so deep that hashing it would end Python
        b"\x80\x02B\xff\xff\xff\x7fabc.",
    ],
)
def test_what_is_no_pickle_is_refused(data):
    with pytest.raises(MalformedError):
        read(data)


@example(b"\\", 21)
@settings(max_examples=60)
@given(st.binary(max_size=60), st.integers(0, 40))
def test_noise_is_read_or_refused(noise, at):
    good = pickle.dumps({"a": [1, np.arange(3.0)], "b": collections.OrderedDict(c=2)}, 2)
    for data in (noise, b"\x80\x02" + noise, good[:at] + noise + good[at + len(noise) :]):
        with contextlib.suppress(ForbiddenError, MalformedError):
            read(data)


def test_an_array_of_objects_is_refused():
    with pytest.raises(ForbiddenError, match="else than numbers"):
        read(pickle.dumps(np.array([{}, []], object), 2))


def test_nothing_read_can_change_what_is_read_later():
    """Attributes set on a name of the table, as a BUILD with slots would in Python's unpickler, are refused."""
    for data in (
        b"\x80\x02ccollections\nOrderedDict\n}b.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\x00\x00\x00__call__K\x01s\x86b.",
    ):
        with pytest.raises(MalformedError, match="Global"):
            read(data)
