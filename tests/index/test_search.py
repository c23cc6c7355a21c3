"""Every search against the same worked out by hand, over all features."""

from __future__ import annotations

import itertools
import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from index.conftest import _activation
from transformers import GPT2Config, GPT2LMHeadModel

from workbench.architectures import architecture_of
from workbench.index import Index
from workbench.index.matches import Corpus
from workbench.index.records import Sparkline
from workbench.index.search import COLUMNS, Search
from workbench.index.words import Words
from workbench.lab import open as open_lab
from workbench.models import Model
from workbench.sites import Site

ALL = 10**6
WORDS = ("capital", "capitals", "city", "cities of France", "Größe", "die Stadt", "of", "a_b", "")


@pytest.fixture(scope="module")
def labels(made: Index) -> dict[Site, dict[int, str]]:
    random = np.random.default_rng(3)
    return {
        site: {i: " ".join(random.choice(WORDS, random.integers(1, 5))) for i in range(0, d, 2)}
        for site, d in made.widths.items()
    }


@pytest.fixture(scope="module")
def search(made: Index, model: Model, suite: Any, labels: Any) -> Search:
    uncalibrated: Any = SimpleNamespace(sae_at=suite.sae_at, calibrated=lambda _: False)
    return Search(made, labels=labels, model=model, suite=uncalibrated)


def features(index: Index) -> list[tuple[Site, int]]:
    return [(site, i) for site, d in index.widths.items() for i in range(d)]


def rows_of(frame: Any) -> list[Any]:
    return list(frame.itertuples())


def agrees(found: Any, wanted: dict[tuple[Site, int], float], rel: float = 1e-4) -> None:
    """The table has these features with these scores, in the order of the scores."""
    scores = {(site, i): s for site, i, s in found[["site", "feature", "score"]].values}
    assert scores.keys() == wanted.keys()
    assert len(scores) == len(found) > 5
    for place, score in scores.items():
        assert score == pytest.approx(wanted[place], rel=rel, abs=1e-5), place
    assert (np.diff(found["score"]) <= 0).all()


# Labels.


def split(text: str) -> list[str]:
    plain = text.lower().replace("ö", "o").replace("ß", "ß").replace("_", " ")
    return plain.split()


@pytest.mark.parametrize(
    "query",
    ["capital", "capital of france", "GROß stadt", "of", "ci", "cit", "b", "capital capital"],
)
def test_labels_by_bm25(search: Search, labels: Any, query: str) -> None:
    texts = {(s, i): split(t) for s, mine in labels.items() for i, t in mine.items() if split(t)}
    mean = sum(map(len, texts.values())) / len(texts)
    wanted: dict[tuple[Site, int], float] = dict.fromkeys(texts, 0.0)
    for term in set(split(query)):
        parts = {}
        for place, words in texts.items():
            best = 0.0
            for word in set(words):
                begins = len(term) >= 3 and word.startswith(term)
                if word == term or begins:
                    weight = 1 if word == term else 0.5 * len(term) / len(word)
                    often = words.count(word)
                    length = 1 - 0.75 + 0.75 * len(words) / mean
                    best = max(best, weight * often * 2.2 / (often + 1.2 * length))
            if best:
                parts[place] = best
        idf = math.log(1 + (len(texts) - len(parts) + 0.5) / (len(parts) + 0.5))
        for place, part in parts.items():
            wanted[place] += idf * part
    wanted = {place: score for place, score in wanted.items() if score}
    if query == "ci":
        assert not wanted
        assert search.find(query).empty
    else:
        found: Any = search.find(query, k=ALL)
        agrees(found, wanted)
        for row in rows_of(found):
            assert row.label == labels[row.site][row.feature]


def test_no_labels_find_nothing(made: Index) -> None:
    assert list(Search(made).find("anything").columns) == COLUMNS
    assert Words([], []).find("a")[0].size == 0
    assert Words([4], ["..."]).find("a")[0].size == 0


# Examples.


def by_hand(index: Index, pattern: str, near: int) -> tuple[set[tuple[int, int]], int]:
    """The tokens that matches cover, for a tokenizer of one letter a token."""
    places = set()
    for number in range(index.meta["documents"]):
        text = "".join(index.text(number))
        for match in re.finditer(pattern, text):
            for place in range(match.start() - near, match.end() + near):
                if match.end() > match.start() and 0 <= place < len(text):
                    places.add((number, place))
    return places, len(places)


@pytest.mark.parametrize(
    ("query", "options", "pattern"),
    [
        ("cat", {}, "cat"),
        ("a.", {}, r"a\."),
        ("a.", {"regex": True}, "a."),
        (r"\b[dm]\w*", {"regex": True}, r"\b[dm]\w*"),
        ("on$", {"regex": True}, "on$"),
        ("x*", {"regex": True}, "x*"),
        ("ran", {"near": 2}, "ran"),
        ("^the", {"regex": True, "near": 9}, "^the"),
    ],
)
def test_examples_by_f1(
    made: Index, search: Search, query: str, options: dict[str, Any], pattern: str
) -> None:
    places, matched = by_hand(made, pattern, options.get("near", 0))
    found: Any = search.find(query, by="example", k=ALL, **options)
    if query in ("a.", "x*") and not places:
        assert found.empty
        return
    wanted = {}
    for site, i in features(made):
        record = made.feature(site, i)
        passages = {(one.document, one.position) for one in (*record.top, *record.stratified)}
        hits = len(passages & places)
        if hits:
            right = min(hits / (len(passages) + 1) * record.fires, matched)
            wanted[site, i] = 2 * right / (record.fires + matched)
    agrees(found, wanted)
    assert found["why"].str.contains(r"\d+ of \d+ passages peak there: .*\[.\]").all()
    assert found["score"].max() <= 1


def test_matches_are_carried_to_tokens_of_any_length() -> None:
    strings = {3: "a", 5: " bc", 7: "\ndef", 9: "z"}
    random = np.random.default_rng(0)
    documents = [random.choice([3, 5, 7, 9], n).tolist() for n in (12, 0, 1, 40, 40)]
    starts = np.cumsum([0, *map(len, documents[:-1])])
    answers = iter(
        [
            {"document": np.arange(5), "start": starts},
            {"id": np.array([i for ids in documents for i in ids])},
        ]
    )
    index: Any = SimpleNamespace(columns=lambda _: next(answers), strings=strings)
    text, hits = Corpus(index), 0
    for pattern in ("a", "c", " b", r"c\s", "def", "ef a", "[ab]", "^a", "bc|de"):
        wanted = []
        for ids in documents:
            ends = list(itertools.accumulate(len(strings[i]) for i in ids))
            hit = set()
            for match in re.finditer(pattern, "".join(strings[i] for i in ids)):
                hit |= set(range(match.start(), match.end()))
            wanted += [
                bool(hit & set(range(end - len(strings[i]), end)))
                for i, end in zip(ids, ends, strict=True)
            ]
        mask = text.matched(re.compile(pattern))
        assert mask.tolist() == wanted, pattern
        hits += int(mask.sum())
        near = text.nearby(mask, 2)
        number = np.repeat(np.arange(5), [len(ids) for ids in documents])
        for i in range(len(mask)):
            around = [j for j in range(i - 2, i + 3) if 0 <= j < len(mask)]
            assert near[i] == any(mask[j] and number[j] == number[i] for j in around)
    assert hits > 100
    assert text.shown(13).endswith(f"[{strings[documents[3][0]]}]")
    assert text.shown(13)[0] == "[", "what stands before is of the same document"


# What features write.


def written(model: Model, suite: Any, site: Site) -> torch.Tensor:
    module: Any = model.module
    rows = suite.sae_at(site).W_dec
    if site.kind == "att":
        layer = module.model.layers[site.layer]
        gain = 1 + layer.post_attention_layernorm.weight
        rows = rows @ layer.self_attn.o_proj.weight.T * gain
    return rows / rows.norm(dim=1, keepdim=True)


def test_output_tokens(made: Index, search: Search, model: Model, suite: Any) -> None:
    module: Any = model.module
    token = model.tokenizer("q", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        wanted = {}
        for site in made.widths:
            logits = (written(model, suite, site) * (1 + module.model.norm.weight)) @ (
                module.lm_head.weight.T
            )
            effect = logits[:, token] - logits.mean(1)
            wanted |= {(site, i): float(x) for i, x in enumerate(effect)}
    found: Any = search.find("q", by="output", k=ALL)
    agrees(found, wanted, rel=1e-3)
    assert found["score"][0] > 1 > 0 > found["score"].iloc[-1]
    with pytest.raises(ValueError, match=r"'qu' is not one token but \['q', 'u'\]"):
        search.find("qu", by="output")


@pytest.mark.parametrize("kind", ["att", "res", "mlp"])
def test_decoders_by_cosine(
    made: Index, search: Search, model: Model, suite: Any, kind: Any
) -> None:
    with torch.no_grad():
        own = written(model, suite, Site(1, kind))[7]
        wanted = {
            (site, i): float(x)
            for site in made.widths
            for i, x in enumerate(written(model, suite, site) @ own)
            if (site, i) != (Site(1, kind), 7)
        }
    agrees(search.find(by="decoder", like=(1, 7), kind=kind, k=ALL), wanted, rel=1e-3)


def test_the_way_back_from_logits_is_the_transpose(model: Model) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=8)
    other = GPT2LMHeadModel(config)
    with torch.no_grad():
        other.transformer.ln_f.weight.normal_()
    for module in (model.module, other):
        known: Any = architecture_of(module)
        rows = known.unembedding(module)[3:9]
        direction = torch.randn(rows.shape[1])
        back = known.out_of_logits(module, rows) @ direction
        torch.testing.assert_close(
            back, known.into_logits(module, direction)[3:9], rtol=1e-3, atol=1e-4
        )


# On what features fire.


@pytest.mark.parametrize("negative", [[], ["red dogs", "far away on", "sat"]])
def test_what_fires_on_these_and_not_on_those(
    made: Index, search: Search, model: Model, suite: Any, negative: list[str]
) -> None:
    positive = ["the cat sat", "a mat and"]
    wanted, parts = {}, {}
    for site in made.widths:
        peaks = []
        for text in (*positive, *negative):
            ids = torch.tensor([[2, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                x = _activation(model, site, ids)[0, 1:]
                peaks.append(suite.sae_at(site).encode(x).max(0).values.numpy())
        acts = np.array(peaks)
        maximum = made.frame(site)["maximum"].to_numpy()
        share = np.minimum(acts / np.where(maximum > 0, maximum, np.maximum(acts.max(0), 1e-9)), 1)
        yes, no = share[:2].mean(0), share[2:].mean(0) if negative else np.zeros(len(maximum))
        score = (yes - no) / (share.std(0) + 0.02)
        wanted |= {(site, i): float(s) for i, s in enumerate(score) if s > 0}
        parts |= {(site, i): f"{yes[i]:.0%} of its maximum on these" for i in range(len(score))}
    found = search.find(by="fires", positive=positive, negative=negative, k=ALL)
    agrees(found, wanted, rel=1e-2)
    assert all(parts[r.site, r.feature] in r.why for r in rows_of(found.head(20)))


# The table.


def test_a_sparkline_is_as_high_as_its_counts() -> None:
    assert str(Sparkline(())) == ""
    assert {str(Sparkline((count,))) for count in range(1, 2000)} == {"█"}
    assert str(Sparkline((0, 1, 70, 35, 69))) == "▁▂█▅█"  # what is not 0 is not as low as 0
    assert str(Sparkline((*[1] * 12, *[3] * 12))) == "▄" * 6 + "█" * 6
    assert len(str(Sparkline((1,) * 25))) == 9  # threes, and one left over
    assert "▂▅█" in pd.DataFrame({"histogram": [Sparkline((1, 8, 16))]}).to_html()


def test_the_table_and_its_filters(made: Index, search: Search, labels: Any) -> None:
    density = {(s, i): made.feature(s, i).density for s, i in features(made)}
    low, high = np.quantile(list(density.values()), [0.3, 0.6])
    everything = {place for place in density if low <= density[place] <= high}
    found = search.find(by="density", density=(low, high), k=ALL)
    agrees(found, {place: density[place] for place in everything})
    assert list(found.columns) == COLUMNS
    for row in rows_of(found):
        record = made.feature(row.site, row.feature)
        assert row.histogram.counts == tuple(record.counts.tolist())
        assert row.density == record.density
        assert (row.layer, row.kind) == (row.site.layer, row.site.kind)
    options: list[dict[str, Any]] = [
        {"query": "capital"},
        {"query": "cat", "by": "example"},
        {"query": "q", "by": "output"},
        {"by": "decoder", "like": (1, 3)},
        {"by": "fires", "positive": ["the cat"]},
        {"by": "density"},
    ]
    filters = {"layers": [1], "kinds": ["res", "mlp"], "density": (low, high), "labelled": True}
    for one in options:
        whole = search.find(**one, k=ALL)
        keep = [
            site.layer == 1
            and site.kind in ("res", "mlp")
            and low <= density[site, i] <= high
            and bool(labels[site].get(i))
            for site, i in zip(whole["site"], whole["feature"], strict=True)
        ]
        some = search.find(**one, **filters, k=ALL)
        assert 0 < len(some) < len(whole)
        wanted = whole[keep].reset_index(drop=True)
        assert some[["site", "feature"]].equals(wanted[["site", "feature"]]), one
        np.testing.assert_allclose(list(some["score"]), list(wanted["score"]), rtol=1e-5)
        assert (
            search.find(**one, **filters, k=3)["feature"].tolist() == some["feature"][:3].tolist()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "labels"}, "by must be one of label, meaning, example, .* got 'labels'"),
        ({}, "by='label' needs a query"),
        ({"query": "a", "regex": True}, "by='label' takes no regex; by='example' does"),
        ({"query": "a", "like": (1, 2)}, "by='label' takes no like; by='decoder' does"),
        ({"query": "[", "by": "example", "regex": True}, r"'\[' is no regular expression"),
        ({"query": "a", "by": "example", "near": -1}, "near must be 0 or more tokens, got -1"),
        ({"by": "decoder"}, r"needs like=\(layer, index\)"),
        ({"by": "decoder", "like": (1, 40)}, "40"),
        ({"by": "fires"}, r"needs positive=\[text"),
        ({"by": "fires", "positive": [""]}, "prompt is empty"),
        ({"by": "density", "k": 0}, "k must be at least 1, got 0"),
        ({"by": "density", "density": (0.2, 0.1)}, r"density must be \(lowest, highest\)"),
        ({"by": "density", "layers": [9]}, r"no site with layers \[9\]: it has embed; layer 1 att"),
    ],
)
def test_what_does_not_fit_is_refused(search: Search, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search.find(**options)


def test_a_text_is_no_list_of_texts_and_some_searches_need_a_model(
    made: Index, search: Search
) -> None:
    with pytest.raises(TypeError, match="positive is a list of texts"):
        search.find(by="fires", positive="the cat")
    odd: list[Any] = [5, "ab", (0.1,), (0.1, 0.2, 0.3)]
    for density in odd:
        with pytest.raises(TypeError, match=r"density must be \(lowest, highest\), such as"):
            search.find(by="density", density=density)
    with pytest.raises(TypeError, match="query is a text, got 42"):
        search.find(42, by="example")  # pyright: ignore[reportArgumentType]
    alone = Search(made)
    assert len(alone.find("cat", by="example")) == 10
    both: list[Any] = [{"by": "output", "query": "q"}, {"by": "decoder", "like": (1, 2)}]
    for options in both:
        with pytest.raises(ValueError, match="needs a model and its SAEs"):
            alone.find(**options)


def test_lab_search_uses_the_index_and_the_labels_that_pocket_brings() -> None:
    lab = open_lab()
    found = lab.search("language de", kinds=["res"])
    assert found["label"].tolist()[:3] == ["language:de"] * 3
    layer, index = lab.feature("language:de")
    same = lab.search(by="decoder", like=(layer, index), k=3)
    assert "language:de" in same["label"].tolist()
    lab.feature_index = again = Index.open(lab.feature_index.path)
    assert lab.search("json key")["label"].tolist()[0] == "json_key"
    assert lab._search is not None
    assert lab._search.index is again
    lab.use(lab.sae(layer=2).select(range(9)))
    with pytest.raises(ValueError, match="made with another SAE at layer 2 res"):
        lab.search("json key")
