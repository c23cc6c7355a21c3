"""Where an SAE belongs in a model: the meaning of its kind depends on the architecture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import random_sae
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.engine.binding import site_of
from workbench.models import Model
from workbench.sae import SAE
from workbench.sites import Site

D = 24


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16,
            hidden_size=D,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    )


def of_kind(kind: str, hook: str = "") -> SAE:
    sae = random_sae(Site(1), D, 0)
    return replace(sae, config=replace(sae.config, kind=kind, hook=hook))


def test_an_input_with_gain_is_the_transcoders_site_where_models_read_it_so(llama, model) -> None:
    assert site_of(of_kind("mlp_in", "blocks.1.mlp.hook_in"), llama) == Site(1, "transcoder")
    with pytest.raises(ValueError, match=r"'mlp_in'.*no site of this model"):
        site_of(of_kind("mlp_in"), model.module)


def test_an_input_without_gain_is_a_site_of_gemma_2_only(llama, model: Model) -> None:
    ours = of_kind("transcoder", "blocks.1.ln2.hook_normalized")
    assert site_of(ours, model.module) == Site(1, "transcoder")
    with pytest.raises(ValueError, match="without its norm's gain"):
        site_of(ours, llama)


@pytest.mark.parametrize("kind", ["mid", "attn_out", "mlp_act"])
def test_activations_that_are_no_site_are_refused(model: Model, kind: str) -> None:
    with pytest.raises(ValueError, match=f"reads '{kind}'"):
        site_of(of_kind(kind), model.module)


def test_layer_and_width_are_those_of_the_model(model: Model) -> None:
    assert site_of(of_kind("res"), model.module) == Site(1, "res")
    far = of_kind("res")
    with pytest.raises(ValueError, match="layer 7 does not exist"):
        site_of(replace(far, config=replace(far.config, layer=7)), model.module)
    with pytest.raises(ValueError, match="another model or another kind"):
        site_of(of_kind("att"), model.module)
