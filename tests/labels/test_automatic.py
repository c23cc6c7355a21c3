"""Rules learned from examples: they say what they should, and the score is of what was held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from labels.cases import SITE, WORDS, fires_on

from workbench.lab import Lab
from workbench.lab import open as open_lab
from workbench.labels.automatic import Rule, automatic_label, best_rule, detection, token_f1
from workbench.labels.examples import CLEAR, LENGTH, Material, Passage, Pool, material
from workbench.labels.job import Autolabel
from workbench.labels.records import Label
from workbench.labels.shown import sae_name
from workbench.labels.store import Labels
from workbench.pocket.corpus import documents
from workbench.sites import Site

INDEXED = Site(2, "res")


def spoken(text: str, fires: list[int], document: int = 0) -> Passage:
    """A passage of words at which it fires at some places."""
    tokens = tuple(f" {word}" for word in text.split(" "))
    return Passage(tokens, tuple(5.0 * (i in fires) for i in range(len(tokens))), document)


def known(fires: list[Passage], quiet: list[Passage]) -> Material:
    """The same passages to learn from and to be scored on, from documents of their own."""
    shown = tuple(replace(p, document=i) for i, p in enumerate(fires))
    silent = tuple(replace(p, document=100 + i) for i, p in enumerate(quiet))
    return Material(SITE, 1, 5.0, shown, silent, shown, silent)


@pytest.mark.parametrize("index", range(4))
def test_a_feature_of_one_word_is_named_by_it(index: int) -> None:
    label = automatic_label(fires_on(WORDS[index], index))
    assert label is not None
    assert label.text == f'"{WORDS[index]}"'
    assert (label.method, label.score) == ("automatic", 1.0)
    assert label.details["token_f1"] == 1.0
    assert Rule.of(label.details) == Rule("token", (WORDS[index],))


def test_the_score_of_another_feature_is_chance() -> None:
    cats = fires_on("cat", 0)
    rule = best_rule(fires_on("ship", 4))
    assert detection(rule, cats.held, cats.held_quiet) < 0.51  # pyright: ignore[reportOptionalOperand]
    assert token_f1(rule, cats, cats.held) == 0


def test_the_score_is_of_the_held_out_passages() -> None:
    shown = fires_on("cat", 0)
    other = fires_on("dog", 1)
    label = automatic_label(replace(shown, held=other.held, held_quiet=shown.held_quiet))
    assert label is not None
    assert label.text == '"cat"'
    # No held-out passage has a cat, so none is found; the quiet ones are all told rightly.
    assert label.score == 0.5


def test_each_kind_of_rule_is_found_where_it_holds() -> None:
    numbers = known(
        [spoken(f"it costs {n} of us", [2]) for n in (3, 17, 405, 99, 8, 61)],
        [spoken("it costs all of us", [])] * 6,
    )
    assert best_rule(numbers) == Rule("class", ("numbers",))
    names = ("mia", "tom", "zoe", "ann", "kim", "bob")
    after = known(
        [spoken(f"i am called {name} today", [3]) for name in names],
        [spoken(f"i saw {name} being called", []) for name in names],
    )
    assert best_rule(after) == Rule("after", ("called",))
    german = ("der hund und die katze", "die frau und der mann", "das kind und der ball")
    english = ("the dog sees a cat", "a man has no ball", "this child is so big")
    context = known(
        [spoken(t, list(range(5))) for t in german * 2], [spoken(t, []) for t in english * 2]
    )
    rule = best_rule(context)
    assert rule.fires([" und", " der", " rest"])
    assert not any(rule.fires([f" {w}" for w in t.split()]) for t in english)


def test_the_text_of_a_rule_says_what_it_does() -> None:
    assert Rule("token", ("monday", "friday")).text == '"monday", "friday"'
    assert Rule("token", ("a", "b", "c", "d", "e")).text == '"a", "b", "c", "d", ...'
    assert Rule("token", ("\n",)).text == '"⏎"'
    assert Rule("class", ("numbers",)).text == "numbers"
    assert Rule("after class", ("numbers",)).text == "after numbers"
    assert Rule("context", ("und", "der"), 2).text == 'text with "und", "der"'
    assert Rule("context", ("und", "der"), 2).marks([" und", " x"]) == [False, False]
    assert Rule("context", ("und", "der"), 2).marks([" und", "Der"]) == [True, True]
    assert Rule("after", ("$",)).marks(["$", "5", "$"]) == [False, True, False]


def test_detection_is_balanced_accuracy() -> None:
    rule = Rule("token", ("cat",))
    held = [spoken(t, []) for t in ("cat", "cat a", "a cat", "dog")]
    quiet = [spoken(t, []) for t in ("cat", "dog", "a", "b", "c", "d", "e", "f", "g", "h")]
    assert detection(rule, held, quiet) == pytest.approx((3 / 4 + 9 / 10) / 2)
    assert detection(rule, held, []) is None
    assert detection(rule, [], quiet) is None


def test_output_tokens_are_named_where_they_stand_out() -> None:
    label = automatic_label(replace(fires_on("cat", 0), promoted=(" sat", "\n")))
    assert label is not None
    assert label.text == '"cat"; writes "sat", "⏎"'


def test_a_feature_that_never_fires_has_no_label() -> None:
    assert automatic_label(Material(SITE, 0, 0.0, (), (), (), ())) is None
    alone = fires_on("cat", 0)
    label = automatic_label(replace(alone, held_quiet=()))
    assert label is not None
    assert label.score is None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Pocket with a small index and labels of its own."""
    folder = tmp_path_factory.mktemp("labels")
    lab = open_lab()
    lab.index(
        [d.text for d in islice(documents(8), 60)],
        path=folder / "i.duckdb",
        sites=[INDEXED],
        progress=False,
    )
    lab.labels = Labels(folder / "l.sqlite", model="pocket", author="ann")
    yield lab
    lab.labels.close()
    lab.feature_index.close()


@pytest.fixture(scope="module")
def pool(lab: Lab) -> Pool:
    return Pool(
        lab.feature_index, lab.engine, lab.suite, [INDEXED], tokens=2560, context=64
    )  # two batches


def test_the_pool_knows_every_activation(lab: Lab, pool: Pool) -> None:
    """Against plain runs of the same tokens."""
    sae = lab.suite.sae_at(INDEXED)
    truth = []
    for row in pool.ids.tolist():
        encoded = sae.encode(lab.run(row).activation(2, "res"))
        truth.append(encoded.numpy())
    acts = np.concatenate(truth)
    often = np.argsort(-(acts > 0).sum(0))[:40:4].tolist()
    assert (acts[:, often] > 0).sum() > 500
    for feature in often:
        np.testing.assert_allclose(
            pool.activations(INDEXED, feature), acts[:, feature], rtol=1e-3, atol=1e-3
        )


def test_passages_are_of_one_document_and_without_bos(lab: Lab, pool: Pool) -> None:
    passages = pool.passages(INDEXED, 0)
    assert len(passages) == len(pool) > 10
    for passage in passages:
        assert passage.text in "".join(lab.feature_index.text(passage.document))
        assert 8 <= len(passage.tokens) == len(passage.activations) <= LENGTH
        assert not {"<bos>", "<eos>"} & set(passage.tokens)
    feature = int(np.argmax(lab.feature_index.densities(INDEXED)))
    values = pool.activations(INDEXED, feature)
    found = [v for p in pool.passages(INDEXED, feature) for v in p.activations if v > 0]
    # All but <bos>, the ends of documents and pieces too short to be a passage.
    assert 0.7 * (values > 0).sum() <= len(found) <= (values > 0).sum()
    assert set(found) <= set(values.tolist())


def test_what_fires_and_what_is_quiet_is_told_apart(lab: Lab, pool: Pool) -> None:
    index = lab.feature_index
    features = np.argsort(-index.densities(INDEXED))[5:60:5].tolist()
    for feature in features:
        found = material(index, pool, INDEXED, feature)
        assert found.shown
        assert found.held
        for passage in found.shown + found.held:
            assert passage.peak >= CLEAR * found.maximum > 0
        for passage in found.quiet + found.held_quiet:
            assert passage.peak == 0
        shown = {p.document for p in found.shown + found.quiet}
        held = {p.document for p in found.held + found.held_quiet}
        assert not shown & held
        assert len({p.text for p in found.held}) == len(found.held)


def test_a_lab_labels_its_features(lab: Lab) -> None:
    index = lab.feature_index
    features = [(2, int(i)) for i in np.argsort(-index.densities(INDEXED))[20:26]]
    job = lab.autolabel(features, tokens=2048)
    assert "6 features, no network" in repr(job)
    table = job.run(progress=False)
    assert table["feature"].tolist() == [i for _, i in features]
    assert all(table["label"])
    assert all(0 <= score <= 1 for score in table["score"])
    assert not any(table["problem"])
    job.run(progress=False)
    layer, feature = features[0]
    assert len(lab.labels.history((layer, "res"), feature)) == 1
    shown = lab.label((layer, "res"), feature)
    assert shown is not None
    assert shown.method == "automatic"
    assert shown.date is not None
    lab.labels.set((layer, feature), "mine")
    assert str(lab.label((layer, "res"), feature)) == "mine"


def test_a_feature_that_fires_nowhere_is_told(lab: Lab) -> None:
    def nothing(site: Site, index: int) -> Material:
        return Material(site, index, 0.0, (), (), (), ())

    table = Autolabel(lab.labels, [(SITE, 3)], nothing).run(progress=False)
    assert table["problem"].tolist() == ["it fires nowhere in the index"]
    assert lab.labels.label(SITE, 3) is None


def test_without_a_label_of_ones_own_the_suite_speaks(lab: Lab) -> None:
    known = next(f for f in lab.suite.find("") if f.site == Site(6, "res"))
    label = lab.label(known.site, known.index)
    assert label is not None
    assert (label.text, label.method, label.score) == (known.label, "suite", known.score)
    unknown = next(i for i in range(1024) if not lab.suite.label(Site(3, "mlp"), i))
    assert lab.label((3, "mlp"), unknown) is None


def test_a_label_of_ones_own_is_shown_and_found_everywhere(lab: Lab) -> None:
    site = Site(2)
    here = [f.index for f in lab.suite.find("") if f.site == site]
    index = next(i for i in here if lab.labels.label(site, i) is None)
    brought = lab.suite.label(site, index)
    lab.labels.set((2, index), "blue umbrellas")
    try:
        assert lab.suite.label(site, index) == "blue umbrellas"
        assert lab.find("umbrella").values.tolist()[0][:4] == [2, "res", index, "blue umbrellas"]
        assert lab.feature("blue umbrellas") == (2, index)
        assert not any((f.site, f.index) == (site, index) for f in lab.suite.find(brought))
        found = lab.search("umbrellas")
        assert found[["layer", "kind", "feature"]].values.tolist() == [[2, "res", index]]
    finally:
        lab.labels.set((2, index), "")
    assert lab.suite.label(site, index) == brought
    assert lab.search("umbrellas").empty


def test_labels_of_one_sae_are_not_those_of_another(lab: Lab) -> None:
    site = Site(4, "res")
    lab.labels.set((4, 7), "of the shipped one")
    shipped = lab.suite.sae_at(site)
    with torch.no_grad():
        lab.use(replace(shipped, b_dec=shipped.b_dec + 1))
    try:
        assert lab.labels.label(site, 7) is None
        lab.labels.set((4, 7), "of mine")
        lab.use(replace(shipped, b_dec=shipped.b_dec + 2))
        assert lab.labels.label(site, 7) is None
    finally:
        lab.suite._chosen.pop(site)
    assert str(lab.labels.label(site, 7)) == "of the shipped one"
    assert sae_name(lab.suite, site) == "res/layer_4/width_1k/average_l0_20"


def test_a_feature_that_does_not_exist_is_told(lab: Lab) -> None:
    with pytest.raises(ValueError, match=r"feature 5000 does not exist at layer 2 res: 0 to 1023"):
        lab.autolabel([(2, 5000)])
    with pytest.raises(ValueError, match="is not in this index"):
        lab.autolabel([(3, 1)])


def test_a_label_without_a_rule_says_so() -> None:
    with pytest.raises(ValueError, match="has no rule"):
        Rule.of(Label(SITE, 1, "x", "manual").details)


def test_labels_are_kept_in_the_users_folder(data: Path) -> None:
    lab = open_lab()
    assert lab.labels.path.parent == data
    assert lab.labels.model == "pocket"
