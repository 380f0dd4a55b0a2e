# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Judge a backbone, and take it elsewhere
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/mi-contrast/mi_contrast/blob/main/launch/colab/5_judge_and_export.ipynb)
#
# How good is a network that was trained without labels? Its features are frozen, and a linear classifier on them is
# tested on pictures that nobody has seen. The same network before training is the control. Then it leaves for PyTorch.

# %%
import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

ADDRESS = "https://github.com/mi-contrast/mi_contrast"


def has_new_jax():
    try:
        return tuple(int(part) for part in version("jax").split(".")[:2]) >= (0, 10)
    except PackageNotFoundError:
        return False


if importlib.util.find_spec("mi_contrast") is None:
    # Colab's own JAX, which knows its accelerator, stays where it is new enough.
    extra = "[cuda12]" if shutil.which("nvidia-smi") and not has_new_jax() else ""
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", f"mi-contrast{extra} @ git+{ADDRESS}"], check=True)

# %%
import json

import numpy as np
from IPython.display import Image

import mi_contrast
from mi_contrast.reporting import charts
from mi_contrast.reporting.drawing import as_png


def show(chart):
    """Shows a chart as a picture, which needs no network."""
    return Image(as_png(chart, scale=1.2))


# %% [markdown]
# ## A backbone
#
# SimCLR on frames of moving digits, with a small network and few steps.

# %%
run = mi_contrast.train(
    "simclr:digits", "runs/simclr", steps=300, batch=128,
    **{"model.width": 16, "data.options.length": 2, "log.tensorboard": False, "eval.every": 100, "eval.pairs": 128,
       "eval.knn_bank": 2000},
)  # fmt: skip
show(run.plot("mi_nats", "knn_top1"))

# %% [markdown]
# ## Judge it
#
# Three tasks on the test split: nearest neighbours, a linear classifier, and few-shot episodes. Each accuracy comes
# with its 95 % interval. Frames of one digit are not independent, and the interval knows that.

# %%
rows = []
for task in ("knn", "linear", "fewshot"):
    for untrained in (False, True):
        result = run.evaluate(task, untrained=untrained).result
        low, high = result["interval95"]
        rows.append(
            {"name": task, "kind": "untrained" if untrained else "trained", "top1": result["top1"], "low": low,
             "high": high, "chance": 1 / result["classes"] if result.get("classes") else None}
        )  # fmt: skip
        print(f"{task:<8} {rows[-1]['kind']:<10} {result['top1']:6.1%}   {low:.1%} to {high:.1%}")
show(charts.draw_accuracies(rows))

# %% [markdown]
# The full dot is the trained network, the open one the untrained, and the tick is chance. Where the intervals of the
# two networks do not overlap, training has gained something.
#
# ## Take it to PyTorch
#
# The export has torchvision's names of tensors, and a manifest that says how pictures must be prepared. Where PyTorch
# is installed, its features were compared with ours before the file was written.

# %%
folder = run.export("torchvision")
manifest = json.loads((folder / "manifest.json").read_text())
print(*sorted(path.name for path in folder.iterdir()))
print({name: manifest["preprocessing"][name] for name in ("mean", "std", "size")})

# %%
from safetensors.numpy import load_file

tensors = load_file(folder / manifest["file"])
for name in list(tensors)[:4]:
    print(name, tensors[name].shape)
print(f"{len(tensors)} tensors, {sum(t.size for t in tensors.values()):,} numbers")

# %% [markdown]
# ## Features of any pictures
#
# `load` reads a run, an export, or another trainer's file, and `encode` takes pixels as they are. From a shell,
# `mi-contrast encode RUN photos/ --out=features.npz` writes features beside file names.

# %%
backbone = mi_contrast.load(run / "export")
pictures = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
print(backbone)
print(np.asarray(backbone.encode(pictures)).shape)
