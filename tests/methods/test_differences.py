"""The page of methods and differences: its words and tests exist, its example is one, and what configs are held to."""

import dataclasses
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core import schedules
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.methods import method as methods
from mi_contrast.methods import scoring, words
from mi_contrast.methods.recipes import VARIANTS
from mi_contrast.pools.bank import BankPool
from mi_contrast.pools.kinds import KINDS, find_kind
from mi_contrast.pools.protocol import Candidates
from mi_contrast.views import policies

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "mi_contrast" / "methods" / "README.md").read_text()
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
WORDS, DIFFERENCES = PAGE.split("## Differences")
OF_BANK = ("ir", "ball_ir", "ring_ir", "cave_ir", "la", "cmc", "ball_cmc", "ring_cmc", "pirl")
OF_BATCH = ("simclr", "ring_simclr", "hard_simclr", "debiased_simclr", "dcl", "supcon")
TWO_CROPS_OF_A_BANK = ("ir", "ball_ir", "ring_ir", "cave_ir", "la")


def config(name, variant="digits"):
    return to_plain_data(load_config(f"configs/{name}.py:{variant}")[0])


def method_of(name, variant="digits"):
    made = config(name, variant)
    return methods.build(made["method"], policies.build(made["views"]).source_index)


def lines(text):
    """The cells of each line of the tables in a text, heads and rules left out."""
    found = [line for line in text.splitlines() if line.startswith("|")]
    heads = [i - 1 for i, line in enumerate(found) if set(line) <= set("|-")]
    kept = [line for i, line in enumerate(found) if i not in heads and i - 1 not in heads]
    return [[cell.strip() for cell in line.replace(r"\|", "/").strip("|").split("|")] for line in kept]


def named(cell):
    return re.findall(r"`([^`]+)`", cell)


# The page


def there(name):
    file, _, test = name.partition("::")
    file = ROOT / "tests" / file
    return file.is_file() and re.search(rf"^def {re.escape(test)}\(", file.read_text(), re.M) is not None


def test_every_difference_names_tests_that_are_there():
    table = lines(DIFFERENCES)
    assert len(table) >= 60
    for cells in table:
        assert len(cells) == 4, cells
        held_by = named(cells[3])
        assert held_by and all("::test_" in name for name in held_by), cells
        assert [name for name in held_by if not there(name)] == []
    assert not there("methods/test_differences.py::test_of_nothing") and not there("methods/test_no.py::test_x")
    assert set(re.findall(r"`([\w/]+\.py::\w+)`", PAGE)) == {name for cells in table for name in named(cells[3])}


def test_every_config_is_on_the_page():
    told = {name for cells in lines(DIFFERENCES) for name in named(cells[0])}
    assert told <= set(CONFIGS)
    assert set(CONFIGS) - told == set()


def of_section(title):
    """First cells' words to the words of the second cells, of the section's table."""
    section = WORDS.split(f"### {title}\n")[1].split("### ")[0]
    return {name: cells[1:] for cells in lines(section) for name in named(cells[0])}


def test_every_word_of_a_method_is_on_the_page():
    assert set(of_section("The method")) == {*methods.METHOD_FIELDS, "momentum"}
    views = of_section("views")
    assert {name: set(named(cells[0])) for name, cells in views.items()} == {
        n: set(v) for n, v in methods.VIEWS.items()
    }
    assert set(of_section("target")) == set(methods.TARGETS)
    pools = of_section("pools")
    assert {name: set(named(cells[0])) for name, cells in pools.items()} == {
        n: {f.name for f in dataclasses.fields(kind)} for n, kind in KINDS.items()
    }
    assert set(of_section("terms")) == {*methods.TERM_FIELDS, "look_up", "head"}
    supports = of_section("supports")
    assert {name: tuple(named(cells[0])) for name, cells in supports.items()} == dict(words.SUPPORTS)
    forms = of_section("forms")
    assert {name: set(named(cells[0])) for name, cells in forms.items()} == {n: set(f) for n, f in words.FORMS.items()}
    moving = of_section("schedules")
    assert {name: set(named(cells[0])) for name, cells in moving.items()} == {
        n: f for n, f in schedules.FIELDS.items() if n != "constant"
    }


def example():
    """`get_config` of the page's example."""
    space = {}
    exec(WORDS.split("```python\n")[1].split("```")[0], space)
    return space["get_config"]


def test_the_example_is_a_method_that_no_config_has():
    hard_over_bank = lambda of: any(  # noqa: E731
        term.form["kind"] == "hard" and isinstance(of.pools[term.pool], BankPool) for term in of.terms
    )
    made = methods.build(to_plain_data(example()())["method"])
    assert hard_over_bank(made) and not any(hard_over_bank(method_of(name)) for name in CONFIGS)
    assert [find_kind(made.pools[term.pool]) for term in made.terms] == ["bank", "queue"]
    assert made.online_views == ("query",) and made.target_views == ("key",)
    for variant in VARIANTS:
        assert methods.build(to_plain_data(example()(variant))["method"]).terms[0].support["kind"] == "drawn"


# What every config is held to


@pytest.mark.parametrize("name", CONFIGS)
def test_directions_and_branches_are_averaged(name):
    terms = method_of(name).terms
    for head in {term.head for term in terms}:
        weights = [schedules.value(term.weight, t) for t in (0.0, 0.5, 1.0) for term in terms if term.head == head]
        assert float(sum(weights)) == pytest.approx(3.0)


def test_contenders_meet_as_many_candidates_at_the_same_temperature():
    for variant in VARIANTS:
        for contenders in (("ir", "ball_ir", "ring_ir"), ("cmc", "ball_cmc", "ring_cmc"), ("pirl", "ir")):
            drawn = {(t.support["k"], t.temperature) for name in contenders for t in method_of(name, variant).terms}
            assert len(drawn) == 1
        queues = {
            (method_of(name, variant).pools["queue"].size, method_of(name, variant).terms[0].temperature)
            for name in ("moco", "ball_moco", "ring_moco")
        }
        assert len(queues) == 1


def released_outer(least, steps=1000):
    """The released linear policy: from 1 to the least over the first half of the steps."""
    return np.concatenate([np.linspace(least, 1.0, steps // 2)[::-1], np.full(steps - steps // 2 + 1, least)])


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("ring_ir", 0.1),
        ("ring_moco", 0.1),
        ("ring_cmc", 0.1),
        ("ring_simclr", 0.5),
        ("ball_ir", 0.1),
        ("ball_moco", 0.1),
        ("ball_cmc", 0.1),
    ],
)
def test_bands_are_annealed_as_the_released_policy_would(name, least):
    outer = released_outer(least)
    for term in method_of(name).terms:
        for step in (0, 100, 333, 499, 500, 700, 1000):
            band = words.read_percentiles(term.support, jnp.float32(step / 1000))
            assert float(band["lower"]) == pytest.approx(1 - outer[step], abs=2e-3)
            if "upper" in band:  # the released inner part is a tenth of the outer, which it leaves out
                assert float(band["upper"]) == pytest.approx(1 - 0.1 * outer[step], abs=2e-3)


def test_a_cave_opens_from_a_quarter_to_a_half_of_the_run():
    (term,) = method_of("cave_ir").terms
    for at, lower, upper in (
        (0.0, 0.0, 1.0),
        (0.25, 0.0, 1.0),
        (0.375, 0.45, 0.995),
        (0.5, 0.9, 0.99),
        (1.0, 0.9, 0.99),
    ):
        band = words.read_percentiles(term.support, at)
        assert (float(band["lower"]), float(band["upper"])) == pytest.approx((lower, upper), abs=1e-6)


def test_schedules_follow_the_share_of_training():
    """The released exponential is over after fifty steps, the released steps end in an error at some lengths."""
    released = 0.9 * np.exp(-0.1 * np.arange(20_000)) + 0.1
    assert released[50] < 0.11
    assert float(schedules.value(schedules.exponential(1.0, 0.1, 5.0), 50 / 20_000)) > 0.98
    levels = np.repeat(np.linspace(1.0, 0.1, 10), 19 // 10)  # of 19 steps of annealing, 20 in all
    assert len(np.concatenate([levels, np.full(20 - 19 + 1, 0.1)])) < 20
    ours = schedules.step(tuple(np.linspace(1.0, 0.1, 10)), tuple(np.linspace(0.1, 0.9, 9)))
    assert [float(schedules.value(ours, step / 20)) for step in (0, 19, 20)] == pytest.approx([1.0, 0.1, 0.1])


@pytest.mark.parametrize("name", CONFIGS)
def test_rates_follow_a_cosine_to_nothing_and_decay_is_of_everything(name):
    for variant in VARIANTS:
        optim = config(name, variant)["optim"]
        assert (optim["lr"]["kind"], optim["lr"]["b"], optim["decay_all"]) == ("cosine", 0.0, None)


def test_sizes_stems_and_colours_are_the_datas():
    for name in CONFIGS:
        for variant, size, stem in (("cifar10", 32, "small"), ("stl10", 64, "small"), ("imagenet", 224, "imagenet")):
            made = config(name, variant)
            assert (made["views"]["size"], made["model"]["stem"]) == (size, stem)
    ours, released = config("ring_ir", "cifar10")["views"], policies.moco_v2(32)
    assert ours["mean"] == (0.4914, 0.4822, 0.4465) and released["mean"] == policies.IMAGENET_MEAN
    assert {**ours, "mean": 0, "std": 0} == to_plain_data({**released, "mean": 0, "std": 0})
    assert config("ring_ir", "stl10")["data"]["split"] == "unlabelled"
    for name in OF_BATCH[:-1]:  # of CIFAR-10 too, a jitter of full strength and a blur, and images normalised
        views = config(name, "cifar10")["views"]
        assert (views["query"]["jitter"]["brightness"], views["query"]["blur"]["p"]) == (0.8, 0.5)
        assert views["mean"] == ours["mean"]


def test_heads_are_a_perceptron_but_where_a_predictor_follows():
    heads = {name: config(name, "imagenet")["model"] for name in CONFIGS}
    kinds = {name: (model["head"]["kind"], model["head"].get("layers")) for name, model in heads.items()}
    assert {name for name, (kind, _) in kinds.items() if kind != "mlp"} == {"moco_v3", "nnclr"}
    assert (kinds["moco_v3"], kinds["nnclr"]) == (("mlp_bn", 2), ("mlp_bn", 3))
    assert heads["moco_v3"]["head"]["hidden"] == heads["nnclr"]["head"]["hidden"] == 512


# Banks


def test_settings_of_rows_over_banks():
    momenta = {name: {pool.momentum for pool in method_of(name).pools.values()} for name in OF_BANK}
    assert momenta == {
        name: {0.5 if name in ("la", "cmc", "ball_cmc", "ring_cmc", "pirl") else 0.0} for name in OF_BANK
    }
    for name in OF_BANK:
        made = method_of(name, "imagenet")
        assert not any(pool.self_row for pool in made.pools.values())
        assert all(pool.start == "random" for pool in made.pools.values())
        for term in made.terms:
            assert (term.positive, term.temperature) == ("row", 0.07)
            assert term.form == {"kind": "softmax", "reduce": "logsumexp"}
    for name in TWO_CROPS_OF_A_BANK:
        assert config(name, "imagenet")["views"] == to_plain_data(policies.moco_v2(224))
        assert config(name)["data"]["shared"] == ()


def test_local_aggregation_follows_a_quarter_of_instance_discrimination():
    made = method_of("la", "imagenet")
    (first, term), bank = made.terms, made.pools["bank"]
    assert first.support == {"kind": "all"} and first.weight == schedules.step((1.0, 0.0), (0.25,))
    assert term.weight == schedules.step((0.0, 1.0), (0.25,)) and term.support == {
        "kind": "close", "by": "clusters", "of": {"kind": "nearest", "k": 4096},
    }  # fmt: skip
    assert bank.clusters == {"number": 30000, "clusterings": 3, "every_epochs": 5}


def test_a_caves_positives_are_candidates_too():
    """The released value of neighbours as views is without a ceiling, since they are left out below the line."""
    draws = np.random.default_rng(0)
    pool = draws.normal(size=(1, 40))
    pool[0, :4] = 30.0 + draws.normal(size=4)  # what lies above the ring
    above, ring = np.sort(pool[0])[36:], np.sort(pool[0])[20:36]
    released = np.logaddexp.reduce(np.r_[0.0, above]) - np.logaddexp.reduce(np.r_[0.0, ring]) + math.log(17)
    ours = float(mi.cave(jnp.zeros(1), jnp.asarray(pool, jnp.float32), 0.5, 0.9)[0])
    both = np.logaddexp.reduce(np.r_[0.0, above]) - math.log(5) - np.logaddexp.reduce(np.r_[0.0, ring, above])
    assert ours == pytest.approx(both + math.log(21), abs=1e-5)
    assert ours <= math.log(21 / 5) + 1e-5 < math.log(41) < released


def test_the_normaliser_is_the_mean_over_every_column_times_the_data():
    draws = np.random.default_rng(0)
    scores = draws.normal(size=(5, 9))  # the positive first, as released
    value = scores[:, 0] - np.log(np.exp(scores).mean(axis=1))
    found = scoring.estimate_log_normaliser(jnp.asarray(scores[:, 0]), jnp.asarray(value), jnp.float32(1000))
    assert float(found) == pytest.approx(math.log(np.exp(scores).mean() * 1000), abs=1e-5)
    assert found.dtype == jnp.float32  # CMC's is cut to a whole number


@pytest.mark.parametrize("name", ["cmc", "ball_cmc", "ring_cmc"])
def test_a_channel_meets_the_other_channels_bank(name):
    made = method_of(name)
    takes = [(term.anchor, made.pools[term.pool].takes) for term in made.terms]
    assert takes == [("first", "second"), ("second", "first")]
    assert made.measured_views == ("first", "second")


def test_networks_of_channels_are_half_as_wide_and_crops_those_of_the_release_but_for_imagenet():
    for variant in VARIANTS:
        made, one = config("cmc", variant), config("ir", variant)
        assert made["model"]["width"] == one["model"]["width"] // 2
        assert made["model"]["split"] == made["views"]["split"] == "lab"
        assert made["views"]["both"]["crop"]["area"][0] == (0.8 if variant == "digits" else 0.2)


@pytest.mark.parametrize("name", ["pirl", "infomin"])
def test_a_jigsaws_image_goes_first_and_alone_into_the_pool(name):
    made = method_of(name)
    assert made.online_views == ("query", "jigsaw")
    assert {pool.takes for pool in made.pools.values()} == {"query" if name == "pirl" else "key"}
    assert [term.positive for term in made.terms] == ["row" if name == "pirl" else "key"] * 2
    assert config(name, "imagenet")["model"]["jigsaw"] == {"dim": 128}  # linear patch by patch


# Queues and batches


def test_the_neighbour_is_looked_up_in_a_queue_of_the_first_view():
    made = method_of("nnclr")
    assert made.pools["queue"].takes == "query" and {term.look_up for term in made.terms} == {"queue"}
    assert set(made.online_views) == {"query", "key"} and made.target_views == ()
    assert {method_of("nnclr", variant).pools["queue"].size for variant in ("cifar10", "imagenet")} == {4096, 65536}


def test_a_target_has_a_constant_momentum():
    of = {name: method_of(name, "imagenet") for name in CONFIGS}
    momenta = {name: made.momentum for name, made in of.items() if made.target == "ema"}
    assert momenta.pop("moco_v3") == 0.99
    assert set(momenta) == {"moco", "ball_moco", "ring_moco", "infomin", "infoaug"}
    assert set(momenta.values()) == {0.999}
    assert method_of("infomin", "cifar10").terms[0].temperature == 0.15


def test_hard_negatives_have_the_released_floor_unless_told():
    for name, beta in (("hard_simclr", 1.0), ("debiased_simclr", 0.0)):
        (term, _) = method_of(name).terms
        made = words.make_form(term.form, jnp.float32(0), jnp.float32(0.5))
        assert [float(x) for x in (made.beta, made.prior, made.floor)] == pytest.approx([beta, 0.1, -2.0])
        assert words.make_form({**term.form, "clamp": False}, jnp.float32(0), jnp.float32(0.5)).floor is None
        with pytest.raises(UserError, match="clamp"):  # as a string, the release takes any for True
            words.check_form("terms.0.form", {"kind": "hard", "clamp": "False"}, {"kind": "all"})


def test_each_anchor_meets_the_batch_without_its_own_views():
    valid, ids = jnp.ones(32, bool), jnp.repeat(jnp.arange(16, dtype=jnp.int32), 2)
    pool = Candidates(jnp.zeros((32, 4)), valid, ids, own_rows=2)
    for name in OF_BATCH[:1] + OF_BATCH[2:]:
        for term in method_of(name).terms:
            assert float(scoring.compute_ceiling(term, pool, jnp.float32(0))) == pytest.approx(math.log(31))
    half = Candidates(jnp.zeros((16, 4)), valid[:16], jnp.arange(16), own_rows=1)
    for term in method_of("moco_v3").terms:
        assert float(scoring.compute_ceiling(term, half, jnp.float32(0))) == pytest.approx(math.log(16))


def test_a_ring_of_the_batch_knows_no_similarity_with_itself():
    """The released loss of the ring over a batch has e^{1 / t} among its candidates, at temperature .07 all of it."""
    draws = np.random.default_rng(0)
    embeddings = draws.normal(size=(16, 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = embeddings @ embeddings.T / 0.07
    share = np.exp(np.diag(scores)) / np.exp(scores).sum(axis=1)
    assert np.median(share) > 0.9
    anchors, positives, ids = (jnp.asarray(x, jnp.float32) for x in (embeddings[::2], embeddings[1::2], np.arange(8)))
    ids = ids.astype(jnp.int32)
    nats = jax.jit(
        lambda a, p, x: mi.contrast(
            a, p, x, mi.All(), temperature=0.07, anchor_ids=ids[:, None], pool_ids=jnp.repeat(ids, 2)
        )
    )(anchors, positives, jnp.asarray(embeddings, jnp.float32))
    for i in range(8):
        others = np.delete(scores[2 * i], (2 * i, 2 * i + 1))
        positive = scores[2 * i, 2 * i + 1]
        assert float(nats[i]) == pytest.approx(
            positive - np.logaddexp.reduce(np.r_[positive, others]) + math.log(15), abs=1e-4
        )
