"""A sparse autoencoder: four matrices and an activation function.

    pre  = (x - b_dec if apply_b_dec_to_input else x) W_enc + b_enc
    f    = JumpReLU: pre where pre > threshold, else 0       (strictly greater)
           ReLU:     max(pre, 0)
           TopK:     the k largest of max(pre, 0), else 0    (ties: the lowest index)
    xhat = f W_dec + b_dec

Names, shapes and conventions are Gemma Scope's (Lieberum et al. 2024, arXiv 2408.05147, section 2
and appendix A). A transcoder is the same object whose output is another activation than its input.

Two things that other families of SAEs do cannot be folded into those matrices:

- A skip transcoder (Paulo et al. 2025, arXiv 2501.18823) adds ``x W_skip^T`` to its output.
- Some SAEs normalise each token before encoding and undo it after decoding, so that a feature's
  share of the reconstruction is ``f * output_scale(x) * d`` and not ``f * d``:

      layer_norm:     (x - mean) / (std + 1e-5), undone as y std + mean; std with d_in - 1 degrees
                      of freedom, as in OpenAI's TopK SAEs (Gao et al. 2024, arXiv 2406.04093)
      constant_norm:  x sqrt(d_in) / ||x||, undone as y ||x|| / sqrt(d_in)
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

__all__ = ["SAE", "SAEConfig"]

Activation = Literal["jumprelu", "relu", "topk"]
Normalize = Literal["none", "layer_norm", "constant_norm"]

SPARSE_ROWS = 256
LAYER_NORM_EPS = 1e-5
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip")
# Width of an attention SAE's input (heads x head size) and of the residual stream, by model.
WIDTHS = {(2048, 2304), (4096, 3584), (4096, 4608), (160, 128)}
SITES = {
    "res": "the residual stream after the layer",
    "att": "the input of self_attn.o_proj (all heads, concatenated)",
    "mlp": "the output of post_feedforward_layernorm",
    "transcoder": "the normalised input of the MLP, without the norm's gain",
    "mlp_in": "the input of the MLP, with the norm's gain",
    "embed": "the token embeddings",
}


@dataclass(frozen=True)
class SAEConfig:
    """Where an SAE belongs and how large it is.

    Attributes:
        model: Name of the model, empty if unknown.
        layer: Layer of the site.
        kind: Kind of site: ``res``, ``att``, ``mlp``, ``transcoder`` or ``embed``; for other
            formats also those of `workbench.sae.formats.places`.
        width: Number of features in the name of the SAE.
        l0: Mean number of active features per token in that name; None if unknown.
        source: File or repository path the SAE was read from, empty if made here.
        d_in: Width of the input.
        d_out: Width of the output.
        d_sae: Number of features.
        hook: What the file calls the activation it reads, such as `blocks.20.hook_resid_post` or
            `model.layers.20.output`; empty if it does not say.
        hook_out: The same for what it writes, where that is another activation.
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
    hook: str = ""
    hook_out: str = ""


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
        W_skip: What a skip transcoder adds of its input `(d_out, d_in)`, else None.
        normalize: How each token is normalised: `"none"`, `"layer_norm"` or `"constant_norm"`.
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
    W_skip: Tensor | None = None
    normalize: Normalize = "none"

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
        if self.W_skip is not None:
            wanted["W_skip"] = (d_out, d_in)
        for name, shape in wanted.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"{name} has shape {got}, expected {shape} for {self.name}.")
        if self.apply_b_dec_to_input and d_in != d_out:
            raise ValueError(
                f"apply_b_dec_to_input with d_in={d_in}, d_out={d_out}: a transcoder's decoder "
                "bias cannot be subtracted from its input."
            )
        if self.normalize not in get_args(Normalize):
            raise ValueError(
                f"normalize={self.normalize!r}: expected 'none', 'layer_norm' or 'constant_norm'."
            )
        if self.normalize != "none" and (self.W_skip is not None or d_in != d_out):
            raise ValueError(
                f"normalize={self.normalize!r} in a transcoder: undoing it needs an output that is "
                "the input's own activation."
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
            ValueError: The last dimension is not ``d_in``.
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
        pre = self._input(x) @ self.W_enc[:, chosen]
        pre += self.b_enc[chosen]
        return _gate(pre, None if self.threshold is None else self.threshold[chosen])

    def encode_sparse(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The active features only, position after position.

        Encodes some hundred rows at a time, so that the full matrix is never held, and without
        gradients.

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
        room = _Room(min(len(x), SPARSE_ROWS), self.config.d_sae, self.W_enc)
        with torch.no_grad():
            for start in range(0, max(1, len(x)), SPARSE_ROWS):
                part = x[start : start + SPARSE_ROWS]
                acts = self._pre(part, room.acts) if self.k is None else self.encode(part)
                row, feature, value = room.active(acts, self.threshold)
                rows.append(row + start)
                features.append(feature)
                values.append(value)
        return torch.cat(rows), torch.cat(features), torch.cat(values)

    def decode(self, f: Tensor, x: Tensor | None = None) -> Tensor:
        """The reconstruction of feature activations.

        Args:
            f: Feature activations `(..., d_sae)`.
            x: The activations they were encoded from `(..., d_in)`: needed where the output depends
                on the input beyond the features (`W_skip`, `normalize`), and unused elsewhere.

        Returns:
            The output `(..., d_out)`.

        Raises:
            ValueError: A width is wrong, or `x` is needed and missing.
        """
        if f.shape[-1] != self.config.d_sae:
            raise ValueError(
                f"{self.name} decodes feature activations of width {self.config.d_sae}, "
                f"got {f.shape[-1]}."
            )
        y = f.to(self.W_dec.dtype) @ self.W_dec + self.b_dec
        if self.W_skip is None and self.normalize == "none":
            return y
        if x is None:
            why = "undoes its normalisation" if self.W_skip is None else "adds its skip connection"
            raise ValueError(
                f"{self.name} {why} with the input: call decode(f, x), or reconstruct(x)."
            )
        self._check_width(x)
        if self.W_skip is not None:
            return y + x.to(self.W_skip.dtype) @ self.W_skip.T
        shift, scale = self._statistics(x)
        return (y * scale + shift).to(y.dtype)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode: `(..., d_in)` to `(..., d_out)`, all that the SAE predicts of it."""
        return self.decode(self.encode(x), x)

    def output_scale(self, x: Tensor) -> Tensor | None:
        """What a decoder row is multiplied by in the output, token by token.

        Args:
            x: Raw activations at the SAE's site `(..., d_in)`.

        Returns:
            Factors `(..., 1)` in float32, or None where every row counts as it is.

        Raises:
            ValueError: The last dimension is not ``d_in``.
        """
        self._check_width(x)
        return None if self.normalize == "none" else self._statistics(x)[1]

    def with_unit_rows(self) -> SAE:
        """The same function with decoder rows of norm 1 and activations ``f_i ||d_i||``.

        That is the feature activation of Anthropic's "Scaling Monosemanticity" (Templeton et al.
        2024), whose SAEs are trained with a penalty on ``f_i ||d_i||`` and rows of any norm. A
        feature whose row is zero stays as it is.

        Raises:
            ValueError: For a TopK, which would choose other features.
        """
        if self.k is not None:
            raise ValueError(
                f"{self.name} is a TopK: with other scales it would choose other features."
            )
        norms = torch.linalg.vector_norm(self.W_dec.float(), dim=-1)
        norms = torch.where(norms > 0, norms, 1.0).to(self.W_dec.dtype)
        return replace(
            self,
            W_enc=self.W_enc * norms,
            b_enc=self.b_enc * norms,
            W_dec=self.W_dec / norms[:, None],
            threshold=None if self.threshold is None else self.threshold * norms,
        )

    def save(self, folder: str | Path) -> Path:
        """Write the SAE in SAELens' format; see `workbench.sae.formats.saving.save_sae_lens`.

        Args:
            folder: Where to put ``cfg.json`` and ``sae_weights.safetensors``; made if it is
                missing.

        Returns:
            The folder.

        Raises:
            ValueError: SAELens has no architecture for it.
        """
        # Imported here because the formats are built on this module.
        from workbench.sae.formats.saving import save_sae_lens

        return save_sae_lens(self, folder)

    def direction(self, index: int) -> Tensor:
        """A feature's decoder row `(d_out,)`: what it writes per unit of activation."""
        return self.W_dec[self.check_index(index)]

    def encoder_column(self, index: int) -> Tensor:
        """A feature's encoder column `(d_in,)`: what it reads."""
        return self.W_enc[:, self.check_index(index)]

    def select(self, indices: Sequence[int]) -> SAE:
        """An SAE of some features only, in the order given, with copies of their weights.

        Without a skip connection, which is no feature's.

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
            W_skip=None,
            config=replace(self.config, d_sae=len(rows)),
        )

    def same_as(self, other: SAE) -> bool:
        """Whether both compute the same: equal weights, to the last bit, and activation."""
        if self is other:
            return True
        if (self.activation, self.k, self.normalize, self.apply_b_dec_to_input) != (
            other.activation,
            other.k,
            other.normalize,
            other.apply_b_dec_to_input,
        ):
            return False
        for name in TENSORS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if (mine is None) != (theirs is None):
                return False
            if mine is not None and not torch.equal(mine, theirs.to(mine.device, mine.dtype)):
                return False
        return True

    def check_values(self) -> None:
        """Read every weight once; refuse NaN and infinities.

        Raises:
            ValueError: Naming the tensor and how many of its values they are.
        """
        for name in TENSORS:
            tensor = getattr(self, name)
            wrong = 0 if tensor is None else tensor.numel() - int(tensor.isfinite().sum())
            if wrong:
                raise ValueError(f"{self.name}: {wrong} value(s) of {name} are NaN or infinite.")

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
            W_skip=None if self.W_skip is None else move(self.W_skip),
        )

    def _pre(self, x: Tensor, room: Tensor | None = None) -> Tensor:
        """Pre-activations `(..., d_sae)`, in the first rows of `room` if it is given."""
        x = self._input(x)
        pre = torch.matmul(x, self.W_enc, out=None if room is None else room[: len(x)])
        pre += self.b_enc
        return pre

    def _active(self, pre: Tensor) -> Tensor:
        """Which pre-activations pass, without a TopK's choice among them."""
        return pre > (0 if self.threshold is None else self.threshold)

    def _input(self, x: Tensor) -> Tensor:
        """What the encoder multiplies: `x` normalised and centred, in the SAE's dtype."""
        self._check_width(x)
        if self.normalize == "layer_norm":
            shift, scale = self._statistics(x)
            x = (x.float() - shift) / (scale + LAYER_NORM_EPS)
        elif self.normalize == "constant_norm":
            _, scale = self._statistics(x)
            # A token of zeros has no direction: it stays zero instead of becoming NaN.
            x = x.float() / scale.masked_fill(scale == 0, 1)
        x = x.to(self.W_enc.dtype)
        return x - self.b_dec if self.apply_b_dec_to_input else x

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale of each token `(..., 1)` that the output is put back on, in float32."""
        x = x.float()
        if self.normalize == "layer_norm":
            std, mean = torch.std_mean(x, dim=-1, keepdim=True)
            return mean, std
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.zeros_like(norm), norm / self.config.d_in**0.5

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


class _Room:
    """Memory for a block of rows: to ask for it anew for each block takes longer than the product.

    Numpy compares and finds several times faster than torch on a CPU.
    """

    def __init__(self, rows: int, d_sae: int, like: Tensor) -> None:
        self.acts = torch.empty(rows, d_sae, dtype=like.dtype, device=like.device)
        in_numpy = like.device.type == "cpu" and like.dtype == torch.float32
        self._above = np.empty((rows, d_sae), bool) if in_numpy else None

    def active(self, acts: Tensor, threshold: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and values of what is above the threshold, or above 0."""
        if self._above is None:
            found = (acts > (0 if threshold is None else threshold)).nonzero()
            return found[:, 0], found[:, 1], acts[found[:, 0], found[:, 1]]
        dense = acts.numpy()
        above = self._above[: len(dense)]
        np.greater(dense, 0 if threshold is None else threshold.numpy(), out=above)
        where = np.flatnonzero(above)
        row = where // above.shape[1]
        value = torch.from_numpy(dense.reshape(-1)[where])
        return torch.from_numpy(row), torch.from_numpy(where - row * above.shape[1]), value


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
