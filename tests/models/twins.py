"""PyTorch twins of our backbones, and weights for both: the reference that knows nothing of our code but its names."""

import numpy as np
import pytest

from mi_contrast.models import towers

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def torchvision():
    """torchvision, or a skip. Beside a CPU build of torch its compiled operators are absent: their schemas suffice."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    except ImportError:
        pytest.skip("torchvision is not installed")
    return torchvision


def twin(backbone, width=64, stem="imagenet", channels=3):
    """The torch net whose features are ours: torchvision's ResNet without its classifier, or a plain Sequential."""
    torchvision()
    from torch import nn
    from torchvision.models import resnet

    if backbone == "tiny":
        net, widths = nn.Sequential(), (channels, width // 4, width // 2, width)
        for i in (1, 2, 3):
            net.add_module(f"conv{i}", nn.Conv2d(widths[i - 1], widths[i], 3, 2, 1, bias=False))
            net.add_module(f"bn{i}", nn.BatchNorm2d(widths[i]))
            net.add_module(f"relu{i}", nn.ReLU())
        net.add_module("pool", nn.AdaptiveAvgPool2d(1))
        net.add_module("flat", nn.Flatten())
        return net
    block = resnet.Bottleneck if backbone == "resnet50" else resnet.BasicBlock
    net = resnet.ResNet(block, list(BLOCKS[backbone]))
    if width != 64 or stem == "small" or channels != 3:
        large = stem == "imagenet"
        net.inplanes = width
        net.conv1 = nn.Conv2d(channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        net.bn1 = nn.BatchNorm2d(width)
        net.maxpool = net.maxpool if large else nn.Identity()
        for i, blocks in enumerate(BLOCKS[backbone]):
            layer = net._make_layer(block, width * 2**i, blocks, stride=1 if i == 0 else 2)
            setattr(net, f"layer{i + 1}", layer)
    net.fc = nn.Identity()
    return net


def perturbed(backbone):
    """Torchvision's own network in eval mode, random weights, batch statistics perturbed."""
    models = torchvision().models
    import torch

    torch.manual_seed(0)
    net = getattr(models, backbone)().eval()
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return net


def timm_vit(side, patch, dim, depth, heads, **more):
    """The VisionTransformer of timm without its classifier, or a skip."""
    torchvision()
    pytest.importorskip("timm", reason="timm is not installed (extra [reference])")
    from timm.models.vision_transformer import VisionTransformer

    sizes = dict(img_size=side, patch_size=patch, embed_dim=dim, depth=depth, num_heads=heads)
    return VisionTransformer(**sizes, num_classes=0, **more).eval()


def of_timm(params, name):
    """Our array of timm's parameter `name`, in timm's layout."""
    *way, last = name.split(".")
    for word in way:
        params = params[word]
    if last == "weight":
        last = "kernel" if "kernel" in params else "scale"
    array = np.asarray(params[last])
    return np.transpose(array, {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim)))


def put_in_timm(net, params, positions=None):
    """Copies our parameters into timm's net, positions from elsewhere where ours are computed."""
    import torch

    for name, parameter in net.named_parameters():
        array = positions if name == "pos_embed" and positions is not None else of_timm(params, name)
        assert parameter.shape == array.shape, name
        parameter.data.copy_(torch.from_numpy(np.array(array)))
    return net


def random_variables(model, seed=0):
    """Weights and perturbed batch statistics of a backbone, {'params', 'batch_stats'} of float32 numpy arrays."""
    rng = np.random.default_rng(seed)
    draws = {
        "kernel": lambda s: rng.normal(0, np.sqrt(2 / (s[-1] * s[0] * s[1]) if len(s) == 4 else 1 / s[0]), s),
        "scale": lambda s: rng.uniform(0.5, 1.5, s),
        "bias": lambda s: rng.normal(0, 0.1, s),
        "mean": lambda s: rng.normal(0, 0.2, s),
        "var": lambda s: rng.uniform(0.5, 2.0, s),
        "cls_token": lambda s: rng.normal(0, 1, s),
        "pos_embed": lambda s: rng.normal(0, 1, s),
    }

    def drawn(tree):
        return {n: drawn(x) if isinstance(x, dict) else draws[n](x.shape).astype(np.float32) for n, x in tree.items()}

    return drawn(towers.template(model))


def _modules(net, variables):
    """(torch module, our params of it, our statistics of it) of every convolution and batch norm."""
    from torch import nn

    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            params, statistics = variables["params"], variables["batch_stats"]
            for word in name.split("."):
                params = params[word]
                statistics = statistics.get(word, {})
            yield module, params, statistics


def put(net, variables):
    """Copies our variables into the twin."""
    import torch
    from torch import nn

    def copy(target, array):
        target.data.copy_(torch.from_numpy(np.array(array)))

    for module, params, statistics in _modules(net, variables):
        if isinstance(module, nn.Conv2d):
            copy(module.weight, np.transpose(np.asarray(params["kernel"]), (3, 2, 0, 1)))
        else:
            copy(module.weight, params["scale"])
            copy(module.bias, params["bias"])
            copy(module.running_mean, statistics["mean"])
            copy(module.running_var, statistics["var"])
    return net


def compare(net, variables, of, **tolerance):
    """Asserts that `of` ('gradients' or 'statistics') of every module of the twin is the leaf of `variables`."""
    from torch import nn

    checked = 0
    for module, params, statistics in _modules(net, variables):
        if of == "statistics" and isinstance(module, nn.BatchNorm2d):
            pairs = [(statistics["mean"], module.running_mean), (statistics["var"], module.running_var)]
        elif of == "gradients" and isinstance(module, nn.Conv2d):
            pairs = [(np.transpose(np.asarray(params["kernel"]), (3, 2, 0, 1)), module.weight.grad)]
        elif of == "gradients":
            pairs = [(params["scale"], module.weight.grad), (params["bias"], module.bias.grad)]
        else:
            continue
        for ours, theirs in pairs:
            scale = float(theirs.abs().max()) + 1e-8
            np.testing.assert_allclose(np.asarray(ours) / scale, theirs.numpy() / scale, **tolerance)
            checked += 1
    assert checked >= 6
    return checked


def images(batch, side, seed=1):
    """Normal pixels, float32 [B, side, side, 3]."""
    return np.random.default_rng(seed).normal(size=(batch, side, side, 3)).astype(np.float32)


def to_torch(x):
    """NHWC numpy to an NCHW tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.transpose(x, (0, 3, 1, 2))))
