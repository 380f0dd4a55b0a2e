"""View generators: learned colour spaces, a small network at every pixel. Two views are what lies in channel 0 and in
channels 1 and 2 of g(x) (Tian et al. 2020, "What Makes for Good Views for Contrastive Learning?", InfoMin).

A flow divides the three channels into a = channel 0 and b = channels 1 and 2, and moves one by the other in turn:

    coupling 0, 2, ..:  b <- b * exp(S(a)) + T(a)        coupling 1, 3, ..:  a <- a * exp(S(b)) + T(b)

  additive   S = 0: volume is preserved (Dinh et al. 2014, "NICE").
  affine     S = BOUND * tanh(s): volume changes by log|det dg/dx| = sum of S (Dinh et al. 2016, "Real NVP").
  free       no coupling, g is a network 3 -> hidden -> .. -> 3: nothing keeps it from losing information.

Since g sees one pixel at a time and a flow has an inverse, a flow only says anew what the image says: I(g(x); y) =
I(x; y). Depth, width and division of the paper's generators are unknown. Ours is a choice: S and T of a coupling are
one network with one hidden layer, depth comes from the number of couplings; from 3 on, every output sees every input.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mi_contrast.core.errors import UserError, unknown

Layers = dict[str, dict[str, Float[Array, "..."]]]
Params = dict[str, Layers]
Halves = list[Float[Array, "..."]]

FLOWS = ("additive", "affine", "free")
BOUND = 0.5  # of |S|: a coupling stretches by 1.65 at most, so that float32 still undoes many of them
START = 0.01  # of a flow's last layers at the start: near the identity, yet every parameter has a slope


def init_mlp(key: Key[Array, ""], widths: tuple[int, ...], last: float) -> Layers:
    """Kernels N(0, 2 / fan_in); biases uniform in +-1 / sqrt(fan_in), so that kinks are spread; last layer * `last`."""
    layers = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        for_kernel, for_bias = jax.random.split(jax.random.fold_in(key, i))
        scale = last if i == len(widths) - 2 else 1.0
        layers[f"layer_{i}"] = {
            "kernel": scale * (2 / fan_in) ** 0.5 * jax.random.normal(for_kernel, (fan_in, fan_out), jnp.float32),
            "bias": scale * fan_in**-0.5 * jax.random.uniform(for_bias, (fan_out,), jnp.float32, -1.0, 1.0),
        }
    return layers


def apply_mlp(layers: Layers, x: Float[Array, "... n"]) -> Float[Array, "... m"]:
    """W_k relu(.. relu(W_0 x + b_0) ..) + b_k at every pixel: 1x1 convolutions, as products of full float32."""
    for i in range(len(layers)):
        layer = layers[f"layer_{i}"]
        x = jnp.matmul(jax.nn.relu(x) if i else x, layer["kernel"], precision="highest") + layer["bias"]
    return x


@dataclass(frozen=True)
class Generator:
    """A learned colour space g: 3 channels in, 3 channels out, pixel by pixel.

    Pure functions of explicit parameters {network: {layer_i: {kernel, bias}}}, float32; static under jit. All
    is reckoned in float32, whatever comes in.

    Args:
      flow: a word of `FLOWS`.
      couplings: how many couplings, at least 1; of a free one, how many hidden layers.
      hidden: units of a hidden layer, at least 1.

    Raises: UserError for an unknown flow, or for couplings or hidden that are no whole number >= 1.

    >>> generator = Generator("affine", couplings=4, hidden=8)
    >>> params = generator.init(jax.random.key(0))
    >>> x = jnp.array([[0.5, -1.0, 2.0]])
    >>> y = generator.forward(params, x)
    >>> bool(jnp.allclose(generator.inverse(params, y), x, atol=1e-5)), generator.log_det(params, x).shape
    (True, (1,))
    """

    flow: str
    couplings: int
    hidden: int

    def __post_init__(self) -> None:
        if self.flow not in FLOWS:
            raise unknown("flow", self.flow, FLOWS)
        for name, count in (("couplings", self.couplings), ("hidden", self.hidden)):
            if not isinstance(count, int) or count < 1:
                raise UserError(f"{name} of a generator is {count!r}", fix="give a whole number of at least 1")

    def init(self, key: Key[Array, ""]) -> Params:
        """Parameters. A flow begins near the identity, its last layers being small, so that learning begins from the
        channels as they are; a free network begins at random, with outputs about as large as its inputs.
        """
        if self.flow == "free":
            return {"network": init_mlp(key, (3, *[self.hidden] * self.couplings, 3), last=0.5**0.5)}
        outputs = 2 if self.flow == "affine" else 1  # s and T, or T alone
        keys = jax.random.split(key, self.couplings)
        sides = [(1, self.hidden, 2 * outputs), (2, self.hidden, outputs)]  # b by a, a by b
        return {f"coupling_{i}": init_mlp(keys[i], sides[i % 2], last=START) for i in range(self.couplings)}

    def forward(self, params: Params, x: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
        """The views y = g(x), float32 [..., 3], of normalised pixels [..., 3] of any float dtype.

        Raises: UserError where x has not 3 channels.
        """
        x = check_pixels(x)
        return apply_mlp(params["network"], x) if self.flow == "free" else self._flow(params, x)[0]

    def log_det(self, params: Params, x: Float[Array, "... 3"]) -> Float[Array, "..."]:
        """Volume log|det dg/dx| of every pixel, float32 [...], in nats: the sum of S over all couplings and channels
        that are moved; exactly 0 of an additive flow.

        Raises: UserError for a free generator, which has no inverse, and where x has not 3 channels.
        """
        return self._flow(params, check_pixels(x))[1]

    def inverse(self, params: Params, y: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
        """The x with g(x) = y, float32 [..., 3]: from the last coupling to the first, b <- (b - T(a)) * exp(-S(a)).
        Rounding is lost, times how steep g is: less than 1e-5 was seen while g takes pixels in +-3 to +-15 or less.

        Raises: UserError for a free generator, which has no inverse, and where y has not 3 channels.
        """
        halves = divide(check_pixels(y))
        for i in reversed(range(self.couplings)):
            log_scale, shift = self._coupling(params, i, halves)
            halves[1 - i % 2] = (halves[1 - i % 2] - shift) * jnp.exp(-log_scale)
        return jnp.concatenate(halves, -1)

    def _flow(self, params: Params, x: Float[Array, "... 3"]) -> tuple[Float[Array, "... 3"], Float[Array, "..."]]:
        """Both g(x) and log|det dg/dx|."""
        halves, log_det = divide(x), jnp.zeros(x.shape[:-1])
        for i in range(self.couplings):
            log_scale, shift = self._coupling(params, i, halves)
            halves[1 - i % 2] = halves[1 - i % 2] * jnp.exp(log_scale) + shift
            log_det += log_scale.sum(-1)
        return jnp.concatenate(halves, -1), log_det

    def _coupling(self, params: Params, i: int, halves: Halves) -> Halves:
        """S and T of coupling i, seen from the half that it keeps."""
        if self.flow == "free":
            raise UserError("a free generator has no inverse and no volume", fix="take flow='additive' or 'affine'")
        made = apply_mlp(params[f"coupling_{i}"], halves[i % 2])
        if self.flow == "additive":
            return [jnp.zeros_like(made), made]
        raw, shift = jnp.split(made, 2, -1)
        return [BOUND * jnp.tanh(raw), shift]


def check_pixels(x: Float[Array, "... c"]) -> Float[Array, "... 3"]:
    """Pixels of 3 channels in float32, or a UserError."""
    x = jnp.asarray(x)
    if x.shape[-1:] != (3,):
        raise UserError(f"a generator takes pixels of 3 channels, not the shape {x.shape}", fix="give colour images")
    return x.astype(jnp.float32)


def divide(x: Float[Array, "... 3"]) -> Halves:
    """Channel 0, and channels 1 and 2."""
    return [x[..., :1], x[..., 1:]]
