# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What two views share is what is learned
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/mi-contrast/mi_contrast/blob/main/launch/colab/3_what_views_share.ipynb)
#
# A contrastive network learns to recognise one view from the other. It can keep only what both views show. Here this is
# seen on frames of moving digits: a frame has a digit, a position and a background, and a pair of frames may share any
# of them. The experiment is that of Tian et al. 2020, "What Makes for Good Views for Contrastive Learning?".

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
import altair as alt
from IPython.display import Image

import mi_contrast
from mi_contrast.core.config import load_config
from mi_contrast.evaluation.judge import judge
from mi_contrast.interchange import open_source
from mi_contrast.reporting.drawing import as_png

FACTORS = "digit", "position", "background"

# %% [markdown]
# ## Three networks
#
# They differ in one setting: what the two frames of a pair share. All else is SimCLR with a small network and 200
# steps.


# %%
def train(name, shared):
    """Trains a small network on pairs of frames that share these factors, and returns its run directory."""
    config, _, _ = load_config("simclr:digits")
    config.data.shared = shared
    config.data.options.length = 2
    config.data.batch, config.steps, config.model.width = 128, 200, 32
    config.eval.every, config.eval.pairs, config.eval.knn_bank = 200, 128, 2000
    config.log.tensorboard = False
    return mi_contrast.train(config, f"runs/{name}")


runs = {name: train(name, shared) for name, shared in
        {"digit": ("digit",), "background": ("background",), "everything": FACTORS}.items()}  # fmt: skip

# %% [markdown]
# ## What the pairs look like
#
# A column is a pair: a frame and its augmented view, then its partner and that one's view. Here the handwritten digit
# is the same, the position and the photograph are not.

# %%
Image(str(runs["digit"] / "pictures" / "pairs.png"), width=520)

# %% [markdown]
# Pairs that share the background:

# %%
Image(str(runs["background"] / "pictures" / "pairs.png"), width=520)

# %% [markdown]
# ## What each network knows
#
# Nearest neighbours among the features name the digit, the position and the background of test frames. The untrained
# network is the control.

# %%
rows = []
for name, run in runs.items():
    backbone = open_source(run)
    for factor in FACTORS:
        config, _, _ = load_config("knn", "evaluate")
        config.data.label = factor
        result = judge(config, backbone, run).result
        rows.append({"network": f"shares {name}", "task": factor, "accuracy": result["top1"]})
for factor in FACTORS:
    config, _, _ = load_config("knn", "evaluate")
    config.data.label = factor
    result = judge(config, open_source(runs["digit"]), runs["digit"], untrained=True).result
    rows.append({"network": "untrained", "task": factor, "accuracy": result["top1"]})

order = [f"shares {name}" for name in runs] + ["untrained"]
bars = (
    alt.Chart(alt.InlineData(values=rows))
    .mark_bar()
    .encode(
        x=alt.X(
            "accuracy:Q", title="kNN accuracy on test frames", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])
        ),
        y=alt.Y("network:N", title=None, sort=order),
        color=alt.Color("network:N", legend=None, sort=order),
    )
)
chart = bars.properties(width=190, height=110).facet(alt.Facet("task:N", title=None, sort=list(FACTORS)), columns=3)
Image(as_png(chart, scale=1.5))

# %% [markdown]
# The network whose views share the digit knows the digit, and has lost the background. Where the background is shared,
# the digit is lost. Where everything is shared, the network takes what is easiest to tell by, the position and the
# background, and neglects the digit.
#
# ## More information is not better
#
# The nats that the two views share are measured on held-out pairs. Views that share everything have the most of them.

# %%
import json

for name, run in runs.items():
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "mi_nats" in line]
    first, last = measured[0], measured[-1]
    print(f"views share {name:<11} {first['mi_nats']:5.2f} nats untrained, {last['mi_nats']:5.2f} trained, "
          f"of at most {last['mi_ceiling']:.2f}")  # fmt: skip

# %% [markdown]
# One seed and 200 steps show the direction, not the size of the effect. `mi-contrast study shared_factors` trains all
# combinations with three seeds.
