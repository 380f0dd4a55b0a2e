"""What a run's page shows of held-out images: the numbers and pictures that the run keeps, and how sure they are."""

import json
import shutil

import numpy as np
import pytest
from sklearn.manifold import TSNE

from mi_contrast.readout.accuracy import interval95
from mi_contrast.reporting import drawing, exhibits, glossary, held_out_charts, next_steps, page, story
from mi_contrast.reporting.held_out import read_held_out
from mi_contrast.reporting.run import read_run
from mi_contrast.reporting.shares import Share, describe_gain
from tests.reporting.fake import make_run
from tests.reporting.fake_held_out import CLASSES, make_held_out, measurement
from tests.reporting.specs import layers, marks, page_specs
from tests.reporting.test_page import Reader


def plain(text):
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


def make(root, **changes):
    make_run(root)
    shutil.rmtree(root / "held_out")
    return make_held_out(root, **changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("exhibits") / "run")


def test_the_map_puts_each_image_where_t_sne_has_it(root):
    held_out = read_held_out(root)
    maps = exhibits.make_maps(held_out)
    assert [one.title for one in maps.maps] == ["Untrained network", "After 3,000 steps"]
    for name, shot, one in zip(("before", "after"), (held_out.before, held_out.after), maps.maps, strict=True):
        ((_, _, encoding, rows),) = layers(one.chart.to_dict())
        assert encoding["x"]["field"] == f"{name} x" and encoding["tooltip"][0]["field"] == "image"
        theirs = TSNE(2, perplexity=29 / 3, init="pca", random_state=0, max_iter=350).fit_transform(shot.components)
        np.testing.assert_allclose([[row[f"{name} x"], row[f"{name} y"]] for row in rows], theirs, atol=1e-2)
        assert [row["class"] for row in rows] == [CLASSES[label] for label in held_out.labels]
        assert [row["image"] for row in rows] == list(held_out.pictures)
        dots = [item for *_, item in marks(one.chart, "symbol") if item["size"] == 64]  # without those of the legend
        assert len(dots) == len(rows)
    assert [name for name, _ in maps.legend] == list(CLASSES)


def test_training_images_on_the_map_of_a_small_set_are_named(tmp_path):
    maps = exhibits.make_maps(read_held_out(make(tmp_path / "run", held=10)))
    assert "Only 10 images are held out, so 20 training images are added" in maps.caption
    ((_, _, _, rows),) = layers(maps.maps[0].chart.to_dict())
    assert [row["part"] for row in rows] == ["held out"] * 10 + ["trained on"] * 20


def test_two_maps_of_the_same_images_hold_their_pictures_once(root):
    html = page.render(root)
    first = read_held_out(root).pictures[-1]
    assert html.count(first) == 1
    assert json.loads(html.split('id="datasets">')[1].split("</script>")[0])


def test_neighbours_are_counted_and_marked_by_class(root):
    held_out = read_held_out(root)
    shown = exhibits.make_neighbours(held_out)
    hits = {"before": 0, "after": 0}
    for q, query in enumerate(shown.queries):
        assert query.name == CLASSES[held_out.labels[q]] and query.picture == held_out.pictures[q]
        for side, shot in (("before", held_out.before), ("after", held_out.after)):
            for k, near in enumerate(getattr(query, side)):
                assert near.matches == (shot.neighbour_labels[q, k] == held_out.labels[q])
                assert near.picture == shot.neighbour_pictures[q][k]
                hits[side] += near.matches
    assert f"Of these 20 neighbours, {hits['before']} before training, {hits['after']} after" in shown.sentence


def test_similarities_are_drawn_as_they_were_counted(root):
    run = read_run(root)
    shown = exhibits.make_similarities(run)
    titles = [f"{when}: ring from 50 to 90 %" for when in ("Untrained network", "Step 1,500", "Step 3,000")]
    assert [title for title, _ in shown.figures] == titles
    for (_, chart), step in zip(shown.figures, (0, 1500, 3000), strict=True):
        found = layers(chart.to_dict())
        (rows,) = [rows for mark, _, _, rows in found if mark == "area"]
        (band,) = [rows for mark, _, _, rows in found if mark == "rect"]
        assert (band[0]["from"], band[0]["to"]) == (0.05, 0.31)
        counted = measurement(step)["similarities"]
        for group, name in (("positive", "positives"), ("same_class", "negatives of the same class")):
            mine = {row["centre"]: row for row in rows if row["group"] == name}
            total = sum(counted[group])
            for i, count in enumerate(counted[group]):
                centre = -1 + (i + 0.5) / 32
                if count:
                    assert (mine[centre]["pairs"], mine[centre]["share"]) == (count, pytest.approx(count / total))
    assert ("ring", "var(--bad)") in shown.legend and "red band" in shown.caption


def test_without_a_ring_or_labels_the_page_speaks_of_neither(tmp_path):
    root = make(tmp_path / "run", labels=False, ring=False)
    shown = exhibits.make_similarities(read_run(root))
    assert [name for name, _ in shown.legend] == ["positives", "negatives"] and "red band" not in shown.caption
    assert exhibits.make_neighbours(read_held_out(root)).sentence == ""
    assert story.draw_classes(read_run(root)) is None
    assert "n unknown: no gain is read from it" in Reader(page.render(root)).words


def test_each_class_has_wilsons_interval_and_few_images_are_pale(root):
    figure = story.draw_classes(read_run(root))
    rows = {(row["name"], row["kind"]): row for _, _, _, rows in layers(figure.chart.to_dict()) for row in rows or ()
            if "top1" in row and "kind" in row}  # fmt: skip
    for name, n in zip(CLASSES, (300, 150, 12), strict=True):
        row, hits = rows[f"{name}, n = {n}", "trained"], round(0.8 * n)
        share, z = hits / n, 1.959963984540054
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        assert (row["top1"], row["low"], row["high"]) == pytest.approx((share, centre - half, centre + half))
    assert "fewer than 200 images are greyed out" in figure.note
    dots = sorted(
        marks(figure.chart, "symbol"), key=lambda dot: dot[1]
    )  # of each class the trained, then the untrained
    assert [item["opacity"] for *_, item in dots] == [1, 1, 0.35, 0.35, 0.35, 0.35]


@pytest.mark.parametrize(
    ("queries", "says", "pale"), [((300, 150, 12), "+38.3 points", 0), ((10, 6, 4), "n = 20: too few", 2)]
)
def test_no_gain_is_read_from_twenty_images(tmp_path, queries, says, pale):
    run = read_run(make(tmp_path / "run", queries=queries))
    cards = {card.title: card for card in story.cards(run)}
    assert says in plain(cards["kNN accuracy"].of)
    low, high = interval95(run.curves["knn_top1"].last, sum(queries))
    interval = f"n = {sum(queries)}, 95 % interval {100 * low:.1f} % to {100 * high:.1f} %"
    assert interval in plain(cards["kNN accuracy"].note)
    assert sum(card.pale for card in cards.values()) == pale


def test_ten_images_have_no_accuracy_among_the_headlines(tmp_path):
    run = read_run(make(tmp_path / "run", queries=(5, 3, 2)))
    assert {card.title for card in story.cards(run)} == {"Mutual information", "Training objective"}
    assert str(story.explain_few(run)).startswith("10 images are held out to measure training, too few to tell")


def test_the_interval_says_how_much_frames_of_one_object_tell():
    share = Share(0.8, 1000, 0.7, 0.9, 150.0)
    assert not share.is_uncertain and "n = 1,000 (as informative as 150), 95 % interval 70.0" in plain(share.describe())


@pytest.mark.parametrize(
    ("before", "is_luck"), [((0.6, 0.5, 0.69), False), ((0.6, 0.5, 0.71), True), ((0.9, 0.85, 0.95), True)]
)
def test_a_gain_inside_the_intervals_may_be_luck(before, is_luck):
    value, low, high = before
    text = describe_gain(Share(value, 400, low, high), Share(0.8, 400, 0.7, 0.9))
    assert text.endswith("over untrained, which may be luck") == is_luck and text.startswith(("+", "\N{MINUS SIGN}"))


def test_images_that_are_all_alike_have_a_map_too():
    from mi_contrast.reporting.embeddings import embed

    assert embed(np.zeros((20, 4), np.float32), "tsne").tolist() == [[0, 0]] * 20


def test_results_on_few_images_are_greyed_and_have_no_gain(tmp_path):
    root = make(tmp_path / "run")
    for file in (root / "results").glob("knn*.json"):
        file.write_text(file.read_text().replace('"examples": 5760', '"examples": 10'))
    words = Reader(page.render(root)).words
    assert "too few to tell" in words and "+36.5 points" not in words
    assert page.render(root).count('<tr class="untrained pale">') == 1


def test_a_run_of_0_1_0_has_a_page_without_these_parts(tmp_path):
    root = make_run(tmp_path / "run")
    shutil.rmtree(root / "held_out")
    words = Reader(page.render(root)).words
    assert "Map of held-out images" not in words and "n unknown: no gain is read from it" in words


@pytest.mark.parametrize("name", ["examples.npz", "after.npz"])
def test_damaged_files_are_named_and_the_page_stands(tmp_path, name):
    root = make(tmp_path / "run")
    (root / "held_out" / name).write_bytes(b"PK no archive")
    assert f"held_out/{name}" in Reader(page.render(root)).words


def test_what_training_could_not_keep_is_on_the_page(tmp_path):
    root = make(tmp_path / "run")
    with open(root / "held_out" / "measurements.jsonl", "a") as file:
        file.write('{"step": 3000, "problem": "no room"}\n{"step": 30')
    assert "held_out/ at step 3000 (no room)" in Reader(page.render(root)).words


def test_the_page_links_to_files_that_exist_and_names_the_next_command(root):
    html = page.render(root)
    links = [value for name, value in Reader(html).attributes if name == "href"]
    assert links and all((root / link).exists() for link in links)
    assert "checkpoints/" not in links  # the made-up run has none
    commands = dict(next_steps.list_commands(read_run(root)))
    assert commands["Judge the untrained network in the same way, to see what training gained"] == (
        f"mi-contrast evaluate linear {root} --untrained"
    )


def test_an_unfinished_run_is_told_to_go_on(tmp_path):
    root = make_run(tmp_path / "a run", whole=False, metrics=[{"step": 4, "mi_nats": 1.0}])
    ((_, command),) = next_steps.list_commands(read_run(root))
    assert command == f"mi-contrast train ring_moco:digits --workdir='{root}'"


def test_words_are_explained_once_a_text_and_markup_is_escaped():
    html = glossary.explain("2 nats of at most 3 nats, the ring <b> of a string; held-out, n below a bound.")
    assert html.count('class="word"') == 4 and html.count("data-tip") == 4
    assert "&lt;b&gt;" in html and "s<span" not in html
    for word in ("nat", "ring", "bound", "ceiling"):
        assert glossary.WORDS[word]


def test_colours_are_the_themes_up_to_eight_classes_and_distinct_beyond():
    assert held_out_charts.choose_colours(8) is None
    assert len(set(held_out_charts.choose_colours(24))) == 24
    assert len(held_out_charts.choose_colours(100)) == 100


def test_the_page_with_everything_is_offline_and_small(root):
    html = page.render(root)
    assert len(html.encode()) < 2_500_000
    without = html.replace(drawing.javascript(), "")
    assert "http" not in without and "@import" not in without
    assert all(value.startswith("data:") for name, value in Reader(html).attributes if name == "src")
    assert len(page_specs(html)) > 10
