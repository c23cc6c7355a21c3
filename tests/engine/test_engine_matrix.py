"""Every mode x when x site, each written in four ways: what the hooks write, and honest receipts.

The four ways: a padded batch with a chat in it, one prompt alone, one without a cache, and a batch
where every prompt has edits of its own and some texts end early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from conftest import RandomSuite, byte_tokenizer
from engine.engine_cases import EDITS, LONG, SHORT, chosen, moved, site
from engine.engine_oracle import BOS, EOS, Place, Rule, close, oracle, row, text_ids
from torch import Tensor

from workbench.engine.edits import Edit, Freeze, Patch, Scale, Splice, Steer, When
from workbench.engine.receipts import Act, NoEffectWarning
from workbench.engine.tracing import Generation, generate
from workbench.models import Model
from workbench.tokens import Tokens, tokenize

NEW = 3
MODES = (
    "steer max",
    "clamp raw",
    "scale",
    "ablate",
    "ablate to the mean",
    "patch whole",
    "patch features",
    "splice",
    "splice some",
    "splice all but some",
    "splice some with error",
    "splice all but some with error",
    "when at an earlier site",
    "freeze",
)
SITES: list[Place] = [(1, kind) for kind in ("att", "transcoder", "mlp", "res")]
WHENS: dict[str, tuple[dict[str, Any], Any]] = {
    "prompt": ({"when": "prompt"}, lambda p, n: 0 < p < n),
    "generated": ({"when": "generated"}, lambda p, n: p >= n),
    "both": ({}, lambda p, n: p > 0),
    "steps": ({"steps": (0, 2)}, lambda p, n: 0 < p < n or p == n + 1),
    "positions": ({"positions": (1, 2, -2)}, lambda p, n: p in (1, 2, n - 2)),
}
PROMPT_ONLY = ("prompt", "positions")
CASES = [
    (mode, place, when)
    for mode in MODES
    for place in SITES
    for when in WHENS
    if not (mode.startswith("patch") and when not in PROMPT_ONLY)
    if not (mode.startswith(("patch", "freeze")) and place[1] == "transcoder")
]


@cache
def chat() -> Tokens:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for turn in messages %}<start_of_turn>{{ turn['role'] }}\n"
        "{{ turn['content'] }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n"
    )
    return tokenize(tokenizer, [{"role": "user", "content": "Hi 5"}])


@cache
def prompt(name: str) -> Tokens:
    return chat() if name == "chat" else tokenize(byte_tokenizer(), name)


def test_the_chat_has_special_tokens_among_its_text() -> None:
    assert chat().ids[0] == BOS
    assert sum(chat().special) == 4
    assert prompt(LONG).ids == text_ids(LONG)


@dataclass
class Wanted:
    """What the hooks make of one prompt."""

    tokens: list[int]
    steps: list[Tensor]
    norms: list[Tensor]
    """Of each rule ``(pos,)``, over all of the text but its last token."""
    sizes: list[Tensor]


def scoped(edit: Any, options: dict[str, Any]) -> Edit:
    if isinstance(edit, When):
        return replace(edit, edit=replace(edit.edit, **options))
    if isinstance(edit, Patch):
        options = {name: value for name, value in options.items() if name != "when"}
    return replace(edit, **options)


@cache
def edits_of(mode: str, place: Place, when: str) -> tuple[list[Edit], list[Rule], list[Place]]:
    """Edits, their rules, and the frozen places."""
    options, where = WHENS[when]
    if mode == "freeze":
        # Something before it, which it keeps from its site, and something at the site.
        early, i = (0, "res"), chosen(place)
        before = Rule(early, lambda x, p: 5.0 * row(early, 3).expand(len(x), -1), where)
        after = moved(place, i, lambda f: 2 * f)
        edits = [
            Steer((0, 3), 5.0, unit="raw", **options),
            Freeze(site(place)),
            Scale((1, i), 3.0, kind=place[1]),  # pyright: ignore[reportArgumentType]
        ]
        return edits, [before, after], [place]
    edit, rule = EDITS[mode](place)
    inner = rule.where

    def both(position: int, length: int) -> bool:
        return where(position, length) and inner(position, length)

    return [scoped(edit, options)], [replace(rule, where=both)], []


@cache
def wanted(mode: str, place: Place, when: str, name: str) -> Wanted:
    _, rules, frozen = edits_of(mode, place, when)
    hooks, ids = oracle(), prompt(name).ids
    tokens, steps = hooks.write(ids, rules, NEW, frozen=frozen)
    # The last pass read the whole text but its last token.
    norms = [hooks.norms[number] for number in range(len(rules))]
    written = [(r.place[0], "mlp") if r.place[1] == "transcoder" else r.place for r in rules]
    sizes = [hooks.arriving[at].pow(2).sum(-1).sqrt() for at in written]
    return Wanted(tokens, steps, norms, sizes)


@cache
def plain(name: str) -> list[Tensor]:
    return oracle().write(prompt(name).ids, [], NEW)[1]


@dataclass
class Bench:
    """A model to write with, and what was written."""

    model: Model
    suite: RandomSuite

    def write(self, names: list[str], **options: Any) -> tuple[list[Generation], list[Tensor]]:
        steps: list[Tensor] = []
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, **options}
        found = generate(
            self.model,
            [prompt(name) for name in names],
            source=self.suite,
            temperature=0,
            stream=lambda step: steps.append(step.logits.clone()),
            **options,
        )
        return found, steps


@pytest.fixture
def bench(model: Model, suite: RandomSuite) -> Iterator[Bench]:
    module: Any = model.module
    end = module.generation_config.eos_token_id
    yield Bench(model, suite)
    module.generation_config.eos_token_id = end


def check(
    found: list[Generation], steps: list[Tensor], wants: list[Wanted], *, ends: tuple[int, ...] = ()
) -> None:
    for number, (one, want) in enumerate(zip(found, wants, strict=True)):
        tokens = want.tokens
        if ends:
            tokens = list(until(ends, want))
        assert list(one.tokens.ids) == tokens
        for step, value in zip(steps, want.steps[: len(tokens)], strict=False):
            close(step[number], value)


def until(ends: tuple[int, ...], want: Wanted) -> Iterator[int]:
    """The tokens of a text that may end."""
    for token, logits in zip(want.tokens, want.steps, strict=True):
        best = int(logits.argmax())  # the end of sequence, where it was not allowed
        yield best if best == EOS else token
        if best == EOS or token in ends:
            return


def check_receipt(found: Generation, want: Wanted, acts: list[Act]) -> None:
    """Positions, steps and norms are those that the hooks saw."""
    length, read = len(found.prompt), len(found.ids) - 1
    for act, norms, sizes in zip(acts, want.norms, want.sizes, strict=True):
        where = [p for p in range(read) if norms[p] > 1e-6]
        assert act.positions == tuple(where)
        assert act.steps == tuple(sorted({max(p - length + 1, 0) for p in where}))
        if where:
            assert act.mean_norm == pytest.approx(float(norms[where].mean()), rel=1e-3)
            share = float((norms[where] / sizes[where]).mean())
            assert act.relative_norm == pytest.approx(share, rel=2e-3)


@pytest.mark.parametrize(("mode", "place", "when"), CASES, ids=str)
@pytest.mark.filterwarnings("ignore::workbench.engine.receipts.NoEffectWarning")
def test_it_is_what_the_hooks_write(bench: Bench, mode: str, place: Place, when: str) -> None:
    edits, rules, _ = edits_of(mode, place, when)
    names = [LONG, SHORT, "chat"]
    wants = [wanted(mode, place, when, name) for name in names]
    moves = [
        float((a - b).abs().max())
        for name, want in zip(names, wants, strict=True)
        for a, b in zip(want.steps, plain(name), strict=True)
    ]
    assert max(moves) > 0.1, "it changed nothing"

    found, steps = bench.write(names, edits=edits)
    check(found, steps, wants)
    ruled = [number for number, edit in enumerate(edits) if not isinstance(edit, Freeze)]
    assert len(ruled) == len(rules)
    for one, want in zip(found, wants, strict=True):
        check_receipt(one, want, [one.receipt.acts[number] for number in ruled])

    check(*bench.write(["chat"], edits=edits), wants[2:])
    check(*bench.write([SHORT], edits=edits, use_cache=False), wants[1:2])

    # Its own edits for the first and the last, none in between; and the first ends early.
    ends = (EOS, wants[0].tokens[1])
    module: Any = bench.model.module
    module.generation_config.eos_token_id = list(ends)
    mixed, steps = bench.write(names, each=[edits, [], edits], min_new_tokens=0)
    steered = [mixed[0], mixed[2]]
    check(steered, [step[[0, 2]] for step in steps], [wants[0], wants[2]], ends=ends)
    assert mixed[0].finish == "end"
    assert len(mixed[0].tokens) <= 2
    for one, want in zip(steered, [wants[0], wants[2]], strict=True):
        check_receipt(one, want, [one.receipt.acts[number] for number in ruled])
    for step, value in zip(steps[: len(mixed[1].tokens)], plain(SHORT), strict=False):
        close(step[1], value)
    assert mixed[1].receipt.acts == ()


@pytest.mark.parametrize("place", SITES, ids=str)
def test_a_splice_of_everything_with_its_error_changes_nothing(bench: Bench, place: Place) -> None:
    with pytest.warns(NoEffectWarning, match="edit 0 did not act"):
        found, steps = bench.write([LONG], edits=[Splice(site(place), error=True)])
    for step, value in zip(steps, plain(LONG), strict=True):
        close(step[0], value)
    assert not found[0].receipt.acts[0].acted


@pytest.mark.parametrize("mode", ["steer max", "splice", "freeze"])
def test_two_runs_with_one_seed_are_equal(bench: Bench, mode: str) -> None:
    edits = edits_of(mode, (1, "res"), "both")[0]
    options = {"temperature": 6.0, "edits": edits, "source": bench.suite, "max_new_tokens": 8}
    prompts = [prompt(LONG), prompt(SHORT)]
    runs = [generate(bench.model, prompts, seed=seed, **options) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert [g.ids for g in runs[0]] != [g.ids for g in runs[2]]
