"""Sites: where an activation is, and how to read and write it inside a trace.

A layer of Gemma 2 runs

    x -> input_layernorm -> self_attn -> post_attention_layernorm -> + x
      -> pre_feedforward_layernorm -> mlp -> post_feedforward_layernorm -> + -> output

and Gemma Scope (Lieberum et al. 2024, arXiv 2408.05147, section 3.1 and appendix B) reads four
places of it:

==============  ===============================================================  ================
kind            activation                                                       width
==============  ===============================================================  ================
``att``         input of ``self_attn.o_proj``: head outputs side by side         heads x head_dim
``transcoder``  input of ``pre_feedforward_layernorm`` over its RMS, *no* gain   d_model
``mlp``         output of ``post_feedforward_layernorm``                         d_model
``res``         output of the layer                                              d_model
``embed``       token embeddings before the multiplication by sqrt(d_model)      d_model
==============  ===============================================================  ================

The table is in execution order (``embed`` comes first of all), which is the order in which nnsight
insists on being asked. Other decoders have the same five kinds under other names: the rows of
`workbench.architectures`. There ``transcoder`` is what the MLP reads, its norm's gain included, and
``mlp`` what the MLP adds to the stream. This module knows in which shapes transformers hands
tensors around.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import total_ordering
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from workbench.architectures import GEMMA2, Architecture, architecture_of, resolve

Kind = Literal["embed", "att", "transcoder", "mlp", "res"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Every kind of site, in execution order within a layer."""

_HOOK_NAME = {
    "embed": "hook_embed",
    "att": "blocks.{layer}.attn.hook_z",
    "transcoder": "blocks.{layer}.ln2.hook_normalized",
    "mlp": "blocks.{layer}.hook_mlp_out",
    "res": "blocks.{layer}.hook_resid_post",
}
_AFTER_GAIN = ("input", "output")


def check_kind(kind: str) -> Kind:
    """`kind` itself when there is such a kind of site.

    Raises:
        ValueError: For any other word.
    """
    if kind not in KINDS:
        raise ValueError(
            f"unknown kind of site {kind!r}; the kinds are {', '.join(map(repr, KINDS))}"
        )
    return kind


@total_ordering
@dataclass(frozen=True)
class Site:
    """One place of the model. Sites sort in execution order.

    >>> Site(12).hook_name, Site(12, "att").module_path
    ('blocks.12.hook_resid_post', 'model.layers.12.self_attn.o_proj')
    >>> sorted([Site(1, "res"), Site(1, "att"), Site(0, "res")])
    [Site(0, 'res'), Site(1, 'att'), Site(1, 'res')]
    """

    layer: int
    """Counted from 0; always 0 for ``embed``."""
    kind: Kind = "res"
    """Which activation of the layer."""

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if not is_whole(self.layer):
            raise TypeError(f"layer must be a whole number, got {self.layer!r}")
        object.__setattr__(self, "layer", operator.index(self.layer))
        if self.layer < 0 or (self.kind == "embed" and self.layer != 0):
            wanted = "0 for 'embed'" if self.kind == "embed" else "0 or more"
            raise ValueError(f"layer {self.layer} does not exist; it must be {wanted}")

    def __repr__(self) -> str:
        return f"Site({self.layer}, {self.kind!r})"

    def __str__(self) -> str:
        return "embed" if self.kind == "embed" else f"layer {self.layer} {self.kind}"

    def __lt__(self, other: Site) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[bool, int, int]:
        return (self.kind != "embed", self.layer, KINDS.index(self.kind))

    @property
    def hook_name(self) -> str:
        """TransformerLens' name of the same activation (there ``hook_z`` keeps the heads apart)."""
        return _HOOK_NAME[self.kind].format(layer=self.layer)

    def hook_name_in(self, model: Any) -> str:
        """`hook_name` for the architecture of `model`.

        A transcoder's input with its norm's gain is TransformerLens 3's ``mlp.hook_in``; earlier
        ones have no name for it.
        """
        if self.kind == "transcoder" and architecture_of(model).transcoder_reads in _AFTER_GAIN:
            return f"blocks.{self.layer}.mlp.hook_in"
        return self.hook_name

    @property
    def module_path(self) -> str:
        """The module of ``Gemma2ForCausalLM`` at whose input or output the activation is."""
        return GEMMA2.module_path(self.kind, self.layer)

    def module_path_in(self, model: Any) -> str:
        """`module_path` for the architecture of `model`, a transformers model or nnsight's.

        Raises:
            ValueError: If the architecture is unknown.
        """
        return architecture_of(model).module_path(self.kind, self.layer)

    @property
    def writes_at(self) -> Site:
        """Where a decoder direction of this site's SAE is added.

        A transcoder reads before the MLP and writes what the MLP writes; every other SAE writes
        where it reads.
        """
        return Site(self.layer, "mlp") if self.kind == "transcoder" else self

    def width(self, config: Any) -> int:
        """Length of the activation, d_in, for a model with this `config`."""
        if self.kind != "att":
            return config.hidden_size
        # Not every config has head_dim, and some have None there: then the heads share d_model.
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return config.num_attention_heads * head

    def check(self, config: Any) -> Site:
        """The site itself when the model has it.

        Raises:
            ValueError: If the layer is out of range.
        """
        layers = config.num_hidden_layers
        if self.layer >= layers:
            raise ValueError(
                f"layer {self.layer} does not exist: the model has {layers} layers, "
                f"0 to {layers - 1}"
            )
        return self

    def find(self, model: Any) -> Place:
        """The site in `model`, a transformers model or nnsight's.

        Raises:
            ValueError: If the architecture of the model is unknown.
        """
        row = architecture_of(model)
        return Place(self, row, resolve(model, row.module_path(self.kind, self.layer)))

    def read(self, model: Any) -> Tensor:
        """The activation ``(batch, pos, d_in)`` at this point of a trace over `model`.

        Raises:
            ValueError: If the architecture of the model is unknown.
        """
        return self.find(model).read()

    def write(self, model: Any, value: Tensor) -> None:
        """Replace the activation by `value` ``(batch, pos, d_in)``, inside a trace.

        Raises:
            ValueError: At a transcoder's input, which cannot be written: see `writes_at`. If the
                architecture of the model is unknown.
        """
        self.find(model).write(value)


def check_feature(feature: object) -> tuple[int, int]:
    """The feature as two plain integers; a table's own integers are welcome.

    Raises:
        TypeError: If it is not ``(layer, index)``.
    """
    if isinstance(feature, tuple) and len(feature) == 2 and all(map(is_whole, feature)):
        return operator.index(feature[0]), operator.index(feature[1])
    raise TypeError(f"a feature is (layer, index), such as (5, 231); got {feature!r}")


def feature_at(feature: object, kind: str = "res") -> tuple[Site, int]:
    """Site and index of a feature that is named ``(layer, index)``.

    >>> feature_at((5, 231), "mlp")
    (Site(5, 'mlp'), 231)

    Raises:
        TypeError: If it is not ``(layer, index)``.
        ValueError: For an unknown kind, or a layer that no model has.
    """
    layer, index = check_feature(feature)
    return Site(layer, check_kind(kind)), index


def is_whole(value: object) -> bool:
    """Whether it is a whole number, a table's own integers included and True left out."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(eq=False)
class Place:
    """A site in one model: found once, read and written in every pass of a trace."""

    site: Site
    row: Architecture
    module: Any
    """At whose input or output the activation is."""
    _output: Any = None
    """What was read last, as the module gave it: each reading inside a trace costs time."""

    def read(self) -> Tensor:
        """The activation ``(batch, pos, d_in)`` at this point of the trace."""
        kind, module, reads = self.site.kind, self.module, self.row.transcoder_reads
        if kind == "att":
            return module.input
        if kind == "transcoder" and reads != "output":
            x = module.input
            return x if reads == "input" else rms_normalised(x, module.eps)
        self._output = module.output
        value = tensor_of(self._output)
        # In float32, so that a division in bfloat16 and the multiplication back change nothing.
        return value.float() / _embedding_scale(module) if kind == "embed" else value

    def write(self, value: Tensor) -> None:
        """Replace the activation by `value` ``(batch, pos, d_in)``.

        Raises:
            ValueError: At a transcoder's input, which cannot be written: see `Site.writes_at`.
        """
        site, module = self.site, self.module
        if site.kind == "transcoder":
            raise ValueError(f"{site} can only be read; a transcoder writes at {site.writes_at}")
        if site.kind == "att":
            module.input = value
            return
        output = module.output if self._output is None else self._output
        if site.kind == "embed":
            module.output = (value * _embedding_scale(module)).to(output.dtype)
        else:
            module.output = like(output, value)


def tensor_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden states of a layer's output: a tensor in transformers 5, first of a tuple in 4."""
    return output[0] if isinstance(output, tuple) else output


def like(output: Tensor | tuple[Tensor, ...], value: Tensor) -> Tensor | tuple[Tensor, ...]:
    """`value` in the form of `output`, a tensor or a tuple whose other members are kept."""
    return (value, *output[1:]) if isinstance(output, tuple) else value


def rms_normalised(x: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps)`` in float32: a transcoder's input, without the norm's gain."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def _embedding_scale(module: Any) -> float:
    # transformers 5 scales inside the embedding module, 4.x after it.
    return float(getattr(module, "scalar_embed_scale", 1.0))
