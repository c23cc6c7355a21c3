"""Every published format: read as its formula says, written for SAELens, refused when wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sae.format_samples import D_OUT, FEATURES, SAMPLES, D, K, Maker, Sample, held, store
from safetensors.torch import save_file

from workbench.sae import SAE, SAEConfig
from workbench.sae.formats import FILES, FORMATS, check_sae, format_of, read_sae
from workbench.sae.formats.places import site_of

HALVES = (torch.float32, torch.bfloat16, torch.float16)


def make(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Sample:
    return SAMPLES[name](Maker(folder / "files", dtype))


def tokens(count: int = 64) -> torch.Tensor:
    """Loud inputs off the origin, so that a forgotten bias or mean shows."""
    random = torch.Generator().manual_seed(1)
    return torch.randn(count, D, generator=random) * 2 + 1.5


every = pytest.mark.parametrize("name", sorted(SAMPLES))


@every
def test_features_and_output_are_those_of_the_published_formula(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    sae, x = read_sae(sample.folder), tokens()
    wanted = sample.features(x.double())
    got = sae.encode(x)
    assert 0.02 < (wanted != 0).float().mean() < 0.9, "a sample that shows nothing"
    torch.testing.assert_close(got.double(), wanted, atol=2e-5, rtol=1e-5)
    assert torch.equal(got != 0, wanted != 0)
    recon = sample.output(x.double(), wanted)
    torch.testing.assert_close(sae.reconstruct(x).double(), recon, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(sae.decode(got, x).double(), recon, atol=1e-4, rtol=1e-5)


@every
def test_a_file_says_its_format_its_site_and_its_model(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    assert format_of(sample.folder) == format_of(sample.path) == sample.format
    sae = read_sae(sample.path)
    config = sae.config
    assert (config.layer, config.kind, config.model) == (sample.layer, sample.kind, sample.model)
    assert (config.d_in, config.d_sae, config.source) == (D, FEATURES, str(sample.path))
    other = read_sae(sample.path, model="mine", layer=3, kind="mlp").config
    assert (other.model, other.layer, other.kind) == ("mine", 3, "mlp")
    check_sae(sample.folder)


@every
def test_a_few_features_and_the_sparse_ones_are_those_of_the_whole(name, tmp_path) -> None:
    sae, x = read_sae(make(name, tmp_path).folder), tokens()
    whole = sae.encode(x)
    torch.testing.assert_close(sae.encode_features(x, [7, 0, 39]), whole[:, [7, 0, 39]])
    positive = whole.clamp(min=0) if name != "circuit_tracer_jumprelu" else whole
    rows, features, values = sae.encode_sparse(x)
    dense = torch.zeros_like(whole)
    dense[rows, features] = values
    torch.testing.assert_close(dense, positive)


@every
def test_the_output_is_the_sum_of_its_features_shares(name, tmp_path) -> None:
    """Taking a feature out changes the reconstruction by its activation, scale and row."""
    sae, x = read_sae(make(name, tmp_path).folder), tokens()
    f = sae.encode(x)
    index = int(f.abs().sum(0).argmax())
    without = f.clone()
    without[:, index] = 0
    scale = sae.output_scale(x)
    share = f[:, [index]] * sae.direction(index) * (1 if scale is None else scale)
    torch.testing.assert_close(
        sae.decode(f, x) - sae.decode(without, x), share, atol=1e-4, rtol=1e-4
    )
    assert share.abs().max() > 0.1


@every
@pytest.mark.parametrize("stored", HALVES[1:], ids=str)
def test_half_precision_files_are_widened_once(name, stored, tmp_path) -> None:
    if name == "gemma_scope" and stored == torch.bfloat16:
        stored = torch.float16  # numpy has no bfloat16
    sample = make(name, tmp_path, stored)
    sae, x = read_sae(sample.folder), tokens()
    assert sae.W_enc.dtype == sae.b_dec.dtype == torch.float32
    wanted = sample.features(x.double())
    torch.testing.assert_close(sae.encode(x).double(), wanted, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(
        sae.reconstruct(x).double(), sample.output(x.double(), wanted), atol=1e-4, rtol=1e-5
    )


@every
def test_bfloat16_on_request_and_nothing_narrower(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    narrow = read_sae(sample.folder, dtype=torch.bfloat16)
    assert {narrow.W_enc.dtype, narrow.b_enc.dtype, narrow.W_dec.dtype} == {torch.bfloat16}
    wide, x = read_sae(sample.folder), tokens()
    near = narrow.reconstruct(x).float() - wide.reconstruct(x)
    assert near.norm() < 0.3 * wide.reconstruct(x).norm()
    with pytest.raises(ValueError, match="float16 overflows"):
        read_sae(sample.folder, dtype=torch.float16)


@every
def test_a_missing_tensor_is_named(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    whole = held(sample.path)
    needed = sorted(set(whole) - sample.optional)
    assert len(needed) >= 4
    for key in needed:
        store(sample.path, {k: v for k, v in whole.items() if k != key})
        shown = "threshold" if key == "log_threshold" else key
        with pytest.raises(ValueError, match=rf"lacks .*{shown}"):
            read_sae(sample.folder)


@every
def test_a_tensor_that_the_formula_does_not_have_is_refused(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    store(sample.path, held(sample.path) | {"W_mystery": torch.zeros(3)})
    with pytest.raises(ValueError, match="holds W_mystery, which this format has not"):
        read_sae(sample.folder)


@every
def test_a_tensor_of_another_shape_is_refused(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    whole = held(sample.path)
    for key, wrong in [
        (sample.matrix, whole[sample.matrix].T.contiguous()),
        (sample.matrix, whole[sample.matrix].reshape(-1)),
        (sample.vector, whole[sample.vector][:-1].clone()),
    ]:
        store(sample.path, whole | {key: wrong})
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            read_sae(sample.folder)
        message = str(caught.value)
        assert str(sample.path) in message
        assert any(word in message for word in ("shape", "expected", "size"))


@every
def test_nan_in_a_bias_is_found_at_opening_and_in_a_matrix_by_the_check(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    whole = held(sample.path)
    bad = whole[sample.vector].clone()
    bad[3] = torch.nan
    store(sample.path, whole | {sample.vector: bad})
    with pytest.raises(ValueError, match="not finite"):
        read_sae(sample.folder)
    bad = whole[sample.matrix].clone()
    bad[3, 1] = torch.inf
    store(sample.path, whole | {sample.matrix: bad})
    with pytest.raises(ValueError, match=r"hold?s? .* not finite"):
        check_sae(sample.folder)


@every
def test_a_truncated_file_is_refused(name, tmp_path) -> None:
    sample = make(name, tmp_path)
    content = sample.path.read_bytes()
    for keep in (0, 50, len(content) - 20):
        sample.path.write_bytes(content[:keep])
        with pytest.raises(ValueError, match=r"cut short|not a whole|is refused"):
            read_sae(sample.folder)


@every
def test_saelens_format_keeps_every_sae_that_it_can_hold(name, tmp_path) -> None:
    """Read, saved and read again, an SAE is the same function at the same site."""
    sample = make(name, tmp_path)
    sae, x = read_sae(sample.folder), tokens()
    out = tmp_path / "saved"
    if name in ("sparsify_skip_transcoder", "sparsify_skip_autoencoder", "circuit_tracer_jumprelu"):
        with pytest.raises(ValueError, match=r"no topk transcoder|thresholds below 0"):
            sae.save(out)
        assert not out.exists()
        return
    assert sae.save(out) == out
    assert sorted(path.name for path in out.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    back = read_sae(out)
    torch.testing.assert_close(back.encode(x), sae.encode(x))
    torch.testing.assert_close(back.reconstruct(x), sae.reconstruct(x), atol=1e-5, rtol=1e-5)
    for field in ("layer", "kind", "model", "l0", "d_in", "d_out", "d_sae"):
        assert getattr(back.config, field) == getattr(sae.config, field), field


# ------------------------------------------------------------------------------- details


def test_ties_of_a_topk_go_to_the_lowest_index(tmp_path) -> None:
    sample = make("sparsify", tmp_path)
    flat = held(sample.path)
    flat["encoder.weight"] = torch.zeros(FEATURES, D)
    flat["encoder.bias"] = torch.ones(FEATURES)
    flat["encoder.bias"][30] = 2.0
    store(sample.path, flat)
    acts = read_sae(sample.folder).encode(torch.zeros(2, D))
    assert acts[1].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 30]
    assert acts[0, 30] == 2.0


def test_a_negative_threshold_passes_negative_activations_only_where_the_formula_does(
    tmp_path,
) -> None:
    x = tokens()
    plain = read_sae(make("circuit_tracer_jumprelu", tmp_path / "a").folder).encode(x)
    assert (plain < 0).any()
    assert (read_sae(make("sae_lens_jumprelu", tmp_path / "b").folder).encode(x) >= 0).all()


def test_layer_norm_counts_degrees_of_freedom_and_keeps_its_epsilon(tmp_path) -> None:
    """A nearly constant token, where 1e-5 is a hundredth of the spread."""
    sample = make("sae_lens_layer_norm", tmp_path)
    x = 3 + 1e-3 * torch.randn(8, D, generator=torch.Generator().manual_seed(2))
    wanted = sample.features(x.double())
    got = read_sae(sample.folder).encode(x).double()
    torch.testing.assert_close(got, wanted, atol=3e-3, rtol=1e-3)


def test_a_token_of_zeros_gives_no_nan(tmp_path) -> None:
    for name in ("openai_topk", "sae_lens_layer_norm", "sae_lens_constant_norm"):
        sae = read_sae(make(name, tmp_path / name).folder)
        assert sae.reconstruct(torch.zeros(2, D)).isfinite().all()


def test_what_depends_on_the_input_is_not_decoded_without_it(tmp_path) -> None:
    skip = read_sae(make("gemma_scope_2_transcoder", tmp_path / "a").folder)
    with pytest.raises(ValueError, match=r"adds its skip connection .* decode\(f, x\)"):
        skip.decode(torch.zeros(2, FEATURES))
    normed = read_sae(make("openai_topk", tmp_path / "b").folder)
    with pytest.raises(ValueError, match="undoes its normalisation"):
        normed.decode(torch.zeros(2, FEATURES))
    with pytest.raises(ValueError, match="width 12; got activations of width 9"):
        skip.decode(torch.zeros(2, FEATURES), torch.zeros(2, D_OUT))
    plain = read_sae(make("sae_lens_standard", tmp_path / "c").folder)
    assert plain.decode(torch.zeros(2, FEATURES)).shape == (2, D)
    assert plain.output_scale(tokens()) is None


def test_unit_rows_are_the_same_function_in_anthropics_units(tmp_path) -> None:
    """Scaling Monosemanticity's activation is f ||d||, and the published SAE is the same."""
    x = tokens()
    for name in ("sae_lens_standard", "dictionary_learning_auto_encoder_new", "gemma_scope"):
        sae = read_sae(make(name, tmp_path / name).folder)
        unit, norms = sae.with_unit_rows(), sae.W_dec.norm(dim=-1)
        torch.testing.assert_close(unit.encode(x), sae.encode(x) * norms, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(unit.W_dec.norm(dim=-1), torch.ones(FEATURES))
        torch.testing.assert_close(unit.reconstruct(x), sae.reconstruct(x), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(norms, torch.ones(FEATURES), atol=0.1)
    dead = replace(sae, W_dec=torch.zeros_like(sae.W_dec))
    assert dead.with_unit_rows().encode(x).isfinite().all()
    with pytest.raises(ValueError, match="choose other features"):
        read_sae(make("sparsify", tmp_path / "k").folder).with_unit_rows()


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.7.hook_resid_post", (7, "res")),
        ("blocks.7.hook_resid_pre", (6, "res")),
        ("blocks.0.hook_resid_pre", None),
        ("blocks.7.attn.hook_z", (7, "att")),
        ("blocks.7.hook_mlp_out", (7, "mlp")),
        ("blocks.7.ln2.hook_normalized", (7, "transcoder")),
        ("blocks.7.mlp.hook_in", (7, "mlp_in")),
        ("blocks.7.hook_mlp_in", None),
        ("model.layers.7.output", (7, "res")),
        ("model.layers.7", (7, "res")),
        ("layers.7", (7, "res")),
        ("model.language_model.layers.7.output", (7, "res")),
        ("model.layers.7.self_attn.o_proj.input", (7, "att")),
        ("model.layers.7.pre_feedforward_layernorm.output", (7, "mlp_in")),
        ("model.layers.7.post_feedforward_layernorm.output", (7, "mlp")),
        ("model.layers.7.mlp.output", None),
        ("model.layers.7.pre_feedforward_layernorm.input", None),
        ("hook_embed", None),
        ("", None),
    ],
)
def test_only_names_that_are_certain_are_sites(hook, site) -> None:
    assert site_of(hook) == site


def test_a_gemma_scope_2_transcoder_is_not_at_the_site_of_gemma_scope_1(tmp_path) -> None:
    config = read_sae(make("gemma_scope_2_transcoder", tmp_path).folder).config
    assert config.kind == "mlp_in"
    assert config.hook == "model.layers.20.pre_feedforward_layernorm.output"
    assert config.hook_out == "model.layers.20.post_feedforward_layernorm.output"
    assert config.l0 == 12


def edit_config(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text())
    about = content["metadata"] if "hook_name" in fields and "metadata" in content else content
    about = content["trainer"] if "submodule_name" in fields or "lm_name" in fields else about
    about.update(fields)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "config", "fields"),
    [
        ("sae_lens_standard", "cfg.json", {"hook_name": "blocks.7.hook_mlp_in"}),
        ("sae_lens_standard", "cfg.json", {"hook_name": "hook_embed"}),
        ("gemma_scope_2", "config.json", {"hf_hook_point_in": "model.layers.7.mlp.output"}),
        ("dictionary_learning_topk", "config.json", {"submodule_name": None}),
        ("dictionary_learning_topk", "config.json",
         {"submodule_name": "mlp_out_layer_20", "lm_name": "google/gemma-2-2b"}),
        ("llama_scope", "hyperparams.json", {"hook_point_in": "somewhere"}),
    ],
)  # fmt: skip
def test_an_activation_that_is_not_certain_has_to_be_named(name, config, fields, tmp_path) -> None:
    sample = make(name, tmp_path)
    edit_config(sample.folder / config, **fields)
    with pytest.raises(ValueError, match=r"names no certain site: pass .*kind=") as caught:
        read_sae(sample.folder)
    for value in fields.values():
        if value and value != "google/gemma-2-2b":
            assert repr(value) in str(caught.value) or "blocks.20.hook_mlp_out" in str(caught.value)
    sae = read_sae(sample.folder, layer=7, kind="res")
    assert (sae.config.layer, sae.config.kind) == (7, "res")


def test_files_in_folders_that_say_nothing_have_to_be_placed(tmp_path) -> None:
    for name in (
        "gemma_scope",
        "openai_topk",
        "sparsify",
        "gemma_scope_2_attention_without_config",
    ):
        sample = make(name, tmp_path / name)
        bare = tmp_path / f"bare-{name}"
        sample.folder.rename(bare)
        with pytest.raises(ValueError, match=r"pass layer= and kind="):
            read_sae(bare)
        assert read_sae(bare, layer=2, kind="att").config.kind == "att"


def test_gemmas_mlp_module_is_not_the_site_of_other_models(tmp_path) -> None:
    sample = make("sparsify_skip_transcoder", tmp_path)
    assert read_sae(sample.folder).config.hook == "blocks.20.mlp.hook_in"
    with pytest.raises(ValueError, match="pass kind="):
        read_sae(sample.folder, model="google/gemma-2-2b")


def test_a_folder_with_a_file_for_each_layer_needs_the_layer(tmp_path) -> None:
    sample = make("circuit_tracer_relu", tmp_path)
    other = held(sample.path)
    other["b_dec"] = other["b_dec"] + 1
    store(sample.folder / "layer_2.safetensors", other)
    with pytest.raises(
        ValueError, match=r"holds 2 SAEs of the format circuit_tracer .* pass layer="
    ):
        read_sae(sample.folder)
    sae = read_sae(sample.folder, layer=2)
    assert sae.config.layer == 2
    assert torch.equal(sae.b_dec, other["b_dec"])


def test_what_is_no_sae_lists_what_is_known(tmp_path) -> None:
    (tmp_path / "model.bin").write_text("x")
    (tmp_path / "ae.pt").write_text("x")
    with pytest.raises(ValueError, match=r"holds ae.pt, model.bin") as caught:
        read_sae(tmp_path)
    for name, known in FORMATS.items():
        assert f"{name}: {known.weights}" in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_sae(tmp_path / "nowhere")
    (tmp_path / "W_enc_0.safetensors").write_text("x")
    with pytest.raises(ValueError, match="a cross-layer transcoder"):
        format_of(tmp_path)


def test_a_folder_that_fits_two_formats_asks_for_the_file(tmp_path) -> None:
    sample = make("sae_lens_standard", tmp_path)
    store(sample.folder / "params.safetensors", {"w_enc": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"fits gemma_scope_2, sae_lens .* pass the path"):
        format_of(sample.folder)
    assert format_of(sample.path) == "sae_lens"


def test_the_files_of_a_format_are_all_that_it_reads(tmp_path) -> None:
    assert FILES.keys() == FORMATS.keys() == {make(n, tmp_path / n).format for n in SAMPLES}
    assert FILES["llama_scope"] == ("checkpoints/final.safetensors", "hyperparams.json")


def refuse(name: str, config: str, message: str, **fields: Any) -> Any:
    return pytest.param(name, config, fields, message, id=f"{name}-{message[:20]}")


@pytest.mark.parametrize(
    ("name", "config", "fields", "message"),
    [
        refuse("sae_lens_standard", "cfg.json", "two signs", architecture="abstopk"),
        refuse("sae_lens_standard", "cfg.json", "other tokens", architecture="temporal"),
        refuse("sae_lens_standard", "cfg.json", "is a loop", architecture="matching_pursuit"),
        refuse("sae_lens_standard", "cfg.json", "save_inference_model", architecture="batchtopk"),
        refuse("sae_lens_standard", "cfg.json", "supported are", architecture="crosscoder"),
        refuse("sae_lens_standard", "cfg.json", "'tanh-relu'", activation_fn="tanh-relu"),
        refuse("sae_lens_standard", "cfg.json", "covariance_whitening",
               normalize_activations="covariance_whitening"),
        refuse("sae_lens_standard", "cfg.json", "every activation is wrong",
               normalize_activations="expected_average_only_in"),
        refuse("sae_lens_standard", "cfg.json", "every activation is wrong",
               normalize_activations=True),
        refuse("sae_lens_transcoder", "cfg.json", "in a transcoder",
               normalize_activations="layer_norm"),
        refuse("sae_lens_transcoder", "cfg.json", "apply_b_dec_to_input with",
               apply_b_dec_to_input=True),
        refuse("sae_lens_standard", "cfg.json", "d_sae=40, the config 41", d_sae=41),
        refuse("sae_lens_before_6", "cfg.json", "reads head 3 alone", hook_head_index=3),
        refuse("sae_lens_topk", "cfg.json", "k=None", k=None),
        refuse("sae_lens_topk", "cfg.json", "k=41", k=41),
        refuse("sae_lens_fine_tuned_before_6", "cfg.json", "not 1",
               finetuning_scaling_factor=False),
        refuse("gemma_scope_2", "config.json", "crosscoder", type="crosscoder"),
        refuse("gemma_scope_2", "config.json", "clt", type="clt"),
        refuse("gemma_scope_2", "config.json", "'relu' is not known", architecture="relu"),
        refuse("gemma_scope_2", "config.json", "lacks affine", affine_connection=True),
        refuse("gemma_scope_2", "config.json", "width=40", width=16384),
        refuse("sparsify", "cfg.json", "'groupmax'", activation="groupmax"),
        refuse("sparsify", "cfg.json", "signed", signed=True),
        refuse("sparsify", "cfg.json", "k='many'", k="many"),
        refuse("sparsify", "cfg.json", "lacks W_skip", skip_connection=True),
        refuse("sparsify", "cfg.json", "d_in=12", d_in=13),
        refuse("dictionary_learning_topk", "config.json", "dict_class='CrossCoder'",
               trainer={"dict_class": "CrossCoder"}),
        refuse("dictionary_learning_topk", "config.json", "dict_class=None", trainer={}),
        refuse("llama_scope", "hyperparams.json", "batch-wise", norm_activation="batch-wise"),
        refuse("llama_scope", "hyperparams.json", "both norms",
               dataset_average_activation_norm={"in": 3.0}),
        refuse("llama_scope", "hyperparams.json", "gated linear unit", use_glu_encoder=True),
        refuse("llama_scope", "hyperparams.json", "act_fn='prolu'", act_fn="prolu"),
    ],
)  # fmt: skip
def test_what_the_object_cannot_do_is_refused_by_name(
    name, config, fields, message, tmp_path
) -> None:
    sample = make(name, tmp_path)
    edit_config(sample.folder / config, **fields)
    with pytest.raises(ValueError, match=message) as caught:
        read_sae(sample.folder)
    assert str(sample.folder) in str(caught.value)


@pytest.mark.parametrize("value", ["{", "[1]"])
def test_a_config_that_is_none_is_refused(value, tmp_path) -> None:
    sample = make("sae_lens_standard", tmp_path)
    (sample.folder / "cfg.json").write_text(value)
    with pytest.raises(ValueError, match=r"cfg.json (is not JSON|holds a list)"):
        read_sae(sample.folder)


def test_openai_activations_without_a_sign_are_refused(tmp_path) -> None:
    sample = make("openai_topk", tmp_path)
    whole = held(sample.path)
    for change, message in [
        ({"activation": "Identity"}, "activation Identity"),
        ({"activation_state_dict": {"k": 3, "postact_fn": "Identity"}}, "TopK with Identity"),
        ({"activation_state_dict": {}}, "k=None"),
    ]:
        store(sample.path, whole | change)
        with pytest.raises(ValueError, match=message):
            read_sae(sample.folder)


def test_a_scaling_factor_of_ones_is_none(tmp_path) -> None:
    sample = make("gemma_scope", tmp_path)
    whole = held(sample.path)
    store(sample.path, whole | {"scaling_factor": torch.ones(FEATURES)})
    read_sae(sample.folder)
    store(sample.path, whole | {"scaling_factor": torch.full((FEATURES,), 2.0)})
    with pytest.raises(ValueError, match="scaling_factor is not 1"):
        read_sae(sample.folder)


def test_centred_writing_weights_are_warned_of(tmp_path) -> None:
    sample = make("sae_lens_before_6", tmp_path)
    kwargs = {"center_writing_weights": True}
    edit_config(sample.folder / "cfg.json", model_from_pretrained_kwargs=kwargs)
    with pytest.warns(UserWarning, match="subtract the mean"):
        read_sae(sample.folder)


# ------------------------------------------------------------------------ files and disks


class Bomb:
    """A pickle that makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["openai_topk", "dictionary_learning_topk"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_never_executed(name, zipped, tmp_path) -> None:
    sample, trap = make(name, tmp_path), tmp_path / "sprung"
    whole = held(sample.path)
    torch.save(whole | {"extra": Bomb(trap)}, sample.path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="would run code: it is refused"):
        read_sae(sample.folder)
    assert not trap.exists()
    torch.load(sample.path, weights_only=False)
    assert trap.exists(), "a bomb that does not go off proves nothing"


def test_torchs_older_files_are_read_too(tmp_path) -> None:
    sample = make("openai_relu", tmp_path)
    x = tokens()
    wanted = read_sae(sample.folder).encode(x)
    torch.save(held(sample.path), sample.path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_sae(sample.folder).encode(x), wanted)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path) -> None:
    sample = make("openai_relu", tmp_path)
    torch.save(torch.zeros(3), sample.path)
    with pytest.raises(ValueError, match="holds a Tensor, expected a state dict"):
        read_sae(sample.folder)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


WIDE, DEEP = 65536, 2048


def holes(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of zeros that takes no room: its data is a hole in a sparse file."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


@pytest.mark.parametrize("name", ["gemma_scope_2", "sparsify"])
def test_opening_a_gigabyte_reads_and_copies_no_matrix(name, tmp_path) -> None:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "gemma_scope_2": {"w_enc": (DEEP, WIDE), "w_dec": (WIDE, DEEP), "b_enc": (WIDE,),
                          "b_dec": (DEEP,), "threshold": (WIDE,)},
        "sparsify": {"encoder.weight": (WIDE, DEEP), "encoder.bias": (WIDE,),
                     "W_dec": (WIDE, DEEP), "b_dec": (DEEP,)},
    }  # fmt: skip
    folder = tmp_path / "layers.3"
    folder.mkdir()
    path = folder / FORMATS[name].weights
    holes(path, shapes[name])
    (folder / "cfg.json").write_text(json.dumps({"k": K, "d_in": DEEP}))
    assert path.stat().st_size > 2**30
    before = resident()
    sae = read_sae(path, layer=3, kind="res")
    assert sae.W_enc.shape == (DEEP, WIDE)
    assert resident() - before < 2**25
    assert sae.direction(60_000).abs().sum() == 0


def test_a_pt_file_is_mapped_and_never_written_to(tmp_path) -> None:
    sample = make("openai_relu", tmp_path)
    before = sample.path.read_bytes()
    sae = read_sae(sample.folder)
    sae.W_dec[0, 0] = 1e9
    sae.b_enc[0] = 1e9
    assert sample.path.read_bytes() == before


def test_writing_to_a_safetensors_sae_does_not_reach_the_file(tmp_path) -> None:
    sample = make("sae_lens_standard", tmp_path)
    before = sample.path.read_bytes()
    read_sae(sample.folder).W_dec[0, 0] = 1e9
    assert sample.path.read_bytes() == before


def toy(**fields: Any) -> SAE:
    random = torch.Generator().manual_seed(3)
    config = SAEConfig("m", 4, "res", FEATURES, None, "", D, D, FEATURES)
    return SAE(
        W_enc=torch.randn(D, FEATURES, generator=random),
        b_enc=torch.randn(FEATURES, generator=random),
        W_dec=torch.randn(FEATURES, D, generator=random),
        b_dec=torch.randn(D, generator=random),
        **{"threshold": None, "activation": "relu", "config": config, **fields},
    )


def test_saving_fails_whole(tmp_path, monkeypatch) -> None:
    sae = toy()
    sae.save(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("workbench.sae.formats.saving.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        replace(sae, b_enc=sae.b_enc + 1).save(tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_config_never_stands_beside_the_weights_of_another_sae(tmp_path, monkeypatch) -> None:
    """Cut off between the two files, a folder holds no SAE rather than a mixed one."""
    toy(activation="relu").save(tmp_path)
    plain = Path.replace

    def cut(self: Path, target: Path) -> Path:
        if self.name == "cfg.json":
            raise OSError("power cut")
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(OSError, match="power cut"):
        toy(activation="topk", k=3).save(tmp_path)
    with pytest.raises(ValueError, match="no SAE of a known format"):
        read_sae(tmp_path)


def test_saving_over_the_file_it_was_read_from_works(tmp_path) -> None:
    sample = make("sae_lens_standard", tmp_path)
    sae, x = read_sae(sample.folder), tokens()
    wanted = sae.encode(x)
    replace(sae, b_enc=sae.b_enc * 1).save(sample.folder)
    assert torch.equal(read_sae(sample.folder).encode(x), wanted)
    assert torch.equal(sae.encode(x), wanted)


def test_an_sae_is_saved_to_a_folder_with_a_name(tmp_path) -> None:
    sae = toy()
    with pytest.raises(ValueError, match="the path is empty: give the name"):
        sae.save("")
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"a\.txt is a file, and a folder is needed"):
        sae.save(tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_not_finite_is_not_saved(tmp_path) -> None:
    sae = toy()
    sae.W_dec[3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"W_dec .* not finite"):
        sae.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_attention_sae_asks_for_its_heads_side_by_side(tmp_path) -> None:
    sae = toy()
    sae = replace(sae, config=replace(sae.config, kind="att", l0=18.0))
    config = json.loads((sae.save(tmp_path) / "cfg.json").read_text())
    assert config["reshape_activations"] == "hook_z"
    assert config["metadata"]["hook_name"] == "blocks.4.attn.hook_z"
    assert config["metadata"]["l0"] == 18.0
    assert read_sae(tmp_path).config.kind == "att"


def test_shared_tensors_are_saved(tmp_path) -> None:
    """A tied SAE, whose decoder is its encoder's transposed view."""
    sae = toy()
    sae = replace(sae, W_dec=sae.W_enc.T)
    x = tokens()
    assert torch.equal(read_sae(sae.save(tmp_path)).reconstruct(x), sae.reconstruct(x))


def test_gemma_scopes_format_has_no_place_for_a_skip_connection(tmp_path) -> None:
    from workbench.sae.gemma_scope import write_params

    with pytest.raises(ValueError, match=r"skip connection: .* use sae.save"):
        write_params(toy(W_skip=torch.zeros(D, D)), tmp_path)
    with pytest.raises(ValueError, match="normalisation of its input"):
        write_params(toy(normalize="layer_norm"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"W_skip": torch.zeros(D, D + 1)}, r"W_skip has shape \(12, 13\), expected \(12, 12\)"),
        ({"normalize": "batch_norm"}, "'batch_norm': expected 'none'"),
        ({"normalize": "layer_norm", "W_skip": torch.zeros(D, D)}, "in a transcoder"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        toy(**fields)


def test_skip_connections_move_with_the_sae() -> None:
    sae = toy(W_skip=torch.ones(D, D)).to(dtype=torch.bfloat16)
    assert sae.W_skip is not None
    assert sae.W_skip.dtype == torch.bfloat16


def test_safetensors_of_integers_are_refused(tmp_path) -> None:
    sample = make("sae_lens_standard", tmp_path)
    whole = held(sample.path)
    save_file(whole | {"b_enc": torch.zeros(FEATURES, dtype=torch.int32)}, sample.path)
    with pytest.raises(ValueError, match=r"b_enc is torch.int32"):
        read_sae(sample.folder)
