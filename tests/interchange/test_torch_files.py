"""PyTorch's files of both layouts, as PyTorch writes them, tensor by tensor; and each way to be damaged."""

import argparse
import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import torch_files

LAYOUTS = {"zip": True, "legacy": False}


@pytest.fixture(scope="module")
def tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    found = collections.OrderedDict(
        half=torch.randn(3).half(),
        brain=torch.randn(2, 3).to(torch.bfloat16),
        parameter=torch.nn.Parameter(base[:, 1:3].T),
        shared=base[2],
        scalar=torch.tensor(5),
        empty=torch.zeros(0, 3),
        double=torch.randn(3).double(),
        truth=torch.tensor([True, False]),
        byte=torch.arange(250, 255).to(torch.uint8),
    )
    found._metadata = {"": {"version": 1}}
    return found


@pytest.fixture(params=LAYOUTS)
def saved(request, tensors, tmp_path):
    """A checkpoint as trainers write them, in one of the layouts."""
    import torch

    tree = {"state_dict": tensors, "epoch": 7, "best": np.float64(0.5), "args": argparse.Namespace(lr=0.1)}
    torch.save(tree, tmp_path / "x.pth", _use_new_zipfile_serialization=LAYOUTS[request.param])
    assert zipfile.is_zipfile(tmp_path / "x.pth") == LAYOUTS[request.param]
    return tmp_path / "x.pth"


def test_every_tensor_is_torchs(saved, tensors):
    tree = torch_files.read(saved)
    assert (tree["epoch"], tree["best"], tree["args"].name) == (7, 0.5, "argparse.Namespace")
    found = torch_files.read_arrays(tree["state_dict"], saved)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        theirs = (tensor.float() if name == "brain" else tensor).detach().numpy()
        assert found[name].dtype == theirs.dtype and found[name].shape == theirs.shape
        np.testing.assert_array_equal(found[name], theirs)


def refusal(path):
    with pytest.raises(UserError) as caught:
        torch_files.read_arrays(
            {n: t for n, t in torch_files.read(path)["state_dict"].items() if hasattr(t, "shape")}, path
        )
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_cut_short_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for keep in (0, 3, 10, 30, 200, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:keep])
        assert "damaged" in refusal(saved)


class Strike:
    def __reduce__(self):
        return os.system, ("touch struck",)


@pytest.mark.parametrize("layout", [*LAYOUTS, "bare"])
def test_a_malicious_file_is_refused_by_name_without_running(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, tree = tmp_path / "x.pth", {"state_dict": {}, "args": Strike()}
    if layout == "bare":
        path.write_bytes(pickle.dumps(tree, 2))
    else:
        torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
        torch.save(tree, path, _use_new_zipfile_serialization=LAYOUTS[layout])
    message = refusal(path)
    assert f"{os.system.__module__}.system" in message and "no code in a file is run" in message
    assert not (tmp_path / "struck").exists()
    pickle.loads(pickle.dumps(Strike()))
    assert (tmp_path / "struck").exists(), "the control: run, it strikes"


def test_whole_networks_are_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    for layout in LAYOUTS.values():
        torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pt", _use_new_zipfile_serialization=layout)
        message = refusal(tmp_path / "net.pt")
        assert "only state dicts are read" in message
        assert "torch.nn.modules.linear.Linear" in message or "a module" in message


def archive(path, pickled, members=(), compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("x/data.pkl", pickled)
        for name, data in members:
            file.writestr(f"x/{name}", data)


def view(count=4, offset=0, shape=(4,), stride=(1,), kind="FloatStorage", what="storage", view=()):
    """The pickle of {'state_dict': {'a.b': a tensor}} told so."""
    out = io.BytesIO()

    class Pickler(pickle._Pickler):
        def persistent_id(self, item):
            return (what, Global("torch", kind), "0", "cpu", count, *view) if item is storage else None

    class Global:
        def __init__(self, module, name):
            self.words = module, name

    def save_global(self, item):
        self.write(f"c{item.words[0]}\n{item.words[1]}\n".encode())

    class Rebuilt:
        def __reduce__(self):
            return Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, stride, False, {})

    Global.__call__ = lambda self: None
    Pickler.dispatch = pickle._Pickler.dispatch | {Global: save_global}
    storage = object()
    Pickler(out, 2).dump({"state_dict": {"a.b": Rebuilt()}})
    return out.getvalue()


FOUR = np.arange(4, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("told", "members", "message"),
    [
        (dict(count=5), [("data/0", FOUR)], "has 16 bytes, not 20"),
        (dict(), [], "has None bytes"),
        (dict(offset=1), [("data/0", FOUR)], "beyond its storage"),
        (dict(shape=(5,)), [("data/0", FOUR)], "beyond its storage"),
        (dict(stride=(2,)), [("data/0", FOUR)], "beyond its storage"),
        (dict(offset=-1), [("data/0", FOUR)], "before its storage"),
        (dict(stride=(-1,), offset=3), [("data/0", FOUR)], "before its storage"),
        (dict(shape=(10**12,), stride=(0,)), [("data/0", FOUR)], "beyond its storage"),
        (dict(shape=(2, 2)), [("data/0", FOUR)], "unequal shape and stride"),
        (dict(kind="ComplexFloatStorage"), [("data/0", FOUR)], "torch.ComplexFloatStorage"),
        (dict(what="module"), [("data/0", FOUR)], "a module"),
        (dict(), [("data/0", FOUR), ("constants.pkl", b"")], "a TorchScript program"),
        (dict(), [("data/0", FOUR), ("y/data.pkl", b"")], "one data.pkl"),
    ],
)
def test_a_tensor_that_is_not_in_the_file_is_refused(tmp_path, told, members, message):
    archive(tmp_path / "x.pth", view(**told), members)
    assert message in refusal(tmp_path / "x.pth")


def test_the_tensor_of_these_refusals_reads(tmp_path):
    """Their control; and the same of another byte order, and compressed, which PyTorch never writes."""
    archive(tmp_path / "x.pth", view(), [("data/0", FOUR)])
    np.testing.assert_array_equal(torch_files.read(tmp_path / "x.pth")["state_dict"]["a.b"].array(), np.arange(4))
    big = np.arange(4, dtype=">f4").tobytes()
    archive(tmp_path / "x.pth", view(), [("data/0", big), ("byteorder", b"big")])
    np.testing.assert_array_equal(torch_files.read(tmp_path / "x.pth")["state_dict"]["a.b"].array(), np.arange(4))
    archive(tmp_path / "x.pth", view(), [("data/0", FOUR)], zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(tmp_path / "x.pth")


def test_legacy_storages_are_as_long_as_their_tensors_say(tmp_path):
    parts = [torch_files.MAGIC, torch_files.VERSION, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    path = tmp_path / "x.pth"

    def write(keys=("0",), count=4, **told):
        path.write_bytes(head + view(**told) + pickle.dumps(list(keys), 2) + struct.pack("<q", count) + FOUR)

    write(view=(None,))
    np.testing.assert_array_equal(torch_files.read(path)["state_dict"]["a.b"].array(), np.arange(4))
    write(count=400)
    assert "another length" in refusal(path)
    write(keys=("1",))
    assert "another length" in refusal(path)
    write(keys=())
    assert "no storage" in refusal(path)
    write(view=(("1", 0, 2),))
    assert "a storage that is a view" in refusal(path)
