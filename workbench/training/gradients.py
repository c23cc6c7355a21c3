r"""One batch's loss and gradients, written out by hand.

With a normalised input ``x``, target ``y`` (the input itself for an autoencoder), ``B`` tokens:

    pre  = (x - b_dec) W_enc + b_enc            (the subtraction only with a pre-encoder bias)
    f    = pre where active, 0 elsewhere        active: pre > threshold, pre > 0, or the k largest
    e    = f W_dec + b_dec - y
    loss = sum(e ** 2) / B  +  sparsity term

    G       = 2 e / B                           d loss / d reconstruction
    df      = G W_dec^T                         d loss / d f
    dpre    = df where active                   (+ l1 / B for ReLU)
    W_dec'  = f^T G
    W_enc'  = x^T dpre - b_dec (x) sum(dpre)
    b_enc'  = sum(dpre)
    b_dec'  = sum(G) - W_enc sum(dpre)

and for the thresholds of a JumpReLU the straight-through estimators of Rajamanoharan et al. 2024
(arXiv 2407.14435, eqs 11-12) with the rectangle kernel of width ``eps``: with the window
`|pre - threshold| < eps / 2`,

    threshold' = - threshold / eps * sum(df in the window)
                 - l0_slope / (eps B) * count(window)

where ``l0_slope`` is the derivative of the sparsity term with respect to the batch's mean L0.

Only a few per cent of the `(B, d_sae)` entries are active or in a window, and nothing else has a
gradient. So `sparse_gradients` computes the pre-activations block by block inside the processor's
cache, keeps the entries that matter, and needs one dense product where `dense_gradients`, its
plain twin for accelerators and for batches that are not sparse, needs five.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

__all__ = ["Penalty", "Pieces", "Result", "dense_gradients", "sparse_gradients"]

# Rows per block: 512 x 1024 floats stay within a 2 MB second-level cache.
BLOCK = 512
# Above this share of non-zeros five dense products cost less than the sparse ones.
SPARSE_LIMIT = 0.12


@dataclass
class Pieces:
    """The parameters of one SAE, or their gradients; encoder transposed, both row-contiguous.

    Attributes:
        encoder: Encoder directions as rows, `(d_sae, d_in)`.
        decoder: Decoder directions as rows, `(d_sae, d_out)`.
        b_enc: Encoder bias `(d_sae,)`.
        b_dec: Decoder bias `(d_out,)`.
        threshold: Thresholds `(d_sae,)`; unused (zero) unless the SAE is a JumpReLU.
    """

    encoder: Tensor
    decoder: Tensor
    b_enc: Tensor
    b_dec: Tensor
    threshold: Tensor

    @classmethod
    def views(cls, flat: Tensor, d_in: int, d_sae: int, d_out: int) -> Pieces:
        """Cut a flat vector into the five pieces without copying."""
        sizes = [d_sae * d_in, d_sae * d_out, d_sae, d_out, d_sae]
        encoder, decoder, b_enc, b_dec, threshold = flat.split(sizes)
        return cls(encoder.view(d_sae, d_in), decoder.view(d_sae, d_out), b_enc, b_dec, threshold)

    @staticmethod
    def size(d_in: int, d_sae: int, d_out: int) -> int:
        """Length of the flat vector."""
        return d_sae * (d_in + d_out + 2) + d_out


@dataclass(frozen=True)
class Penalty:
    """How activity is decided and priced in one step.

    Attributes:
        activation: `"jumprelu"`, `"relu"` or `"topk"`.
        center: Whether ``b_dec`` is subtracted from the input.
        bandwidth: Width of the kernel (JumpReLU).
        target_l0: L0 asked for in this step (JumpReLU), or k (TopK).
        weight: Weight of the quadratic penalty (JumpReLU) or L1 coefficient (ReLU).
    """

    activation: str
    center: bool
    bandwidth: float
    target_l0: float
    weight: float

    @property
    def k(self) -> int:
        """The number of features kept by TopK."""
        return max(1, round(self.target_l0))

    def l0_slope(self, l0: float) -> float:
        """Derivative of `weight * (l0 / target - 1) ** 2` with respect to `l0`."""
        return 2 * self.weight * (l0 / self.target_l0 - 1) / self.target_l0


@dataclass(frozen=True)
class Result:
    """What a batch leaves behind besides its gradients.

    Attributes:
        error: Reconstruction minus target, `(batch, d_out)`.
        fired: Tokens on which each feature was active, `(d_sae,)` integers.
        l0: Mean number of active features per token.
    """

    error: Tensor
    fired: Tensor
    l0: float


def pre_bias(parameters: Pieces, penalty: Penalty) -> Tensor:
    """The bias of the pre-activations `(d_sae,)`, with the pre-encoder bias folded in."""
    if not penalty.center:
        return parameters.b_enc
    return parameters.b_enc - parameters.encoder @ parameters.b_dec


def active_mask(pre: Tensor, parameters: Pieces, penalty: Penalty) -> Tensor:
    """Which pre-activations `(batch, d_sae)` are active."""
    if penalty.activation == "jumprelu":
        return pre > parameters.threshold
    if penalty.activation == "relu":
        return pre > 0
    mask = torch.zeros_like(pre, dtype=torch.bool)
    mask.scatter_(1, pre.topk(penalty.k, dim=1).indices, value=True)
    return mask & (pre > 0)


def dense_gradients(
    x: Tensor, y: Tensor, parameters: Pieces, penalty: Penalty, gradients: Pieces
) -> Result:
    """Loss gradients with full `(batch, d_sae)` matrices.

    Args:
        x: Normalised inputs `(batch, d_in)`.
        y: Normalised targets `(batch, d_out)`; `x` itself for an autoencoder.
        parameters: The SAE.
        penalty: Activation and sparsity term.
        gradients: Overwritten with the gradients.

    Returns:
        Error, firing counts and L0 of the batch.
    """
    batch = len(x)
    pre = torch.addmm(pre_bias(parameters, penalty), x, parameters.encoder.T)
    active = active_mask(pre, parameters, penalty)
    acts = pre * active
    error = torch.addmm(parameters.b_dec, acts, parameters.decoder) - y
    outer = error * (2 / batch)
    d_acts = outer @ parameters.decoder.T
    fired = active.sum(0)
    l0 = float(fired.sum()) / batch
    if penalty.activation == "jumprelu":
        eps = penalty.bandwidth
        window = (pre - parameters.threshold).abs_() < eps / 2
        in_window = (d_acts * window).sum(0)
        gradients.threshold.copy_(
            -(parameters.threshold * in_window + penalty.l0_slope(l0) / batch * window.sum(0)) / eps
        )
    if penalty.activation == "relu":
        d_acts += penalty.weight / batch
    d_pre = d_acts.mul_(active)
    torch.mm(acts.T, outer, out=gradients.decoder)
    torch.mm(d_pre.T, x, out=gradients.encoder)
    gradients.b_enc.copy_(d_pre.sum(0))
    _bias_gradients(outer, parameters, penalty, gradients)
    return Result(error, fired, l0)


def sparse_gradients(
    x: Tensor, y: Tensor, parameters: Pieces, penalty: Penalty, gradients: Pieces
) -> Result:
    """Loss gradients from the few entries that have any; see `dense_gradients`.

    Falls back to `dense_gradients` off the CPU and for batches that are not sparse.
    """
    if x.device.type != "cpu":
        return dense_gradients(x, y, parameters, penalty, gradients)
    batch, d_sae = len(x), len(parameters.b_enc)
    found = _candidates(x, parameters, penalty)
    if found is None:
        return dense_gradients(x, y, parameters, penalty, gradients)
    where, offset = found
    rows, columns = np.divmod(where, d_sae)
    order = np.argsort(columns.astype(_smallest(d_sae)), kind="stable")
    by_row = _starts(rows, batch)
    by_column = _starts(columns, d_sae)
    column = torch.from_numpy(columns)
    pre, active, window = _split(torch.from_numpy(offset), column, parameters, penalty)
    acts = pre * active if active is not None else pre

    error = _weighted_sums(parameters.decoder, column, by_row, acts)
    error += parameters.b_dec
    error -= y
    outer = error * (2 / batch)
    d_acts = _row_dots(outer, parameters.decoder, by_row, column, acts)

    if active is None:
        fired = by_column.diff()
    else:
        fired = torch.from_numpy(np.bincount(columns[active.numpy()], minlength=d_sae))
    l0 = float(fired.sum()) / batch
    if window is not None:
        _threshold_gradient(d_acts, window, columns, l0, batch, parameters, penalty, gradients)
    if penalty.activation == "relu":
        d_acts = d_acts + penalty.weight / batch
    d_pre = d_acts * active if active is not None else d_acts

    turned = torch.from_numpy(order)
    rows_by_column = torch.from_numpy(rows[order])
    d_pre = d_pre[turned]
    gradients.decoder.copy_(_weighted_sums(outer, rows_by_column, by_column, acts[turned]))
    gradients.encoder.copy_(_weighted_sums(x, rows_by_column, by_column, d_pre))
    gradients.b_enc.copy_(
        torch.from_numpy(np.bincount(columns[order], weights=d_pre.numpy(), minlength=d_sae))
    )
    _bias_gradients(outer, parameters, penalty, gradients)
    return Result(error, fired, l0)


def _bias_gradients(outer: Tensor, parameters: Pieces, penalty: Penalty, gradients: Pieces) -> None:
    """Decoder bias, and what the pre-encoder bias adds to it and takes from the encoder."""
    gradients.b_dec.copy_(outer.sum(0))
    if penalty.center:
        gradients.b_dec.addmv_(parameters.encoder.T, gradients.b_enc, alpha=-1)
        gradients.encoder.addr_(gradients.b_enc, parameters.b_dec, alpha=-1)


def _candidates(
    x: Tensor, parameters: Pieces, penalty: Penalty
) -> tuple[np.ndarray, np.ndarray] | None:
    """Entries that are active or within a threshold's window.

    The lower edge of the window is folded into the bias, so that one comparison with zero finds
    them. Returns flat indices and heights above that edge, or None if they are not few.
    """
    bias = pre_bias(parameters, penalty)
    if penalty.activation == "jumprelu":
        bias = bias - parameters.threshold + penalty.bandwidth / 2
    d_sae = len(bias)
    buffer = torch.empty(min(BLOCK, len(x)), d_sae)
    mask = np.empty(buffer.shape, dtype=bool)
    indices: list[np.ndarray] = []
    heights: list[np.ndarray] = []
    limit = int(SPARSE_LIMIT * len(x) * d_sae)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        block = torch.addmm(bias, rows, parameters.encoder.T, out=buffer[: len(rows)])
        if penalty.activation == "topk":
            values, which = block.topk(penalty.k, dim=1)
            which += torch.arange(len(rows)).unsqueeze(1) * d_sae
            keep = values > 0
            # Ascending, as the row offsets expect; the order within a row carries no meaning.
            indices.append(which[keep].numpy() + start * d_sae)
            heights.append(values[keep].numpy())
            continue
        flat = block.numpy().reshape(-1)
        here = np.greater(flat, 0, out=mask.reshape(-1)[: flat.size])
        nonzero = np.flatnonzero(here)
        limit -= nonzero.size
        if limit < 0:
            return None
        indices.append(nonzero + start * d_sae)
        heights.append(flat[nonzero])
    return np.concatenate(indices), np.concatenate(heights)


def _split(
    height: Tensor, column: Tensor, parameters: Pieces, penalty: Penalty
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Pre-activation, activity and window membership of each candidate (None: all, none)."""
    if penalty.activation != "jumprelu":
        return height, None, None
    half = penalty.bandwidth / 2
    pre = height + parameters.threshold[column] - half
    return pre, height > half, height < penalty.bandwidth


def _threshold_gradient(
    d_acts: Tensor,
    window: Tensor,
    columns: np.ndarray,
    l0: float,
    batch: int,
    parameters: Pieces,
    penalty: Penalty,
    gradients: Pieces,
) -> None:
    """Straight-through gradient of the thresholds from the entries in the window."""
    inside = window.numpy()
    where, d_sae = columns[inside], len(parameters.threshold)
    through = torch.from_numpy(np.bincount(where, weights=d_acts.numpy()[inside], minlength=d_sae))
    count = torch.from_numpy(np.bincount(where, minlength=d_sae))
    slope = penalty.l0_slope(l0) / batch
    gradients.threshold.copy_(-(parameters.threshold * through + slope * count) / penalty.bandwidth)


def _smallest(count: int) -> type[np.unsignedinteger]:
    """Smallest unsigned type for indices below a count: numpy sorts 16 bits by radix."""
    return np.uint16 if count <= 2**16 else np.uint32


def _starts(groups: np.ndarray, count: int) -> Tensor:
    """Where each group begins once the entries are sorted by group, `(count + 1,)`."""
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(groups, minlength=count), out=starts[1:])
    return torch.from_numpy(starts)


def _weighted_sums(table: Tensor, index: Tensor, starts: Tensor, weight: Tensor) -> Tensor:
    """Per group the weighted sum of rows of a table: a sparse times a dense matrix."""
    return F.embedding_bag(
        index,
        table,
        starts,
        mode="sum",
        per_sample_weights=weight,
        include_last_offset=True,
    )


@cache
def _has_sampled_product() -> bool:
    """Whether this build multiplies only at given entries (it does with MKL).

    Builds one small sparse matrix, because PyTorch warns once per process that they are in beta.
    """
    if not torch.backends.mkl.is_available():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], torch.ones(1), (1, 1))
    return True


def _row_dots(left: Tensor, right: Tensor, starts: Tensor, column: Tensor, like: Tensor) -> Tensor:
    """`left[row] . right[column]` for every entry of the sparse pattern."""
    if _has_sampled_product():
        shape = (len(left), len(right))
        pattern = torch.sparse_csr_tensor(
            starts, column, torch.zeros_like(like), shape, check_invariants=False
        )
        return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
    # The derivative of a weighted sum of rows with respect to its weights is that product.
    with torch.enable_grad():
        weight = like.detach().requires_grad_()
        sums = _weighted_sums(right, column, starts, weight)
        (dots,) = torch.autograd.grad(sums, weight, left)
    return dots
