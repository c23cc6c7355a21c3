"""Attribution on a loud random model, against finite differences of edits and written-out sums."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
import torch
from conftest import LAYERS, RandomSuite, byte_tokenizer, loud_module, random_sae
from torch import Tensor, nn

import workbench as wb
from workbench.analysis.attribution import Attribution, Target, attribute
from workbench.engine.edits import Clamp, Edit, Freeze, Patch, Scale, Steer
from workbench.engine.tracing import gradients, trace
from workbench.features import Features
from workbench.lab import Lab
from workbench.models import Model, wrap
from workbench.runs import open_run
from workbench.sites import Site
from workbench.tokens import Tokens, tokenize

TEXT = "The cat sat"
SITES = [Site(0, "embed")] + [
    Site(layer, kind) for layer in range(LAYERS) for kind in ("att", "transcoder", "mlp", "res")
]
EDITS: list[Edit] = [Clamp((0, 3), 9.0, kind="mlp", unit="raw"), Scale((1, 7), 3.0)]
"""One below most sites, and one at a site in the middle; both read what they change."""


def prompt(model: Model, text: str = TEXT) -> Tokens:
    return tokenize(model.tokenizer, text)


def aim(model: Model, position: int = -1, **options: object) -> Target:
    return Target.of(model, prompt(model), "m", position, **options)  # pyright: ignore


def attributed(
    model: Model, suite: RandomSuite, position: int = -1, **options: object
) -> Attribution:
    target = aim(model, position)
    return attribute(model, suite, prompt(model), target, SITES, **options)  # pyright: ignore


def slope(
    model: Model, suite: RandomSuite, target: Target, entries: list[tuple[int, int]],
    site: Site, edits: list[Edit],
) -> list[float]:  # fmt: skip
    """How the target changes with a little more of each (position, feature), by two runs each."""
    step = 2e-3
    each = [
        [*edits, Steer((site.layer, i), sign * step, kind=site.kind, unit="raw", positions=(p,))]
        for p, i in entries
        for sign in (1, -1)
    ]
    logits = trace(model, [prompt(model)] * len(each), each=each, source=suite).logits
    rows = logits[:, target.position].double()
    scores = rows[:, target.token] - rows.mean(-1)
    return ((scores[::2] - scores[1::2]) / (2 * step)).tolist()


def strongest(effects: Features, count: int = 5) -> Tensor:
    """The entries with the largest effect, ``<bos>`` left out."""
    return (effects.values.abs() * (effects.positions > 0)).topk(count).indices


@pytest.mark.parametrize("edits", [[], EDITS], ids=["unedited", "edited"])
@pytest.mark.parametrize("site", SITES, ids=str)
def test_it_is_activation_times_finite_difference(
    model: Model, suite: RandomSuite, site: Site, edits: list[Edit]
) -> None:
    found = attribute(model, suite, prompt(model), aim(model), [site], edits=edits)
    effects, active = found.parts[site].effects, found.parts[site].activations
    chosen = strongest(effects)
    entries = [(int(effects.positions[e]), int(effects.indices[e])) for e in chosen]
    slopes = torch.tensor(slope(model, suite, found.target, entries, site, edits))
    got = effects.values[chosen]
    assert got.abs().min() > 0.01, "a quiet model would hide a mistake"
    torch.testing.assert_close(got, active.values[chosen] * slopes, rtol=0.03, atol=0.02)


def test_edits_matter(model: Model, suite: RandomSuite) -> None:
    plain, edited = (attributed(model, suite, edits=edits) for edits in ([], EDITS))
    target = aim(model)
    logits = trace(model, [prompt(model)], edits=EDITS, source=suite).logits[0]
    assert edited.score == pytest.approx(float(target.score(logits)), rel=1e-5)
    assert abs(plain.score - edited.score) > 0.1
    for site in (Site(0, "embed"), Site(2, "res")):
        assert (plain.parts[site].totals - edited.parts[site].totals).abs().max() > 0.1


@pytest.mark.parametrize("against", [(), ("a", "b")])
def test_where_the_model_is_linear_it_is_complete(
    suite: RandomSuite, against: tuple[str, ...]
) -> None:
    """Above the last layer, without norm and soft cap, the logits are a product."""
    module = loud_module()
    module.model.norm = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    module.config.final_logit_softcapping = None
    model = wrap(module, byte_tokenizer(), name="linear")
    target = Target.of(model, prompt(model), "m", 4, against)
    site = Site(LAYERS - 1)
    part = attribute(model, suite, prompt(model), target, [site]).parts[site]
    logits = trace(model, [prompt(model)]).logits[0, 4]
    others = [byte_tokenizer()(a)["input_ids"][0] for a in against]
    score = float(logits[target.token] - (logits[others] if against else logits).mean())
    here = part.effects.positions == 4
    assert float(part.effects.values[here].sum() + part.remainder[4]) == pytest.approx(
        score, rel=1e-4
    )
    assert not part.effects.values[~here].any()
    weight = module.lm_head.weight
    direction = weight[target.token] - (weight[others] if against else weight).mean(0)
    along = suite.saes[site].W_dec @ direction.detach()
    wanted = part.activations.values[here] * along[part.effects.indices[here]]
    torch.testing.assert_close(part.effects.values[here], wanted, rtol=1e-4, atol=1e-3)


def test_features_and_remainder_are_all_there_is(model: Model, suite: RandomSuite) -> None:
    """Error and bias of the SAE, worked out by themselves, are the remainder."""
    site = Site(1, "mlp")
    found = gradients(model, [prompt(model)], [site], lambda logits, _: aim(model).score(logits[0]))
    x, g = found.activations[site][0], found.gradients[site][0]
    sae = suite.saes[site]
    error = x - (sae.encode(x) @ sae.W_dec + sae.b_dec)
    part = attributed(model, suite).parts[site]
    torch.testing.assert_close(
        part.remainder, ((error + sae.b_dec) * g).sum(-1), rtol=1e-3, atol=1e-2
    )


def test_only_tokens_up_to_the_position_count(model: Model, suite: RandomSuite) -> None:
    for part in attributed(model, suite, 5).parts.values():
        late = part.effects.positions > 5
        assert late.any()
        assert not part.effects.values[late].any()
        assert part.effects.values[~late].abs().max() > 0


def test_bos_is_left_out_of_every_ranking(model: Model, suite: RandomSuite) -> None:
    found = attributed(model, suite)
    site, part = next((s, p) for s, p in found.parts.items() if (p.effects.positions == 0).any())
    dense = part.effects.dense()
    assert dense[0].abs().max() > 0
    torch.testing.assert_close(part.totals, dense[1:].sum(0))
    assert min(found.to_frame()["position"]) > 0
    assert min(found.top(400)["position"]) > 0
    assert not torch.allclose(part.totals, dense.sum(0)), site


AT_SITE: dict[str, tuple[Edit, ...]] = {
    "scale": (Scale((1, 7), 3.0),),
    "steer, on <bos> too": (Steer((1, 7), 4.0, unit="raw", positions=range(12)),),
    "two, and one below": (*EDITS, Steer((1, 3), 4.0, unit="raw")),
    "patch": (Patch(Site(1), 3 * torch.randn(12, 24, generator=torch.Generator().manual_seed(4))),),
    "freeze": (EDITS[0], Freeze(Site(1))),
}


@pytest.mark.parametrize("name", list(AT_SITE))
def test_a_check_takes_away_what_the_edited_run_has(
    model: Model, suite: RandomSuite, name: str
) -> None:
    """With plain hooks: the stream after the edits is encoded, and ``f d`` taken from it."""
    edits, site = AT_SITE[name], Site(1)
    found = attribute(model, suite, prompt(model), aim(model), [site], edits=edits)
    after = trace(model, [prompt(model)], [site], edits=edits, source=suite).activations[site][0]
    sae, module = suite.saes[site], cast("Any", model.module)
    taken = sae.encode(after)
    taken[0] = 0

    def score(stream: Tensor) -> float:
        handle = module.model.layers[1].register_forward_hook(lambda *_: stream[None])
        with torch.no_grad():
            ids = torch.tensor([prompt(model).ids])
            logits = module(input_ids=ids, use_cache=False).logits[0]
        handle.remove()
        return float(found.target.score(logits))

    assert score(after) == pytest.approx(found.score, rel=1e-4)
    frame = found.check(6).frame
    wanted = [
        found.score - score(after - taken[:, [i]] * sae.W_dec[i]) for i in frame["feature"].tolist()
    ]
    assert max(map(abs, wanted)) > 0.5
    assert frame["ablation"].tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-2)


def test_tables(model: Model, suite: RandomSuite) -> None:
    found = attributed(model, suite, label=lambda site, i: f"{site.kind}{i}")
    frame: Any = found.to_frame()
    top: Any = found.top(7)
    cells = sum(int((p.effects.positions > 0).sum()) for p in found.parts.values())
    assert len(frame) == cells
    sizes = frame["attribution"].abs()
    assert sizes.is_monotonic_decreasing
    first = frame.iloc[0]
    part = found.at(int(first["layer"]), first["kind"])
    assert part.effects.dense()[first["position"], first["feature"]] == pytest.approx(
        first["attribution"]
    )
    assert part.activations.dense()[first["position"], first["feature"]] == pytest.approx(
        first["activation"]
    )
    assert first["token"] == prompt(model).strings[first["position"]]
    assert first["label"] == f"{first['kind']}{first['feature']}"
    # The same table the long way.
    groups = frame.groupby(["layer", "kind", "feature"])["attribution"]
    sums = groups.sum()
    best = sums.loc[sums.abs().sort_values(ascending=False).index[:7]]
    assert list(zip(top["layer"], top["kind"], top["feature"], strict=True)) == list(best.index)
    assert top["attribution"].tolist() == pytest.approx(best.tolist(), rel=1e-4)
    for row in top.itertuples(index=False):
        mine = frame.query("layer == @row.layer and kind == @row.kind and feature == @row.feature")
        peak = mine.iloc[0]
        assert (row.position, row.token) == (peak["position"], peak["token"])
        assert row.peak == pytest.approx(peak["attribution"])
    assert (sums < 0).any()
    assert list(pd.unique(top["label"])) == [f"{r.kind}{r.feature}" for r in top.itertuples()]
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        found.top(0)
    with pytest.raises(
        ValueError, match="layer 7 res was not attributed; there are embed, layer 0"
    ):
        found.at(7)


def test_an_sae_that_normalises_counts_its_scale(model: Model) -> None:
    site = Site(1)
    sae = replace(random_sae(site, 24, 5), normalize="layer_norm")
    found = attribute(model, RandomSuite({site: sae}), prompt(model), aim(model), [site])
    slopes = gradients(
        model, [prompt(model)], [site], lambda logits, _: aim(model).score(logits[0])
    )
    x, g = slopes.activations[site][0], slopes.gradients[site][0]
    wanted = sae.encode(x) * x.std(-1, keepdim=True) * (g @ sae.W_dec.T)
    torch.testing.assert_close(found.parts[site].effects.dense(), wanted, rtol=1e-3, atol=1e-3)


# -------------------------------------------------------------------------------- the gradients


def test_a_linear_score_gives_its_own_weights(model: Model) -> None:
    weights = torch.randn(24)
    found = gradients(
        model,
        [prompt(model)],
        SITES,
        lambda _, at: (at[Site(1)][0, 3] * weights).sum(),
        edits=EDITS,
        source=RandomSuite(
            {s: random_sae(s, s.width(model.config), i) for i, s in enumerate(SITES)}
        ),
    )
    assert found.gradients[Site(1)][0, 3].tolist() == weights.tolist()
    assert not found.gradients[Site(1)][0, :3].any()
    assert not found.gradients[Site(2)].any(), "what comes later has no part in it"
    assert found.gradients[Site(1, "mlp")].any()
    assert set(found.gradients) == {site for site in SITES if site.kind != "transcoder"}
    assert found.score == pytest.approx(float(found.activations[Site(1)][0, 3] @ weights))


def test_a_padded_batch_gives_each_prompt_its_own_gradient(model: Model) -> None:
    def score(logits: Tensor, _: object) -> Tensor:
        return logits[:, -1, 70].sum()

    both = [prompt(model, "Hi 5"), prompt(model)]
    batch = gradients(model, both, SITES, score)
    for row, one in enumerate(both):
        alone = gradients(model, [one], SITES, score)
        padding = len(both[1]) - len(one)
        for site, mine in alone.gradients.items():
            torch.testing.assert_close(
                batch.gradients[site][row, padding:], mine[0], rtol=1e-3, atol=1e-3
            )
            assert not batch.gradients[site][row, :padding].any()
            assert not batch.activations[site][row, :padding].any()


def test_it_reads_what_a_plain_pass_reads_and_leaves_the_model_alone(
    model: Model, suite: RandomSuite
) -> None:
    plain = trace(model, [prompt(model)], SITES, edits=EDITS, source=suite)
    found = gradients(
        model,
        [prompt(model)],
        SITES,
        lambda logits, _: logits[0, -1, 70],
        edits=EDITS,
        source=suite,
    )
    assert found.receipts == plain.receipts
    assert torch.equal(found.logits, plain.logits)
    assert all(torch.equal(found.activations[s], x) for s, x in plain.activations.items())
    assert all(p.grad is None for p in model.module.parameters())
    every = [*found.activations.values(), *found.gradients.values(), found.logits]
    assert not any(x.requires_grad for x in every)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_frozen_weights_and_callers_without_gradients_change_nothing(
    model: Model, fresh: Model, mode: type
) -> None:
    def score(logits: Tensor, _: object) -> Tensor:
        return logits[0, -1, 70]

    wanted = gradients(model, [prompt(model)], SITES, score)
    fresh.module.requires_grad_(False)
    with mode():
        found = gradients(fresh, [prompt(fresh)], SITES, score)
    for site, mine in wanted.gradients.items():
        torch.testing.assert_close(found.gradients[site], mine)


def test_a_score_without_gradient_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="one number of the logits"):
        gradients(model, [prompt(model)], SITES, lambda logits, _: logits[0, -1])
    with pytest.raises(ValueError, match="keep its gradient"):
        gradients(model, [prompt(model)], SITES, lambda logits, _: logits[0, -1, 3].detach())


# ------------------------------------------------------------------------------------ the target


def test_targets_are_named_by_text_or_id(model: Model) -> None:
    tokens = prompt(model)
    m = byte_tokenizer()("m")["input_ids"][0]
    by_text, by_id = (Target.of(model, tokens, one, -2) for one in ("m", m))
    assert by_text == by_id == Target(m, len(tokens) - 2, "m")
    for wrong, message in {
        "mat": r"token='mat' must be one token and is 3: 'm', 'a', 't'; give one",
        "": "must be one token and is 0: none",
        9999: "token id 9999 does not exist; the vocabulary is 0 to 261",
    }.items():
        with pytest.raises(ValueError, match=message):
            Target.of(model, tokens, wrong)
    with pytest.raises(TypeError, match="a text such as ' Paris' or an id, got None"):
        Target.of(model, tokens, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="position 12 does not exist: the prompt has 12 tokens"):
        Target.of(model, tokens, "m", 12)
    with pytest.raises(ValueError, match="'m' stands against itself"):
        Target.of(model, tokens, "m", against=["a", m])


def test_no_site_is_refused(model: Model, suite: RandomSuite) -> None:
    with pytest.raises(ValueError, match="there are no sites to attribute at"):
        attribute(model, suite, prompt(model), aim(model), [])


# ------------------------------------------------------------------------- on the shipped model


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


def test_run_and_lab_agree_and_ablation_confirms(lab: Lab) -> None:
    text = "The capital of France is"
    run = lab.run(text)
    found = run.attribution(" Paris", sites=[Site(4), Site(5)])
    again = lab.attribution(text, " Paris", sites=[Site(4), Site(5)])
    pd.testing.assert_frame_equal(found.top(9), again.top(9))
    given = lab.attribution(run, " Paris", sites=[Site(4), Site(5)])
    pd.testing.assert_frame_equal(found.to_frame(), given.to_frame())
    top = found.top(20)
    each = [[wb.Ablate((layer, i))] for layer, i in zip(top["layer"], top["feature"], strict=True)]
    ablated = trace(lab.engine, [run.tokens] * 20, each=each, source=lab.suite).logits
    effects = [found.score - float(found.target.score(one)) for one in ablated]
    assert pd.Series(effects).corr(pd.Series(list(top["attribution"])), method="spearman") > 0.8
    assert repr(found) == "<Attribution to ' Paris' after ' is' (6): 2 sites>"


def test_an_edited_run_is_attributed_as_it_ran(lab: Lab) -> None:
    text, edits = "The capital of France is", [wb.Steer((2, 907), 1.0)]
    run = lab.run(text, edits=edits)
    found = run.attribution(" Paris", sites=[Site(4)])
    assert found.score == pytest.approx(float(found.target.score(run.logits)), rel=1e-5)
    assert found.score != pytest.approx(lab.attribution(text, " Paris").score, rel=1e-3)
    assert lab.attribution(text, " Paris", edits=edits).score == pytest.approx(found.score)
    with pytest.raises(ValueError, match="a run has its own edits"):
        lab.attribution(run, " Paris", edits=edits)


def test_a_recording_has_no_gradient(lab: Lab, tmp_path: Path) -> None:
    opened = open_run(lab.run("Hello there").save(tmp_path / "a.run"))
    with pytest.raises(ValueError, match="a recorded run has no model to differentiate"):
        opened.attribution(" Paris")
