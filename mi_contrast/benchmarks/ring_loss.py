"""The ring loss, forward and backward to anchors and positives, beside info_nce and beside sorting, in JAX and torch.

256 anchors, a pool of 65,536 x 128, float32, percentiles .90 to .99. Every contender computes minus the mean value and
its gradients from the same embeddings; ours selects by counting, the peers sort each row and slice.

Draws from a support are timed beside the support itself, for pools of 24,576 and 65,536 rows: k in the mean over a pool
that is cut over devices (one device here), which is how a bank is trained against, and exactly k over a whole pool.
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
from mi_contrast.benchmarks.timing import interleaved, spread
from mi_contrast.core.mesh import DATA, make_mesh
from mi_contrast.estimators.percentiles import millionths, rank
from mi_contrast.estimators.supports import Support

LOWER, UPPER, TEMPERATURE = 0.9, 0.99, 0.2
DRAWS = 4095


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Seconds of each contender, and ratios round by round: ring over the faster info_nce, sorting over ring."""
    batch, size, dim = (16, 512, 16) if small else (256, 65536, 128)
    anchors, positives, pool = _embeddings(batch, size, dim)
    band = [int(rank(millionths(p), size)) for p in (LOWER, UPPER)]

    contenders, losses = {}, {}
    for name, nats in _ours(band).items():
        contenders[name], losses[name] = _timed(nats, anchors, positives, pool)
    has_torch = importlib.util.find_spec("torch") is not None
    if has_torch:
        for name, run_once in _torch(anchors, positives, pool, band).items():
            contenders[name], losses[name] = run_once, run_once()
    for name, loss in losses.items():  # all rings are one number, and so are all info_nce
        np.testing.assert_allclose(loss, losses["ring" if "ring" in name else "info_nce"], rtol=1e-4, err_msg=name)

    seconds = interleaved(contenders, repeats)
    faster = min(("info_nce", "info_nce, dense"), key=lambda name: float(np.median(seconds[name])))
    over = lambda a, b: spread([x / y for x, y in zip(seconds[a], seconds[b], strict=True)])  # noqa: E731
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
    """Anchors, positives and pool: random directions."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(rows, dim)).astype(np.float32) for rows in (batch, batch, size)]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in arrays]


def compare_draws(batch: int, size: int, dim: int, draws: int, repeats: int) -> dict[str, Any]:
    """Seconds of supports and of draws from them, and ratios of draws over their support round by round."""
    mesh, key = make_mesh(jax.devices()[:1]), jax.random.key(0)
    supports: dict[str, Support] = {"all": mi.All(), "ring": mi.Ring(LOWER, UPPER)}
    supports |= {f"drawn {name}": mi.Drawn(draws, support) for name, support in supports.items()}

    def whole(support: Support, axis: str | None = None) -> Callable[..., jax.Array]:
        return lambda a, p, q: mi.contrast(a, p, q, support, temperature=TEMPERATURE, key=key, axis_name=axis)

    def cut(support: Any) -> Callable[..., jax.Array]:
        part = PartitionSpec(DATA)
        return jax.shard_map(whole(support, DATA), mesh=mesh, in_specs=(part,) * 3, out_specs=part)

    arrays = _embeddings(batch, size, dim)
    contenders = {
        f"{name}, {pool}": _timed(nats(support), *arrays)[0]
        for pool, nats in (("pool cut", cut), ("pool whole", whole))
        for name, support in supports.items()
    }
    seconds = interleaved(contenders, repeats)
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


def _ours(band: list[int]) -> dict[str, Callable[..., jax.Array]]:
    """Nats [B] of (anchors, positives, pool), by name."""

    def scored(nats: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda a, p, q: nats(jnp.sum(a * p, axis=1) / TEMPERATURE, a @ q.T / TEMPERATURE)

    def in_blocks(support: mi.All | mi.Ring) -> Callable[..., jax.Array]:
        return lambda a, p, q: mi.contrast(a, p, q, support, temperature=TEMPERATURE)

    def sorted_ring(positive: jax.Array, scores: jax.Array) -> jax.Array:
        return mi.info_nce(positive, jnp.sort(scores, axis=1)[:, band[0] : band[1]])

    return {
        "info_nce": in_blocks(mi.All()),
        "info_nce, dense": scored(mi.info_nce),
        "ring": in_blocks(mi.Ring(LOWER, UPPER)),
        "ring, dense": scored(lambda positive, scores: mi.ring(positive, scores, LOWER, UPPER)),
        "ring, jax sort": scored(sorted_ring),
    }


def _timed(nats: Callable[..., jax.Array], *arrays: np.ndarray) -> tuple[Callable[[], Any], float]:
    """A call that waits for loss and gradients, and the loss."""
    graded = jax.jit(jax.value_and_grad(lambda a, p, q: -jnp.mean(nats(a, p, q)), argnums=(0, 1)))
    on_device = [jnp.asarray(x) for x in arrays]
    return lambda: jax.block_until_ready(graded(*on_device)), float(graded(*on_device)[0])


def _torch(anchors: Any, positives: Any, pool: Any, band: list[int]) -> dict[str, Callable[[], float]]:
    """The same two losses in torch, by name."""
    import torch

    a, p = (torch.tensor(x, requires_grad=True) for x in (anchors, positives))
    q = torch.tensor(pool)

    def once(choose: Callable[[torch.Tensor], torch.Tensor]) -> float:
        a.grad = p.grad = None
        positive, scores = (a * p).sum(1) / TEMPERATURE, choose(a @ q.T / TEMPERATURE)
        among = torch.logaddexp(positive, torch.logsumexp(scores, dim=1)) - np.log(scores.shape[1] + 1)
        loss = -(positive - among).mean()
        loss.backward()
        return loss.item()

    return {
        "info_nce, torch": lambda: once(lambda scores: scores),
        "ring, torch sort": lambda: once(lambda scores: torch.sort(scores, dim=1)[0][:, band[0] : band[1]]),
    }
