"""Every figure of an index equals the one worked out over all activations."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index.conftest import CONTEXT, SHAPE, Truth, corpus, indexed, truth

from workbench.index import FeatureRecord, Index
from workbench.models import Model
from workbench.sites import KINDS, Kind, Site

TRUTHS: dict[Site, Truth] = {}
RECORDS: dict[Site, list[FeatureRecord]] = {}


def site_of(kind: Kind) -> Site:
    return Site(0, "embed") if kind == "embed" else Site(1, kind)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest) -> Site:
    return site_of(request.param)


@pytest.fixture
def true(model: Model, suite: Any, site: Site) -> Truth:
    if site not in TRUTHS:
        TRUTHS[site] = truth(model, suite, site, corpus(), CONTEXT)
    return TRUTHS[site]


@pytest.fixture
def records(made: Index, site: Site) -> list[FeatureRecord]:
    """What the index says of every feature of the site."""
    if site not in RECORDS:
        RECORDS[site] = [made.feature(site, i) for i in range(len(made.densities(site)))]
    return RECORDS[site]


def test_the_corpus_is_worth_it(true: Truth, site: Site) -> None:
    fires = (true.acts > 0).sum(0)
    assert len(true.acts) > 500
    assert len(set(true.row)) > 20
    assert (fires > 5).mean() > 0.8
    # Documents go over the ends of rows, and rows hold several.
    assert len({(d, r) for d, r in zip(true.document, true.row, strict=True)}) > 40
    assert site.kind in KINDS


def test_counts_sums_and_maxima(
    made: Index, true: Truth, records: list[FeatureRecord], site: Site
) -> None:
    frame: Any = made.frame(site)
    acts, fires = true.acts.astype(np.float64), (true.acts > 0).sum(0)
    assert made.tokens == len(acts)
    assert frame["feature"].tolist() == list(range(acts.shape[1]))
    assert frame["fires"].tolist() == fires.tolist()
    np.testing.assert_allclose(frame["density"], fires / len(acts))
    np.testing.assert_allclose(made.densities(site), fires / len(acts))
    np.testing.assert_allclose(frame["maximum"], acts.max(0), rtol=1e-4)
    np.testing.assert_allclose(frame["mean_over_all"], acts.mean(0), rtol=1e-4)
    for feature in range(acts.shape[1]):
        mine = acts[acts[:, feature] > 0, feature]
        record = records[feature]
        mean, deviation = (mine.mean(), mine.std()) if len(mine) else (0, 0)
        assert record.fires == len(mine)
        assert (record.mean, frame["mean"][feature]) == pytest.approx((mean, mean), rel=1e-4)
        assert record.deviation == pytest.approx(deviation, rel=1e-3, abs=1e-4)
        assert frame["deviation"][feature] == pytest.approx(deviation, rel=1e-3, abs=1e-4)
        assert record.mean_over_all == pytest.approx(acts[:, feature].mean(), rel=1e-4)


def test_histograms(true: Truth, records: list[FeatureRecord], site: Site) -> None:
    bins = 0
    for feature in range(true.acts.shape[1]):
        mine = true.acts[true.acts[:, feature] > 0, feature]
        record = records[feature]
        assert record.counts.sum() == len(mine)
        if len(mine):
            counts, _ = np.histogram(mine, record.edges)
            assert record.counts.tolist() == counts.tolist()
            # Four to an octave, of equal width within it.
            octave = 2.0 ** np.floor(np.log2(record.edges[:-1]))
            np.testing.assert_allclose(np.diff(record.edges), octave / 4)
            bins += len(counts)
    assert bins > 100


def strongest(true: Truth, feature: int, count: int) -> list[int]:
    """Numbers of the tokens of the top examples."""
    acts = true.acts[:, feature]
    best: dict[int, int] = {}
    for i in np.flatnonzero(acts > 0):
        if true.row[i] not in best or acts[i] > acts[best[true.row[i]]]:
            best[true.row[i]] = int(i)
    distinct: dict[tuple[int, ...], int] = {}
    for i in sorted(best.values(), key=lambda i: (-acts[i], i)):
        distinct.setdefault(true.content[i], i)
    return sorted(distinct.values(), key=lambda i: (-acts[i], i))[:count]


def test_top_examples(true: Truth, records: list[FeatureRecord], site: Site) -> None:
    seen = 0
    for feature in range(true.acts.shape[1]):
        wanted = strongest(true, feature, SHAPE.top)
        found = records[feature].top
        places = [(true.document[i], true.position[i]) for i in wanted]
        assert [(one.document, one.position) for one in found] == places
        np.testing.assert_allclose(
            [one.value for one in found], true.acts[wanted, feature], rtol=1e-4
        )
        seen += len(found)
    assert seen > 100


def test_the_passage_of_an_example(
    model: Model, true: Truth, records: list[FeatureRecord], site: Site
) -> None:
    number = {(d, p): i for i, (d, p) in enumerate(zip(true.document, true.position, strict=True))}
    beside = 0
    for feature in range(true.acts.shape[1]):
        record = records[feature]
        for one in (*record.top, *record.stratified):
            around, at = true.passage[number[one.document, one.position]]
            assert one.at == at
            ids = [true.documents[one.document][true.position[i]] for i in around]
            assert "".join(one.tokens) == model.tokenizer.decode(ids) == one.text
            wanted = true.acts[around, feature]
            assert one.activations[at] == one.value == pytest.approx(wanted[at], rel=1e-4)
            np.testing.assert_allclose(one.activations, wanted, atol=wanted.max() / 254)
            assert (np.array(one.activations) > 0).tolist() == (wanted > 0).tolist()
            beside += int((wanted > 0).sum()) - 1
    assert beside > 500


def test_stratified_examples_cover_the_range(
    true: Truth, records: list[FeatureRecord], site: Site
) -> None:
    places = {(d, p): i for i, (d, p) in enumerate(zip(true.document, true.position, strict=True))}
    total = 0
    for feature in range(true.acts.shape[1]):
        acts, ranges = true.acts[:, feature], defaultdict(set)
        for i in np.flatnonzero(acts > 0):
            ranges[half_octave(acts[i])].add(true.content[i])
        found = defaultdict(list)
        for one in records[feature].stratified:
            i = places[one.document, one.position]
            assert one.value == pytest.approx(acts[i], rel=1e-4)
            found[half_octave(one.value)].append(true.content[i])
        assert found.keys() == ranges.keys()
        for part, contents in found.items():
            assert len(contents) == len(set(contents)) == min(len(ranges[part]), SHAPE.stratified)
        total += sum(map(len, found.values()))
    assert total > 150


def half_octave(value: float) -> tuple[int, bool]:
    octave = int(np.floor(np.log2(value)))
    return octave, value >= 1.5 * 2.0**octave


def test_where_in_its_range_an_example_is(
    true: Truth, records: list[FeatureRecord], site: Site
) -> None:
    for feature in range(0, true.acts.shape[1], 7):
        mine = np.sort(true.acts[true.acts[:, feature] > 0, feature])
        record = records[feature]
        for one in record.stratified:
            inside = np.searchsorted(record.edges, one.value, "right") - 1
            least = (mine < record.edges[inside]).mean()
            assert least <= one.below <= least + record.counts[inside] / len(mine) + 1e-9


@cache
def pair_counts(site: Site) -> np.ndarray:
    active = (TRUTHS[site].acts > 0).astype(np.int64)
    return active.T @ active


def test_features_that_fire_together(
    made: Index, true: Truth, records: list[FeatureRecord], site: Site
) -> None:
    tokens, both = len(true.acts), pair_counts(site)
    fires = both.diagonal()
    assert made.meta["sampled"] == tokens
    rows = 0
    for feature in range(true.acts.shape[1]):
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = fires[feature] * fires / tokens
            said = both[feature] * np.log(both[feature] / expected)
        said[feature] = 0
        wanted = sorted((i for i in range(len(said)) if said[i] > 0), key=lambda i: (-said[i], i))
        found = records[feature].cofiring
        assert found["feature"].tolist() == wanted[:10]
        assert found["together"].tolist() == both[feature, wanted[:10]].tolist()
        assert (found["of"] == fires[feature]).all()
        np.testing.assert_allclose(found["expected"], expected[wanted[:10]])
        np.testing.assert_allclose(found["lift"], (both[feature] / expected)[wanted[:10]])
        rows += len(found)
    assert rows > 200


def test_documents_are_stored_once_and_whole(made: Index, model: Model) -> None:
    assert made.meta["documents"] == len(corpus())
    assert ["".join(made.text(i)) for i in range(len(corpus()))] == corpus()
    with pytest.raises(ValueError, match="document 30 does not exist: 0 to 29"):
        made.text(30)


def test_a_feature_that_never_fires(made: Index, model: Model, suite: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    site = Site(1, "res")
    sae = suite.sae_at(site)
    threshold = sae.threshold.clone()
    threshold[3] = 1e9

    class Quiet:
        def sae_at(self, site: Site) -> Any:
            return replace(sae, threshold=threshold)

    index = indexed(model, Quiet(), tmp_path / "i.duckdb", sites=[site])
    record = index.feature(site, 3)
    assert (record.fires, record.density, record.mean, record.maximum) == (0, 0, 0, 0)
    assert (record.top, record.stratified, len(record.counts)) == ((), (), 0)
    assert record.cofiring.empty
    assert index.frame(site).loc[3, ["fires", "mean", "deviation"]].tolist() == [0, 0, 0]
    assert index.feature(site, 4).fires == made.feature(site, 4).fires > 0


def test_what_is_not_there_is_refused(made: Index) -> None:
    with pytest.raises(ValueError, match=r"layer 2 res is not in this index; it has embed"):
        made.frame((2, "res"))
    with pytest.raises(ValueError, match=r"feature 40 does not exist at .*: 0 to 39"):
        made.feature((1, "res"), 40)
