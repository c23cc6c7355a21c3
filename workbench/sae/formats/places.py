"""Names of activations in published configs, and the sites they are.

A config names its activation in TransformerLens' words (``blocks.20.hook_resid_post``), in Hugging
Face's (``model.layers.20.output``) or in words of its own. Only names whose meaning is certain are
in the tables; any other has to be said by the reader's arguments, because an SAE at the wrong
activation gives features that look plausible and mean nothing.

Beside the sites of `workbench.sites` the tables use these kinds:

=============  ===================================================================
``mlp_in``     input of the MLP, the norm's gain included (Gemma Scope 2, Qwen)
``mid``        residual stream between attention and MLP
``attn_out``   what attention adds to the residual stream
``mlp_act``    neurons of the MLP after their activation function
=============  ===================================================================
"""

from __future__ import annotations

import re

KINDS = ("res", "att", "mlp", "transcoder", "embed", "mlp_in", "mid", "attn_out", "mlp_act")

TRANSFORMER_LENS = {
    "hook_resid_post": "res",
    "attn.hook_z": "att",
    "hook_mlp_out": "mlp",
    "ln2.hook_normalized": "transcoder",
    "mlp.hook_in": "mlp_in",
    "hook_resid_mid": "mid",
    "hook_attn_out": "attn_out",
    "mlp.hook_post": "mlp_act",
}
"""After ``blocks.{layer}.``. ``hook_mlp_in`` is missing: TransformerLens takes it before the norm,
and the configs that name it mean the activation after the norm."""

HUGGING_FACE = {
    "": "res",
    "output": "res",
    "self_attn.o_proj.input": "att",
    "post_feedforward_layernorm.output": "mlp",
    "pre_feedforward_layernorm.output": "mlp_in",
}
"""After ``model.layers.{layer}``; the last two are modules of Gemma 2 and 3."""

_TL_NAME = {kind: name for name, kind in TRANSFORMER_LENS.items()}


def site_of(hook: str) -> tuple[int, str] | None:
    """Layer and kind of an activation's name; None if it is not certain.

    >>> site_of("blocks.20.hook_resid_post"), site_of("model.layers.3.self_attn.o_proj.input")
    ((20, 'res'), (3, 'att'))
    """
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found:
        layer, name = int(found[1]), found[2]
        if name == "hook_resid_pre" and layer:
            return layer - 1, "res"  # the same tensor as the layer's before
        kind = TRANSFORMER_LENS.get(name)
        return None if kind is None else (layer, kind)
    found = re.fullmatch(r"(?:.+\.)?layers\.(\d+)(?:\.(.+))?", hook)
    if found:
        kind = HUGGING_FACE.get(found[2] or "")
        return None if kind is None else (int(found[1]), kind)
    return None


def layer_of(hook: str) -> int | None:
    """The layer in a name, whatever activation of the layer it is."""
    found = re.search(r"(?:blocks|layers|layer|h)[._](\d+)", hook)
    return None if found is None else int(found[1])


def hook_name(layer: int, kind: str) -> str:
    """TransformerLens' name of a site; empty if it has none."""
    if kind == "embed":
        return "hook_embed"
    return f"blocks.{layer}.{_TL_NAME[kind]}" if kind in _TL_NAME else ""


def is_gemma(model: str) -> bool:
    """Whether a model's MLP and embedding modules do not give what its residual stream gets.

    Gemma 2 and 3 normalise an MLP's output before adding it and scale the embeddings, so an SAE of
    the module itself is not one of the site that other models have there.
    """
    return "gemma" in model.lower()
