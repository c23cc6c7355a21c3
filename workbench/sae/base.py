"""A sparse autoencoder: four matrices and an activation function.

    pre  = (x - b_dec if apply_b_dec_to_input else x) W_enc + b_enc
    f    = JumpReLU: pre where pre > threshold, else 0       (strictly greater)
           ReLU:     max(pre, 0)
           TopK:     the k largest of max(pre, 0), else 0    (ties: the lowest index)
    xhat = f W_dec + b_dec

Names, shapes and conventions are Gemma Scope's (Lieberum et al. 2024, arXiv 2408.05147, section 2
and appendix A). A transcoder is the same object whose output is another activation than its input.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["SAE", "SAEConfig"]

Activation = Literal["jumprelu", "relu", "topk"]

SPARSE_ROWS = 256
# Width of an attention SAE's input (heads x head size) and of the residual stream, by model.
WIDTHS = {(2048, 2304), (4096, 3584), (4096, 4608), (160, 128)}
SITES = {
    "res": "the residual stream after the layer",
    "att": "the input of self_attn.o_proj (all heads, concatenated)",
    "mlp": "the output of post_feedforward_layernorm",
    "transcoder": "the normalised input of the MLP, without the norm's gain",
    "embed": "the token embeddings",
}


@dataclass(frozen=True)
class SAEConfig:
    """Where an SAE belongs and how large it is.

    Attributes:
        model: Name of the model, empty if unknown.
        layer: Layer of the site.
        kind: Kind of site: `res`, `att`, `mlp`, `transcoder` or `embed`.
        width: Number of features in the name of the SAE.
        l0: Mean number of active features per token in that name; None if unknown.
        source: File or repository path the SAE was read from, empty if made here.
        d_in: Width of the input.
        d_out: Width of the output.
        d_sae: Number of features.
    """

    model: str
    layer: int
    kind: str
    width: int
    l0: float | None
    source: str
    d_in: int
    d_out: int
    d_sae: int


@dataclass(frozen=True, eq=False, repr=False)
class SAE:
    """One sparse autoencoder or transcoder.

    Attributes:
        W_enc: Encoder directions as columns `(d_in, d_sae)`.
        b_enc: Encoder bias `(d_sae,)`.
        W_dec: Decoder directions as rows `(d_sae, d_out)`.
        b_dec: Decoder bias `(d_out,)`.
        threshold: Thresholds of a JumpReLU `(d_sae,)`, else None.
        activation: `"jumprelu"`, `"relu"` or `"topk"`.
        k: Number of features that TopK keeps, else None.
        apply_b_dec_to_input: Whether the decoder bias is subtracted from the input.
        config: Site and sizes.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor | None
    activation: Activation
    config: SAEConfig
    k: int | None = None
    apply_b_dec_to_input: bool = False

    def __post_init__(self) -> None:
        """Check that shapes, activation and its parameters fit together.

        Raises:
            ValueError: They do not; the message says which.
        """
        d_in, d_out, d_sae = self.config.d_in, self.config.d_out, self.config.d_sae
        wanted = {
            "W_enc": (d_in, d_sae),
            "b_enc": (d_sae,),
            "W_dec": (d_sae, d_out),
            "b_dec": (d_out,),
        }
        if self.activation not in ("jumprelu", "relu", "topk"):
            raise ValueError(
                f"activation={self.activation!r}: expected 'jumprelu', 'relu' or 'topk'."
            )
        if (self.threshold is not None) != (self.activation == "jumprelu"):
            raise ValueError(
                f"threshold with activation={self.activation!r}: thresholds belong to jumprelu, "
                "and jumprelu needs them."
            )
        if (self.k is not None) != (self.activation == "topk"):
            raise ValueError(
                f"k={self.k!r} with activation={self.activation!r}: only topk has a k."
            )
        if self.k is not None and not 1 <= self.k <= d_sae:
            raise ValueError(f"k={self.k}: expected 1 to d_sae={d_sae}.")
        if self.threshold is not None:
            wanted["threshold"] = (d_sae,)
        for name, shape in wanted.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"{name} has shape {got}, expected {shape} for {self.name}.")
        if self.apply_b_dec_to_input and d_in != d_out:
            raise ValueError(
                f"apply_b_dec_to_input with d_in={d_in}, d_out={d_out}: a transcoder's decoder "
                "bias cannot be subtracted from its input."
            )

    @property
    def name(self) -> str:
        """Model, site, width and L0 in one line, for messages."""
        config = self.config
        model = f"{config.model} " if config.model else ""
        l0 = "" if config.l0 is None else f" L0 {config.l0:g}"
        return f"SAE {model}layer {config.layer} {config.kind} width {config.d_sae}{l0}"

    def __repr__(self) -> str:
        """Name, activation, sizes and where the tensors are."""
        kind = f"topk {self.k}" if self.k is not None else self.activation
        where = f"{self.W_enc.dtype}".removeprefix("torch.") + f" on {self.W_enc.device}"
        return f"<{self.name}: {kind}, {self.config.d_in} -> {self.config.d_out}, {where}>"

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations.

        Args:
            x: Raw activations at the SAE's site `(..., d_in)`. Widened to the SAE's dtype.

        Returns:
            Feature activations `(..., d_sae)`, in the SAE's dtype.

        Raises:
            ValueError: The last dimension is not `d_in`.
        """
        pre = self._pre(x)
        if self.k is not None:
            return _top_k(pre.relu(), self.k)
        return pre.masked_fill(~self._active(pre), 0)

    def encode_features(self, x: Tensor, indices: int | Sequence[int] | Tensor) -> Tensor:
        """Activations of a few features, from their encoder columns only.

        A TopK SAE is encoded whole: whether one feature is among the k largest depends on all.

        Args:
            x: Raw activations at the SAE's site `(..., d_in)`.
            indices: The features; one index counts as a list of one.

        Returns:
            Their activations `(..., len(indices))`, in the order asked for.

        Raises:
            ValueError: A width or an index is wrong.
        """
        chosen = self._checked(indices)
        if self.k is not None:
            return self.encode(x)[..., chosen]
        pre = self._centered(x) @ self.W_enc[:, chosen]
        pre += self.b_enc[chosen]
        return _gate(pre, None if self.threshold is None else self.threshold[chosen])

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The active features only, position after position.

        Encodes some hundred rows at a time, so that the full matrix is never held.

        Args:
            x: Raw activations `(pos, d_in)`.

        Returns:
            Positions, feature indices and activations of the non-zero entries, `(nnz,)` each,
            ordered by position, then by feature.

        Raises:
            ValueError: `x` is not two-dimensional or its width is wrong.
        """
        if x.ndim != 2:
            raise ValueError(f"x of shape {tuple(x.shape)}: encode_sparse expects (pos, d_in).")
        self._check_width(x)
        rows, features, values = [], [], []
        for start in range(0, max(1, len(x)), SPARSE_ROWS):
            part = x[start : start + SPARSE_ROWS]
            acts = self._pre(part) if self.k is None else self.encode(part)
            where = _places(self._active(acts) if self.k is None else acts > 0)
            rows.append(where // self.config.d_sae + start)
            features.append(where % self.config.d_sae)
            values.append(acts.view(-1)[where])
        return torch.cat(rows), torch.cat(features), torch.cat(values)

    def decode(self, f: Tensor, x: Tensor | None = None) -> Tensor:
        """The reconstruction `(..., d_out)` of feature activations `(..., d_sae)`.

        Raises:
            ValueError: The last dimension is not `d_sae`.
        """
        if f.shape[-1] != self.config.d_sae:
            raise ValueError(
                f"{self.name} decodes feature activations of width {self.config.d_sae}, "
                f"got {f.shape[-1]}."
            )
        return f.to(self.W_dec.dtype) @ self.W_dec + self.b_dec

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode: `(..., d_in)` to `(..., d_out)`."""
        return self.decode(self.encode(x))

    def direction(self, index: int) -> Tensor:
        """A feature's decoder row `(d_out,)`: what it writes per unit of activation."""
        return self.W_dec[self.check_index(index)]

    def encoder_column(self, index: int) -> Tensor:
        """A feature's encoder column `(d_in,)`: what it reads."""
        return self.W_enc[:, self.check_index(index)]

    def select(self, indices: Sequence[int]) -> SAE:
        """An SAE of some features only, in the order given, with copies of their weights.

        Raises:
            ValueError: An index is wrong, or it is a TopK, whose features depend on one another.
        """
        if self.k is not None:
            raise ValueError(f"{self.name} is a TopK: whether a feature is active depends on all.")
        rows = self._checked(indices)
        return replace(
            self,
            W_enc=self.W_enc[:, rows],
            b_enc=self.b_enc[rows],
            W_dec=self.W_dec[rows],
            threshold=None if self.threshold is None else self.threshold[rows],
            config=replace(self.config, d_sae=len(rows)),
        )

    def check_index(self, index: int) -> int:
        """Return a feature index as a plain integer if this SAE has it.

        Raises:
            ValueError: It is not an integer from 0 to `d_sae - 1`.
        """
        try:
            number = operator.index(index)
        except TypeError:
            number = -1
        if isinstance(index, bool) or not 0 <= number < self.config.d_sae:
            raise ValueError(
                f"feature index {index!r}: {self.name} has features 0 to {self.config.d_sae - 1}."
            )
        return number

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> SAE:
        """A copy on another device or in another dtype; tensors that need no change are shared."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        return replace(
            self,
            W_enc=move(self.W_enc),
            b_enc=move(self.b_enc),
            W_dec=move(self.W_dec),
            b_dec=move(self.b_dec),
            threshold=None if self.threshold is None else move(self.threshold),
        )

    def _pre(self, x: Tensor) -> Tensor:
        """Pre-activations `(..., d_sae)`."""
        pre = self._centered(x) @ self.W_enc
        pre += self.b_enc
        return pre

    def _active(self, pre: Tensor) -> Tensor:
        """Which pre-activations pass, without a TopK's choice among them."""
        return pre > (0 if self.threshold is None else self.threshold)

    def _centered(self, x: Tensor) -> Tensor:
        self._check_width(x)
        x = x.to(self.W_enc.dtype)
        return x - self.b_dec if self.apply_b_dec_to_input else x

    def _check_width(self, x: Tensor) -> None:
        got, wanted = x.shape[-1] if x.ndim else 0, self.config.d_in
        if got == wanted:
            return
        site = SITES.get(self.config.kind, "its own site")
        message = f"{self.name} reads {site}, width {wanted}; got activations of width {got}."
        if (wanted, got) in WIDTHS:
            message += f" That is the width of the residual stream: read {SITES['att']} instead."
        elif (got, wanted) in WIDTHS:
            message += f" That is the width of {SITES['att']}: an SAE of kind 'att' takes it."
        raise ValueError(message)

    def _checked(self, indices: int | Sequence[int] | Tensor) -> list[int]:
        if isinstance(indices, Tensor):
            indices = indices.reshape(-1).tolist()
        elif not isinstance(indices, Sequence):
            indices = [indices]
        return [self.check_index(index) for index in indices]


def _gate(pre: Tensor, threshold: Tensor | None) -> Tensor:
    """Zero what is not above the threshold. Filling keeps infinities from becoming NaN."""
    return pre.masked_fill(~(pre > (0 if threshold is None else threshold)), 0)


def _places(mask: Tensor) -> Tensor:
    """Flat indices of what is true; numpy finds them several times faster on a CPU."""
    if mask.device.type != "cpu":
        return mask.view(-1).nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _top_k(acts: Tensor, k: int) -> Tensor:
    """Keep the k largest of the last dimension; of equal ones those with the lowest index."""
    least = acts.topk(k, dim=-1).values[..., -1:]
    keep = acts >= least
    if bool((keep.sum(-1) > k).any()):
        above = acts > least
        room = k - above.sum(-1, keepdim=True)
        tied = keep & ~above
        keep = above | (tied & (tied.cumsum(-1) <= room))
    return acts.masked_fill(~keep, 0)
