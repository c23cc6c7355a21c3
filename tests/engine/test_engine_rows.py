"""Edits of a prompt's own: sweeps equal to one by one, live rows, honest warnings, and the lab."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import D_SAE, RandomSuite
from engine.engine_cases import LONG, SHORT, chosen, encoded_widths, moved
from engine.engine_oracle import (
    Place,
    Rule,
    close,
    oracle,
    row,
    saes,
    seen,
    text_ids,
)
from torch import Tensor

import workbench as wb
from workbench.engine.edits import (
    Ablate,
    Clamp,
    Edit,
    Freeze,
    Splice,
    Steer,
    When,
    ablate,
    freeze_rest,
)
from workbench.engine.receipts import NoEffectWarning
from workbench.engine.tracing import LiveEdits, Step, generate, trace
from workbench.lab import Lab
from workbench.models import Model
from workbench.sae import SAE
from workbench.sae.suite import Suite
from workbench.sites import Site
from workbench.tokens import tokenize

PLACE: Place = (1, "res")
LISTS: list[list[Edit]] = [
    [],
    [Steer((1, 3), 2.0)],
    [Steer((1, 3), 4.0)],
    [Steer((1, 3), 4.0), Steer((1, 3), 4.0)],  # twice is twice
    [Clamp((1, 5), 6.0), When((0, 1), Steer((1, 2), 3.0))],
    [Splice(Site(1), keep=(1, 2)), Steer((2, 4), 2.0, kind="transcoder")],
    [Splice(Site(1), drop=(1, 2)), Ablate((2, 4), kind="att", to="mean")],
    [Steer((0, 3), 5.0), Freeze(Site(1, "att")), Freeze(Site(2, "att"))],
    [Steer((0, 6), 5.0, positions=(1,)), Freeze(Site(2, "att"))],
]


def alone(model: Model, suite: RandomSuite, edits: list[Edit], **options: Any) -> Any:
    prompts = [tokenize(model.tokenizer, LONG)]
    return generate(model, prompts, edits=edits, source=suite, **options)[0]


@pytest.mark.filterwarnings("ignore::workbench.engine.receipts.NoEffectWarning")
@pytest.mark.parametrize("batch", [2, 32])
def test_a_sweep_is_what_each_list_gives_alone(
    model: Model, suite: RandomSuite, batch: int
) -> None:
    options: dict[str, Any] = {"temperature": 5.0, "seed": 4, "max_new_tokens": 6}
    lab = Lab(model, suite)  # pyright: ignore[reportArgumentType]
    lab.prepare = lambda edits: None  # the random suite knows everything
    found = lab.sweep(LONG, LISTS, batch=batch, **options)
    wanted = [alone(model, suite, edits, **options) for edits in LISTS]
    assert len({one.ids for one in wanted}) == len(LISTS)
    for one, want in zip(found, wanted, strict=True):
        assert one.ids == want.ids
        assert one.finish == want.finish
        assert one.logprobs == pytest.approx(want.logprobs, abs=1e-3)
        assert len(one.receipt.acts) == len(want.receipt.acts)
        for a, b in zip(one.receipt.acts, want.receipt.acts, strict=True):
            assert (a.steps, a.positions) == (b.steps, b.positions)
            assert a.mean_norm == pytest.approx(b.mean_norm, rel=1e-3)
            assert a.relative_norm == pytest.approx(b.relative_norm, rel=1e-3)


def test_a_batch_must_hold_something(model: Model) -> None:
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        Lab(model).sweep(LONG, [[]], batch=0)


@pytest.mark.filterwarnings("ignore::workbench.engine.receipts.NoEffectWarning")
def test_a_trace_of_own_edits_is_what_each_gives_alone(model: Model, suite: RandomSuite) -> None:
    prompts = [tokenize(model.tokenizer, text) for text in (LONG, SHORT)]
    for pair in zip(LISTS, LISTS[::-1], strict=True):
        both = trace(model, prompts, [Site(2)], each=pair, source=suite)
        assert both.logits.shape[0] == both.activations[Site(2)].shape[0] == 2
        for number, (prompt, edits) in enumerate(zip(prompts, pair, strict=True)):
            one = trace(model, [prompt], [Site(2)], edits=edits, source=suite)
            size = len(prompt)
            close(both.logits[number, -size:], one.logits[0])
            close(both.activations[Site(2)][number, -size:], one.activations[Site(2)][0])
            for a, b in zip(both.receipts[number].acts, one.receipts[0].acts, strict=True):
                assert (a.steps, a.positions) == (b.steps, b.positions)
                assert a.mean_norm == pytest.approx(b.mean_norm, rel=1e-3)


def test_the_lists_are_one_for_each_prompt(model: Model, suite: RandomSuite) -> None:
    prompts = [tokenize(model.tokenizer, text) for text in (LONG, SHORT)]
    edit: Any = Steer((1, 3), 1.0)
    wrong: Any = "up"
    for run in (trace, generate):
        with pytest.raises(ValueError, match="for each of the 2 prompts, got 1"):
            run(model, prompts, each=[[edit]], source=suite)
        with pytest.raises(ValueError, match="give one"):
            run(model, prompts, edits=[edit], each=[[], []], source=suite)
        with pytest.raises(TypeError, match="edits is a list"):
            run(model, prompts, each=[edit, edit], source=suite)  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="edit 0 is 'up'"):
            run(model, prompts, each=[[], [wrong]], source=suite)


def test_the_warning_says_whose_edit_did_nothing(model: Model, suite: RandomSuite) -> None:
    prompts = [tokenize(model.tokenizer, text) for text in (LONG, SHORT, LONG)]
    each: list[list[Edit]] = [[Steer((1, 3), 1.0)], [], [Steer((1, 3), 1.0), Steer((1, 4), 0.0)]]
    with pytest.warns(NoEffectWarning, match="edit 1 of prompt 2 did not act"):
        found = generate(model, prompts, each=each, source=suite, max_new_tokens=2)
    assert [[act.acted for act in g.receipt.acts] for g in found] == [[True], [], [True, False]]


def test_rows_may_be_live_and_share_a_slider(model: Model, suite: RandomSuite) -> None:
    live = LiveEdits([Steer((1, 3), 1.0, unit="raw")])
    other = LiveEdits([Steer((1, 3), 1.0, unit="raw")])
    steps: list[Tensor] = []

    def stream(step: Step) -> None:
        steps.append(step.logits.clone())
        if step.index == 1:
            live.replace(0, Steer((1, 3), 9.0, unit="raw"))

    generate(
        model,
        [tokenize(model.tokenizer, LONG)] * 4,
        each=[live, other, live, []],
        source=suite,
        temperature=0,
        max_new_tokens=4,
        min_new_tokens=4,
        stream=stream,
    )
    for step, logits in enumerate(steps):
        close(logits[0], logits[2])
        moved_on = float((logits[0] - logits[1]).abs().max())
        assert (moved_on > 1) == (step > 1), step
        assert (logits[1] - logits[3]).abs().max() > 0.1


def test_a_freeze_cannot_begin_while_the_model_writes() -> None:
    live = LiveEdits([Steer((1, 3), 1.0, kind="att")])
    with pytest.raises(ValueError, match="edit 0 cannot become a Freeze while running"):
        live.replace(0, Freeze(Site(1, "att")))
    held = LiveEdits([Freeze(Site(1, "att"))])
    held.replace(0, Steer((1, 3), 1.0, kind="att"))
    assert held.edits == (Steer((1, 3), 1.0, kind="att"),)


def test_a_freeze_may_be_let_go_while_the_model_writes(model: Model, suite: RandomSuite) -> None:
    live = LiveEdits([Steer((0, 3), 5.0, unit="raw"), Freeze(Site(2, "res"))])
    steps: list[Tensor] = []

    def stream(step: Step) -> None:
        steps.append(step.logits[0].clone())
        if step.index == 1:
            live.replace(1, Steer((2, 3), 0.0))

    found = generate(
        model,
        [tokenize(model.tokenizer, SHORT)],
        edits=live,
        source=suite,
        temperature=0,
        max_new_tokens=3,
        min_new_tokens=3,
        stream=stream,
    )[0]
    # All of the last stream is held at first: the text is the plain one. Then it is not.
    ids = text_ids(SHORT)
    tokens, plain = oracle().write(ids, [], 3)
    close(steps[0], plain[0])
    close(steps[1], plain[1])
    assert (steps[2] - plain[2]).abs().max() > 1
    assert list(found.tokens.ids[:2]) == tokens[:2]


def test_only_direct_paths_are_left_when_the_rest_is_frozen(
    model: Model, suite: RandomSuite
) -> None:
    edit = Steer((0, 3), 5.0, unit="raw")
    frozen = freeze_rest([edit], model.config, "all")
    assert [str(f.site) for f in frozen] == [
        "layer 1 att", "layer 1 mlp", "layer 2 att", "layer 2 mlp",
    ]  # fmt: skip
    run = trace(
        model,
        [tokenize(model.tokenizer, LONG)],
        [Site(2)],
        edits=[edit, *frozen],
        source=suite,
    )
    # Nothing but the direction itself arrives at the last layer's output.
    change = run.activations[Site(2)][0] - seen(LONG, (2, "res"))
    wanted = 5.0 * row((0, "res"), 3).expand_as(change).clone()
    wanted[0] = 0
    close(change, wanted)


def test_the_rest_is_what_comes_after_the_first_edit(model: Model) -> None:
    config = model.config
    edits = [Ablate((2, 1)), Steer((1, 0), 1.0, kind="transcoder")]
    assert freeze_rest(edits, config) == (Freeze(Site(2, "att")),)
    assert freeze_rest(edits, config, "all") == (Freeze(Site(2, "att")), Freeze(Site(2, "mlp")))
    assert freeze_rest([Steer((1, 0), 1.0, kind="att")], config, "all")[0].site == Site(1, "mlp")
    with pytest.raises(ValueError, match="what must be one of 'att', 'all', got 'mlp'"):
        freeze_rest(edits, config, "mlp")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no edit to freeze the rest of"):
        freeze_rest([Freeze(Site(1))], config)


def test_a_set_is_ablated_as_the_sum_of_its_features(model: Model, suite: RandomSuite) -> None:
    indices = [chosen(PLACE), 3, 11]
    edits = ablate([(1, i) for i in indices], to="mean", when="prompt")
    assert {edit.when for edit in edits} == {"prompt"}
    rules = [moved(PLACE, i, lambda f, i=i: suite.mean_activation(Site(1), i) - f) for i in indices]
    ids = text_ids(LONG)
    want = oracle().run(ids, len(ids), rules)
    run = trace(model, [tokenize(model.tokenizer, LONG)], edits=edits, source=suite)
    close(run.logits[0], want)
    with pytest.raises(ValueError, match=r"\(1, 3\) is in the set twice"):
        ablate([(1, 3), (1, 2), (1, 3)])


def spliced(sae: SAE, x: Tensor, kept: list[int]) -> Tensor:
    """The reconstruction from some features with the SAE's own arithmetic of the whole."""
    f = sae.encode(x)
    mask = torch.zeros(D_SAE)
    mask[kept] = 1
    return sae.decode(f * mask, x)


@pytest.mark.parametrize("family", ["topk", "layer_norm", "constant_norm", "skip", "centred"])
@pytest.mark.parametrize("named", ["keep", "drop"])
@pytest.mark.parametrize("error", [False, True])
def test_splices_of_other_families(model: Model, family: str, named: str, error: bool) -> None:
    place: Place = (1, "transcoder") if family == "skip" else PLACE
    sae = saes()[place]
    changes: dict[str, dict[str, Any]] = {
        "topk": {"threshold": None, "activation": "topk", "k": 6},
        "layer_norm": {"normalize": "layer_norm"},
        "constant_norm": {"normalize": "constant_norm"},
        "skip": {"W_skip": torch.randn(24, 24, generator=torch.Generator().manual_seed(7))},
        "centred": {"apply_b_dec_to_input": True},
    }
    sae = replace(sae, **changes[family])
    indices = [1, 5, 7, 8, 20, 31]
    kept = [i for i in range(D_SAE) if (i in indices) == (named == "keep")]
    edit = Splice(Site(*place), error=error, **{named: indices})  # pyright: ignore
    if error:
        rule = Rule(place, lambda x, p: spliced(sae, x, kept) - sae.reconstruct(x))
    else:
        rule = Rule(place, lambda x, p: spliced(sae, x, kept), replaces=True)
    ids = text_ids(LONG)
    want = oracle().run(ids, len(ids), [rule])
    assert (want - oracle().run(ids, len(ids))).abs().max() > 1
    source = RandomSuite({Site(*place): sae})  # pyright: ignore[reportArgumentType]
    run = trace(model, [tokenize(model.tokenizer, LONG)], edits=[edit], source=source)
    close(run.logits[0], want)


def test_a_long_batch_is_spliced_block_by_block(
    model: Model, suite: RandomSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [tokenize(model.tokenizer, text) for text in (LONG, SHORT)]
    whole = trace(model, prompts, edits=[Splice(Site(1))], source=suite).logits
    monkeypatch.setattr("workbench.engine.program.BLOCK", 4)
    sizes: list[int] = []
    encode = SAE.encode

    def counted(self: SAE, x: Tensor) -> Tensor:
        sizes.append(len(x))
        return encode(self, x)

    monkeypatch.setattr(SAE, "encode", counted)
    close(trace(model, prompts, edits=[Splice(Site(1))], source=suite).logits, whole)
    # Neither padding nor <bos> is encoded.
    assert max(sizes) == 4
    assert sum(sizes) == sum(len(prompt) - 1 for prompt in prompts)


def test_an_error_term_needs_only_the_features_left_out(
    model: Model, suite: RandomSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = encoded_widths(monkeypatch)
    for edit in (Splice(Site(1), drop=(1, 2), error=True), Splice(Site(1), keep=(1, 2, 3))):
        trace(model, [tokenize(model.tokenizer, LONG)], edits=[edit], source=suite)
    assert widths == [2, 3]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


class TestMeanActivations:
    def test_they_are_measured_once_over_the_sample_without_bos(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [
            "Once upon a time there was a boat in the harbour.",
            "The capital of France is Paris. Two and two are four.",
        ]
        suite = Suite(lab.suite.root, model="pocket")  # pyright: ignore[reportArgumentType]
        monkeypatch.setattr(Suite, "sample", texts)
        fresh = Lab(lab.engine, suite)
        edits = (*ablate([(3, 5), (3, 9)], to="mean"), Ablate((2, 7), kind="mlp", to="mean"))
        with pytest.raises(
            ValueError, match=r"feature \(3, 5\) .* was not measured: call lab.prep"
        ):
            suite.mean_activation(Site(3), 5)
        fresh.prepare(edits)
        for edit in edits:
            total, count = 0.0, 0
            for text in texts:
                run = fresh.run(text, sites=[edit.site])
                sae, x = suite.sae_at(edit.site), run.activation(edit.site.layer, edit.kind)
                for token in x[1:]:
                    pre = float(token @ sae.W_enc[:, edit.index] + sae.b_enc[edit.index])
                    assert sae.threshold is not None
                    total += pre if pre > float(sae.threshold[edit.index]) else 0.0
                    count += 1
            assert suite.mean_activation(edit.site, edit.index) == pytest.approx(
                total / count, rel=1e-4, abs=1e-7
            )
        assert any(suite.mean_activation(e.site, e.index) > 0 for e in edits)
        monkeypatch.setattr("workbench.lab.core.mean_activations", None)
        fresh.prepare(edits)  # known now

    def test_another_sae_forgets_them(self, lab: Lab) -> None:
        suite = Suite(lab.suite.root, model="pocket")  # pyright: ignore[reportArgumentType]
        suite.means = {Site(3): {5: 1.0}, Site(4): {5: 1.0}}
        suite.use(suite.sae(layer=3), Site(3))
        assert not suite.knows_mean(Site(3), 5)
        assert suite.knows_mean(Site(4), 5)

    def test_generating_measures_them(self, lab: Lab) -> None:
        edit = Ablate((3, 231), to="mean")
        found = lab.generate("Once upon a time", edits=[edit], max_new_tokens=3)
        mean = lab.suite.mean_activation(Site(3), 231)
        assert mean > 0
        norm = mean * float(lab.suite.sae_at(Site(3)).direction(231).norm())
        silent = lab.run("Once upon a time").features(3).of(231)
        assert found.receipt.acts[0].acted
        if not silent[1:].any():
            assert found.receipt.acts[0].mean_norm == pytest.approx(norm, rel=1e-2)
        with pytest.raises(ValueError, match="feature index 99999"):
            lab.generate("Hi", edits=[Ablate((3, 99999), to="mean")])


def test_every_mode_has_a_name_at_the_top() -> None:
    assert wb.Splice is Splice
    assert wb.Freeze is Freeze
    assert wb.ablate is ablate
    assert wb.freeze_rest is freeze_rest
