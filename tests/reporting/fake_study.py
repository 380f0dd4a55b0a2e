"""A study's folder made up for the tests: study.json, and runs with the few files that a study reads."""

import json

from mi_contrast.core.layout import RunDirectory, write_json

KNN = {"name": "knn", "dataset": None, "settings": {"kind": "knn", "k": 20, "seed": 0}}


def told(settings, **changes):
    """A study.json. settings: label -> seeds."""
    rows = [
        {
            "label": label,
            "group": "rings" if "ring" in label else "",
            "changes": {"method.terms.0.temperature": 0.1} if "ring" in label else {},
            "command": f"python -m mi_contrast.main --config=configs/{label.split()[0]}.py",
            "runs": [{"seed": seed, "folder": f"runs/{label.replace(' ', '-')}-seed{seed}"} for seed in seeds],
        }
        for label, seeds in settings.items()
    ]
    return {
        "name": "negatives", "variant": "digits", "question": "Which negatives?", "tasks": [KNN],
        "columns": ["mi_nats", "mi_ceiling", "bound_share"], "figure": ["knn", "mi_nats", "bound_share"],
        "reference": "all", "settings": rows,
    } | changes  # fmt: skip


def write_run(folder, *, top1=None, untrained=None, mi=2.5, bound=0.75, trained=True, k=20):
    """A run whose log ends at step 10 of 10, or at 4; judged where top1 and untrained are given."""
    run = RunDirectory(folder)
    config = {
        "seed": 0, "steps": 10, "data": {"name": "moving_digits"}, "model": {"backbone": "tiny"},
        "views": {"kind": "two_crops", "size": 32, "query": {"flip": 0.5}},
    }  # fmt: skip
    write_json(run.config, {"name": "moco", "variant": "digits", "config": config})
    logged = [{"step": 0, "mi_nats": 0.1, "mi_ceiling": 6.9315}, {"step": 4, "bound_share": 0.5}]
    if trained:
        logged.append({"step": 10, "mi_nats": mi, "mi_ceiling": 6.9315, "bound_share": bound})
        write_json(run.export / "manifest.json", {"step": 10})
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in logged))
    for name, share in (("knn-moving_digits", top1), ("knn-moving_digits-untrained", untrained)):
        if share is not None:
            result = {
                "task": "knn", "dataset": "moving_digits", "label": "digit", "top1": share, "classes": 10,
                "interval95": [share - 0.02, share + 0.02], "untrained": "untrained" in name,
                "settings": {"kind": "knn", "k": k, "temperature": 0.07, "seed": 0, "size": 32, "features": 8},
            }  # fmt: skip
            write_json(run.results / f"{name}.json", result)


def write(root):
    """all: 3 seeds done; ring a: 3 done, better each time; ring b: 1 done, 1 failed, 1 begun; ring c: waiting."""
    write_json(root / "study.json", told({"all": (0, 1, 2), "ring a": (0, 1, 2), "ring b": (0, 1, 2), "ring c": (0,)}))
    for seed, (top1, mi) in enumerate(((0.5, 2.0), (0.52, 2.5), (0.51, 2.25))):
        write_run(root / f"runs/all-seed{seed}", top1=top1, untrained=0.3 + seed / 100, mi=mi)
        write_run(root / f"runs/ring-a-seed{seed}", top1=top1 + 0.01 * (seed + 1), untrained=0.3 + seed / 100, mi=mi)
    write_run(root / "runs/ring-b-seed0", top1=0.4, untrained=0.3, mi=1.0)
    write_json(root / "runs/ring-b-seed1/failed.json", {"reason": "numbers went bad: 20 | in a row <b>"})
    write_run(root / "runs/ring-b-seed2", trained=False)
