"""View generators: learned colour spaces g, computed by a small network at every pixel.

The two views are channel 0 and channels 1 and 2 of g(x) (Tian et al. 2020, "What Makes for Good Views for Contrastive
Learning?", InfoMin). A flow splits the three channels into a = channel 0 and b = channels 1 and 2, and updates them in
turn:

    coupling 0, 2, ..:  b <- b * exp(S(a)) + T(a)        coupling 1, 3, ..:  a <- a * exp(S(b)) + T(b)

  additive   S = 0, which preserves volume (Dinh et al. 2014, "NICE").
  affine     S = BOUND * tanh(s). Volume changes by log|det dg/dx| = sum of S (Dinh et al. 2016, "Real NVP").
  free       no couplings: g is a network 3 -> hidden -> .. -> 3, which may lose information.

A flow has an inverse at every pixel, so it keeps all information about the image: I(g(x); y) = I(x; y). The paper does
not give the depth, the width or the split of its generators. Ours are choices: S and T of a coupling are one network
with one hidden layer, and depth comes from the number of couplings. With 3 couplings or more, every output depends on
every input.
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
BOUND = 0.5  # of |S|: a coupling scales by 1.65 at most, so that float32 can still invert many of them
START = 0.01  # factor of a flow's last layers at init: g is near the identity, and every parameter has a gradient


def init_mlp(rng: Key[Array, ""], widths: tuple[int, ...], last_scale: float) -> Layers:
    """Initialises the layers of a perceptron.

    Kernels are drawn from N(0, 2 / fan_in). Biases are uniform in +-1 / sqrt(fan_in), which spreads the kinks of the
    ReLUs. The last layer is multiplied by `last_scale`.
    """
    layers = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        kernel_rng, bias_rng = jax.random.split(jax.random.fold_in(rng, i))
        scale = last_scale if i == len(widths) - 2 else 1.0
        layers[f"layer_{i}"] = {
            "kernel": scale * (2 / fan_in) ** 0.5 * jax.random.normal(kernel_rng, (fan_in, fan_out), jnp.float32),
            "bias": scale * fan_in**-0.5 * jax.random.uniform(bias_rng, (fan_out,), jnp.float32, -1.0, 1.0),
        }
    return layers


def apply_mlp(layers: Layers, x: Float[Array, "... n"]) -> Float[Array, "... m"]:
    """Returns W_k relu(.. relu(W_0 x + b_0) ..) + b_k at every pixel, computed in full float32 precision."""
    for i in range(len(layers)):
        layer = layers[f"layer_{i}"]
        x = jnp.matmul(jax.nn.relu(x) if i else x, layer["kernel"], precision="highest") + layer["bias"]
    return x


@dataclass(frozen=True)
class Generator:
    """A learned colour space g, which maps the 3 channels of a pixel to 3 channels.

    Holds no parameters, so it can be static under jit: every method takes them, {network: {layer_i: {kernel, bias}}},
    float32. All computation is in float32.

    Args:
      flow: one of `FLOWS`.
      couplings: number of couplings, at least 1. For a free generator, the number of hidden layers.
      hidden: units of a hidden layer, at least 1.

    Raises:
      UserError: the flow is unknown, or couplings or hidden is not a whole number of at least 1.

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

    def init(self, rng: Key[Array, ""]) -> Params:
        """Returns initial parameters.

        A flow starts near the identity, because its last layers are small; learning starts from the original channels.
        A free generator starts at random, with outputs about as large as its inputs.
        """
        if self.flow == "free":
            return {"network": init_mlp(rng, (3, *[self.hidden] * self.couplings, 3), last_scale=0.5**0.5)}
        outputs = 2 if self.flow == "affine" else 1  # s and T, or T alone
        rngs = jax.random.split(rng, self.couplings)
        widths = [(1, self.hidden, 2 * outputs), (2, self.hidden, outputs)]  # a updates b, then b updates a
        return {f"coupling_{i}": init_mlp(rngs[i], widths[i % 2], last_scale=START) for i in range(self.couplings)}

    def forward(self, params: Params, x: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
        """Returns y = g(x), float32 [..., 3], of normalised pixels [..., 3] of any float dtype.

        Raises UserError if x does not have 3 channels.
        """
        x = check_pixels(x)
        return apply_mlp(params["network"], x) if self.flow == "free" else self._flow(params, x)[0]

    def log_det(self, params: Params, x: Float[Array, "... 3"]) -> Float[Array, "..."]:
        """Returns the change of volume log|det dg/dx| of every pixel, float32 [...], in nats.

        It is the sum of S over all couplings and the channels that they update, and exactly 0 for an additive flow.

        Raises UserError for a free generator, which has no inverse, and if x does not have 3 channels.
        """
        return self._flow(params, check_pixels(x))[1]

    def inverse(self, params: Params, y: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
        """Returns the x with g(x) = y, float32 [..., 3].

        From the last coupling to the first, it computes b <- (b - T(a)) exp(-S(a)).

        The error is rounding error, multiplied by how much g stretches. It was below 1e-5 for generators that map
        pixels in +-3 to values within +-15.

        Raises UserError for a free generator, which has no inverse, and if y does not have 3 channels.
        """
        halves = divide(check_pixels(y))
        for i in reversed(range(self.couplings)):
            log_scale, shift = self._coupling(params, i, halves)
            halves[1 - i % 2] = (halves[1 - i % 2] - shift) * jnp.exp(-log_scale)
        return jnp.concatenate(halves, -1)

    def _flow(self, params: Params, x: Float[Array, "... 3"]) -> tuple[Float[Array, "... 3"], Float[Array, "..."]]:
        """Returns g(x) and log|det dg/dx|."""
        halves, log_det = divide(x), jnp.zeros(x.shape[:-1])
        for i in range(self.couplings):
            log_scale, shift = self._coupling(params, i, halves)
            halves[1 - i % 2] = halves[1 - i % 2] * jnp.exp(log_scale) + shift
            log_det += log_scale.sum(-1)
        return jnp.concatenate(halves, -1), log_det

    def _coupling(self, params: Params, i: int, halves: Halves) -> Halves:
        """Returns S and T of coupling i, computed from the half that it leaves unchanged."""
        if self.flow == "free":
            raise UserError("a free generator has no inverse and no volume", fix="take flow='additive' or 'affine'")
        output = apply_mlp(params[f"coupling_{i}"], halves[i % 2])
        if self.flow == "additive":
            return [jnp.zeros_like(output), output]
        raw, shift = jnp.split(output, 2, -1)
        return [BOUND * jnp.tanh(raw), shift]


def check_pixels(x: Float[Array, "... c"]) -> Float[Array, "... 3"]:
    """Returns the pixels in float32. Raises UserError if they do not have 3 channels."""
    x = jnp.asarray(x)
    if x.shape[-1:] != (3,):
        raise UserError(f"a generator takes pixels of 3 channels, not the shape {x.shape}", fix="give colour images")
    return x.astype(jnp.float32)


def divide(x: Float[Array, "... 3"]) -> Halves:
    """Splits pixels into channel 0, and channels 1 and 2."""
    return [x[..., :1], x[..., 1:]]
