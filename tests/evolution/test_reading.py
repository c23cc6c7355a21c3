"""What needs a text, correlations, shares and the lens, against plain hooks and numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from conftest import D_SAE, LAYERS, RandomSuite
from torch import Tensor

import workbench as wb
from tests.steering.small_lab import PROMPT, write_small_lab
from workbench.analysis.correlation import correlations
from workbench.analysis.evolution import evolve
from workbench.analysis.lens import direction_lens, stream_lens, stream_logits
from workbench.analysis.passages import Rows, passages, rows_of
from workbench.analysis.shares import shares
from workbench.lab import Lab
from workbench.models import Model
from workbench.sae import SAE
from workbench.sites import Site
from workbench.tokens import tokenize


def some_rows() -> list[Rows]:
    """Two batches; the rows of the first are of different lengths."""
    random = torch.Generator().manual_seed(5)
    ids = torch.randint(6, 200, (3, 30), generator=random)
    scored = torch.ones(3, 30, dtype=torch.bool)
    scored[:, 0] = False
    scored[1, 22:] = False
    ids[1, 22:] = 0
    more = torch.randint(6, 200, (2, 40), generator=random)
    return [Rows(ids, scored), Rows(more, torch.arange(40).expand(2, 40) > 0)]


@contextmanager
def hooked(model: Model) -> Iterator[dict[str, Tensor]]:
    """What goes through the modules of Gemma 2, by plain hooks."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output
            seen[f"into {name}"] = inputs[0]

        return hook

    inner: Any = model.module
    handles = []
    for number, layer in enumerate(inner.model.layers):
        handles += [
            layer.register_forward_hook(keep(f"res {number}")),
            layer.self_attn.o_proj.register_forward_hook(keep(f"o_proj {number}")),
            layer.post_attention_layernorm.register_forward_hook(keep(f"attention {number}")),
            layer.post_feedforward_layernorm.register_forward_hook(keep(f"mlp {number}")),
        ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def by_hooks(model: Model, rows: list[Rows], *names: str) -> list[Tensor]:
    """Activations ``(token, d)`` of the scored tokens."""
    found: list[list[Tensor]] = [[] for _ in names]
    for part in rows:
        for row, scored in zip(part.ids, part.scored, strict=True):
            alone = row[: int(scored.nonzero().max()) + 1]  # without what fills up
            with hooked(model) as seen, torch.no_grad():
                model.module(input_ids=alone[None])
            for name, kept in zip(names, found, strict=True):
                kept.append(seen[name][0][1:])
    return [torch.cat(kept) for kept in found]


def dense(sae: SAE, x: Tensor) -> Tensor:
    """JumpReLU features, written out."""
    pre = x @ sae.W_enc + sae.b_enc
    assert sae.threshold is not None
    return pre * (pre > sae.threshold)


ORIGIN, INDEX = Site(1), 3
NAMES = {Site(0, "att"): "into o_proj 0", Site(1): "res 1", Site(2, "mlp"): "mlp 2"}


def test_correlations_and_their_null_are_those_of_numpy(model: Model, suite: RandomSuite) -> None:
    rows = some_rows()
    found = correlations(model, suite, ORIGIN, INDEX, list(NAMES), rows, level=0.1, shifts=20)
    read = dict(zip(NAMES, by_hooks(model, rows, *NAMES.values()), strict=True))
    own = dense(suite.sae_at(ORIGIN), read[ORIGIN])[:, INDEX].numpy()
    count = len(own)
    assert 10 < (own > 0).sum() < count - 10
    assert list(found) == sorted(NAMES)
    random = torch.Generator().manual_seed(0)
    apart = min(256, count // 4)
    shifts = torch.randint(apart, count - apart + 1, (20,), generator=random).tolist()
    for site, one in found.items():
        f = dense(suite.sae_at(site), read[site]).numpy()

        def pearson(x: np.ndarray, f: np.ndarray = f) -> np.ndarray:
            with np.errstate(invalid="ignore"):
                both = [np.corrcoef(x, f[:, i])[0, 1] for i in range(D_SAE)]
            return np.nan_to_num(np.array(both))

        expected = pearson(own)
        np.testing.assert_allclose(one.values.numpy(), expected, atol=2e-4)
        assert (one.tokens, one.fires) == (count, (own > 0).sum())
        assert one.best == expected.argmax()
        best = sorted(pearson(np.roll(own, shift)).max() for shift in shifts)
        # Rank ceil(0.9 * 21) = 19 of 20.
        assert one.null == pytest.approx(best[18], abs=2e-4)
        assert one.margin == pytest.approx(expected.max() - best[18], abs=4e-4)
    assert found[ORIGIN].best == INDEX
    assert float(found[ORIGIN].values[INDEX]) == pytest.approx(1, abs=1e-4)


def test_a_feature_that_never_fires_is_refused(model: Model, suite: RandomSuite) -> None:
    silent = suite.sae_at(ORIGIN).select(range(D_SAE))
    assert silent.threshold is not None
    silent.threshold[INDEX] = 1e9
    saes = RandomSuite({**suite.saes, ORIGIN: silent})
    with pytest.raises(ValueError, match="does not fire on any of the 157 tokens"):
        correlations(model, saes, ORIGIN, INDEX, [Site(0)], some_rows(), level=0.1)


def test_shares_add_up_to_the_pre_activation(model: Model, suite: RandomSuite) -> None:
    rows = some_rows()
    found = shares(model, suite, range(LAYERS), rows)
    inner: Any = model.module
    for layer in range(LAYERS):
        names = [f"res {layer}", f"attention {layer}", f"mlp {layer}"]
        x, attention, mlp = by_hooks(model, rows, *names)
        if layer:
            (below,) = by_hooks(model, rows, f"res {layer - 1}")
        else:
            ids = torch.cat([part.ids[part.scored] for part in rows])
            below = inner.model.embed_tokens(ids).detach()
        sae, one = suite.sae_at(Site(layer)), found[layer]
        f, pre = dense(sae, x), x @ sae.W_enc + sae.b_enc
        loud = 0
        for i in range(D_SAE):
            fires = f[:, i] > 0
            assert one.fires[i] == fires.sum()
            if not fires.any():
                assert one.parts[:, i].tolist() == [0, 0, 0]
                continue
            w = sae.W_enc[:, i]
            parts = [float((part[fires] @ w).mean()) for part in (below, attention, mlp)]
            everywhere = [float((part @ w).mean()) for part in (below, attention, mlp)]
            scale = float(pre[:, i].abs().max())
            assert one.parts[:, i].tolist() == pytest.approx(parts, abs=1e-4 * scale)
            assert one.everywhere[:, i].tolist() == pytest.approx(everywhere, abs=1e-4 * scale)
            assert float(one.pre[i]) == pytest.approx(float(pre[fires, i].mean()), abs=1e-4 * scale)
            loud += min(abs(part) for part in parts) > 0.003 * scale
        assert loud > 10
        assert one.tokens == len(x)


def test_fractions_are_of_what_brings_the_feature_about(model: Model, suite: RandomSuite) -> None:
    one = shares(model, suite, [1], some_rows())[1]
    active = one.fires > 0
    contrast = one.parts - one.everywhere
    expected = contrast / contrast.sum(0)
    torch.testing.assert_close(one.fractions[:, active], expected[:, active])
    assert one.fractions[:, ~active].isnan().all()
    table = one.to_frame()
    assert len(table) == int(active.sum())
    total = table[["below", "attention", "mlp", "bias"]].sum(axis=1)
    assert total.tolist() == pytest.approx(table["pre"].tolist(), rel=1e-3, abs=1e-2)
    fractions = table[["from_below", "from_attention", "from_mlp"]].sum(axis=1)
    assert fractions.tolist() == pytest.approx([1.0] * len(table), rel=1e-3)


def test_the_bias_that_an_sae_subtracts_is_counted(model: Model, suite: RandomSuite) -> None:
    from dataclasses import replace

    sae = replace(suite.sae_at(Site(1)), apply_b_dec_to_input=True)
    rows = some_rows()
    one = shares(model, RandomSuite({**suite.saes, Site(1): sae}), [1], rows)[1]
    (x,) = by_hooks(model, rows, "res 1")
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    assert sae.threshold is not None
    fires = pre[:, 5] > sae.threshold[5]
    assert fires.any()
    assert float(one.pre[5]) == pytest.approx(float(pre[fires, 5].mean()), rel=1e-3)


def test_shares_of_one_text_leave_out_its_first_token(model: Model, suite: RandomSuite) -> None:
    tokens = tokenize(model.tokenizer, PROMPT)
    one = shares(model, suite, [2], rows_of(tokens))[2]
    assert one.tokens == len(tokens) - 1


def test_an_sae_that_normalises_is_refused(model: Model, suite: RandomSuite) -> None:
    from dataclasses import replace

    odd = replace(suite.sae_at(Site(1)), normalize="constant_norm")
    with pytest.raises(ValueError, match="normalises what it reads"):
        shares(model, RandomSuite({**suite.saes, Site(1): odd}), [1], some_rows())


def test_the_last_stream_read_as_logits_is_what_the_model_says(model: Model) -> None:
    ids = torch.tensor([[2, 70, 80, 90, 100]])
    inner: Any = model.module
    with hooked(model) as seen, torch.no_grad():
        logits = inner(input_ids=ids).logits[0]
    torch.testing.assert_close(stream_logits(inner, seen[f"res {LAYERS - 1}"][0]), logits)
    x = seen["res 0"][0]
    with torch.no_grad():
        unit = x / (x.square().mean(-1, keepdim=True) + inner.config.rms_norm_eps).sqrt()
        raw = unit * (1 + inner.model.norm.weight) @ inner.lm_head.weight.T
        expected = 30 * torch.tanh(raw / 30)
    assert raw.abs().max() > 20  # the cap matters
    torch.testing.assert_close(stream_logits(inner, x), expected, rtol=1e-4, atol=1e-4)
    table = stream_lens(inner, {0: x}, k=3)
    assert table["position"].tolist() == [p for p in range(1, 5) for _ in range(3)]
    best = expected.topk(3)
    assert table["id"].tolist() == best.indices[1:].flatten().tolist()
    probabilities = expected.softmax(-1).gather(1, best.indices)[1:].flatten()
    assert table["probability"].tolist() == pytest.approx(probabilities.tolist(), rel=1e-3)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    model, suite = write_small_lab(tmp_path_factory.mktemp("reading"))
    found = wb.open(str(model), suite=suite, device="cpu")
    texts = [f"{PROMPT}, {n} sheep went {'home ' * (n % 50)}" for n in range(30)]
    found.index(
        texts, path=tmp_path_factory.mktemp("index") / "index.duckdb", context=48, progress=False
    )
    return found


def test_passages_are_documents_of_the_index(lab: Lab) -> None:
    index = lab.feature_index
    rows = passages(lab.engine, index, 10**6)
    bos = lab.tokenizer.bos_token_id
    assert sum(map(len, rows)) == sum(len(index.ids(d)) for d in range(30))
    pieces = set()
    for part in rows:
        assert part.ids.shape[1] <= lab.engine.config.max_position_embeddings
        for ids, scored in zip(part.ids, part.scored, strict=True):
            assert ids[0] == bos
            assert not scored[0]
            pieces.add(tuple(ids[scored].tolist()))
    documents = [tuple(index.ids(d).tolist()) for d in range(30)]
    assert {d[:63] for d in documents} <= pieces
    few = passages(lab.engine, index, 100)
    assert 100 <= sum(map(len, few)) < 500
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        passages(lab.engine, index, 0)


def test_the_lineage_takes_up_correlations(lab: Lab) -> None:
    plain = lab.lineage((1, 3))
    found = lab.lineage((1, 3), tokens=600)
    rows = passages(lab.engine, lab.feature_index, 600)
    sites = [one.site for one in plain.kin]
    read = correlations(lab.engine, lab.suite, Site(1), 3, sites, rows)
    for before, one in zip(plain.kin, found.kin, strict=True):
        assert before.correlation is None
        assert (one.index, one.cosine, one.birth) == (before.index, before.cosine, before.birth)
        assert one.correlation == float(read[one.site].values[one.index])
        assert one.correlation_null == read[one.site].null
    assert found.at(Site(1)).correlation == pytest.approx(1, abs=1e-4)


def test_shares_over_the_index(lab: Lab) -> None:
    rows = passages(lab.engine, lab.feature_index, 600)
    expected = shares(lab.engine, lab.suite, [1], rows)[1]
    assert torch.equal(lab.shares(1, tokens=600).parts, expected.parts)


def test_what_a_feature_says_is_its_direct_path(lab: Lab) -> None:
    inner: Any = lab.engine.module
    found = evolve(inner, lab.suite, Site(1, "att"), 4, level=0.2)
    table = direction_lens(inner, lab.suite, found, k=3)
    assert [(*key,) for key in table[["layer", "kind"]].drop_duplicates().to_numpy()] == [
        (one.site.layer, one.site.kind) for one in found.kin if one.counts
    ]
    with torch.no_grad():
        layer = inner.model.layers[1]
        row = layer.self_attn.o_proj.weight @ lab.suite.sae_at(Site(1, "att")).W_dec[4]
        row = row * (1 + layer.post_attention_layernorm.weight) * (1 + inner.model.norm.weight)
        best = (inner.lm_head.weight @ row).topk(3)
    mine = table[(table["layer"] == 1) & (table["kind"] == "att")]
    assert mine["id"].tolist() == best.indices.tolist()
    assert mine["effect"].tolist() == pytest.approx(best.values.tolist(), rel=1e-4)


def test_the_lenses_of_the_facade_name_tokens(lab: Lab) -> None:
    run = lab.run(PROMPT)
    table = run.lens(k=2)
    assert sorted(set(table["layer"])) == list(range(LAYERS))
    last = table[(table["layer"] == LAYERS - 1) & (table["rank"] == 0)]
    assert last["id"].tolist() == run.logits[1:].argmax(-1).tolist()
    row: Any = last.iloc[2]
    assert row["token"] == run.tokens.strings[3]
    assert row["says"] == lab.tokenizer.decode([row["id"]])
    assert len(lab.reading((1, 3), k=2)) >= 2
