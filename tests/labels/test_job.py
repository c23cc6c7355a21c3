"""Labels by a language model: shown first, scored on what was held out, never asked for twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from labels.cases import SITE, WORDS, fires_on, make
from labels.servers import Reply, Request, Server, as_json, chat, reader, serving

from workbench.labels.endpoint import Endpoint
from workbench.labels.examples import Material
from workbench.labels.job import Autolabel
from workbench.labels.scoring import judge, parts, read_judgement, scoring_messages, trials
from workbench.labels.store import Labels
from workbench.labels.web import WebError
from workbench.sites import Site

ROOT = Path(__file__).resolve().parents[2]
FEATURES = [(SITE, index) for index in range(4)]
EACH = 1 + 4 + 4
"""Requests of a feature: one to explain, 20 passages for each of two scores, five in a request."""
RUN = """
import sys
sys.path[:0] = sys.argv[3:]
from labels.cases import SITE, make
from workbench.labels import Autolabel, Endpoint, Labels
endpoint = Endpoint("reader", sys.argv[1], key=None, parallel=1)
labels = Labels(sys.argv[2], model="m")
job = Autolabel(labels, [(SITE, i) for i in range(4)], make, method="explain", writer=endpoint)
job.run(progress=False)
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(reader) as found:
        yield found


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    with Labels(tmp_path / "labels.sqlite", model="m", author="ann") as found:
        yield found


def job(labels: Labels, server: Server, **options: Any) -> Autolabel:
    given = {"parallel": 1, **options}
    writer = Endpoint("reader", server.url, key=None, **given)
    return Autolabel(labels, FEATURES, make, method="explain", writer=writer)


def test_cost_and_time_are_known_before_anything_is_asked(labels: Labels, server: Server) -> None:
    found = job(labels, server, price=(2.0, 10.0))
    plan = found.plan()
    assert (plan.features, plan.done, plan.requests) == (4, 0, 4 * EACH)
    assert plan.cost == pytest.approx((2.0 * plan.read + 10.0 * plan.written) / 1e6)
    assert plan.seconds == 2.0 * plan.requests
    assert plan.sends_to in server.url
    host = server.url.removeprefix("http://")
    assert f"passages of the corpus are sent to {host}" in repr(found)
    assert "cost unknown" in repr(job(labels, server))
    assert not server.requests
    found.run(progress=False)
    asked = sum(len(m["content"]) for r in server.requests for m in r.body["messages"])
    assert plan.read == pytest.approx(asked / 4, rel=0.25)
    assert len(server.requests) == plan.requests
    assert found.plan().requests == 0
    assert found.plan().done == 4


def test_a_model_that_understands_names_and_scores_every_feature(
    labels: Labels, server: Server
) -> None:
    table = job(labels, server, parallel=3).run(progress=False)
    assert table["label"].tolist() == list(WORDS[:4])
    assert table["detection"].tolist() == [1.0] * 4
    assert table["fuzzing"].tolist() == [1.0] * 4
    assert not any(table["problem"])
    label = labels.label(SITE, 2)
    assert label is not None
    assert (label.text, label.method, label.score) == ("tree", "explain", 1.0)
    assert "reader at 127.0.0.1" in label.author
    assert label.measure == "balanced accuracy of detection and fuzzing"
    assert label.details["fuzzing"] == {"score": 1.0, "answered": 20, "asked": 20}


@pytest.mark.parametrize("measure", ["detection", "fuzzing"])
def test_the_label_of_another_feature_scores_chance(measure, server: Server) -> None:
    endpoint = Endpoint("reader", server.url, key=None)
    for label, expected in (("cat", 1.0), ("anchor", 0.5)):
        found = trials(fires_on("cat", 0), measure, count=20)
        judgements = [
            read_judgement(
                endpoint.write(scoring_messages(label, part, measure), longest=9).text, len(part)
            )
            for part in parts(found)
        ]
        assert judge(found, judgements).score == expected
    endpoint.close()


def test_a_label_is_scored_on_what_it_was_not_made_from(server: Server, labels: Labels) -> None:
    job(labels, server).run(progress=False)
    material = make(SITE, 0)
    explaining = server.requests[0].body["messages"][1]["content"]
    scoring = "".join(r.body["messages"][0]["content"] for r in server.requests[1:EACH])
    plain = explaining.replace("<<", "").replace(">>", "")
    assert all(p.text in plain for p in material.shown)
    assert not any(p.text in plain for p in material.held + material.held_quiet)
    assert not any(p.text in scoring for p in material.shown + material.quiet)
    assert sum(p.text in scoring for p in material.held) == 10
    # In order of strength it would read 1s first.
    assert [t.truth for t in trials(material, "detection", count=20)] not in (
        [True] * 10 + [False] * 10,
        [False] * 10 + [True] * 10,
    )


def test_what_was_done_is_not_asked_again(labels: Labels, server: Server) -> None:
    first = job(labels, server)
    before = first.run(progress=False)
    count, history = len(server.requests), len(labels.history(SITE, 0))
    again = job(labels, server)
    assert again.plan().done == 4
    assert again.run(progress=False).equals(before)
    assert len(server.requests) == count
    assert len(labels.history(SITE, 0)) == history == 1
    other = Endpoint("another", server.url, key=None)
    assert Autolabel(labels, FEATURES, make, method="explain", writer=other).plan().requests


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path) -> None:
    killed_at = EACH + 5
    arrived = threading.Event()
    process: list[subprocess.Popen] = []

    def answer(request: Request) -> Reply:
        if len(server.requests) == killed_at:
            process[0].send_signal(signal.SIGKILL)
            process[0].wait()
            arrived.set()
        return reader(request)

    with serving(answer) as server, Labels(tmp_path / "whole.sqlite", model="m") as whole:
        path = tmp_path / "killed.sqlite"
        command = [sys.executable, "-c", RUN, server.url, str(path), str(ROOT), str(ROOT / "tests")]
        process.append(subprocess.Popen(command, env={**os.environ, "NO_PROXY": "127.0.0.1"}))
        assert arrived.wait(120), process[0].poll()
        assert process[0].returncode == -signal.SIGKILL
        with Labels(path, model="m") as labels:
            # The first feature is done, of the second four answers came: one was under way.
            left = job(labels, server)
            assert left.plan().done == 1
            table = left.run(progress=False)
            assert left.asked["requests"] == 4 * EACH - (killed_at - 1)
            assert table.equals(job(whole, server).run(progress=False))
            assert labels.frame()["label"].tolist() == whole.frame()["label"].tolist()


def test_a_stopped_job_goes_on_where_it_was(labels: Labels) -> None:
    stop = threading.Event()

    def answer(request: Request) -> Reply:
        if len(server.requests) == EACH + 3:
            stop.set()
        return reader(request)

    with serving(answer) as server:
        table = job(labels, server).run(progress=False, stop=stop)
        assert table["label"].tolist() == ["cat"]
        assert len(server.requests) == EACH + 3
        assert job(labels, server).run(progress=False)["label"].tolist() == list(WORDS[:4])
        assert len(server.requests) == 4 * EACH


def test_a_key_that_is_not_accepted_ends_the_job_and_keeps_what_is_done(
    labels: Labels,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-TopSecret12345")

    def answer(request: Request) -> Reply:
        late = len(other.requests) > EACH
        return (
            as_json({"error": request.headers["authorization"]}, 401) if late else reader(request)
        )

    with serving(answer) as other:
        endpoint = Endpoint("reader", other.url, key="TEST_KEY", parallel=1)
        found = Autolabel(labels, FEATURES, make, method="explain", writer=endpoint)
        with caplog.at_level("DEBUG"), pytest.raises(WebError, match="key in TEST_KEY"):
            found.run(progress=False)
        assert len(other.requests) == EACH + 1
    assert labels.frame()["label"].tolist() == ["cat"]
    labels.close()
    assert "TopSecret" not in caplog.text + repr(found) + repr(vars(found))
    assert b"TopSecret" not in labels.path.read_bytes()
    assert other.requests[0].headers["authorization"] == "Bearer sk-TopSecret12345"


class Inline(Executor):
    """Runs a whole job before anybody looks at what came of it, as a busy machine may."""

    def __init__(self, _parallel: int) -> None: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def test_nothing_is_asked_after_a_refused_key_however_late_it_is_noticed(
    labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.labels.job.ThreadPoolExecutor", Inline)
    with serving(lambda request: as_json({}, 401)) as other:
        endpoint = Endpoint("reader", other.url, parallel=1)
        found = Autolabel(labels, FEATURES, make, method="explain", writer=endpoint)
        with pytest.raises(WebError, match="401"):
            found.run(progress=False)
        assert len(other.requests) == 1


def test_what_a_model_says_without_sense_is_a_problem_of_that_feature(labels: Labels) -> None:
    def answer(request: Request) -> Reply:
        prompt = request.body["messages"][-1]["content"]
        if "LABEL" in request.body["messages"][0]["content"]:
            if "dog" in prompt:
                return chat("I would rather not say.")
            if "tree" in prompt:
                return as_json({"error": "content policy"}, 400)
        if "moon" in prompt and "Below are" in prompt and "fires on" in prompt:
            return chat("yes, no, maybe")
        return reader(request)

    with serving(answer) as server:
        table = job(labels, server).run(progress=False)
    assert table["label"].tolist()[:3] == ["cat", "", ""]
    assert "has no label in it" in table["problem"][1]
    assert "content policy" in table["problem"][2]
    assert labels.label(SITE, 1) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("Passage [1] fires. So: [0, 0, 1]", [False, False, True]),
        ("[true, false, true]", [True, False, True]),
        ("[1, 0]", None),
        ("[1, 0, 2]", None),
        ("1, 0, 1", None),
        ("[1, 0, x]", None),
        ("", None),
    ],
)
def test_judgements_are_read_or_left_out(answer: str, expected: list[bool] | None) -> None:
    assert read_judgement(answer, 3) == expected


def test_the_score_is_the_mean_of_both_shares() -> None:
    found = trials(fires_on("cat", 0), "detection", count=20)
    said = [True if t.truth else i % 5 == 0 for i, t in enumerate(found)]
    false = [s for s, t in zip(said, found, strict=True) if not t.truth]
    wanted = (1 + 1 - sum(false) / len(false)) / 2
    assert 0 < sum(false) < len(false)
    cut = [said[i : i + 5] for i in range(0, 20, 5)]
    assert judge(found, cut).score == pytest.approx(wanted)
    two_lost = judge(found, [*cut[:2], None, None])
    assert two_lost.answered == 10
    assert judge(found, [cut[0], None, None, None]).score is None
    assert judge(found, [[True] * 5] * 4).score == 0.5


def test_a_feature_that_is_never_quiet_has_a_label_and_no_score(
    labels: Labels, server: Server
) -> None:
    def always(site: Site, index: int) -> Material:
        found = make(site, index)
        return Material(site, index, found.maximum, found.shown, (), found.held, ())

    endpoint = Endpoint("reader", server.url, key=None, parallel=1)
    found = Autolabel(labels, FEATURES[:1], always, method="explain", writer=endpoint)
    table = found.run(progress=False)
    assert table["label"].tolist() == ["cat"]
    assert table["score"].tolist() == [None]
    assert "nothing to score it on" in table["problem"][0]
    assert len(server.requests) == 1


def test_what_is_missing_is_told(labels: Labels) -> None:
    with pytest.raises(ValueError, match="needs a language model"):
        Autolabel(labels, FEATURES, make, method="explain")
    with pytest.raises(ValueError, match="'automatic' or 'explain', got 'magic'"):
        Autolabel(labels, FEATURES, make, method="magic")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"got \['simulation'\]"):
        Autolabel(labels, FEATURES, make, scores=["simulation"])  # pyright: ignore[reportArgumentType]
