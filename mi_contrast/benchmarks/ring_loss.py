"""Times the ring loss and its gradients against info_nce and against sorting, in JAX and in torch.

256 anchors, a pool of 65,536 x 128, float32, percentiles .90 to .99. Every contender computes minus the mean value and
its gradients of anchors and positives, from the same embeddings. Ours selects candidates by counting; the peers sort
each row and slice it.

Draws from a support are timed against the support itself, for pools of 24,576 and 65,536 rows: k draws on average from
a pool that is sharded over devices (here one), as in training with a bank, and exactly k draws from a whole pool.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from mi_contrast import estimators as mi
from mi_contrast.benchmarks.timing import spread, time_interleaved
from mi_contrast.core.mesh import DATA, make_mesh
from mi_contrast.estimators.percentiles import millionths, rank
from mi_contrast.estimators.supports import Support

LOWER, UPPER, TEMPERATURE = 0.9, 0.99, 0.2
DRAWS = 4095


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns the seconds of each contender, and ratios: ring over the faster info_nce, sorting over ring."""
    batch, size, dim = (16, 512, 16) if small else (256, 65536, 128)
    anchors, positives, pool = _embeddings(batch, size, dim)
    band = [int(rank(millionths(p), size)) for p in (LOWER, UPPER)]

    contenders, losses = {}, {}
    for name, nats in _jax_contenders(band).items():
        contenders[name], losses[name] = _make_contender(nats, anchors, positives, pool)
    has_torch = importlib.util.find_spec("torch") is not None
    if has_torch:
        for name, run_once in _torch_contenders(anchors, positives, pool, band).items():
            contenders[name], losses[name] = run_once, run_once()
    for name, loss in losses.items():  # all rings must agree, and so must all info_nce
        np.testing.assert_allclose(loss, losses["ring" if "ring" in name else "info_nce"], rtol=1e-4, err_msg=name)

    seconds = time_interleaved(contenders, repeats)
    faster = min(("info_nce", "info_nce, dense"), key=lambda name: float(np.median(seconds[name])))

    def over(a: str, b: str) -> dict[str, float]:
        return spread([x / y for x, y in zip(seconds[a], seconds[b], strict=True)])

    results = {
        "what": f"-mean nats and gradients, {batch} anchors, pool {size} x {dim}, float32, ring [{LOWER}, {UPPER})",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "faster_info_nce": faster,
        "ring_over_faster_info_nce": over("ring", faster),
        "jax_sort_over_ring": over("ring, jax sort", "ring"),
        "draws": {n: compare_draws(batch, n, dim, DRAWS, repeats) for n in ((256, 512) if small else (24576, 65536))},
    }
    if not has_torch:
        return results | {"torch": "skipped: torch is not installed (extra [reference])"}
    return results | {
        "torch_sort_over_ring": over("ring, torch sort", "ring"),
        "torch_info_nce_over_faster_info_nce": over("info_nce, torch", faster),
    }


def _embeddings(batch: int, size: int, dim: int) -> list[np.ndarray]:
    """Returns anchors, positives and pool, all random directions."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(rows, dim)).astype(np.float32) for rows in (batch, batch, size)]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in arrays]


def compare_draws(batch: int, size: int, dim: int, draws: int, repeats: int) -> dict[str, Any]:
    """Returns the seconds of supports and of draws from them, and the ratios of draws over their support."""
    mesh, rng = make_mesh(jax.devices()[:1]), jax.random.key(0)
    supports: dict[str, Support] = {"all": mi.All(), "ring": mi.Ring(LOWER, UPPER)}
    supports |= {f"drawn {name}": mi.Drawn(draws, support) for name, support in supports.items()}

    def whole(support: Support, axis: str | None = None) -> Callable[..., jax.Array]:
        return lambda a, p, q: mi.contrast(a, p, q, support, temperature=TEMPERATURE, key=rng, axis_name=axis)

    def cut(support: Any) -> Callable[..., jax.Array]:
        part = PartitionSpec(DATA)
        return jax.shard_map(whole(support, DATA), mesh=mesh, in_specs=(part,) * 3, out_specs=part)

    arrays = _embeddings(batch, size, dim)
    contenders = {
        f"{name}, {pool}": _make_contender(nats(support), *arrays)[0]
        for pool, nats in (("pool cut", cut), ("pool whole", whole))
        for name, support in supports.items()
    }
    seconds = time_interleaved(contenders, repeats)
    ratios = {}
    for name in seconds:
        if name.startswith("drawn "):
            pairs = zip(seconds[name], seconds[name.removeprefix("drawn ")], strict=True)
            ratios[f"{name}, over its support"] = spread([x / y for x, y in pairs])
    return {
        "what": f"{draws} draws, {batch} anchors, pool {size} x {dim}; pool cut: k in the mean, pool whole: exactly k",
        "seconds": {name: spread(values) for name, values in seconds.items()},
        **ratios,
    }


def _jax_contenders(band: list[int]) -> dict[str, Callable[..., jax.Array]]:
    """Returns functions from (anchors, positives, pool) to nats [B], by name."""

    def dense(nats: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda a, p, q: nats(jnp.sum(a * p, axis=1) / TEMPERATURE, a @ q.T / TEMPERATURE)

    def streamed(support: mi.All | mi.Ring) -> Callable[..., jax.Array]:
        return lambda a, p, q: mi.contrast(a, p, q, support, temperature=TEMPERATURE)

    def sort_and_slice(positive: jax.Array, scores: jax.Array) -> jax.Array:
        return mi.info_nce(positive, jnp.sort(scores, axis=1)[:, band[0] : band[1]])

    return {
        "info_nce": streamed(mi.All()),
        "info_nce, dense": dense(mi.info_nce),
        "ring": streamed(mi.Ring(LOWER, UPPER)),
        "ring, dense": dense(lambda positive, scores: mi.ring(positive, scores, LOWER, UPPER)),
        "ring, jax sort": dense(sort_and_slice),
    }


def _make_contender(nats: Callable[..., jax.Array], *arrays: np.ndarray) -> tuple[Callable[[], Any], float]:
    """Returns a function that computes loss and gradients and waits for them, and the loss."""
    loss_and_gradients = jax.jit(jax.value_and_grad(lambda a, p, q: -jnp.mean(nats(a, p, q)), argnums=(0, 1)))
    on_device = [jnp.asarray(x) for x in arrays]
    return lambda: jax.block_until_ready(loss_and_gradients(*on_device)), float(loss_and_gradients(*on_device)[0])


def _torch_contenders(anchors: Any, positives: Any, pool: Any, band: list[int]) -> dict[str, Callable[[], float]]:
    """Returns functions that compute the two losses and their gradients in torch, by name."""
    import torch

    a, p = (torch.tensor(x, requires_grad=True) for x in (anchors, positives))
    q = torch.tensor(pool)

    def run_once(select: Callable[[torch.Tensor], torch.Tensor]) -> float:
        a.grad = p.grad = None
        positive, scores = (a * p).sum(1) / TEMPERATURE, select(a @ q.T / TEMPERATURE)
        log_mean = torch.logaddexp(positive, torch.logsumexp(scores, dim=1)) - np.log(scores.shape[1] + 1)
        loss = -(positive - log_mean).mean()
        loss.backward()
        return loss.item()

    return {
        "info_nce, torch": lambda: run_once(lambda scores: scores),
        "ring, torch sort": lambda: run_once(lambda scores: torch.sort(scores, dim=1)[0][:, band[0] : band[1]]),
    }
