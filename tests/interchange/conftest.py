"""An export and a run directory, made once."""

import numpy as np
import pytest

from mi_contrast.core.checkpoint import Checkpoints
from mi_contrast.core.layout import RunDirectory, write_json
from mi_contrast.interchange import write_export
from mi_contrast.models.representation import Representation, make_spec
from tests.models import twins

MODEL = dict(backbone="resnet18", width=4, stem="small")
PIXELS = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=16)
CONFIG = dict(
    seed=3,
    model=MODEL | {"head": dict(kind="mlp", dim=8)},
    views=dict(kind="two_crops", **PIXELS),
    export=dict(weights="online"),
    optim=dict(betas=(0.9, 0.99)),
)


SPLIT = dict(backbone="tiny", width=8, split="ydbdr")
YDBDR = dict(mean=(0.457, -0.082, -0.052), std=(0.5, 1.331, 1.333), size=16)


@pytest.fixture(scope="session")
def split():
    """The representation of two networks, a channel and two channels of YDbDr."""
    return Representation(twins.random_variables(SPLIT), make_spec(SPLIT, **YDBDR))


@pytest.fixture(scope="session")
def representation():
    return Representation(twins.random_variables(MODEL), make_spec(MODEL, **PIXELS))


@pytest.fixture
def export(representation, tmp_path):
    """An export directory of `representation`."""
    write_export(tmp_path / "export", representation, config=CONFIG, commit="abc123", step=7)
    return tmp_path / "export"


def make_run(root, config=CONFIG, networks=None, model=MODEL):
    """A run directory with a checkpoint at step 40: online weights of seed 0, target weights of seed 1."""
    run = RunDirectory(root)
    run.root.mkdir()
    write_json(run.config, {"name": "moco", "variant": None, "config": config})

    def tower(seed):
        variables = twins.random_variables(model, seed)
        head = {"0": {"kernel": np.ones((3, 4), np.float32)}}
        return {
            "params": {"backbone": variables["params"], "head": head},
            "batch_stats": {"backbone": variables["batch_stats"], "head": {}},
        }

    checkpoints = Checkpoints(run.checkpoints, keep=1)
    checkpoints.save(40, networks or {"online": tower(0), "target": tower(1)}, {}, wait=True)
    checkpoints.close()
    return run
