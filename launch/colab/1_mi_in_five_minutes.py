# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Mutual information in five minutes
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/mi-contrast/mi_contrast/blob/main/launch/colab/1_mi_in_five_minutes.ipynb)
#
# How much does one variable tell about another? A correlation sees straight lines only. Mutual information sees any
# dependence: it is 0 exactly where two variables are independent, and it does not change when either is stretched or
# bent. Its unit here is the *nat*; a nat is 1.44 bits.
#
# The first cell installs the package if it is missing.

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
import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import Image

from mi_contrast import estimators as mi
from mi_contrast.reporting.drawing import as_png


def show(chart):
    """Shows a chart as a picture, which needs no network."""
    return Image(as_png(chart, scale=1.5))


rng = np.random.default_rng(0)

# %% [markdown]
# ## One number for any shape
#
# Four pairs of variables. In the wave and in the ring the correlation is near 0, though each variable tells a lot about
# the other.

# %%
n = 1000
angle, noise = rng.uniform(0, 2 * np.pi, n), rng.normal(size=(2, n))
first, along = rng.normal(size=n), rng.uniform(-6, 6, n)
pairs = {
    "line": (first, 0.8 * first + 0.6 * noise[0]),
    "wave": (along, np.cos(2 * along) + 0.2 * noise[1]),
    "ring": (np.cos(angle) + 0.1 * noise[0], np.sin(angle) + 0.1 * noise[1]),
    "nothing": (noise[0], noise[1]),
}

rows, titles = [], {}
for name, (x, y) in pairs.items():
    estimate = mi.ksg(x, y)
    correlation = np.corrcoef(x, y)[0, 1]
    titles[name] = f"{name}: correlation {correlation:.2f}, {float(estimate.nats):.2f} nats"
    rows += [{"x": float(a), "y": float(b), "pair": titles[name]} for a, b in zip(x[:400], y[:400], strict=True)]

cloud = alt.Chart(alt.InlineData(values=rows)).mark_circle(size=14, opacity=0.6)
cloud = cloud.encode(x=alt.X("x:Q", title=None), y=alt.Y("y:Q", title=None)).properties(width=190, height=170)
facets = cloud.facet(alt.Facet("pair:N", title=None, sort=list(titles.values())), columns=2)
show(facets.resolve_scale(x="independent", y="independent"))

# %% [markdown]
# `mi.ksg` looks at nearest neighbours. It returns an interval that holds the truth in 90 of 100 draws, and a ceiling
# above which it cannot read. For the line the truth is known: $-\frac{1}{2}\log(1-\rho^2)$ with $\rho$ = 0.8.

# %%
estimate = mi.ksg(*pairs["line"])
print(
    f"estimate {float(estimate.nats):.3f} nats, 90 % interval {float(estimate.low):.3f} to {float(estimate.high):.3f}"
)
print(f"truth    {-0.5 * np.log(1 - 0.8**2):.3f} nats")
print(f"ceiling  {float(estimate.ceiling):.3f} nats")

# %% [markdown]
# ## Why contrastive learning has a ceiling
#
# InfoNCE scores a pair against n other candidates. Even with the best possible scores it can read at most log(n + 1)
# nats, so a curve that bends away from the truth has run out of candidates, not out of information. Here the scores are
# the best possible ones, because the distribution is known.

# %%
from mi_contrast.estimators import tasks

rows = []
for rho in (0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99):
    task = tasks.gaussian(4, 4, rho, pairs=4)
    x, y = task.sample(jax.random.key(1), 1024)
    for candidates in (16, 128, 1024):
        a, b = (side.reshape(-1, candidates, side.shape[-1]) for side in (x, y))

        def score(a, b, task=task):
            """The best scores of every x with every y, [candidates, candidates]."""
            count = len(a)
            return task.log_ratio(jnp.repeat(a, count, axis=0), jnp.tile(b, (count, 1))).reshape(count, count)

        scores = jax.lax.map(lambda pair: score(*pair), (a, b))
        positives, others = jnp.diagonal(scores, axis1=1, axis2=2), ~jnp.eye(candidates, dtype=bool)
        nats = mi.info_nce(positives, scores, where=others).mean()
        rows.append({"truth": float(task.nats), "nats": float(nats), "estimator": f"InfoNCE of {candidates:,}"})
    rows.append({"truth": float(task.nats), "nats": float(mi.ksg(x, y).nats), "estimator": "KSG, 1,024 pairs"})

line = alt.Chart(alt.InlineData(values=rows)).encode(
    x=alt.X("truth:Q", title="truth, nats"),
    y=alt.Y("nats:Q", title="estimate, nats"),
    color=alt.Color("estimator:N", title=None, sort=None),
)
exact = alt.Chart(alt.InlineData(values=[{"t": 0}, {"t": 8}])).mark_line(strokeDash=[5, 4], color="#888")
exact = exact.encode(x="t:Q", y="t:Q")
show((exact + line.mark_line(point=True)).properties(width=460, height=280))

# %% [markdown]
# The dashed line is the truth. Each InfoNCE curve flattens below log of its candidates: 2.77, 4.85 and 6.93 nats. KSG
# needs no scores, only the samples, and pays for it: in eight dimensions it reads low where the dependence is strong.
#
# ## Your own table
#
# The same from the command line: `mi-contrast estimate table.csv --x=temp --y=pressure`, or `--pairs` for every two
# columns with a heat map. Words are read as labels.

# %%
from pathlib import Path

temp = rng.normal(15, 5, 400)
table = {
    "temp": temp,
    "pressure": 1000 - 2 * (temp - 15) + rng.normal(0, 6, 400),
    "humidity": np.sin(temp / 3) + 0.2 * rng.normal(size=400),
    "wind": np.abs(rng.normal(size=400)),
}
season = np.where(temp > 15, "summer", "winter")
lines = [",".join(f"{column[i]:.4f}" for column in table.values()) + f",{season[i]}" for i in range(400)]
Path("weather.csv").write_text("\n".join([",".join([*table, "season"]), *lines]))

from mi_contrast import estimate as job

job.main(["weather.csv", "--pairs"])

# %% [markdown]
# Temperature and humidity share most, though their correlation is small. Wind shares nothing with any of them.
