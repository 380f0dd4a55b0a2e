from functools import partial

import jax
import jax.numpy as jnp
import pytest

from mi_contrast.benchmarks import peers, programs


def convolution(x, kernel, stride):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(1, 1), (1, 1)], dimension_numbers=names)


@pytest.mark.parametrize("stride", [1, 2])
def test_products_are_those_a_hand_counts(stride):
    x, kernel, matrix = jnp.ones((8, 16, 16, 4)), jnp.ones((3, 3, 4, 6)), jnp.ones((6, 5))
    side = 16 // stride

    def both(x, kernel, matrix):
        return jnp.sum((convolution(x, kernel, stride) @ matrix) ** 2)

    convolved, multiplied = 2 * 8 * side**2 * 6 * 9 * 4, 2 * 8 * side**2 * 6 * 5
    assert programs.count_products(both, x, kernel, matrix) == convolved + multiplied
    graded = jax.jit(jax.grad(both, (0, 1, 2)))  # each product has two of its size on the way back
    assert programs.count_products(graded, x, kernel, matrix) == 3 * (convolved + multiplied)


def test_products_in_loops_count_each_time_and_of_branches_the_dearest():
    matrix = jnp.ones((4, 4))

    def looped(x):
        return jax.lax.scan(lambda carry, _: (carry @ matrix, None), x, length=7)[0]

    assert programs.count_products(looped, matrix) == 7 * 2 * 4**3
    branched = lambda x: jax.lax.cond(x[0, 0] > 0, looped, lambda x: x, x)  # noqa: E731
    assert programs.count_products(branched, matrix) == 7 * 2 * 4**3


def test_of_forms_for_platforms_the_one_for_all_others_counts():
    matrix = jnp.ones((4, 4))
    forms = partial(jax.lax.platform_dependent, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)
    assert programs.count_products(forms, matrix) == 2 * 4**3


def test_the_compiler_reports_the_same_operations_of_a_product():
    a, b = jnp.ones((64, 32)), jnp.ones((32, 48))
    program = jax.jit(jnp.matmul).lower(a, b).compile()
    assert programs.reported_flops(program) == programs.count_products(jnp.matmul, a, b) == 2 * 64 * 32 * 48


def test_no_report_is_none():
    class Silent:
        def cost_analysis(self):
            return None

    assert programs.reported_flops(Silent()) is None


GPU_TEXT = """HloModule jit_step, is_scheduled=true

%fused_transpose (p: f32[8,4]) -> f32[4,8] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %t = f32[4,8]{1,0} transpose(%p), dimensions={1,0}
}

%body (q: (s32[], f32[4])) -> (s32[], f32[4]) {
  %q = (s32[], f32[4]{0}) parameter(0)
  ROOT %s = (s32[], f32[4]{0}) sort(%q), dimensions={0}, to_apply=%compare
}

%condition (r: (s32[], f32[4])) -> pred[] {
  %r = (s32[], f32[4]{0}) parameter(0)
  ROOT %c = pred[] fusion(%r), kind=kLoop, calls=%less
}

ENTRY %main.5 (x: f32[8,4], w: bf16[3,3,4,4]) -> f32[4,8] {
  %x = f32[8,4]{1,0} parameter(0)
  %w = bf16[3,3,4,4]{3,2,1,0} parameter(1)
  %conv.1 = (bf16[2,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), custom_call_target="__cudnn$convForward"
  %g = bf16[2,8,8,4]{3,2,1,0} get-tuple-element(%conv.1), index=0
  %copy.1 = f32[8,4]{1,0} copy(%x)
  %loop = (s32[], f32[4]{0}) while(%x), condition=%condition, body=%body
  %call = f64[2]{0} custom-call(%x), custom_call_target="xla_ffi_python_gpu_callback"
  ROOT %fusion.1 = f32[4,8]{1,0} fusion(%copy.1), kind=kInput, calls=%fused_transpose
}
"""


def test_a_program_is_read_as_a_hand_reads_it():
    assert programs.read_program(GPU_TEXT) == {
        "launched": 6,  # in the entry a convolution, a copy, a callback, a fusion; in the loop a sort and a fusion
        "fusions": 2,
        "copies": 1,
        "convolutions": {"bf16": 1},
        "loops": 1,
        "branches": 0,
        "sorts": 1,
        "transposes": 1,
        "callbacks": 1,
        "float64": 1,
    }


def test_loops_are_followed_whatever_their_parts_are_called():
    names = {"%body": "%region_1.4", "%condition": "%region_2.5"}
    text = GPU_TEXT
    for old, new in names.items():
        text = text.replace(old, new)
    assert programs.read_program(text) == programs.read_program(GPU_TEXT)


def test_a_true_program_has_what_was_put_in():
    def step(x):
        x = jax.lax.while_loop(lambda x: x[0] < 0, jnp.sort, x)
        return jax.pure_callback(lambda x: x, x, x)

    found = programs.read_program(jax.jit(step).lower(jnp.arange(8.0)).compile().as_text())
    assert (found["loops"], found["callbacks"]) == (1, 1) and found["sorts"] >= 1
    empty = programs.read_program(jax.jit(lambda x: x + 1).lower(jnp.arange(8.0)).compile().as_text())
    assert not empty["loops"] and not empty["callbacks"] and not empty["sorts"] and not empty["float64"]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_peers_network_is_torchvisions(backbone):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    theirs = getattr(peers.import_torchvision().models, backbone)(weights=None)
    theirs.fc = torch.nn.Identity()
    ours = peers.make_resnet(backbone, 64, "imagenet")
    assert len(ours.state_dict()) == len(theirs.state_dict())
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_an_absent_peer_is_named_with_its_extra():
    assert "pip install 'mi-contrast[reference]'" in peers.find_missing(("no_such_peer",), "reference")
    assert peers.find_missing(("json",), "reference") == ""
