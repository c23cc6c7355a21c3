"""A small file of each published format, with its formula written out.

Every function here writes random weights in a published layout, and gives what the published
formula makes of them in double precision, from the arrays as they are stored. Nothing is imported
from the package.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D, FEATURES, D_OUT, K = 12, 40, 9, 5
Formula = Callable[[Tensor], Tensor]


@dataclass
class Sample:
    """A file and what it must do."""

    format: str
    folder: Path
    weights: str
    """File of tensors below the folder."""
    features: Formula
    output: Callable[[Tensor, Tensor], Tensor]
    """From input and features to the reconstruction."""
    layer: int = 20
    kind: str = "res"
    model: str = ""
    optional: set[str] = field(default_factory=set)
    """Tensors without which the file is another SAE, or the same."""
    vector: str = "b_enc"
    matrix: str = "W_enc"
    ask: dict[str, Any] = field(default_factory=dict)
    """What the file does not say."""

    @property
    def path(self) -> Path:
        return self.folder / self.weights


class Maker:
    """Random tensors, in the precision that they will be stored in."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 5) -> None:
        self.folder, self.dtype = folder, dtype
        self.random = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random).to(self.dtype)

    def positive(self, *shape: int) -> Tensor:
        return (torch.rand(*shape, generator=self.random) * 2 + 0.2).to(self.dtype)

    def write(
        self,
        name: str,
        tensors: dict[str, Any],
        config: dict[str, Any] | None = None,
        config_name: str = "cfg.json",
    ) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        store(path, tensors)
        if config is not None:
            (self.folder / config_name).write_text(json.dumps(config))


def store(path: Path, tensors: dict[str, Any]) -> None:
    """Write tensors as the file's name says."""
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def held(path: Path) -> dict[str, Any]:
    """The tensors of a file."""
    if path.suffix == ".npz":
        with np.load(path) as data:
            return {name: torch.from_numpy(data[name]) for name in data.files}
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def wide(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors in double precision."""
    return {k: v.double() if isinstance(v, Tensor) else v for k, v in tensors.items()}


def largest(values: Tensor, k: int) -> Tensor:
    """The k largest of each row, ties to the lowest index; sorted the long way."""
    out = torch.zeros_like(values)
    for row, kept in zip(
        values.reshape(-1, values.shape[-1]), out.view(-1, values.shape[-1]), strict=True
    ):
        order = sorted(range(len(row)), key=lambda j: (-float(row[j]), j))[:k]
        kept[order] = row[order]
    return out


def jump(pre: Tensor, threshold: Tensor | float) -> Tensor:
    return torch.where(pre > threshold, pre, torch.zeros_like(pre))


# ------------------------------------------------------------------------- Gemma Scope


def gemma_scope(m: Maker) -> Sample:
    m.folder = m.folder / "gemma-scope-2b-pt-mlp" / "layer_20" / "width_40" / "average_l0_7"
    t = {
        "W_enc": m.normal(D, FEATURES),
        "W_dec": m.normal(FEATURES, D),
        "b_enc": m.normal(FEATURES),
        "b_dec": m.normal(D),
        "threshold": m.positive(FEATURES),
    }
    m.write("params.npz", t)
    w = wide(t)
    return Sample(
        "gemma_scope",
        m.folder,
        "params.npz",
        lambda x: jump(x @ w["W_enc"] + w["b_enc"], w["threshold"]),
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
        kind="mlp",
    )


def _scope_2(
    m: Maker, config: dict[str, Any] | None, d_out: int, *, skip: bool, **about: Any
) -> Sample:
    t = {
        "w_enc": m.normal(D, FEATURES),
        "w_dec": m.normal(FEATURES, d_out),
        "b_enc": m.normal(FEATURES),
        "b_dec": m.normal(d_out),
        "threshold": m.positive(FEATURES),
    }
    if skip:
        t["affine_skip_connection"] = m.normal(D, d_out)
    m.write("params.safetensors", t, config, "config.json")
    w = wide(t)
    extra = (lambda x: x @ w["affine_skip_connection"]) if skip else (lambda x: 0)
    return Sample(
        "gemma_scope_2",
        m.folder,
        "params.safetensors",
        lambda x: jump(x @ w["w_enc"] + w["b_enc"], w["threshold"]),
        lambda x, f: f @ w["w_dec"] + w["b_dec"] + extra(x),
        matrix="w_enc",
        **about,
    )


def gemma_scope_2(m: Maker) -> Sample:
    config = {
        "hf_hook_point_in": "model.layers.20.output",
        "hf_hook_point_out": "model.layers.20.output",
        "width": FEATURES,
        "model_name": "gemma-v3-1b-pt",
        "architecture": "jump_relu",
        "l0": 60,
        "affine_connection": False,
        "type": "sae",
    }
    return _scope_2(m, config, D, skip=False, model="gemma-3-1b-pt")


def gemma_scope_2_attention_without_config(m: Maker) -> Sample:
    m.folder = m.folder / "attn_out_all" / "layer_20_width_16k_l0_small"
    return _scope_2(m, None, D, skip=False, kind="att")


def gemma_scope_2_transcoder(m: Maker) -> Sample:
    config = {
        "hf_hook_point_in": "model.layers.20.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.20.post_feedforward_layernorm.output",
        "model_name": "gemma-v3-4b-it",
        "architecture": "jump_relu",
        "l0": 12,
        "affine_connection": True,
        "type": "transcoder",
    }
    return _scope_2(m, config, D_OUT, skip=True, kind="mlp_in", model="gemma-3-4b-it")


# ------------------------------------------------------------------------------ SAELens


def _lens(
    m: Maker,
    t: dict[str, Tensor],
    config: dict[str, Any],
    features: Formula,
    output: Callable[[Tensor, Tensor], Tensor],
    **about: Any,
) -> Sample:
    m.write("sae_weights.safetensors", t, config)
    return Sample(
        "sae_lens",
        m.folder,
        "sae_weights.safetensors",
        features,
        output,
        **{"model": "gpt2", **about},
    )


def _lens_tensors(m: Maker, d_out: int = D) -> dict[str, Tensor]:
    return {
        "W_enc": m.normal(D, FEATURES),
        "W_dec": m.normal(FEATURES, d_out),
        "b_enc": m.normal(FEATURES),
        "b_dec": m.normal(d_out),
    }


def _lens_config(
    architecture: str, hook: str = "blocks.20.hook_resid_post", **fields: Any
) -> dict[str, Any]:
    metadata = {
        "model_name": "gpt2",
        "hook_name": hook,
        "sae_lens_version": "6.54.12",
        **fields.pop("metadata", {}),
    }
    return {
        "architecture": architecture,
        "d_in": D,
        "d_sae": FEATURES,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
        **fields,
    }


def sae_lens_standard(m: Maker) -> Sample:
    t = _lens_tensors(m)
    w = wide(t)
    return _lens(
        m,
        t,
        _lens_config("standard"),
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
    )


def sae_lens_before_6(m: Maker) -> Sample:
    t = _lens_tensors(m)
    t["scaling_factor"] = torch.ones(FEATURES).to(m.dtype)
    w = wide(t)
    config = {
        "model_name": "gpt2",
        "hook_point": "blocks.21.hook_resid_pre",
        "hook_point_layer": 21,
        "hook_point_head_index": None,
        "d_in": D,
        "d_sae": FEATURES,
        "activation_fn_str": "relu",
        "normalize_activations": False,
        "dtype": "float32",
        "architecture": "standard",
        "context_size": 128,
        "prepend_bos": True,
    }
    return _lens(
        m,
        t,
        config,
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
        optional={"scaling_factor"},
    )


def sae_lens_topk_before_6(m: Maker) -> Sample:
    t = _lens_tensors(m)
    w = wide(t)
    config = {
        "model_name": "gpt2",
        "hook_name": "blocks.20.hook_mlp_out",
        "hook_layer": 20,
        "d_in": D,
        "d_sae": FEATURES,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "dtype": "float32",
    }
    return _lens(
        m,
        t,
        config,
        lambda x: largest((x @ w["W_enc"] + w["b_enc"]).relu(), K),
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
        kind="mlp",
    )


def sae_lens_fine_tuned_before_6(m: Maker) -> Sample:
    t = _lens_tensors(m)
    t["scaling_factor"] = m.positive(FEATURES)
    w = wide(t)
    config = {
        "model_name": "gpt2",
        "hook_name": "blocks.20.hook_resid_post",
        "d_in": D,
        "d_sae": FEATURES,
        "finetuning_scaling_factor": True,
        "dtype": "float32",
    }
    return _lens(
        m,
        t,
        config,
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
        lambda x, f: (f * w["scaling_factor"]) @ w["W_dec"] + w["b_dec"],
        optional={"scaling_factor"},
    )


def sae_lens_topk(m: Maker) -> Sample:
    t = _lens_tensors(m)
    w = wide(t)
    config = _lens_config("topk", "blocks.20.attn.hook_z", k=K, reshape_activations="hook_z")
    return _lens(
        m,
        t,
        config,
        lambda x: largest(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(), K),
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
        kind="att",
    )


def sae_lens_topk_by_decoder_norm(m: Maker) -> Sample:
    t = _lens_tensors(m)
    w = wide(t)
    norm = w["W_dec"].norm(dim=-1)
    config = _lens_config("topk", k=K, rescale_acts_by_decoder_norm=True)
    return _lens(
        m,
        t,
        config,
        lambda x: largest((((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norm).relu(), K),
        lambda x, f: (f / norm) @ w["W_dec"] + w["b_dec"],
    )


def sae_lens_jumprelu(m: Maker) -> Sample:
    t = _lens_tensors(m) | {"threshold": m.normal(FEATURES)}  # some below 0: there relu decides
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        pre = x @ w["W_enc"] + w["b_enc"]
        return pre.relu() * (pre > w["threshold"])

    return _lens(
        m,
        t,
        _lens_config("jumprelu", apply_b_dec_to_input=False),
        features,
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
    )


def sae_lens_log_threshold(m: Maker) -> Sample:
    t = _lens_tensors(m) | {"log_threshold": m.normal(FEATURES)}
    w = wide(t)
    return _lens(
        m,
        t,
        _lens_config("jumprelu"),
        lambda x: jump((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], w["log_threshold"].exp()),
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
    )


def sae_lens_gated(m: Maker) -> Sample:
    t = _lens_tensors(m)
    del t["b_enc"]
    t |= {"b_gate": m.normal(FEATURES), "b_mag": m.normal(FEATURES), "r_mag": m.normal(FEATURES)}
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        z = (x - w["b_dec"]) @ w["W_enc"]
        return (z + w["b_gate"] > 0) * (z * w["r_mag"].exp() + w["b_mag"]).relu()

    return _lens(
        m,
        t,
        _lens_config("gated"),
        features,
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
        vector="b_mag",
    )


def sae_lens_layer_norm(m: Maker) -> Sample:
    t = _lens_tensors(m)
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        z = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)
        return ((z - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()

    def output(x: Tensor, f: Tensor) -> Tensor:
        return (f @ w["W_dec"] + w["b_dec"]) * x.std(-1, keepdim=True) + x.mean(-1, keepdim=True)

    return _lens(
        m, t, _lens_config("standard", normalize_activations="layer_norm"), features, output
    )


def sae_lens_constant_norm(m: Maker) -> Sample:
    t = _lens_tensors(m)
    w = wide(t)

    def factor(x: Tensor) -> Tensor:
        return D**0.5 / x.norm(dim=-1, keepdim=True)

    return _lens(
        m,
        t,
        _lens_config("standard", normalize_activations="constant_norm_rescale"),
        lambda x: ((x * factor(x) - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
        lambda x, f: (f @ w["W_dec"] + w["b_dec"]) / factor(x),
    )


def sae_lens_expected_average(m: Maker) -> Sample:
    t = _lens_tensors(m)
    w = wide(t)
    sample = _lens(
        m,
        t,
        _lens_config("standard", normalize_activations="expected_average_only_in"),
        lambda x: ((x * 0.37 - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
        lambda x, f: (f @ w["W_dec"] + w["b_dec"]) / 0.37,
    )
    (m.folder / "activation_scaler.json").write_text('{"scaling_factor": 0.37}')
    return sample


def _lens_transcoder(m: Maker, architecture: str, *, skip: bool, threshold: bool) -> Sample:
    t = _lens_tensors(m, D_OUT)
    if skip:
        t["W_skip"] = m.normal(D_OUT, D)
    if threshold:
        t["threshold"] = m.positive(FEATURES)
    w = wide(t)
    config = _lens_config(
        architecture,
        "blocks.20.ln2.hook_normalized",
        d_out=D_OUT,
        apply_b_dec_to_input=False,
        metadata={"hook_name_out": "blocks.20.hook_mlp_out"},
    )

    def features(x: Tensor) -> Tensor:
        return jump(x @ w["W_enc"] + w["b_enc"], w["threshold"] if threshold else 0.0)

    def output(x: Tensor, f: Tensor) -> Tensor:
        return f @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skip else 0)

    return _lens(m, t, config, features, output, kind="transcoder")


def sae_lens_transcoder(m: Maker) -> Sample:
    return _lens_transcoder(m, "transcoder", skip=False, threshold=False)


def sae_lens_skip_transcoder(m: Maker) -> Sample:
    return _lens_transcoder(m, "skip_transcoder", skip=True, threshold=False)


def sae_lens_jumprelu_transcoder(m: Maker) -> Sample:
    return _lens_transcoder(m, "jumprelu_transcoder", skip=False, threshold=True)


def sae_lens_jumprelu_skip_transcoder(m: Maker) -> Sample:
    return _lens_transcoder(m, "jumprelu_skip_transcoder", skip=True, threshold=True)


# ------------------------------------------------------------------------------- OpenAI


def _openai_tensors(m: Maker) -> dict[str, Any]:
    return {
        "pre_bias": m.normal(D),
        "encoder.weight": m.normal(FEATURES, D),
        "latent_bias": m.normal(FEATURES),
        "decoder.weight": m.normal(D, FEATURES),
        "stats_last_nonzero": torch.zeros(FEATURES, dtype=torch.long),
        "latents_activation_frequency": torch.ones(FEATURES),
        "latents_mean_square": torch.ones(FEATURES),
    }


OPENAI_OPTIONAL = {
    "stats_last_nonzero",
    "latents_activation_frequency",
    "latents_mean_square",
    "activation",
    "activation_state_dict",
}


def openai_relu(m: Maker) -> Sample:
    m.folder = m.folder / "resid_delta_mlp" / "autoencoders"
    t = _openai_tensors(m) | {"activation": "ReLU", "activation_state_dict": {}}
    m.write("20.pt", t)
    w = wide(t)
    return Sample(
        "openai",
        m.folder,
        "20.pt",
        lambda x: ((x - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]).relu(),
        lambda x, f: f @ w["decoder.weight"].T + w["pre_bias"],
        kind="mlp",
        model="gpt2",
        optional=OPENAI_OPTIONAL,
        vector="latent_bias",
        matrix="encoder.weight",
    )


def openai_topk(m: Maker) -> Sample:
    m.folder = m.folder / "resid_post_mlp_v5_32k" / "autoencoders"
    settings = {"k": K, "postact_fn": "ReLU"}
    t = _openai_tensors(m) | {"activation": "TopK", "activation_state_dict": settings}
    m.write("20.pt", t)
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        z = x - x.mean(-1, keepdim=True)
        z = z / (z.std(-1, keepdim=True) + 1e-5)
        return largest(((z - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]).relu(), K)

    def output(x: Tensor, f: Tensor) -> Tensor:
        y = f @ w["decoder.weight"].T + w["pre_bias"]
        return y * x.std(-1, keepdim=True) + x.mean(-1, keepdim=True)

    return Sample(
        "openai",
        m.folder,
        "20.pt",
        features,
        output,
        model="gpt2",
        optional=OPENAI_OPTIONAL,
        vector="latent_bias",
        matrix="encoder.weight",
    )


# ------------------------------------------------------------------- dictionary_learning


def _dl(
    m: Maker,
    name: str,
    t: dict[str, Any],
    features: Formula,
    output: Callable[[Tensor, Tensor], Tensor],
    **about: Any,
) -> Sample:
    trainer = {
        "dict_class": name,
        "activation_dim": D,
        "dict_size": FEATURES,
        "layer": 20,
        "k": K,
        "lm_name": "EleutherAI/pythia-160m",
        "submodule_name": "resid_post_layer_20",
    }
    m.write("ae.pt", t, {"trainer": trainer, "buffer": {"ctx_len": 128}}, "config.json")
    return Sample(
        "dictionary_learning",
        m.folder,
        "ae.pt",
        features,
        output,
        model="EleutherAI/pythia-160m",
        **about,
    )


def _dl_linear(m: Maker) -> dict[str, Any]:
    return {
        "encoder.weight": m.normal(FEATURES, D),
        "encoder.bias": m.normal(FEATURES),
        "decoder.weight": m.normal(D, FEATURES),
    }


LINEAR: dict[str, Any] = {"vector": "encoder.bias", "matrix": "encoder.weight"}


def dictionary_learning_auto_encoder(m: Maker) -> Sample:
    t = _dl_linear(m) | {"bias": m.normal(D)}
    w = wide(t)
    return _dl(
        m,
        "AutoEncoder",
        t,
        lambda x: ((x - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu(),
        lambda x, f: f @ w["decoder.weight"].T + w["bias"],
        **LINEAR,
    )


def dictionary_learning_auto_encoder_new(m: Maker) -> Sample:
    t = _dl_linear(m) | {"decoder.bias": m.normal(D)}
    w = wide(t)
    return _dl(
        m,
        "AutoEncoderNew",
        t,
        lambda x: (x @ w["encoder.weight"].T + w["encoder.bias"]).relu(),
        lambda x, f: f @ w["decoder.weight"].T + w["decoder.bias"],
        **LINEAR,
    )


def dictionary_learning_gated(m: Maker) -> Sample:
    t = {
        "encoder.weight": m.normal(FEATURES, D),
        "decoder.weight": m.normal(D, FEATURES),
        "decoder_bias": m.normal(D),
        "r_mag": m.normal(FEATURES),
        "gate_bias": m.normal(FEATURES),
        "mag_bias": m.normal(FEATURES),
    }
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        z = (x - w["decoder_bias"]) @ w["encoder.weight"].T
        return (z + w["gate_bias"] > 0) * (w["r_mag"].exp() * z + w["mag_bias"]).relu()

    return _dl(
        m,
        "GatedAutoEncoder",
        t,
        features,
        lambda x, f: f @ w["decoder.weight"].T + w["decoder_bias"],
        vector="mag_bias",
        matrix="encoder.weight",
    )


def dictionary_learning_topk(m: Maker) -> Sample:
    t = _dl_linear(m) | {
        "b_dec": m.normal(D),
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(0.8),
    }
    w = wide(t)
    return _dl(
        m,
        "AutoEncoderTopK",
        t,
        lambda x: largest(((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu(), K),
        lambda x, f: f @ w["decoder.weight"].T + w["b_dec"],
        optional={"threshold"},
        **LINEAR,
    )


def _dl_batch(m: Maker, threshold: float) -> Sample:
    t = _dl_linear(m) | {
        "b_dec": m.normal(D),
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(threshold),
    }
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        acts = ((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
        return acts * (acts > w["threshold"])

    return _dl(
        m,
        "BatchTopKSAE",
        t,
        features,
        lambda x, f: f @ w["decoder.weight"].T + w["b_dec"],
        optional={"k"},
        **LINEAR,
    )


def dictionary_learning_batch_topk(m: Maker) -> Sample:
    return _dl_batch(m, 1.7)


def dictionary_learning_batch_topk_without_threshold(m: Maker) -> Sample:
    return _dl_batch(m, -1.0)


def dictionary_learning_matryoshka(m: Maker) -> Sample:
    t = _lens_tensors(m) | {
        "k": torch.tensor(K, dtype=torch.int),
        "threshold": torch.tensor(1.3),
        "group_sizes": torch.tensor([10, 30]),
    }
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        acts = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
        return acts * (acts > w["threshold"])

    return _dl(
        m,
        "MatryoshkaBatchTopKSAE",
        t,
        features,
        lambda x, f: f @ w["W_dec"] + w["b_dec"],
        optional={"k", "group_sizes"},
    )


def dictionary_learning_jumprelu(m: Maker) -> Sample:
    t = _lens_tensors(m) | {"threshold": m.normal(FEATURES)}
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        pre = x @ w["W_enc"] + w["b_enc"]
        return (pre * (pre > w["threshold"])).relu()

    return _dl(m, "JumpReluAutoEncoder", t, features, lambda x, f: f @ w["W_dec"] + w["b_dec"])


# ------------------------------------------------------------------------------ sparsify


def _sparsify(m: Maker, *, transcode: bool, skip: bool, **about: Any) -> Sample:
    t = {
        "encoder.weight": m.normal(FEATURES, D),
        "encoder.bias": m.normal(FEATURES),
        "W_dec": m.normal(FEATURES, D),
        "b_dec": m.normal(D),
    }
    if skip:
        t["W_skip"] = m.normal(D, D)
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": FEATURES,
        "k": K,
        "multi_topk": False,
        "skip_connection": skip,
        "transcode": transcode,
        "d_in": D,
    }
    m.write("sae.safetensors", t, config)
    (m.folder.parent / "config.json").write_text('{"model": "meta-llama/Llama-3.2-1B"}')
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        centred = x if transcode else x - w["b_dec"]
        return largest((centred @ w["encoder.weight"].T + w["encoder.bias"]).relu(), K)

    def output(x: Tensor, f: Tensor) -> Tensor:
        return f @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skip else 0)

    return Sample(
        "sparsify",
        m.folder,
        "sae.safetensors",
        features,
        output,
        model="meta-llama/Llama-3.2-1B",
        **LINEAR,
        **about,
    )


def sparsify(m: Maker) -> Sample:
    m.folder = m.folder / "layers.20"
    return _sparsify(m, transcode=False, skip=False)


def sparsify_skip_transcoder(m: Maker) -> Sample:
    m.folder = m.folder / "layers.20.mlp"
    return _sparsify(m, transcode=True, skip=True, kind="mlp_in")


def sparsify_skip_autoencoder(m: Maker) -> Sample:
    m.folder = m.folder / "layers.20.attention"
    return _sparsify(m, transcode=False, skip=True, kind="attn_out")


# --------------------------------------------------------------------------- Llama Scope


def _llama(
    m: Maker, hook: str, hook_out: str, norms: dict[str, float], *, include: bool, **fields: Any
) -> Sample:
    t = {
        "encoder.weight": m.normal(FEATURES, D),
        "encoder.bias": m.normal(FEATURES),
        "decoder.weight": m.normal(D, FEATURES),
        "decoder.bias": m.normal(D),
    }
    config = {
        "hook_point_in": hook,
        "hook_point_out": hook_out,
        "d_model": D,
        "d_sae": FEATURES,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.7539,
        "top_k": 50,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": norms,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "sparsity_include_decoder_norm": include,
        "use_glu_encoder": False,
        **fields,
    }
    m.write("checkpoints/final.safetensors", t, config, "hyperparams.json")
    w = wide(t)
    s_in, s_out = D**0.5 / norms["in"], D**0.5 / norms["out"]
    # What a unit of a normalised feature is worth in the raw output, and its length.
    worth = w["decoder.weight"].T / s_out
    length = (worth * s_in).norm(dim=-1) if include else torch.ones(FEATURES).double()

    def features(x: Tensor) -> Tensor:
        pre = ((x * s_in) @ w["encoder.weight"].T + w["encoder.bias"]) / s_in * length
        return jump(pre, 0.7539)

    def output(x: Tensor, f: Tensor) -> Tensor:
        return (f * s_in / length) @ worth + w["decoder.bias"] / s_out

    return Sample(
        "llama_scope", m.folder, "checkpoints/final.safetensors", features, output, **LINEAR
    )


def llama_scope(m: Maker) -> Sample:
    hook = "blocks.20.hook_resid_post"
    return _llama(m, hook, hook, {"in": 9.4, "out": 9.4}, include=True)


def llama_scope_without_decoder_norm(m: Maker) -> Sample:
    hook = "blocks.20.hook_resid_post"
    return _llama(m, hook, hook, {"in": 9.4, "out": 9.4}, include=False, act_fn="topk")


def llama_scope_transcoder(m: Maker) -> Sample:
    sample = _llama(
        m,
        "blocks.20.ln2.hook_normalized",
        "blocks.20.hook_mlp_out",
        {"in": 9.4, "out": 2.3},
        include=True,
    )
    sample.kind = "transcoder"
    return sample


# ------------------------------------------------------------------------ circuit-tracer


def _tracer(m: Maker, hook: str, *, skip: bool, threshold: bool, **about: Any) -> Sample:
    t = {
        "W_enc": m.normal(FEATURES, D),
        "b_enc": m.normal(FEATURES),
        "W_dec": m.normal(FEATURES, D),
        "b_dec": m.normal(D),
    }
    if skip:
        t["W_skip"] = m.normal(D, D)
    if threshold:
        t["activation_function.threshold"] = m.normal(FEATURES)  # negative ones pass what is above
    m.write("layer_20.safetensors", t)
    (m.folder / "config.yaml").write_text(
        f'model_name: "google/gemma-2-2b"\nmodel_kind: transcoder_set\nscan: x\n'
        f"feature_input_hook: {hook}  # read here\nfeature_output_hook: hook_mlp_out\n"
        "transcoders:\n  - layer_0.safetensors\n"
    )
    w = wide(t)

    def features(x: Tensor) -> Tensor:
        pre = x @ w["W_enc"].T + w["b_enc"]
        return pre * (pre > w["activation_function.threshold"]) if threshold else pre.relu()

    def output(x: Tensor, f: Tensor) -> Tensor:
        return f @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skip else 0)

    return Sample(
        "circuit_tracer",
        m.folder,
        "layer_20.safetensors",
        features,
        output,
        model="google/gemma-2-2b",
        optional={"W_skip", "activation_function.threshold"},
        **about,
    )


def circuit_tracer_relu(m: Maker) -> Sample:
    return _tracer(m, "mlp.hook_in", skip=True, threshold=False, kind="mlp_in")


def circuit_tracer_plain(m: Maker) -> Sample:
    return _tracer(m, "hook_resid_mid", skip=False, threshold=False, kind="mid")


def circuit_tracer_jumprelu(m: Maker) -> Sample:
    return _tracer(m, "ln2.hook_normalized", skip=False, threshold=True, kind="transcoder")


SAMPLES: dict[str, Callable[[Maker], Sample]] = {
    f.__name__: f
    for f in (
        gemma_scope, gemma_scope_2, gemma_scope_2_attention_without_config,
        gemma_scope_2_transcoder, sae_lens_standard, sae_lens_before_6, sae_lens_topk_before_6,
        sae_lens_fine_tuned_before_6, sae_lens_topk, sae_lens_topk_by_decoder_norm,
        sae_lens_jumprelu, sae_lens_log_threshold, sae_lens_gated, sae_lens_layer_norm,
        sae_lens_constant_norm, sae_lens_expected_average, sae_lens_transcoder,
        sae_lens_skip_transcoder, sae_lens_jumprelu_transcoder, sae_lens_jumprelu_skip_transcoder,
        openai_relu, openai_topk, dictionary_learning_auto_encoder,
        dictionary_learning_auto_encoder_new, dictionary_learning_gated, dictionary_learning_topk,
        dictionary_learning_batch_topk, dictionary_learning_batch_topk_without_threshold,
        dictionary_learning_matryoshka, dictionary_learning_jumprelu, sparsify,
        sparsify_skip_transcoder, sparsify_skip_autoencoder, llama_scope,
        llama_scope_without_decoder_norm, llama_scope_transcoder, circuit_tracer_relu,
        circuit_tracer_plain,
        circuit_tracer_jumprelu,
    )
}  # fmt: skip
