"""The tiny net against its twin in torch: features, statistics, gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast.models import towers
from mi_contrast.models.description import resolve
from tests.models import twins


def test_features_statistics_and_gradients_are_torchs():
    net = twins.twin("tiny", 16)
    import torch

    model = resolve(dict(backbone="tiny", width=16))
    variables = twins.random_variables(model)
    twins.put(net, variables)
    ours, x = towers.build_backbone(model), twins.images(8, 21)
    target = np.random.default_rng(5).normal(size=(8, ours.dim)).astype(np.float32)

    with torch.no_grad():
        evaluated = net.eval()(twins.to_torch(x)).numpy()
    np.testing.assert_allclose(jax.jit(lambda: ours.apply(variables, x, False))(), evaluated, atol=1e-5)

    trained = net.train()(twins.to_torch(x))
    (trained * torch.from_numpy(target)).sum().backward()

    @jax.jit
    def gradient(params):
        def loss(params):
            features, moved = ours.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
            return jnp.sum(features * target), (features, moved)

        return jax.grad(loss, has_aux=True)(params)

    found, (features, moved) = gradient(variables["params"])
    np.testing.assert_allclose(features, trained.detach().numpy(), atol=1e-5)
    twins.compare(net, {"params": found, "batch_stats": {}}, "gradients", atol=1e-4)
    twins.compare(net, {"params": found, **moved}, "statistics", atol=1e-5)
