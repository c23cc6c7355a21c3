"""Label many features: shown first, then run; stopped or killed, the same call goes on.

What a job will do is known before it does anything: how many features and requests, how many tokens
go out and come back, what that costs and how long it takes, and to whom passages are sent. Each
answer is kept when it comes and each label when it is made: nothing is asked for twice.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from workbench.features import logit_effects
from workbench.index import Index
from workbench.labels import explain, scoring
from workbench.labels.automatic import automatic_label
from workbench.labels.endpoint import Answer, Messages, Writer
from workbench.labels.examples import Material, Pool, material
from workbench.labels.records import Label
from workbench.labels.store import Labels
from workbench.labels.web import WebError
from workbench.models import Model
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import strings_of

JobMethod = Literal["automatic", "explain"]
COLUMNS = ["layer", "kind", "feature", "label", "score", "detection", "fuzzing", "problem"]
GUESSED_SECONDS = 2.0
"""For an answer of a language model that never gave one here."""
WRITTEN_TO_EXPLAIN, WRITTEN_TO_JUDGE = 90, 12
"""Tokens that an answer has, about."""
TYPICAL_LABEL = "x" * 60
AUTOMATIC_SECONDS = 0.2
LOOKED_AT = 50
"""Features that an estimate is made from."""
STANDS_OUT = 6.0
"""Standard deviations above the mean of all tokens from which on a promoted token is named."""


@dataclass(frozen=True)
class Plan:
    """What a job will do."""

    features: int
    done: int
    """Features that have such a label already."""
    requests: int
    read: int
    """Tokens that go out, about."""
    written: int
    """Tokens that come back, about."""
    cost: float | None
    """In the currency of the price; None if the price is not known."""
    seconds: float
    sends_to: str

    def __str__(self) -> str:
        done = f" ({self.done:,} done already)" if self.done else ""
        time = f"about {_duration(self.seconds)}"
        if not self.requests and not self.sends_to:
            return f"{self.features:,} features{done}, no network, {time}"
        cost = (
            "cost unknown: give price=(for a million tokens read, written)"
            if self.cost is None
            else f"cost about {self.cost:.2f}"
        )
        where = f"; passages of the corpus are sent to {self.sends_to}" if self.sends_to else ""
        return (
            f"{self.features:,} features{done}, {self.requests:,} requests, about {self.read:,} "
            f"tokens out and {self.written:,} back, {cost}, {time}{where}"
        )


class Autolabel:
    """A job: look at it, then `run` it."""

    def __init__(
        self,
        labels: Labels,
        features: Sequence[tuple[Site, int]],
        make: Callable[[Site, int], Material],
        *,
        method: JobMethod = "automatic",
        writer: Writer | None = None,
        passages: int = 20,
        scores: Sequence[scoring.Measure] = ("detection", "fuzzing"),
        seed: int = 0,
    ) -> None:
        """Nothing is asked yet.

        Args:
            labels: Where labels and answers are kept.
            features: Site and number of each.
            make: Gives what is known of one.
            method: ``"automatic"`` by rule, or ``"explain"`` by a language model.
            writer: The language model.
            passages: Held-out passages to score on, for each score.
            scores: ``"detection"``, ``"fuzzing"`` or both; what scores are asked for.
            seed: Of the choice of passages.

        Raises:
            ValueError: For another method or score, or a language model that is missing.
        """
        if method not in get_args(JobMethod):
            raise ValueError(f"method must be 'automatic' or 'explain', got {method!r}")
        unknown = set(scores) - set(get_args(scoring.Measure))
        if unknown:
            raise ValueError(f"scores are 'detection' and 'fuzzing', got {sorted(unknown)}")
        if method == "explain" and writer is None:
            raise ValueError(
                "method='explain' needs a language model: writer=Endpoint('model', url) or "
                "writer=LocalModel(wb.open('gemma-2-2b-it').engine), of workbench.labels"
            )
        self.labels, self.features, self.method = labels, tuple(features), method
        self._make = make
        self._passages, self._scores, self._seed = passages, tuple(scores), seed
        self._writer = writer
        self.asked: dict[str, float] = {"requests": 0, "read": 0, "written": 0}
        """What this object has asked for so far, kept answers not counted."""
        self._count, self._stop = threading.Lock(), [threading.Event()]

    def __repr__(self) -> str:
        by = f" by {self._writer.name}" if self._writer else ""
        return f"<Autolabel, {self.method}{by}: {self.plan()}; .run() starts it>"

    @property
    def source(self) -> str:
        """What the labels name as their source."""
        return f"{self._writer.name}, {explain.VERSION}" if self._writer else ""

    def plan(self) -> Plan:
        """What is left to do, from some features if there are many; asks nobody."""
        features = len(self.features)
        if self._writer is None or self.method == "automatic":
            return Plan(features, 0, 0, 0, 0, 0.0, AUTOMATIC_SECONDS * features, "")
        todo = [one for one in self.features if self._done(*one) is None]
        looked_at = todo[:: max(1, len(todo) // LOOKED_AT)]
        requests = read = written = 0
        for one in looked_at:
            for messages, expected in self._messages(self._make(*one)):
                if self.labels.answer(self._key(messages, expected)) is None:
                    requests += 1
                    read += self._writer.count(messages)
                    written += expected[1]
        share = len(todo) / max(len(looked_at), 1)
        requests, read, written = (round(n * share) for n in (requests, read, written))
        price = self._writer.price
        cost = None if price is None else (read * price[0] + written * price[1]) / 1e6
        each = self.labels.seconds_an_answer(self._writer.name) or GUESSED_SECONDS
        seconds = requests * each / self._writer.parallel
        done, where = features - len(todo), self._writer.sends_to
        return Plan(features, done, requests, read, written, cost, seconds, where)

    def _messages(self, one: Material) -> Iterator[tuple[Messages, tuple[int, int]]]:
        """All that will be asked of a feature, with a label of typical length."""
        if not one.shown:
            return
        yield explain.explain_messages(one), (explain.LONGEST_ANSWER, WRITTEN_TO_EXPLAIN)
        for measure in self._scores:
            found = scoring.trials(one, measure, count=self._passages, seed=self._seed)
            for part in scoring.parts(found):
                messages = scoring.scoring_messages(TYPICAL_LABEL, part, measure)
                yield messages, (scoring.LONGEST_ANSWER, WRITTEN_TO_JUDGE)

    def run(self, *, progress: bool = True, stop: threading.Event | None = None) -> pd.DataFrame:
        """Do it; what was done before is not done again.

        Args:
            progress: Show a bar.
            stop: Set it, or interrupt, to stop after the requests under way.

        Returns:
            Columns ``layer, kind, feature, label, score, detection, fuzzing, problem``, one row for
            each feature that was reached; ``problem`` says why one has no label.

        Raises:
            WebError: If the language model cannot be had; what was done is kept.
        """
        self._stop = [threading.Event()] if stop is None else [threading.Event(), stop]
        parallel = 1 if self._writer is None else self._writer.parallel
        rows = []
        bar = tqdm(total=len(self.features), desc="labels", unit="feature", disable=not progress)
        pool = ThreadPoolExecutor(parallel)
        work = [pool.submit(self._one, *one) for one in self.features]
        try:
            for future in work:
                row = future.result()
                if row is not None:
                    rows.append(row)
                    bar.update()
        except KeyboardInterrupt:
            pass  # what is finished is returned
        finally:
            self._stop[0].set()
            pool.shutdown(wait=True, cancel_futures=True)
            bar.close()
            if self._writer is not None:
                self._writer.close()
        return pd.DataFrame(rows, columns=COLUMNS)

    @property
    def _stopped(self) -> bool:
        return any(event.is_set() for event in self._stop)

    def _one(self, site: Site, index: int) -> list[Any] | None:
        """Label one feature; its row, or None if the job was stopped first."""
        if self._stopped:
            return None
        done = self._done(site, index) if self.method == "explain" else None
        if done is not None:
            return _row(site, index, done, "")
        material = self._make(site, index)
        if not material.shown:
            return _row(site, index, None, "it fires nowhere in the index")
        if self.method == "automatic":
            return _row(site, index, self._by_rule(material), "")
        try:
            label, problem = self._explained(material)
        except _StoppedError:
            return None
        except WebError as error:
            if error.reason != "refused":  # these others would meet every feature
                self._stop[0].set()  # before this thread takes the next one
                raise
            return _row(site, index, None, str(error))
        if label is not None:
            label = self.labels.add(label)
        return _row(site, index, label, problem)

    def _by_rule(self, material: Material) -> Label | None:
        label = automatic_label(material)
        before = self.labels.label(material.site, material.index, method="automatic")
        if label is None:
            return None
        if before and (before.text, before.score) == (label.text, label.score):
            return before
        return self.labels.add(label)

    def _done(self, site: Site, index: int) -> Label | None:
        """The label that this job would make, if it is there."""
        found = self.labels.label(site, index, method=self.method)
        return found if found is not None and found.source == self.source else None

    def _explained(self, material: Material) -> tuple[Label | None, str]:
        assert self._writer is not None
        asked = explain.explain_messages(material)
        text = explain.read_label(self._ask(asked, explain.LONGEST_ANSWER).text)
        if text is None:
            return None, f"the answer of {self._writer.name} has no label in it"
        scores = {measure: self._score(material, text, measure) for measure in self._scores}
        known = [one.score for one in scores.values() if one.score is not None]
        details = {
            name: {"score": one.score, "answered": one.answered, "asked": one.asked}
            for name, one in scores.items()
        }
        scored = [name for name, one in scores.items() if one.score is not None]
        measure = f"balanced accuracy of {' and '.join(scored)}"
        label = Label(
            material.site, material.index, text, "explain",
            sum(known) / len(known) if known else None, measure if known else "",
            author=self._writer.name, source=self.source, details=details,
        )  # fmt: skip
        return label, "" if known else "nothing to score it on, or no sensible answers"

    def _score(self, material: Material, text: str, measure: scoring.Measure) -> scoring.Judged:
        found = scoring.trials(material, measure, count=self._passages, seed=self._seed)
        judgements = []
        for part in scoring.parts(found):
            messages = scoring.scoring_messages(text, part, measure)
            answer = self._ask(messages, scoring.LONGEST_ANSWER)
            judgements.append(scoring.read_judgement(answer.text, len(part)))
        return scoring.judge(found, judgements)

    def _ask(self, messages: Messages, longest: int) -> Answer:
        """An answer, from the file if it was given before."""
        assert self._writer is not None
        key = self._key(messages, (longest, 0))
        kept = self.labels.answer(key)
        if kept is not None:
            return Answer(*kept)
        if self._stopped:
            raise _StoppedError
        answer = self._writer.write(messages, longest=longest)
        self.labels.keep_answer(
            key, self._writer.name, answer.text, answer.read, answer.written, answer.seconds
        )
        with self._count:
            self.asked["requests"] += 1
            self.asked["read"] += answer.read
            self.asked["written"] += answer.written
        return answer

    def _key(self, messages: Messages, expected: tuple[int, int]) -> str:
        assert self._writer is not None
        asked = json.dumps([self._writer.identity, [dict(m) for m in messages], expected[0]])
        return hashlib.blake2b(asked.encode(), digest_size=20).hexdigest()


def autolabel(
    labels: Labels,
    index: Index,
    model: Model,
    suite: Suite,
    features: Sequence[tuple[int, int]] | None,
    *,
    kind: Kind = "res",
    tokens: int = 24_576,
    **options: Any,
) -> Autolabel:
    """A job over features of a lab.

    Args:
        labels: Where they are kept.
        index: What is known of the features.
        model: The model of the index.
        suite: Its SAEs.
        features: ``(layer, index)`` of each; all that fire in the index if None.
        kind: Kind of site.
        tokens: Of random documents that the model reads, to know where features do not fire.
        options: Of `Autolabel`.

    Raises:
        ValueError: If the index lacks a feature, or an option is impossible.
    """
    if features is None:
        sites = [site for site in index.sites if site.kind == check_kind(kind)]
        chosen = [
            (site, int(i)) for site in sites for i in np.flatnonzero(index.densities(site) > 0)
        ]
    else:
        chosen = [(Site(layer, check_kind(kind)), int(i)) for layer, i in features]
        for site in {site for site, _ in chosen}:
            most = len(index.densities(site)) - 1
            wrong = [i for where, i in chosen if where == site and not 0 <= i <= most]
            if wrong:
                raise ValueError(f"feature {wrong[0]} does not exist at {site}: 0 to {most}")
    pools: list[Pool] = []

    def make(site: Site, feature: int) -> Material:
        with lock:
            if not pools:  # read when it is first needed
                pools.append(Pool(index, model, suite, {s for s, _ in chosen}, tokens=tokens))
        written = promoted(model, suite, site, feature)
        return material(index, pools[0], site, feature, promoted=written)

    lock = threading.Lock()
    return Autolabel(labels, chosen, make, **options)


def promoted(model: Model, suite: Suite, site: Site, feature: int, *, k: int = 4) -> list[str]:
    """The tokens that a feature makes most likely, as far as they stand out among all.

    None of attention sites, whose features write before the output projection.
    """
    if site.kind == "att":
        return []
    effects = logit_effects(model.module, suite.sae_at(site).direction(feature)).float()
    best = effects.topk(k)
    clear = (best.values - effects.mean()) / effects.std() >= STANDS_OUT
    return list(strings_of(model.tokenizer, best.indices[clear].tolist()))


class _StoppedError(Exception):
    """The job is to stop before the next request."""


def _row(site: Site, index: int, label: Label | None, problem: str) -> list[Any]:
    where = [site.layer, site.kind, index]
    if label is None:
        return [*where, "", None, None, None, problem]
    scores = [label.details.get(name, {}).get("score") for name in get_args(scoring.Measure)]
    if label.method == "automatic":
        scores = [label.score, None]
    return [*where, label.text, label.score, *scores, problem]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
