"""Architectures: what each family of transformers models calls its parts, one row a family.

Every decoder here adds to one stream of width d_model, layer after layer, and calls the parts of a
layer in this order, which is the order in which nnsight insists on being asked:

    output projection of the attention -> MLP -> end of the layer

A parallel residual (GPT-NeoX, Phi) changes what the MLP reads and not that order. A row says where
the sites of `workbench.sites` are, and how the stream becomes logits. An architecture without a row
is refused with an error that shows the modules of one of its layers; give it a row with `register`:

    from workbench.architectures import Architecture, register

    register(
        Architecture(
            model_type="phi",            # config.model_type
            layers="model.layers",
            embed="model.embed_tokens",
            att="self_attn.dense",       # its input is read
            mlp="mlp",                   # its output is what is added to the stream
            transcoder="mlp",
            transcoder_reads="input",
            norm="model.final_layernorm",
            norm_kind="layer",
        )
    )

Module names are those of transformers 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

TranscoderReads = Literal["output", "input", "normalised input"]
NormKind = Literal["rms", "rms 1+w", "layer"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names of the parts of one family of models.

    Paths start at the transformers model; names of parts start at one of its layers.
    """

    model_type: str
    """``config.model_type`` of the whole model."""
    layers: str
    """Path of the list of layers; the output of a layer is the site ``res``."""
    embed: str
    """Path of the token embedding. An attribute ``scalar_embed_scale`` there is divided out."""
    att: str
    """Output projection of the attention, whose input is the site ``att``."""
    mlp: str
    """Last module of the MLP's branch, whose output ``(batch, pos, d_model)`` joins the stream."""
    transcoder: str
    """Module at which the MLP's input is read."""
    transcoder_reads: TranscoderReads = "output"
    """Which side of it; ``"normalised input"`` is the input over its root mean square."""
    norm: str
    """Path of the norm before the unembedding."""
    norm_kind: NormKind
    """Gain ``w`` or ``1 + w`` over the root mean square, or a layer norm, which centres first."""
    head: str = "lm_head"
    """Path of the unembedding, a linear layer."""
    att_norm: str | None = None
    """Norm, of the same kind, between the output projection and the stream, where there is one."""

    def module_path(self, kind: str, layer: int) -> str:
        """Path of the module at whose input or output a site is."""
        if kind == "embed":
            return self.embed
        path = f"{self.layers}.{layer}"
        return path if kind == "res" else f"{path}.{getattr(self, kind)}"

    def into_stream(self, model: Any, layer: int, directions: Tensor) -> Tensor:
        """What rows `directions` ``(row, d_att)`` at ``att`` add to the stream ``(row, d_model)``.

        In float32, up to a positive factor for each row: where a norm follows the projection, its
        division is left out and its gain is not.

        Raises:
            ValueError: If the projection is quantised: its packed numbers are not its weights.
        """
        block = resolve(model, f"{self.layers}.{layer}")
        projection = resolve(block, self.att)
        if type(projection) not in (nn.Linear, Conv1D):
            raise ValueError(
                f"{self.att} of layer {layer} is a {type(projection).__name__}, whose packed "
                "numbers are not its weights: open the model without quantization="
            )
        with torch.inference_mode():
            weight = projection.weight.float()
            # GPT-2 keeps its matrices as (in, out); a linear layer keeps them as (out, in).
            weight = weight if isinstance(projection, Conv1D) else weight.T
            written = directions.to(weight.device).float() @ weight
            return (
                self._normed(resolve(block, self.att_norm), written) if self.att_norm else written
            )

    def attended(self, model: Any, layer: int, x: Tensor) -> Tensor:
        """What the attention adds to the stream ``(..., d_model)``, division and bias included.

        Args:
            model: The model, not in a tracer's wrapping.
            layer: Layer.
            x: Activation at ``att`` ``(..., d_att)``.
        """
        block = resolve(model, f"{self.layers}.{layer}")
        # By `forward`, past the hooks of a tracer that may be at work on these modules.
        written = resolve(block, self.att).forward(x)
        return resolve(block, self.att_norm).forward(written) if self.att_norm else written

    def into_logits(self, model: Any, direction: Tensor) -> Tensor:
        """What `direction` ``(d_model,)`` in the last stream adds to the logits ``(vocabulary,)``.

        In float32, up to a positive factor: the final norm's division is left out.
        """
        norm, head = resolve(model, self.norm), resolve(model, self.head)
        with torch.inference_mode():
            direction = direction.to(head.weight.device).float()
            return head.weight.float() @ self._normed(norm, direction)

    def unembedding(self, model: Any) -> Tensor:
        """The rows of the unembedding ``(vocabulary, d_model)``."""
        return resolve(model, self.head).weight

    def out_of_logits(self, model: Any, rows: Tensor) -> Tensor:
        """The transpose of `into_logits`: what the stream is multiplied by ``(row, d_model)``.

        Args:
            model: The model.
            rows: Rows of the unembedding, or differences of them ``(row, d_model)``.
        """
        with torch.inference_mode():
            gained = self._gain(resolve(model, self.norm), rows.device) * rows.float()
            # Centring is its own transpose, and comes last on the way back.
            centred = gained - gained.mean(-1, keepdim=True)
            return centred if self.norm_kind == "layer" else gained

    def _normed(self, norm: Any, x: Tensor) -> Tensor:
        """The linear part of a norm: all but its division and its bias."""
        if self.norm_kind == "layer":
            x = x - x.mean(-1, keepdim=True)
        return x * self._gain(norm, x.device)

    def _gain(self, norm: Any, device: torch.device) -> Tensor:
        gain = norm.weight.float().to(device)
        return 1.0 + gain if self.norm_kind == "rms 1+w" else gain


GEMMA2 = Architecture(
    model_type="gemma2",
    layers="model.layers",
    embed="model.embed_tokens",
    att="self_attn.o_proj",
    mlp="post_feedforward_layernorm",
    transcoder="pre_feedforward_layernorm",
    # Gemma Scope folds the gain into its transcoders (arXiv 2408.05147, appendix B).
    transcoder_reads="normalised input",
    norm="model.norm",
    norm_kind="rms 1+w",
    att_norm="post_attention_layernorm",
)
# Gemma Scope 2 does not: hf_hook_point_in of its files is pre_feedforward_layernorm.output.
_GEMMA3 = replace(GEMMA2, model_type="gemma3_text", transcoder_reads="output")
_LLAMA = Architecture(
    model_type="llama",
    layers="model.layers",
    embed="model.embed_tokens",
    att="self_attn.o_proj",
    mlp="mlp",
    transcoder="post_attention_layernorm",
    norm="model.norm",
    norm_kind="rms",
)
_ROWS = (
    GEMMA2,
    _GEMMA3,
    replace(  # the model that also sees images
        _GEMMA3,
        model_type="gemma3",
        layers="model.language_model.layers",
        embed="model.language_model.embed_tokens",
        norm="model.language_model.norm",
    ),
    _LLAMA,
    replace(_LLAMA, model_type="mistral"),
    replace(_LLAMA, model_type="qwen2"),
    replace(_LLAMA, model_type="qwen3"),
    Architecture(
        model_type="gpt2",
        layers="transformer.h",
        embed="transformer.wte",
        att="attn.c_proj",
        mlp="mlp",
        transcoder="ln_2",
        norm="transformer.ln_f",
        norm_kind="layer",
    ),
    Architecture(
        model_type="gpt_neox",
        layers="gpt_neox.layers",
        embed="gpt_neox.embed_in",
        att="attention.dense",
        mlp="mlp",
        transcoder="post_attention_layernorm",
        norm="gpt_neox.final_layer_norm",
        norm_kind="layer",
    ),
)
ARCHITECTURES: dict[str, Architecture] = {row.model_type: row for row in _ROWS}
"""The rows by ``model_type``: filled by `register`, read by `architecture_of`."""


def register(row: Architecture) -> Architecture:
    """Add `row` to the table, in the place of one with the same ``model_type``, and return it."""
    ARCHITECTURES[row.model_type] = row
    return row


def architecture_of(model: Any) -> Architecture:
    """The row for `model`, a transformers model or nnsight's wrapper of one.

    Raises:
        ValueError: If its architecture has no row.
    """
    # This runs at every site of every pass, and transformers intercepts each look-up on a config:
    # its class answers in a tenth of the time, and the wrapper's own `config` would take thrice it.
    config = getattr(model, "_module", model).config
    row = ARCHITECTURES.get(getattr(type(config), "model_type", ""))
    row = row or ARCHITECTURES.get(config.model_type)
    if row is None:
        raise ValueError(_unknown(getattr(model, "_module", model)))
    return row


def resolve(model: Any, path: str) -> Any:
    """The part of `model` at a dotted `path`, as nnsight wraps it if `model` is wrapped.

    Raises:
        ValueError: If there is none, naming what there is instead.
    """
    part = model
    for name in path.split("."):
        try:
            part = part[int(name)] if name.isdigit() else getattr(part, name)
        except AttributeError as error:
            children = [child for child, _ in getattr(part, "_module", part).named_children()]
            raise ValueError(
                f"{path!r} does not lead to a module: there is no {name!r} among "
                f"{', '.join(children) or 'no modules'}; correct the row of the architecture with "
                "workbench.architectures.register"
            ) from error
    return part


def _unknown(module: nn.Module) -> str:
    """What to say of a model without a row: the known ones, its modules, and the remedy."""
    model_type = module.config.model_type  # pyright: ignore[reportAttributeAccessIssue]
    known = ", ".join(sorted(ARCHITECTURES))
    text = f"the architecture {model_type!r} is not in the table of sites, which has {known}. "
    lists = [(p, m) for p, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if lists:
        # A layer may hold lists too, of experts perhaps: the layers are what holds most.
        path, layers = max(lists, key=lambda entry: sum(1 for _ in entry[1].modules()))
        parts = ", ".join(name for name, _ in layers[0].named_modules() if name)
        text += f"Its layers seem to be {path!r}, each of {parts}. "
    outer = ", ".join(n for n, _ in module.named_modules() if n and n.count(".") < 2)
    return text + (
        f"Its outer modules are {outer}. Add a row: from workbench.architectures import "
        f"Architecture, register; register(Architecture(model_type={model_type!r}, layers=..., "
        "embed=..., att=..., mlp=..., transcoder=..., norm=..., norm_kind=...)); "
        "help(Architecture) says what each is."
    )
