# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Which negatives: the ring, drawn on the histogram
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/mi-contrast/mi_contrast/blob/main/launch/colab/4_which_negatives.ipynb)
#
# A contrastive network pushes other pictures away: the negatives. Most are too easy to teach anything, and the closest
# are often of the same class. Wu et al. 2021, "Conditional Negative Sampling for Contrastive Learning of Visual
# Representations", take those in between: a *ring* around each picture.

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
from IPython.display import Image

import mi_contrast
from mi_contrast.reporting import charts, held_out_charts
from mi_contrast.reporting.drawing import as_png


def show(chart):
    """Shows a chart as a picture, which needs no network."""
    return Image(as_png(chart, scale=1.2))


# %% [markdown]
# ## Two runs that differ in their negatives
#
# `moco` scores each picture against all keys of a queue, `ring_moco` against the band from the 90th to the 99th
# percentile of similarity. The band is reached slowly: it begins as nearly the whole queue.

# %%
small = {
    "steps": 400, "model.width": 64, "log.every": 10, "log.tensorboard": False, "eval.every": 100,
    "eval.pairs": 256, "eval.knn_bank": 4000,
}  # fmt: skip
runs = {name: mi_contrast.train(f"{name}:digits", f"runs/{name}", **small) for name in ("moco", "ring_moco")}

# %% [markdown]
# ## The ring on the histogram
#
# For pairs of held-out pictures: how similar are two views of one digit (positives), pictures of the same class, and
# all others? The red band is where the ring lies at that step.

# %%
measured = runs["ring_moco"].content.held_out.measurements
steps = [step for step, row in sorted(measured.items()) if "similarities" in row]
panels = [(f"step {step}", "", held_out_charts.draw_similarities(measured[step], span=(-0.6, 1.0))) for step in steps]
show(charts.lay_out(panels, title="Similarities and the ring", note="", columns=2, one_legend=True))

# %% [markdown]
# The ring begins as nearly the whole heap, and from half-way on it holds the most similar negatives but for the closest
# hundredth. The positives move to the right, out of the heap, and pictures of their class follow them. The page of a
# whole run, `mi-contrast train ring_moco:digits`, has the same picture.
#
# ## False negatives
#
# A network that knows classes puts pictures of the anchor's own class among the closest negatives. The upper edge of
# the ring leaves out the closest hundredth for that reason. Here there are ten classes, so a tenth of the queue has the
# anchor's class. In the ring it is a fifth, once the network begins to tell digits apart.

# %%
rows = []
for name, run in runs.items():
    curve = run.content.curves["same_class"]
    rows += charts.curve_rows(name, curve.steps, curve.values)
show(charts.draw_curves(rows, unit="%", reach=(0.0,)).properties(title="Negatives of the anchor's own class"))

# %% [markdown]
# ## Is the objective still a bound?
#
# InfoNCE against all negatives is a lower bound on mutual information. Against a ring it is one only where the ring is
# at least as hard as the whole queue. `bound_share` is the share of pictures for which that was seen.

# %%
for name, run in runs.items():
    curves = run.content.curves
    print(f"{name:<10} kNN {curves['knn_top1'].first:.1%} untrained, {curves['knn_top1'].last:.1%} trained;"
          f"  bound holds for {curves['bound_share'].last:.0%} of pictures")  # fmt: skip

# %% [markdown]
# 400 steps of a tiny network show how it works, and not which is better. Over three seeds and longer training the study
# does: `mi-contrast study negatives`.
