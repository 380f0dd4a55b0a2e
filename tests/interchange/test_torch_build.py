"""The builder written beside weights: short, torchvision alone, and its network is ours."""

import ast

import numpy as np
import pytest

from mi_contrast.interchange import torch_build
from mi_contrast.interchange.names import to_foreign
from mi_contrast.models import towers
from mi_contrast.models.description import resolve
from mi_contrast.models.representation import Representation, make_spec
from tests.models import twins

PLAIN = dict(mean=(0.0,) * 3, std=(1.0,) * 3, size=40)
SHAPES = [("resnet18", 4, "small"), ("resnet34", 4, "imagenet"), ("resnet50", 4, "small"), ("tiny", 8, "small")]
STANDARD = [(backbone, 64, "imagenet") for backbone in ("resnet18", "resnet34", "resnet50")]


def described(shape):
    return resolve(dict(zip(("backbone", "width", "stem"), shape, strict=True)))


@pytest.mark.parametrize("shape", SHAPES + STANDARD)
def test_the_builder_is_short_and_needs_torchvision_alone(shape):
    text = torch_build.builder(described(shape))
    imports = {n.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for n in node.names}
    imports |= {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert imports <= {"torch", "torchvision", "torchvision.models.resnet"}
    assert len(text.splitlines()) <= 20 and torch_build.is_standard(described(shape)) == (shape in STANDARD)


@pytest.mark.parametrize("shape", SHAPES + STANDARD)
def test_its_network_has_the_names_and_shapes_of_our_files(shape):
    twins.torchvision()
    import torch

    names = {}
    exec(torch_build.builder(described(shape)), names)
    with torch.device("meta"):
        net = names["build"]()
    template = towers.template(described(shape))
    zeros = {part: _zeros(template[part]) for part in towers.COLLECTIONS}
    assert {n: tuple(t.shape) for n, t in net.state_dict().items()} == {
        n: t.shape for n, t in to_foreign(zeros).items()
    }


def _zeros(tree):
    return {n: _zeros(x) if isinstance(x, dict) else np.zeros(x.shape, np.float32) for n, x in tree.items()}


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3], pytest.param(SHAPES[2], marks=pytest.mark.slow)])
def test_its_features_are_ours(shape):
    twins.torchvision()
    import torch

    model = described(shape)
    ours = Representation(twins.random_variables(model), make_spec(model, **PLAIN))
    net = torch_build.built(model, to_foreign(ours.variables))
    images = np.random.default_rng(0).uniform(size=(2, 40, 40, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = net(twins.to_torch(images)).numpy()
    np.testing.assert_allclose(ours.encode(images), theirs, atol=1e-5 * np.abs(theirs).max())


def test_a_net_that_lacks_a_name_is_not_built():
    twins.torchvision()
    model = described(SHAPES[0])
    tensors = to_foreign(twins.random_variables(model))
    del tensors["layer2.0.bn1.running_var"]
    with pytest.raises(RuntimeError, match="running_var"):
        torch_build.built(model, tensors)


def test_a_missing_tool_is_named():
    with pytest.raises(torch_build.MissingToolError, match=r"^no_such_tool is not installed$"):
        torch_build.tool("no_such_tool.part")
