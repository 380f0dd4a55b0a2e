"""Plans a run before it starts: what its training step needs, and whether it fits.

  python -m mi_contrast.plan --config=configs/ring_moco.py:imagenet --topology=v5e:4x4 [--sizes=8x8,16x16]
  python -m mi_contrast.plan --config=configs/ring_moco.py [--workdir=runs/x]

With --topology the true step is compiled for a slice of TPUs or GPUs that need not be there, on any CPU: memory a
chip, operations, collectives, a roofline estimate from the chip's public figures, and what the compiled text must not
contain. All of this is predicted by compiling, not measured. A compilation takes minutes; a TPU's needs the extra
[tpu], a GPU's [cuda13]. No data are read where the number of examples is known. The plan is printed, and written as
JSON and as a page.

Without --topology the plan is for the devices of this machine: memory, seconds a step from a few timed steps, total
time and disk. Nothing is written there unless --out is given.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mi_contrast.core.config import CommandLine, parse, to_plain_data
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.core.layout import write_json, write_text
from mi_contrast.planning import here, predict, saying
from mi_contrast.planning.topologies import Slice, parse_topology
from mi_contrast.reporting import plan_page

FLAGS = {
    "config=": "a config file, optionally with :variant; --config.section.field=value changes a field",
    "topology=": "compile for this slice: v5e:4x4, v4:2x2x2, v5p:2x2x4, v6e:4x4, h200:8, h100:16, a100-40:8, a100-80:8",
    "sizes=": "with --topology: further sizes of the slice, at the same batch a chip, such as 8x8,16x16",
    "once": "with --topology: compile once, and leave out the estimator's share",
    "examples=": "with --topology: number of training examples, where the data are not here",
    "classes=": "with --topology: number of classes of the label, where the data are not here",
    "workdir=": "without --topology: where the run will be, to see how much space is free there",
    "out=": "folder of <config>-<variant>-<slice>.json and .html; plans/ by default with --topology",
}
ONLY_WITH_TOPOLOGY = ("sizes", "once", "examples", "classes")


def plan_slices(
    config: Mapping[str, Any], slices: list[Slice], *, examples: int | None, classes: int | None, once: bool = False
) -> dict[str, Any]:
    """Returns the plan of a config on several slices, as plain data.

    Args:
      slices: the first is planned with the config's batch, and the others with the same batch a chip.
      examples, classes: of the training split; None where they are known or the data are here.
      once: leave out the estimator's share.
    Raises:
      UserError: a mistake in the config, or no compiler for these chips.
    """
    a_chip, rest = divmod(config["data"]["batch"], slices[0].size)
    if rest:
        raise UserError(
            f"config.data.batch is {config['data']['batch']}, not a multiple of the {slices[0].size} chips of "
            f"{slices[0].name}",
            fix=f"set --config.data.batch={max(a_chip, 1) * slices[0].size}",
        )
    size = predict.find_data_size(config, examples, classes)
    predictions = []
    for one in slices:
        changed = to_plain_data(config)
        changed["data"] = {**changed["data"], "batch": a_chip * one.size}
        print(f"compiling for {one.name}", file=sys.stderr, flush=True)
        predictions.append(predict.predict(changed, one, *size))
    estimator: dict[str, Any] = {"reason": "left out (--once)"}
    whole = predict.with_whole_supports(config)
    if whole is None:
        estimator = {"reason": "every support is 'all' already"}
    elif not predictions[0]["compiles"]:
        estimator = {"reason": "the step does not compile"}
    elif not once:
        print(f"compiling for {slices[0].name} with whole supports", file=sys.stderr, flush=True)
        other = predict.predict(whole, slices[0], *size)
        estimator = (
            {"rows": predict.compare_supports(predictions[0], other)}
            if other["compiles"]
            else {"reason": f"with whole supports {other['reason']}"}
        )
    return {"examples": size[0], "classes": size[1], "predictions": predictions, "estimator": estimator}


def describe_call(call: CommandLine) -> dict[str, Any]:
    """Returns what a plan is of: the config's name and fields, and the versions that compile."""
    config = to_plain_data(call.config)
    packages = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin")
    return {
        "title": predict.TITLE,
        "name": call.name,
        "variant": call.variant,
        "backbone": config["model"]["backbone"],
        "dtype": config["model"]["dtype"],
        "versions": {name: found for name in packages if (found := find_version(name))},
        "config": config,
    }


def find_version(package: str) -> str | None:
    """Returns the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_count(flags: Mapping[str, str], name: str, least: int) -> int | None:
    """Returns the whole number of a flag, or None where it is not given. Raises UserError where it is none."""
    text = flags.get(name)
    if text is None:
        return None
    if not text.isdigit() or int(text) < least:
        raise UserError(f"--{name}={text}", fix=f"give a whole number of {least} or more")
    return int(text)


def read_slices(flags: Mapping[str, str]) -> list[Slice]:
    """Returns the slices of --topology and --sizes."""
    first = parse_topology(flags["topology"])
    sizes = [word for word in flags.get("sizes", "").split(",") if word.strip()]
    slices = [first, *(parse_topology(f"{first.chip.name}:{size.strip()}") for size in sizes)]
    return list({one.name: one for one in slices}.values())


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    call = parse(arguments, FLAGS, usage=__doc__ or "")
    if call.config is None:
        raise UserError("no --config given", fix="try --config=configs/ring_moco.py")
    flags, config = call.flags, to_plain_data(call.config)
    name = "-".join(word for word in (call.name, call.variant) if word).replace("/", "-")
    if "topology" not in flags:
        if wrong := next((flag for flag in ONLY_WITH_TOPOLOGY if flag in flags), None):
            raise UserError(f"--{wrong} without --topology", fix="add --topology=v5e:4x4, or leave it out")
        found = here.plan_here(config, Path(flags.get("workdir") or Path("runs") / name))
        print("\n".join(saying.say_here(found)))
        if "out" in flags:
            write_json(Path(flags["out"]) / f"{name}-here.json", found)
        return
    slices = read_slices(flags)
    counts = {flag: read_count(flags, flag, least) for flag, least in (("examples", 2), ("classes", 0))}
    plan = describe_call(call) | plan_slices(config, slices, once="once" in flags, **counts)
    print("\n".join(say_plan(plan)))
    path = Path(flags.get("out") or "plans") / f"{name}-{slices[0].name.replace(':', '-')}"
    write_json(path.with_suffix(".json"), plan)
    write_text(path.with_suffix(".html"), plan_page.render(plan))
    print(f"written to {path}.json and {path}.html", file=sys.stderr)


def say_plan(plan: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a plan for slices."""
    lines = [f"{plan['title']}: {plan['name']}" + (f":{plan['variant']}" if plan["variant"] else "")]
    for prediction in plan["predictions"]:
        lines += saying.say_prediction(prediction)
    if len(plan["predictions"]) > 1:
        lines += saying.say_sizes(plan["predictions"])
    return [*lines, *saying.say_estimator(plan["estimator"])]


if __name__ == "__main__":
    sys.exit(run_job(main))
