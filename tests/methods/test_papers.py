"""Every recipe of a paper equals the table in paper_settings.json, which was transcribed without seeing the configs.

A field of the table is compared with the config or with its header, or is no setting of a config (`TOLD`). Where the
table has several sources, `SOURCES` says which one a recipe follows; where a recipe follows none, `OTHERWISE` says why.
"""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import jax.numpy as jnp
import pytest

from mi_contrast.core import schedules
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.methods import papers, recipes, words
from mi_contrast.training import optimiser

TABLE = json.loads((Path(__file__).parent / "paper_settings.json").read_text())
ROOT = Path(__file__).parents[2]
ROWS = {
    **dict.fromkeys(("ir", "ball_ir", "ring_ir", "cave_ir", "moco", "ball_moco", "ring_moco"), papers.RING),
    **dict.fromkeys(("cmc", "ball_cmc", "ring_cmc"), papers.CMC),
    "la": papers.LOCAL_AGGREGATION,
    "infomin": papers.INFOMIN,
    "simclr": papers.SIMCLR,
    "moco_v3": papers.MOCO_V3,
}
RECIPES = [f"{row}:{variant}" for row, paper in ROWS.items() for variant in paper]
EXAMPLES = {"cifar10": 50_000, "cifar100": 50_000, "stl10": 5_000, "imagenet": 1_281_167}

SOURCES = {  # the table's second source that a recipe follows, of which fields
    # No code of Wu et al. 2021 has ImageNet; that of Wu et al. 2020 has a linear head and a constant rate.
    "*_ir:paper_imagenet": {"ring_code_head": "head", "ring_code_schedule": "lr_schedule"},
    "ir:paper_imagenet": {"ring_code_head": "head", "ring_code_schedule": "lr_schedule"},
    # The released configs set none of the flags for MoCo v2's views, so they have the default ones.
    "*moco:paper_[cs]*": {
        "default_views": "crop_size crop_scale flip colour_jitter colour_jitter_prob grayscale_prob normalisation"
    },
    # One recipe for all data sets, as for instance discrimination.
    "moco:paper_imagenet": {"ring_code_cifar_stl": "lr_schedule head"},
    "ring_moco:paper_imagenet": {
        "ring_code_cifar_stl": (
            "backbone stem_kernel stem_maxpool head batch_size optimiser_kind optimiser_momentum weight_decay "
            "learning_rate lr_schedule epochs seed"
        )
    },
    # The notes have 200 epochs of ResNet-18 for all of P4; of channels only this code is released.
    "*cmc:paper_*": {
        "cmc_repo": (
            "batch_size optimiser_kind optimiser_momentum weight_decay learning_rate lr_schedule epochs "
            "bank_momentum negatives crop_scale flip colour_jitter normalisation"
        ),
        "p1_p4_general": "backbone",
    },
    "ring_cmc:paper_*": {"ring_code_default_band": "percentile_band"},
    "moco_v3:*_vit": {"vit": "temperature optimiser_kind learning_rate weight_decay warmup head reported"},
    "*:paper_*": {"paper_annealing": "percentile_annealing"},  # as the paper has it; the released configs do not anneal
}
OTHERWISE = {  # fields in which a recipe follows no source
    ("moco:paper_[cs]*", "queue_size"): "4,096 without the ring and 65,536 with it: one size for all rows is fair",
    ("*moco:paper_[cs]*", "blur"): "belongs to MoCo v2's views, which the released configs do not choose",
    ("moco:paper_imagenet", "backbone"): "ResNet-18, as P4's row; ResNet-50 is that of MoCo's own figures",
    ("ring_moco:paper_*", "negatives"): "the size of the band is rounded to the nearest rank (5,899 of 65,536)",
    ("moco_v3:*_vit", "backbone"): "the table has no field for it: ViT-S",
    ("moco_v3:*_vit", "crop_scale"): ".2 is said of the ResNet-50",
    ("cave_ir:paper_*", "negatives"): "the whole band takes part, as its size is the |C| of the ceiling",
}
TOLD = {  # no setting of a config: how methods work, what is kept by every run, what is judged, what is not known
    "source", "objective", "monitor", "evaluation", "evaluation_features", "evaluation_encoder",
    "evaluation_test_transform", "drop_last", "bank_init", "early_stop", "test_transform", "ring_rows",
    "neighbour_numerator", "neighbour_numerator_effective", "reported_by_p1", "reported_elsewhere",
    "reported_backbone", "ema_order", "augmentation_note", "queue_init", "negatives_rule", "backbone_details",
    "band_note", "shuffle_bn", "augmentation", "blur_prob",
}  # fmt: skip


def load(name):
    row, variant = name.split(":")
    return to_plain_data(load_config(f"configs/{row}.py:{variant}")[0])


def key_of(name):
    """The table's name for a recipe: one entry has MoCo v3's settings for every length and for both networks."""
    return "moco_v3:paper_imagenet" if name.startswith("moco_v3") else name


def entries(name):
    """(field, setting, quotation) of a method and variant, a second source's where `SOURCES` names it."""
    key = key_of(name)
    found = {e["field"]: (e["setting"], e["quote"]) for e in TABLE["settings"] if key in e["rows"]}
    for pattern, sources in SOURCES.items():
        for source, fields in sources.items():
            for e in TABLE["alternatives"]:
                given, _, field = e["field"].partition("/")
                if fnmatch(name, pattern) and given == source and field in fields.split() and key in e["rows"]:
                    found[field] = (e["setting"], e["quote"])
    return [(field, *value) for field, value in found.items()]


def steps_per_epoch(config):
    """Of the examples that are not held out."""
    data = {"imagenet2012": "imagenet"}.get(config["data"]["name"], config["data"]["name"])
    count = 105_000 if "unlabelled" in config["data"]["split"] else EXAMPLES[data]
    return (count - round(count / 20)) // config["data"]["batch"]


def rate(config, step):
    return float(optimiser.learning_rate(config["optim"], config["steps"])(jnp.int32(step)))


def close(a, b):
    return a == pytest.approx(b, rel=1e-5)


def ops(config):
    return config["views"].get("query") or config["views"]["both"]


def the_one(values):
    (value,) = {json.dumps(v, sort_keys=True) for v in values}
    return json.loads(value)


def terms(config, field):
    return the_one(term[field] for term in config["method"]["terms"])


def pools(config, kind, field):
    pools = config["method"]["pools"].items()
    return the_one(pool[field] for name, pool in pools if pool.get("kind", name).startswith(kind) or field in pool)


def has_backbone(name, config, said):
    said = said if isinstance(said, str) else next(iter(said.values()))
    if "half-width" in said:  # two networks; which depth is said elsewhere
        return config["model"]["width"] == 32
    return config["model"]["backbone"] == re.search(r"ResNet-(18|50)", said)[0].lower().replace("-", "")


def has_head(name, config, said):
    head, features = config["model"]["head"], 2048 if config["model"]["backbone"] == "resnet50" else 512
    hidden = head.get("hidden") or features
    if name.endswith("_vit"):
        assert "3-layer projector; 2-layer predictor" in said
        layers = head["layers"], config["model"]["predictor"]["layers"]
        return (head["kind"], *layers, head["hidden"], head["dim"]) == ("mlp_bn", 3, 2, 4096, 256)
    if isinstance(said, dict) and "projector" in said:
        predictor = config["model"]["predictor"]
        return (head["kind"], head["layers"], hidden, head["dim"]) == ("mlp_bn", 2, 4096, 256) and predictor == {
            "hidden": 4096, "layers": 2,
        }  # fmt: skip
    if isinstance(said, dict):
        return (head["kind"], head["layers"], hidden, head["dim"]) == ("mlp_bn", 3, features, said["out"])
    if said.startswith("2048-512 (BN"):
        return (head["kind"], head["layers"], hidden, head["dim"], head["last_bn"]) == ("mlp_bn", 2, 512, 128, False)
    return (head["kind"], hidden, head["dim"]) == ("mlp", features, 128)  # Linear, ReLU, Linear; the other texts


def has_rate(name, config, said):
    peak, batch = max(schedules.extreme_values(config["optim"]["lr"])), config["data"]["batch"]
    if isinstance(said, dict) and "100_epochs" in said:
        share = float(
            (said["100_epochs"] if name == "moco_v3:paper_imagenet" else said["300_1000_epochs"]).split("*")[0]
        )
        return close(peak, share * batch / 256)
    if isinstance(said, dict):
        return close(peak, said["at_4096"]) and batch == 4096
    for_256 = name in ("simclr:paper_cifar10", "moco_v3:paper_imagenet_vit")  # as both sources scale it
    return close(peak, said * batch / 256 if for_256 else said)


def has_schedule(name, config, said):
    peak, epoch = max(schedules.extreme_values(config["optim"]["lr"])), steps_per_epoch(config)
    if "epochs" in said or "at_steps" in said:
        total = said.get("of_epochs") or said.get("total_steps") or config["steps"] // epoch
        drops = [time * config["steps"] // total for time in said.get("epochs") or said["at_steps"]]
        ends = [(close(rate(config, at - 2), peak * 0.1**i), close(rate(config, at + 2), peak * 0.1 ** (i + 1)))
                for i, at in enumerate(drops)]  # fmt: skip
        exact = "total_steps" in said or all(close(rate(config, at), rate(config, at + 2)) for at in drops)
        return said["factor"] == 0.1 and all(map(all, ends)) and exact
    if said.get("kind") == "constant":
        return close(rate(config, 0), rate(config, config["steps"] - 1))
    lr, low = config["optim"]["lr"], peak / 1000 if "lr_min" in said or name == "simclr:paper_cifar100" else 0.0
    return (lr["kind"], lr["a"], lr["start"], lr["end"]) == ("cosine", peak, 0.0, 1.0) and close(lr["b"], low)


def has_decay(name, config, said):
    optim = config["optim"]
    if isinstance(said, dict) and "1000_epochs" in said:
        return optim["weight_decay"] == said["1000_epochs" if name.endswith("_1000") else "100_300_epochs"]
    if isinstance(said, dict) and said.get("batch_norm") == "excluded":
        return (optim["weight_decay"], optim["decay_all"]) == (said["value"], False)
    everything = optim["kind"] != "sgd" or optim["decay_all"] is None
    return everything and optim["weight_decay"] == (said["value"] if isinstance(said, dict) else said)


def has_optimiser(name, config, said):
    kind = said.split(" ")[0].lower()
    lars = kind != "lars" or (config["optim"]["decay_all"] is None and optimiser.TRUST == 1e-3)
    return lars and config["optim"]["kind"] == {"adam": "adamw"}.get(kind, kind)


def has_epochs(name, config, said):
    count = config["steps"] / steps_per_epoch(config)
    if isinstance(said, dict):
        return count == said["HCL"]
    if isinstance(said, list):
        return count in said and count == {"imagenet": 100, "1000": 1000}.get(name.rpartition("_")[2], 300)
    return count == said


def has_warmup(name, config, said):
    warmup, text = config["optim"]["warmup"], said if isinstance(said, str) else said["kind"]
    if "IR before LA" in text:
        (one, other), epoch = config["method"]["terms"], said["steps"] / 2_001_800
        return warmup == 0 and one["weight"]["boundaries"] == other["weight"]["boundaries"] == (pytest.approx(epoch),)
    return warmup == (0 if text.startswith("none") else int(text.split(" ")[0]) * steps_per_epoch(config))


def has_jitter(name, config, said):
    jitter = ops(config).get("jitter")
    if said == "none":
        return jitter is None
    if "rule" in said:  # strength 1, which is the function's default
        said = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    return all(close(jitter[part], said[part]) for part in ("brightness", "contrast", "saturation", "hue"))


def has_blur(name, config, said):
    query, key = config["views"]["query"].get("blur"), config["views"]["key"].get("blur")
    if said == "none":
        return query is key is None
    if "view1_prob" in said:
        return (query["p"], key["p"]) == (said["view1_prob"], said["view2_prob"])
    return (
        query == key
        and query["p"] == (0.5 if "present" in said else said["prob"])
        and tuple(query["sigma"]) == (0.1, 2)
    )


def has_crop(name, config, said):
    low = ops(config)["crop"]["area"][0]
    if isinstance(said, list):
        return ops(config)["crop"]["area"] == tuple(said)
    if "rule" in said:  # torchvision's default
        return low == 0.08
    return low == (said.get("lower_for_ResNets_on_ImageNet", 0.2) if "cmc:paper_imagenet" in name else said["lower"])


def has_norm(name, config, said):
    views = config["views"]
    said = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)} if isinstance(said, str) else said
    space = said.get("colour_space", "")
    return (views["mean"], views["std"]) == (tuple(said["mean"]), tuple(said["std"])) and views.get(
        "split", ""
    ).lower() == (space.lower())


def has_negatives(name, config, said):
    support = config["method"]["terms"][-1]["support"]
    if isinstance(said, str):
        return support == {"kind": "all"}
    if "readme" in said:
        return support["k"] == said["readme"]
    if "background" in said:
        return support["of"] == {"kind": "nearest", "k": said["K"]}
    return (support["kind"], support["k"]) == ("drawn", said["drawn"])


def band_at(config, t):
    return words.read_percentiles(config["method"]["terms"][0]["support"], t)


def has_band(name, config, said):
    if "rule" in said:
        return True  # in words; the numbers are those of a second source
    band, outer = band_at(config, 1.0), said["outer_fraction_from_top"]
    inner = outer * said["inner_fraction_of_outer"] if "inner_fraction_of_outer" in said else None
    return close(float(band["lower"]), 1 - outer) and (
        "upper" not in band if inner is None else close(float(band["upper"]), 1 - inner)
    )


def has_annealing(name, config, said):
    assert (said["kind"], said["quantity"]) == ("linear", "thres_outer")
    start, end, over = said["from"], said["to"], said["over_epochs"] / 200
    if name.startswith("cave_ir"):  # begins as instance discrimination
        start, began = 1.0, 0.25
    else:
        began = 0.0
    times = (began, (began + over) / 2, over, 1.0)
    return all(
        close(1 - float(band_at(config, t)["lower"]), max(end, start + (end - start) * (t - began) / (over - began)))
        for t in times
    )


def has_momentum(name, config, said):
    momentum = config["method"]["momentum"]
    if isinstance(said, dict):
        first = said["1000_epochs" if name.endswith("_1000") else "100_300_epochs"]
        return momentum == {"kind": "cosine", "a": first, "b": 1.0, "start": 0.0, "end": 1.0}
    return momentum == said


def has_jigsaw(name, config, said):
    made = config["views"]["jigsaw"]
    sizes = (made["grid"], made["cell"], made["patch"]) == (said["grid"], said["cell"], said["patch"])
    return sizes and made["crop"]["area"] == (0.6, 1.0) and made["order"] == ("crop", "flip") and made["flip"] == 0.5


def has_randaugment(name, config, said):
    made = config["views"]["query"]["randaugment"]
    told = [said[word] for word in ("layers", "magnitude", "std", "each_op_applied_with_prob")]
    return [made[word] for word in ("layers", "magnitude", "std", "p")] == told


def has_order(name, config, said):
    names = {"grey": "grey", "RandAugment": "randaugment"}
    return config["views"]["query"]["order"] == tuple(names.get(op, op) for op in said.split(", ")[:-1])


def has_data(name, config, said):
    split = "train+unlabelled" if "unlabeled at" in said else "train"
    return config["data"]["split"] == split


def header_tells(name, config, said):
    """The paper's result is in the header, and `recalled` beside a figure that is."""
    text = (ROOT / "configs" / f"{name.split(':')[0]}.py").read_text().split('"""')[1]
    figures = said["linear_top1"].values() if isinstance(said["linear_top1"], dict) else [said["linear_top1"]]
    if name.startswith("moco_v3"):
        last = name.rpartition("_")[2]
        figures = [said["linear_top1"][{"imagenet": "100", "vit": "ViT-S"}.get(last, last)]]
    paragraphs = [p for p in text.split("\n\n") if all(str(f).removeprefix("about ") in p for f in figures)]
    return bool(paragraphs) and (not said["recalled"] or any("(recalled)" in p for p in paragraphs))


CHECKS = {
    "backbone": has_backbone,
    "backbone_width": lambda name, config, said: config["model"]["width"] == 64 * said,
    "stem_kernel": lambda name, config, said: config["model"]["stem"] == {7: "imagenet", 3: "small"}[said],
    "stem_maxpool": lambda name, config, said: config["model"]["stem"] == {True: "imagenet", False: "small"}[said],
    "embedding_dim": lambda name, config, said: config["model"]["head"]["dim"] == said,
    "head": has_head,
    "temperature": lambda name, config, said: terms(config, "temperature") == said,
    "batch_size": lambda name, config, said: (
        config["data"]["batch"] == (said["default"] if isinstance(said, dict) else said)
    ),
    "optimiser_kind": has_optimiser,
    "optimiser_momentum": lambda name, config, said: config["optim"]["momentum"] == said,
    "weight_decay": has_decay,
    "learning_rate": has_rate,
    "lr_schedule": lambda name, config, said: set(said) == {"per"} or has_schedule(name, config, said),
    "epochs": has_epochs,
    "warmup": has_warmup,
    "seed": lambda name, config, said: config["seed"] == said,
    "crop_size": lambda name, config, said: config["views"]["size"] == said,
    "crop_scale": has_crop,
    "flip": lambda name, config, said: ops(config)["flip"] == 0.5 and ("only" not in said or len(ops(config)) == 3),
    "colour_jitter": has_jitter,
    "colour_jitter_prob": lambda name, config, said: ops(config)["jitter"]["p"] == said,
    "grayscale_prob": lambda name, config, said: ops(config)["grey"] == said,
    "blur": has_blur,
    "solarize": lambda name, config, said: (
        config["views"]["key"]["solarize"]["p"] == said["view2_prob"] and "solarize" not in config["views"]["query"]
    ),
    "normalisation": has_norm,
    "negatives": has_negatives,
    "bank_momentum": lambda name, config, said: pools(config, "bank", "momentum") == said,
    "queue_size": lambda name, config, said: (
        "queue" not in config["method"]["pools"] if said == "no queue" else pools(config, "queue", "size") == said
    ),
    "ema_momentum": has_momentum,
    "percentile_band": has_band,
    "percentile_annealing": has_annealing,
    "clusterings": lambda name, config, said: (
        pools(config, "bank", "clusters")
        == {"number": said["clusters"], "clusterings": said["kmeans"], "every_epochs": 1}
    ),
    "views": lambda name, config, said: config["views"].get("split") == ("lab" if "ab" in said.split() else None),
    "jigsaw": has_jigsaw,
    "jigsaw_weight": lambda name, config, said: terms(config, "weight") == said,
    "randaugment": has_randaugment,
    "augmentation_order": has_order,
    "data": has_data,
    "reported": header_tells,
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_equals_the_table(name):
    config, wrong, compared = load(name), [], 0
    for field, said, quote in entries(name):
        if field in TOLD or any(fnmatch(name, pattern) and field == other for pattern, other in OTHERWISE):
            continue
        compared += 1
        if not CHECKS[field](name, config, said):
            wrong.append(f"{field} is not {said!r}: {quote}")
    assert wrong == []
    assert compared >= 12 or name in TABLE["without_settings"]


def test_every_entry_of_the_table_is_a_recipe_and_every_field_has_its_place():
    rows = {row for e in TABLE["settings"] for row in e["rows"]}
    assert rows <= set(RECIPES)
    assert {key_of(name) for name in RECIPES} - rows <= {*TABLE["without_settings"]}
    assert {e["field"] for e in TABLE["settings"]} - TOLD == set(CHECKS)
    for pattern, sources in SOURCES.items():
        for source, fields in sources.items():
            for field in fields.split():
                assert any(
                    e["field"] == f"{source}/{field}"
                    and any(key_of(n) in e["rows"] for n in RECIPES if fnmatch(n, pattern))
                    for e in TABLE["alternatives"]
                ), (pattern, source, field)
    for pattern, field in OTHERWISE:
        assert any(fnmatch(name, pattern) and field in [f for f, *_ in entries(name)] for name in RECIPES), pattern


@pytest.mark.parametrize(
    ("field", "path", "value"),
    [
        ("temperature", ("method", "terms", 0, "temperature"), 0.1),
        ("lr_schedule", ("optim", "lr", "boundaries"), (0.6, 0.8)),
        ("epochs", ("steps",), 40_000),
        ("stem_kernel", ("model", "stem"), "small"),
        ("head", ("model", "head", "kind"), "linear"),
        ("colour_jitter", ("views", "query", "jitter", "hue"), 0.1),
        ("normalisation", ("views", "mean"), (0.5, 0.5, 0.5)),
        ("negatives", ("method", "terms", 0, "support", "k"), 4096),
        ("percentile_band", ("method", "terms", 0, "support", "of", "upper"), 1.0),
        ("percentile_annealing", ("method", "terms", 0, "support", "of", "lower"), 0.9),
    ],
)
def test_another_setting_is_told_from_the_tables(field, path, value):
    name = "ring_ir:paper_cifar10"
    config, (said,) = load(name), [said for f, said, _ in entries(name) if f == field]
    assert CHECKS[field](name, config, said)
    at = config
    for word in path[:-1]:
        at = at[word]
    assert at[path[-1]] != value
    at[path[-1]] = value
    assert not CHECKS[field](name, config, said)


def test_rows_that_are_compared_differ_in_their_support_alone():
    for rows in (("ir", "ball_ir", "ring_ir"), ("cmc", "ball_cmc", "ring_cmc"), ("moco", "ball_moco", "ring_moco")):
        for variant in papers.RING:
            configs = [load(f"{row}:{variant}") for row in rows]
            for config in configs:
                for term in config["method"]["terms"]:
                    term["support"] = term["support"].get("k")
            assert configs[0] == configs[1] == configs[2]


def shape_of(config):
    """What makes a method: its terms but for percentiles, numbers, temperatures and weights."""
    terms = config["method"]["terms"]
    return [(t["anchor"], t["positive"], t["pool"], t["support"]["kind"], t["form"]) for t in terms]


def test_a_recipe_of_a_paper_has_the_terms_of_its_row():
    for name in RECIPES:
        config = load(name)
        assert shape_of(config) == shape_of(load(f"{name.split(':')[0]}:cifar10"))
        groups = 8 if name.startswith("infomin") else 1
        assert (config["model"]["dtype"], config["model"]["norm"]["groups"]) == ("float32", groups)


def test_images_are_measured_at_the_size_of_the_views():
    """But ImageNet's at 256 pixels, and the 96 pixels of STL-10 as they are where the released code has them so."""
    for name in RECIPES:
        config = load(name)
        small = None if name.startswith("simclr") else 224
        size = {"imagenet2012": 256}.get(config["data"]["name"], small)
        assert config["data"]["size"] == size and (size is None or size >= config["views"]["size"] == 224)


def test_as_many_pairs_are_measured_as_are_held_out():
    for name in RECIPES:
        config = load(name)
        held_out = 5_000 // 20 if config["data"]["split"] == "train" and "stl10" in name else 1024
        assert config["eval"]["pairs"] <= held_out and config["eval"]["knn_k"] <= 20 * held_out


def test_the_weight_of_a_loss_is_the_released_one_where_the_step_scales_with_it():
    for name in RECIPES:
        config = load(name)
        weights = [sum(float(schedules.value(t["weight"], at)) for t in config["method"]["terms"]) for at in (0.0, 1.0)]
        wanted = 2.0 if "cmc:" in name else 0.5 / 0.07 if name == "simclr:paper_cifar100" else 1.0
        assert weights == pytest.approx([wanted, wanted])
        assert wanted == 1.0 or config["optim"]["kind"] == "sgd"


@pytest.mark.parametrize("name", ["infomin:paper_cifar10", "moco_v3:paper_stl10", "dcl:paper_cifar10"])
def test_a_recipe_that_no_paper_gives_is_refused(name):
    assert name.startswith("dcl") or name in TABLE["without_settings"]
    with pytest.raises(UserError, match=r"unknown variant 'paper_.*one of: cifar10, ") as error:
        load(name)
    assert "\n" not in str(error.value)


def test_names_of_0_1_0_are_known_to_config_files():
    base = recipes.recipe("imagenet")
    assert (base.queue, base.temperature, base.of_bank, base.of_batch) == (65536, 0.2, 0.07, 0.1)
    assert (base.drawn, base.clusters, base.start, base.groups) == (4095, 30000, "random", 8)
    assert recipes.alone is recipes.pair_with_itself and recipes.viewed is recipes.set_views
    with pytest.raises(AttributeError, match="no field 'drwan'; it has config, queue_size"):
        _ = base.drwan


def test_rates_decay_from_the_end_of_warm_up_in_every_recipe_but_one():
    """In SupCon's released code the cosine begins with the first epoch, and warm-up covers its beginning."""
    rows = [path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("infoaug", "learned_views")]
    names = [f"{row}:{variant}" for row in rows for variant in recipes.VARIANTS] + RECIPES
    over_the_whole_run = set()
    for name in names:
        try:
            config = load_config(f"configs/{name.replace(':', '.py:')}")[0]
        except UserError:  # not every row has every variant
            assert name not in RECIPES
            continue
        if config.optim.decay_after_warmup is not True:
            over_the_whole_run.add(name)
    assert over_the_whole_run == {"simclr:paper_cifar100"}
