# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Train on your own photos
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/mi-contrast/mi_contrast/blob/main/launch/colab/2_your_photos.ipynb)
#
# A folder of pictures is enough: no labels, no settings. The network learns which pictures are alike, and shows it as a
# map and as nearest neighbours.

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
from pathlib import Path

import numpy as np
from IPython.display import Image
from PIL import Image as Pictures
from sklearn.datasets import load_sample_images

import mi_contrast
from mi_contrast.reporting.drawing import as_png

FOLDER = Path("photos")  # your own folder here, nested or not


def show(chart):
    """Shows a chart as a picture, which needs no network."""
    return Image(as_png(chart, scale=1.2))


def lay_out(images, columns, side=72):
    """Returns one picture with the images in rows."""
    rows = -(-len(images) // columns)
    sheet = Pictures.new("RGB", (columns * side, rows * side), "white")
    for place, image in enumerate(images):
        small = Pictures.fromarray(np.asarray(image)).resize((side - 4, side - 4))
        sheet.paste(small, (place % columns * side + 2, place // columns * side + 2))
    return sheet


# %% [markdown]
# ## The pictures
#
# So that this page runs anywhere, the folder is filled with 240 pieces of two photographs that come with scikit-learn,
# a temple and a flower. With photos of your own, skip this cell.

# %%
rng = np.random.default_rng(0)
for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
    for number in range(120):
        top, left = (rng.integers(0, side - 96) for side in photo.shape[:2])
        piece = Pictures.fromarray(photo[top : top + 96, left : left + 96]).resize((64, 64))
        piece.save(FOLDER / name / f"{number:03d}.png")

lay_out([Pictures.open(file) for file in sorted(FOLDER.rglob("*.png"))[::10]], columns=8)

# %% [markdown]
# ## Train
#
# A folder is all that is needed: size, network, batch and all else are fitted to the pictures and to the machine, and
# each choice is printed. The numbers given here keep this page short on a CPU. For your own pictures leave them out:
# `mi_contrast.train("simclr", data=FOLDER)`.

# %%
run = mi_contrast.train("simclr", data=FOLDER, steps=100, batch=64, model={"backbone": "tiny", "width": 32})
run

# %% [markdown]
# ## What changed: the map
#
# Each dot is a picture; the darker ones were held out of training. Pictures with similar features are near each other.
# The colours are the two folders, which training did not see. Two photographs are told apart before training already;
# what changes is which of their pieces lie together.

# %%
show(run.map())

# %% [markdown]
# ## Which pictures are alike
#
# The first picture of each row is the query. Its five nearest neighbours follow.

# %%
rows = [run.neighbours(index) for index in (0, 40, 80, 120)]
lay_out([image for near in rows for image in (near.query, *near.images)], columns=6)

# %% [markdown]
# ## The numbers
#
# `mi_nats` says how much two random crops of one held-out picture tell about each other, and never reads above its
# ceiling. A folder this small has few held-out pictures, so read the direction and not the digits.

# %%
show(run.plot("mi_nats"))

# %% [markdown]
# ## What next
#
# - `run.report` is the page of the run, `run.encode(images)` gives features.
# - From a shell: `mi-contrast train simclr photos/`, then `mi-contrast encode runs/simclr-photos photos/`.
