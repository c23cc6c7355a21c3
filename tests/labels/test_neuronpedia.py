"""Neuronpedia's exports and API: read as they are published, kept, and marked where wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from labels.servers import Exports, Reply, Server, serving

from workbench.labels import neuronpedia
from workbench.labels.files import NotLabelsError
from workbench.labels.neuronpedia import Neuronpedia
from workbench.labels.store import Labels
from workbench.labels.web import WebError
from workbench.sites import Site

MODEL, SOURCE = "gemma-2-2b", "20-gemmascope-res-16k"
BAD = "19-gemmascope-transcoder-16k"
SITE = Site(20, "res")


def feature(index: int, source: str = SOURCE) -> dict[str, Any]:
    """A line of ``features/``, with the fields of the export."""
    return {
        "modelId": MODEL,
        "layer": source,
        "index": str(index),
        "sourceSetName": "gemmascope-res-16k",
        "creatorId": "c1",
        "createdAt": "2024-07-28T01:02:03.000004",
        "maxActApprox": 88.3 + index,
        "hasVector": False,
        "vector": [],
        "topkCosSimIndices": [],
        "neg_str": [" cold", "ice"],
        "neg_values": [-1.5, -1.25],
        "pos_str": [" dog", "cat"],
        "pos_values": [1.75, 1.5],
        "frac_nonzero": 0.0037,
        "freq_hist_data_bar_heights": [100, 20, 3],
        "freq_hist_data_bar_values": [5.0, 15.0, 25.0],
        "decoder_weights_dist": [],
    }


def activation(index: int, number: int, value: float, source: str = SOURCE) -> dict[str, Any]:
    """A line of ``activations/``."""
    return {
        "id": f"act-{source}-{index}-{number}",
        "tokens": ["\n", " the", " dog", "s"],
        "dataIndex": None,
        "index": str(index),
        "layer": source,
        "modelId": MODEL,
        "maxValue": value,
        "maxValueTokenIndex": 2,
        "minValue": 0,
        "values": [0, 0.5, value, 1.25],
        "dfaValues": [],
        "creatorId": "c1",
        "createdAt": "2024-07-28T01:02:03",
        "binMin": 0.0,
        "binMax": 10.0,
        "binContains": 0.25,
        "qualifyingTokenIndex": 2,
    }


def explanation(index: int, text: str, source: str = SOURCE) -> dict[str, Any]:
    """A line of ``explanations/``; old rows have the embedding as text."""
    return {
        "id": f"exp-{source}-{index}",
        "modelId": MODEL,
        "layer": source,
        "index": str(index),
        "description": text,
        "authorId": "c2",
        "embedding": "[0.125,0.25]",
        "typeName": "oai_token-act-pair",
        "explanationModelName": "gpt-4o-mini",
        "notes": None,
        "createdAt": "2024-08-01T12:00:00.000Z",
    }


def batch(lines: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())


def exported(source: str = SOURCE) -> dict[str, bytes]:
    """Two batches of each part, and what else lies there."""
    texts = ["dogs", "cats", "", "birds"]
    files = {}
    for number in (0, 1):
        mine = [2 * number, 2 * number + 1]
        parts = {
            "features": [feature(i, source) for i in mine],
            "activations": [
                activation(i, n, v, source) for i in mine for n, v in enumerate((3.0, 7.5, 5.0))
            ],
            "explanations": [explanation(i, texts[i], source) for i in mine],
        }
        for part, lines in parts.items():
            files[f"v1/{MODEL}/{source}/{part}/batch-{number}.jsonl.gz"] = batch(lines)
    files[f"v1/{MODEL}/{source}/explanations/drafts/batch-9.jsonl.gz"] = b"no gzip"
    files[f"v1/{MODEL}/{source}/source.jsonl"] = b"{}\n"
    return files


def answered(index: int) -> dict[str, Any]:
    """The API's answer."""
    said = {k: v for k, v in explanation(index, "dogs and cats").items() if k != "embedding"}
    score = {"value": 0.71, "explanationScoreTypeName": "eleuther_fuzz"}
    return {
        **feature(index),
        "activations": [activation(index, n, v) for n, v in enumerate((3.0, 7.5))],
        "explanations": [{**said, "scores": [{**score, "explanationScoreModelName": "judge"}]}],
        "comments": [],
        "lists": [],
    }


@pytest.fixture
def server() -> Iterator[Server]:
    files = exported() | exported(BAD)
    with serving(Exports(files, {f"{MODEL}/{SOURCE}/12": answered(12)})) as found:
        yield found


@pytest.fixture
def pages(server: Server, tmp_path: Path, pauses: list[float]) -> Iterator[Neuronpedia]:
    with Neuronpedia(tmp_path / "np.sqlite", address=server.url, exports=server.url) as found:
        yield found


def test_a_feature_is_asked_for_once_and_then_offline(server: Server, pages: Neuronpedia) -> None:
    page = pages.feature(MODEL, SOURCE, 12)
    assert [r.path for r in server.requests] == [f"/api/feature/{MODEL}/{SOURCE}/12"]
    assert (page.density, page.maximum) == (0.0037, pytest.approx(100.3))
    assert page.promoted == ((" dog", 1.75), ("cat", 1.5))
    assert page.suppressed[0] == (" cold", -1.5)
    assert page.heights.tolist() == [100, 20, 3]
    assert page.edges.tolist() == [5, 15, 25]
    assert [e.value for e in page.examples] == [7.5, 3.0]
    assert page.examples[0].tokens[page.examples[0].at] == " dog"
    assert page.examples[0].activations == (0, 0.5, 7.5, 1.25)
    assert page.explanations == (("dogs and cats", "gpt-4o-mini", "oai_token-act-pair"),)
    assert page.address == f"https://www.neuronpedia.org/{MODEL}/{SOURCE}/12"
    assert page.address in repr(page)
    assert not page.warning
    pages.close()
    with Neuronpedia(pages.path, address=server.url, offline=True) as again:
        assert repr(again.feature(MODEL, SOURCE, 12)) == repr(page)
        with pytest.raises(WebError, match="offline=True"):
            again.feature(MODEL, SOURCE, 13)
        with pytest.raises(WebError, match="offline=True"):
            again.fetch(MODEL, SOURCE)
    assert len(server.requests) == 1


def test_a_feature_that_is_not_there_is_told(pages: Neuronpedia) -> None:
    with pytest.raises(WebError, match=r"api/feature/gemma-2-2b/.*/99 does not exist \(404\)"):
        pages.feature(MODEL, SOURCE, 99)


def test_the_answer_of_another_feature_is_not_kept(server: Server, pages: Neuronpedia) -> None:
    server.answer = Exports({}, {f"{MODEL}/{SOURCE}/12": answered(13)})
    with pytest.raises(WebError, match="something else than that feature"):
        pages.feature(MODEL, SOURCE, 12)
    assert "nothing yet" in repr(pages)


def test_the_rate_limit_is_obeyed(
    server: Server, pages: Neuronpedia, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, kept_apart = [100.0], []

    def sleep(seconds: float) -> None:
        kept_apart.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(neuronpedia, "monotonic", lambda: clock[0])
    monkeypatch.setattr(neuronpedia, "sleep", sleep)
    server.faults = [Reply(429, b"{}", {"Retry-After": "9"})]
    pages.feature(MODEL, SOURCE, 12)
    assert pauses == [9]
    server.answer = Exports({}, {f"{MODEL}/{SOURCE}/{i}": answered(i) for i in range(3)})
    for index in range(3):
        pages.feature(MODEL, SOURCE, index)
    assert kept_apart == pytest.approx([0] + [neuronpedia.DISTANCE] * 3)
    assert 3600 / neuronpedia.DISTANCE < 25_000
    server.faults = [Reply(429, b'{"requestWindow": "60 m"}', {"Retry-After": "1800"})]
    with pytest.raises(WebError, match=r"in 1800 seconds.*60 m"):
        pages.feature(MODEL, SOURCE, 3)


def test_the_key_goes_to_the_api_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONPEDIA_API_KEY", "TopSecret")
    with Neuronpedia(tmp_path / "np.sqlite", address=server.url, exports=server.url) as pages:
        pages.feature(MODEL, SOURCE, 12)
        pages.fetch(MODEL, SOURCE, progress=False)
    sent = [request.headers.get("x-api-key") for request in server.requests]
    assert sent == ["TopSecret"] + [None] * (len(sent) - 1)
    assert len(sent) > 3
    assert b"TopSecret" not in pages.path.read_bytes()


def test_an_export_is_fetched_once_and_joined(server: Server, pages: Neuronpedia) -> None:
    parts = ("features", "activations", "explanations")
    assert pages.fetch(MODEL, SOURCE, parts, progress=False) == 4 + 12 + 4
    fetched = [r.path for r in server.requests if r.path.endswith(".gz")]
    assert len(fetched) == 6
    assert not any("drafts" in path for path in fetched)
    assert pages.fetch(MODEL, SOURCE, parts, progress=False) == 0
    assert len([r for r in server.requests if r.path.endswith(".gz")]) == 6
    page = pages.feature(MODEL, SOURCE, 3)
    assert not any("/api/" in r.path for r in server.requests)
    assert page.maximum == pytest.approx(91.3)
    assert [e.value for e in page.examples] == [7.5, 5.0, 3.0]
    assert page.explanations[0][0] == "birds"


def test_a_folder_that_was_downloaded_gives_the_same(
    server: Server, pages: Neuronpedia, tmp_path: Path
) -> None:
    for name, content in exported().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert pages.load(tmp_path / "v1" / MODEL / SOURCE, progress=False) == 20
    local = pages.feature(MODEL, SOURCE, 1)
    assert not server.requests
    with Neuronpedia(tmp_path / "b.sqlite", address=server.url, exports=server.url) as other:
        other.fetch(MODEL, SOURCE, ("features", "activations", "explanations"), progress=False)
        assert repr(other.feature(MODEL, SOURCE, 1)) == repr(local)
        assert other.feature(MODEL, SOURCE, 1).examples[0].tokens == local.examples[0].tokens
    with pytest.raises(ValueError, match="give the folder model/source"):
        pages.load(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-20],
        lambda content: b"not gzip",
        lambda content: gzip.compress(b'{"modelId": "gemma-2-2b"\n'),
        lambda content: batch([explanation(0, "dogs"), explanation(1, "x", "another-source")]),
    ],
    ids=["cut", "no gzip", "no JSON", "another source"],
)
def test_a_damaged_file_is_told_and_the_rest_comes_later(
    spoil, server: Server, pages: Neuronpedia
) -> None:
    name = f"v1/{MODEL}/{SOURCE}/explanations/batch-1.jsonl.gz"
    files = exported()
    server.answer = Exports(files | {name: spoil(files[name])}, {})
    with pytest.raises(ValueError, match=r"explanations/batch-1.jsonl.gz of gemma-2-2b.* damaged"):
        pages.fetch(MODEL, SOURCE, progress=False)
    labels, _ = pages.labels(MODEL, SOURCE, SITE)
    assert [label.text for label in labels] == ["dogs", "cats"]
    server.answer = Exports(files, {})
    assert pages.fetch(MODEL, SOURCE, progress=False) == 2


def test_a_source_that_is_not_there_is_told(pages: Neuronpedia) -> None:
    with pytest.raises(WebError, match="no explanations of gemma-2-2b/nothing") as at:
        pages.fetch(MODEL, "nothing", progress=False)
    assert at.value.reason == "missing"
    with pytest.raises(ValueError, match="parts are features"):
        pages.fetch(MODEL, SOURCE, ("weights",), progress=False)  # pyright: ignore[reportArgumentType]


def test_explanations_become_labels_with_their_source(pages: Neuronpedia, tmp_path: Path) -> None:
    pages.fetch(MODEL, SOURCE, progress=False)
    pages.feature(MODEL, SOURCE, 12)
    with Labels(tmp_path / "labels.sqlite", model=MODEL) as labels:
        for _ in range(2):  # the second time adds nothing
            found, ids = pages.labels(MODEL, SOURCE, SITE)
            labels.add_all(found, ids=ids)
        frame = labels.frame()
        assert frame["label"].tolist() == ["dogs", "cats", "birds", "dogs and cats"]
        assert frame["feature"].tolist() == [0, 1, 3, 12]
        assert len(labels.history(SITE, 0)) == 1
        label = labels.label(SITE, 12)
        assert label is not None
        assert (label.method, label.author) == ("neuronpedia", "gpt-4o-mini")
        assert label.source == f"Neuronpedia {MODEL}/{SOURCE}, oai_token-act-pair"
        assert label.date == datetime(2024, 8, 1, 12, tzinfo=UTC)
        assert (label.score, label.measure) == (0.71, "eleuther_fuzz by judge")
        assert label.details["address"].endswith(f"{SOURCE}/12")
        assert labels.label(SITE, 0).score is None  # pyright: ignore[reportOptionalMemberAccess]


def test_dashboards_that_are_known_to_be_wrong_are_marked(
    pages: Neuronpedia, tmp_path: Path
) -> None:
    pages.fetch(MODEL, BAD, ("features", "explanations"), progress=False)
    page = pages.feature(MODEL, BAD, 0)
    assert "before the norm" in page.warning
    assert "WARNING" in repr(page)
    site = Site(19, "transcoder")
    found, ids = pages.labels(MODEL, BAD, site)
    with Labels(tmp_path / "labels.sqlite", model=MODEL) as labels:
        labels.add_all(found, ids=ids)
        label = labels.label(site, 0)
        assert label is not None
        assert "before the norm" in label.warning
        assert "WARNING" in label.provenance
        assert labels.frame()["warning"].str.contains("before the norm").all()


@pytest.mark.parametrize("layer", [0, 13, 25])
def test_every_transcoder_of_gemma_2_2b_is_known_bad_and_nothing_else(layer: int) -> None:
    from workbench.labels.neuronpedia_pages import flaw

    assert flaw("gemma-2-2b", f"{layer}-gemmascope-transcoder-16k")
    for model, source in (
        ("gemma-2-2b", f"{layer}-gemmascope-res-16k"),
        ("gemma-2-2b", f"{layer}-gemmascope-mlp-16k"),
        ("gemma-3-1b", f"{layer}-gemmascope-2-transcoder-16k"),
    ):
        assert not flaw(model, source)


def test_another_file_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "np.sqlite"
    with Labels(path, model="m") as labels:
        labels.set((5, 1), "x")
    before = path.read_bytes()
    with pytest.raises(NotLabelsError, match="holds no data of Neuronpedia; it was left as it was"):
        Neuronpedia(path)
    assert path.read_bytes() == before
