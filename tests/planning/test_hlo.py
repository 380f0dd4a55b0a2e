"""Stored texts are read as a hand reads them."""

from pathlib import Path

import pytest

from mi_contrast.planning.collectives import find_collectives, find_pool_sized, read_group_size, summarise_collectives
from mi_contrast.planning.hlo import OPEN_LOOP_RUNS, Array, Program, read_arrays
from mi_contrast.planning.judging import judge
from mi_contrast.planning.traffic import count_traffic

# As libtpu writes it: layouts with tiles and places, a loop that counts to a constant, one that depends on the data,
# and a gather that is cut into a chain.
TPU_TEXT = (Path(__file__).parent / "tpu_step.txt").read_text()


def test_collectives_are_counted_as_a_hand_counts_them():
    found = summarise_collectives(find_collectives(Program(TPU_TEXT)))
    row = lambda count, runs, size, sent, loops: {  # noqa: E731
        "count": count, "runs": runs, "bytes": size, "sent": pytest.approx(sent), "in_open_loops": loops}  # fmt: skip
    inside, open_runs = 16 * 4, OPEN_LOOP_RUNS
    assert found == {
        "all-gather": row(1, 1, 64 * 128 * 4, 64 * 128 * 4 * 7 / 8, 0),  # the chain is one gather
        "all-reduce": row(2, 4 + open_runs, (4 + open_runs) * inside,
                          4 * inside * 2 * 3 / 4 + open_runs * inside * 2 * 7 / 8, 1),
        "collective-permute": row(1, 1, 4 * 6 * 2, 4 * 6 * 2, 0),  # started and done by two instructions
    }  # fmt: skip


def test_a_started_gather_counts_what_arrives():
    text = (
        "HloModule m, num_partitions=4\n\nENTRY %main (x: f32[2]) -> f32[8] {\n  %x = f32[2]{0} parameter(0)\n"
        "  %begin = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), replica_groups={{0,1,2,3}}, dimensions={0}\n"
        "  %sum-start = f32[2]{0} all-reduce-start(%x), replica_groups={{0,1,2,3}}\n"
        "  %part = f32[2]{0} reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={0}\n"
        "  %alone = f32[2]{0} all-reduce(%x), replica_groups={{0},{1},{2},{3}}\n"
        "  ROOT %end = f32[8]{0} all-gather-done(%begin)\n}\n"
    )
    found = {one.kind: one for one in find_collectives(Program(text))}
    assert {kind: one.bytes for kind, one in found.items()} == {
        "all-gather": 32, "all-reduce": 8, "reduce-scatter": 4 * 8,
    }  # fmt: skip
    assert found["reduce-scatter"].sent == found["all-gather"].sent == 24 and found["all-reduce"].sent == 12


@pytest.mark.parametrize(
    "written, size",
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", 4),
        ("replica_groups=mesh['data'=4,'model'=2] {'model'}", 2),
        ("replica_groups=mesh['data'=4,'model'=2] {'data','model'}", 8),
        ("replica_groups={}", 8),
        ("channel_id=1", 8),
        ("source_target_pairs={{0,0},{1,1}}", 1),
        ("source_target_pairs={{0,1},{1,0}}", 8),
    ],
)
def test_the_size_of_groups_is_read(written, size):
    assert read_group_size(f"%x = f32[] all-reduce(%y), {written}, to_apply=%add", 8) == size


def test_bytes_of_arrays():
    arrays = read_arrays(
        "(bf16[3,4]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/pred[7]{0}, s4[3]{0}, f8e4m3fn[2,2]{1,0}, u32[])"
    )
    assert [array.bytes for array in arrays] == [24, 7, 2, 4, 4]
    assert [array.on_chip for array in arrays] == [True, False, False, False, False]
    assert Array("f64", (2,)).bytes == 16 and Array("token", ()).bytes == 0 and Array("c64", ()).bytes == 8


def test_a_judge_finds_what_must_not_be_there():
    text = TPU_TEXT.replace('custom_call_target="Any"', 'custom_call_target="xla_ffi_python_cpu_callback"')
    text = text.replace("%values = f32[16]", "%values = f64[16]")
    program = Program(text)
    collectives = find_collectives(program)
    verdicts = judge(program, collectives, dtype="bfloat16", pools={"queue": (64, 64)}, batch_sides=(128, 16))
    assert {verdict.fault: (verdict.count, verdict.examples) for verdict in verdicts} == {
        "sort of more than a batch": (1, ("jit(step)/sort",)),
        "callback into the host": (1, ("any",)),
        "float64": (1, ("values",)),
        "float32 convolution": (
            1,
            ("jit(step)/conv2/conv_general_dilated",),
        ),  # and neither the bfloat16 nor the product
        "collective as long as a pool": (1, ("all-gather of f32[64, 128] is as long as the pool queue (no source)",)),
    }
    clean = judge(program, collectives, dtype="float32", pools={"queue": (65536, 8192)}, batch_sides=(256, 32))
    assert "float32 convolution" not in {verdict.fault for verdict in clean}
    assert {verdict.fault for verdict in clean if not verdict.passed} == {"callback into the host", "float64"}


def test_a_pool_as_long_as_the_batch_is_not_looked_for():
    collectives = find_collectives(Program(TPU_TEXT))
    assert find_pool_sized(collectives, {"queue": (64, 8)})
    assert not find_pool_sized(collectives, {"queue": (64, 8)}, (64, 8))


def test_traffic_leaves_out_what_stays_on_the_core():
    text = """HloModule m

%fused (a: f32[1000,8], i: s32[]) -> f32[2,8] {
  %a = f32[1000,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[2,8]{1,0} dynamic-slice(%a, %i, %zero), dynamic_slice_sizes={2,8}
}

ENTRY %main (x: f32[1000,8], i: s32[]) -> f32[2,8] {
  %x = f32[1000,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %near = f32[1000,8]{1,0:S(1)} copy(%x)
  %far = f32[1000,8]{1,0} negate(%near)
  ROOT %part = f32[2,8]{1,0} fusion(%far, %i), kind=kLoop, calls=%fused
}
"""
    whole, part = 1000 * 8 * 4, 2 * 8 * 4
    assert count_traffic(Program(text)) == whole + whole + (part + 4) + part


def test_traffic_of_started_copies_counts_each_end_in_main_memory_once():
    text = """HloModule m

ENTRY %main (x: f32[512,100]) -> f32[512,100] {
  %x = f32[512,100]{1,0:T(8,128)} parameter(0)
  %part = ((f32[512,100]{1,0:T(8,128)}), f32[8,100]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x)
  %part.done = f32[8,100]{1,0:T(8,128)S(1)} slice-done(%part)
  %in = (f32[512,100]{1,0:T(8,128)S(1)}, f32[512,100]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %in.done = f32[512,100]{1,0:T(8,128)S(1)} copy-done(%in)
  %row = f32[1,100]{1,0:T(8,128)S(1)} dynamic-slice(%in.done, %x)
  %out = (f32[512,100]{1,0:T(8,128)}, f32[512,100]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%in.done)
  ROOT %out.done = f32[512,100]{1,0:T(8,128)} copy-done(%out)
}
"""
    whole, part = 512 * 100 * 4, 8 * 100 * 4
    assert count_traffic(Program(text)) == part + whole + whole
