"""Checks of an SAE: the figures by hand, and wrong sites found out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.analysis.evaluation import WrongSiteError
from workbench.lab import Lab
from workbench.sae import SAE
from workbench.sites import Site

TEXTS = [
    "Once upon a time there was a boat in the harbour. Anna loved the boat.",
    "Clara and Martin hum the fresh symphony with a smile. The symphony is magnificent.",
]


@pytest.fixture(scope="module")
def lab() -> Lab:
    return wb.open()


def moved(sae: SAE, layer: int, kind: str) -> SAE:
    """The same SAE under a wrong name."""
    return replace(sae, config=replace(sae.config, layer=layer, kind=kind))


@pytest.mark.parametrize("kind", ["res", "mlp", "att"])
def test_figures_are_those_of_plain_hooks(lab: Lab, kind: str) -> None:
    site = Site(4, kind)  # pyright: ignore[reportArgumentType]
    module: Any = lab.engine.module
    sae = lab.suite.sae_at(site)
    found = lab.check(sae, texts=TEXTS)
    layer = module.model.layers[4]
    place = {"res": layer, "mlp": layer.post_feedforward_layernorm, "att": layer.self_attn.o_proj}
    xs, losses = [], torch.zeros(3)

    def pass_with(ids: torch.Tensor, change: Callable) -> torch.Tensor:
        def before(_: object, args: tuple) -> tuple:
            return (change(args[0]),)

        def after(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
            return change(output)

        if kind == "att":
            handle = place[kind].register_forward_pre_hook(before)
        else:
            handle = place[kind].register_forward_hook(after)
        try:
            logits = module(ids).logits[0]
        finally:
            handle.remove()
        return torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")

    def keep(x: torch.Tensor) -> torch.Tensor:
        xs.append(x[0, 1:])
        return x

    def splice(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :1], sae.reconstruct(x[:, 1:])], 1)

    def zero(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], 1)

    with torch.no_grad():
        for text in TEXTS:
            ids = lab.tokens(text).tensor()
            for i, change in enumerate((keep, splice, zero)):
                losses[i] += pass_with(ids, change)
    x = torch.cat(xs)
    pre = x @ sae.W_enc + sae.b_enc
    f = pre * (pre > sae.threshold)  # pyright: ignore[reportOperatorIssue]
    error = (f @ sae.W_dec + sae.b_dec - x).square().sum()
    loss, spliced, zeroed = (losses / len(x)).tolist()
    assert found.fit.tokens == len(x)
    assert found.fit.l0 == pytest.approx(float((f > 0).sum(1).float().mean()))
    assert found.fit.fvu == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-4)
    assert (found.loss, found.spliced, found.zero) == pytest.approx(
        (loss, spliced, zeroed), rel=1e-4
    )
    assert found.recovered == pytest.approx((zeroed - spliced) / (zeroed - loss), rel=1e-3)
    assert found.to_frame().loc[0, "recovered"] == found.recovered


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ((3, "mlp"), (3, "res")),
        ((3, "mlp"), (4, "mlp")),
        ((3, "res"), (3, "mlp")),
        ((3, "res"), (7, "res")),
        ((3, "mlp"), (0, "embed")),
        ((2, "res"), (5, "transcoder")),
    ],
)
def test_a_wrong_site_is_refused_and_the_right_one_named(lab: Lab, right, wrong) -> None:
    sae = lab.sae(layer=right[0], kind=right[1])
    with pytest.raises(WrongSiteError, match=rf"at layer {right[0]} {right[1]}, which is the"):
        lab.check(moved(sae, *wrong))


def test_an_sae_of_other_weights_is_refused(lab: Lab) -> None:
    sae = lab.sae(layer=3)
    random = torch.Generator().manual_seed(0)
    other = replace(sae, W_enc=sae.W_enc[torch.randperm(len(sae.W_enc), generator=random)])
    with pytest.raises(WrongSiteError, match="does not fit pocket"):
        lab.check(other)


def test_shipped_saes_of_every_kind_pass_on_the_sample(lab: Lab) -> None:
    for site in lab.suite.sites[::7]:
        found = lab.check(lab.suite.sae_at(site))
        assert found.notes == ()
        assert found.fit.fvu < 0.25, site


def test_an_l0_far_from_the_published_one_is_noted(lab: Lab) -> None:
    sae = lab.sae(layer=3)
    odd = replace(sae, config=replace(sae.config, l0=90.0))
    assert "times the published one" in str(lab.check(odd))


def test_a_base_sae_on_a_tuned_model_is_noted() -> None:
    tuned = wb.open("pocket-it")
    found = tuned.check(tuned.sae(layer=3))
    assert any("tuned after it" in note for note in found.notes)
    run = tuned.run([{"role": "user", "content": "Tell me about a boat."}])
    assert "SAE of pocket on pocket-it" in run.badge(3)


def test_a_text_of_one_token_is_refused(lab: Lab) -> None:
    with pytest.raises(ValueError, match="fewer than two tokens"):
        lab.check(lab.sae(layer=3), texts=["a"])


def test_the_badge_of_a_run_is_its_own_fit_and_survives_saving(lab: Lab, tmp_path) -> None:
    run = lab.run(TEXTS[0])
    found = lab.check(lab.sae(layer=3), texts=TEXTS[:1]).fit
    assert run.fit(3).fvu == pytest.approx(found.fvu, rel=1e-4)
    assert run.badge(3) == f"L0 {found.l0:.0f}, FVU {found.fvu:.2f} on this text, <bos> left out"
    assert run.badge(3) in run.heatmap(3).widget.subtitle
    again = wb.open_run(run.save(tmp_path / "run.safetensors"))
    assert again.badge(3) == run.badge(3)
    assert again.heatmap(3).widget.subtitle == run.heatmap(3).widget.subtitle


def test_a_norm_that_nobody_knows_is_measured_when_an_edit_needs_it(lab: Lab) -> None:
    bare = Lab(lab.engine, wb.Suite(None, model="pocket"))
    sae = bare.use(lab.sae(layer=3))
    bare.generate("Once", edits=[wb.Steer((3, 5), 0.5, unit="norm")], max_new_tokens=2)
    x = torch.cat([lab.run(text).activation(3)[1:] for text in bare.suite.sample])
    assert bare.suite.mean_norm(Site(3)) == pytest.approx(float(x.norm(dim=-1).mean()), rel=1e-4)
    assert bare.suite.sae_at(Site(3)) is sae
    with pytest.raises(ValueError, match="unit='raw'"):
        bare.generate("Once", edits=[wb.Steer((3, 5), 0.5)], max_new_tokens=2)


def test_an_sae_of_another_width_cannot_be_used(lab: Lab) -> None:
    sae = lab.sae(layer=3, kind="att")
    with pytest.raises(ValueError, match="another model or another kind"):
        lab.use(moved(sae, 3, "res"))


def test_passages_are_cut_to_a_short_context(model) -> None:
    short = Lab(model, wb.Suite(None, model="loud"))
    assert model.context == 64
    passages = short._passages(None)
    assert max(map(len, passages)) == 64
    assert all(tokens.ids[0] == model.tokenizer.bos_token_id for tokens in passages)


def test_a_fit_in_blocks_is_the_fit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lab.check(lab.sae(layer=3), texts=TEXTS).fit
    monkeypatch.setattr("workbench.analysis.evaluation.BLOCK", 3)
    parts = lab.check(lab.sae(layer=3), texts=TEXTS).fit
    assert (parts.tokens, parts.l0) == (whole.tokens, whole.l0)
    assert parts.fvu == pytest.approx(whole.fvu, rel=1e-6)


def test_a_heatmap_is_drawn_where_there_is_no_figure(lab: Lab) -> None:
    alike = lab.run([2, 300, 300], sites=[Site(0)])
    transcoder = replace(lab.sae(layer=3), config=replace(lab.sae(layer=3).config))
    other = Lab(lab.engine, wb.Suite(None, model="pocket"))
    other.use(moved(transcoder, 3, "transcoder"))
    lonely = other.run(TEXTS[0], sites=[Site(3, "transcoder")])  # what it writes was not read
    one = lab.run("a")
    assert one.badge(3) == lonely.badge(3, "transcoder") == ""
    for run, site in ((alike, Site(0)), (lonely, Site(3, "transcoder")), (one, Site(3))):
        drawn = run.heatmap(site.layer, site.kind)
        assert drawn.widget.tokens == list(run.tokens.strings)


def test_an_sae_is_checked_in_a_lab_that_has_none(lab: Lab, tmp_path) -> None:
    bare = Lab(lab.engine)
    sae = bare.sae(lab.sae(layer=3).save(tmp_path / "saved"))
    assert bare.check(sae, texts=TEXTS).fit.fvu < 0.25
    assert bare._passages(None)


def test_what_a_file_does_not_say_is_said_beside_its_name(lab: Lab, tmp_path) -> None:
    source = Path(lab.sae(layer=3).config.source)
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(source, plain / "params.npz")
    with pytest.raises(ValueError, match="layer"):
        lab.sae(plain)
    found = lab.sae(plain, layer=5, kind="att").config
    assert (found.layer, found.kind) == (5, "att")
    with pytest.raises(ValueError, match="leave the name out"):
        lab.sae(plain, width="1k")
    with pytest.raises(ValueError, match="name of an SAE or the layer"):
        lab.sae()
