"""Every method of configs/, made small, trained on one device and on eight virtual ones, side by side.

    python -m tests.training.matrix [--steps=20] [ROW ...]

Prints the objective's largest difference at the first step, over five steps and over all, in nats, each beside what is
allowed; exits 1 where it is more.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys

from tests import devices

STEPS = 20
FIRST, OVER = 1e-5, 2e-4  # of a loss, times max(1, its ceiling): at the first step, after it
CEILING = math.log(64)  # no pool of these methods holds more


def objectives(names: list[str], steps: int) -> None:
    """Prints a line of JSON for each method as it is done: its name and the objective of each step."""
    from tests.training import rows

    for name in names:
        print(json.dumps([name, [found["objective"] for found in rows.train(rows.small(name), steps)[2]]]), flush=True)


def on_devices(count: int, names: list[str], steps: int, *, say: bool = False) -> dict[str, list[float]]:
    """{method: the objective of each step} on so many virtual devices, in a process of its own."""
    code = (
        f"import jax; assert len(jax.devices()) == {count}\n"
        f"from tests.training.matrix import objectives; objectives({names!r}, {steps})"
    )
    found: dict[str, list[float]] = {}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=devices.environment(count), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            name, values = json.loads(line)
            found[name] = values
            if say:
                print(f"{count} device{'s' if count > 1 else ''}: {len(found)} of {len(names)}, {name}", flush=True)
    assert process.returncode == 0 and list(found) == names, f"on {count} devices, after {list(found)}"
    return found


def differences(one: list[float], many: list[float]) -> list[tuple[float, float]]:
    """(largest difference, allowed) at the first step, over five, over all."""
    apart = [abs(a - b) for a, b in zip(one, many, strict=True)]
    over = OVER * CEILING
    return [(apart[0], FIRST * CEILING), (max(apart[:5]), over), (max(apart), over)]


def main(arguments: list[str]) -> int:
    """The command; see above."""
    from tests.training.rows import ALL

    steps = next((int(word.partition("=")[2]) for word in arguments if word.startswith("--steps=")), STEPS)
    names = [word for word in arguments if not word.startswith("--")] or list(ALL)
    one, eight = (on_devices(count, names, steps, say=True) for count in (1, 8))
    print(f"{'row':18} {'first step':>22} {'five steps':>22} {f'{steps} steps':>22}")
    bad = 0
    for name in names:
        found = differences(one[name], eight[name])
        good = all(apart <= allowed for apart, allowed in found)  # False where not finite
        bad += not good
        shown = "".join(f"  {apart:9.2e} of {allowed:7.1e}" for apart, allowed in found)
        print(f"{name:18}{shown}{'' if good else '  TOO FAR APART'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
