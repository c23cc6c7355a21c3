"""One SAE while it is trained: parameters, optimiser, schedules, dead features.

The recipe is Gemma Scope's (Lieberum et al. 2024, arXiv 2408.05147, sections 2.2 and 3):

1. Activations are divided by one scalar. Theirs makes the mean squared norm 1; ours makes the mean
   squared distance from the mean 1, which is the same for centred activations and keeps bandwidth
   and thresholds in scale where a large constant sits in the residual stream.
2. Decoder rows are drawn He-uniformly and scaled to unit norm, and the encoder starts as their
   transpose (not for transcoders). The decoder bias starts at the mean activation rather than 0.
3. Each step: gradients (see `gradients`), the part of the decoder's gradient parallel to its rows
   removed, Adam with betas (0, 0.999), rows rescaled to unit norm, thresholds kept positive.
4. At the end the scalar and the pre-encoder bias are folded in, so that the SAE takes raw
   activations: with ``C`` the scalar, `b_enc' = C (b_enc - b_dec W_enc)`, `b_dec' = C b_dec`,
   `threshold' = C threshold`, and ``W_enc``, ``W_dec`` stay (their appendix A).

Their runs have about a million steps; a run of some thousands differs in four ways. The first part
of it selects as a TopK does, which settles directions sooner. Each threshold starts at the quantile
of its feature's own pre-activations that gives the initial L0, so nothing is dead or always on at
the start. The penalty is quadratic around a target L0, which falls to its final value over the
first part of the run. And features that died are restarted from badly reconstructed inputs, drawn
with probability proportional to the squared loss (resampling, Bricken et al. 2023, "Towards
Monosemanticity", appendix), here from the part that is not reconstructed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from workbench.sae.base import SAE, SAEConfig
from workbench.training.config import TrainConfig
from workbench.training.gradients import Penalty, Pieces, Result, sparse_gradients

__all__ = ["Trainer"]

# Pre-activations a new threshold's quantile is taken from; more tokens only cost time.
CALIBRATION_TOKENS = 8192
# Relative change per step of ReLU's L1 coefficient, per unit of relative excess of the L0.
CONTROL_RATE = 0.02
# Fourth powers of errors are sampled as weights; keeps them off an exact zero.
TINY = 1e-12


class Trainer:
    """All state of one SAE in training; feed `step` with batches of raw activations.

    Attributes:
        config: The hyper-parameters.
        d_in: Width of the input.
        d_out: Width of the target; `d_in` for an autoencoder.
        is_transcoder: Whether input and target are different activations.
        step_count: Steps done.
    """

    def __init__(
        self,
        config: TrainConfig,
        d_in: int,
        d_out: int | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        """Initialise the parameters; nothing is trained yet.

        Args:
            config: The hyper-parameters.
            d_in: Width of the input activations.
            d_out: Width of the target activations of a transcoder; leave it out for an
                autoencoder, whose target is its input.
            device: Where the parameters live. Batches must be there too.

        Raises:
            ValueError: A width is not positive.
        """
        for name, width in (("d_in", d_in), ("d_out", d_out)):
            if width is not None and width < 1:
                raise ValueError(f"{name}={width}: expected a positive width.")
        self.config = config
        self.d_in = d_in
        self.is_transcoder = d_out is not None
        self.d_out = d_in if d_out is None else d_out
        self.step_count = 0
        shape = (d_in, config.d_sae, self.d_out)
        size = Pieces.size(*shape)
        self._flat = torch.zeros(size, device=device)
        self._gradient = torch.zeros_like(self._flat)
        self._second = torch.zeros_like(self._flat)
        self._first = torch.zeros_like(self._flat) if config.betas[0] else None
        self._parameters = Pieces.views(self._flat, *shape)
        self._gradients = Pieces.views(self._gradient, *shape)
        self._since_fired = torch.zeros(config.d_sae, dtype=torch.int64, device=device)
        self._scale_in = 0.0
        self._scale_out = 0.0
        self._l1 = config.weight
        self._generator = torch.Generator().manual_seed(config.seed)
        self._draw_weights()

    def __repr__(self) -> str:
        """Say what is trained and how far it is."""
        kind = "transcoder" if self.is_transcoder else "SAE"
        return (
            f"Trainer({self.config.activation} {kind}, {self.d_in} -> {self.config.d_sae} -> "
            f"{self.d_out}, step {self.step_count} of {self.config.steps})"
        )

    @property
    def centered(self) -> bool:
        """Whether the decoder bias is subtracted from the input; never for transcoders."""
        return self.config.center and not self.is_transcoder

    @torch.no_grad()
    def set_normalisation(self, sample: Tensor, target: Tensor | None = None) -> None:
        """Fix the scale of the activations, the biases and the first thresholds from a sample.

        A transcoder's target is divided by its own scalar. (Gemma Scope divides it by the
        input's; with its own, one learning rate and bandwidth fit every pair of sites.)

        Args:
            sample: Raw input activations `(tokens, d_in)`, shuffled and without the first
                position of any sequence; some thousands are enough.
            target: Raw targets `(tokens, d_out)`, for a transcoder only.

        Raises:
            ValueError: A shape is wrong, the sample is constant or not finite, or training has
                begun.
        """
        if self.step_count:
            raise ValueError(f"{self!r} has begun: the scale can only be set before step 1.")
        x, y = self._raw(sample, target)
        self._scale_in = _spread(x, "sample")
        self._scale_out = _spread(y, "target") if self.is_transcoder else self._scale_in
        x, y = x[:CALIBRATION_TOKENS] / self._scale_in, y / self._scale_out
        parts = self._parameters
        parts.b_dec.copy_(y.mean(0))
        start = self.config.target_at(0) / self.config.d_sae
        self._calibrate(x, torch.arange(self.config.d_sae, device=x.device), start)

    @torch.no_grad()
    def step(self, x: Tensor, target: Tensor | None = None) -> dict[str, float]:
        """Do one optimiser step on a batch of raw activations.

        The first step sets the normalisation from its batch if `set_normalisation` was not called.

        Args:
            x: Raw inputs `(batch, d_in)` in any floating dtype, shuffled, first positions left out.
            target: Raw targets `(batch, d_out)`, for a transcoder only.

        Returns:
            Every ``log_every`` steps and after the last: `step`, ``loss`` (squared error in
            normalised units), ``fvu``, ``l0``, ``dead`` (share of features), ``lr``, ``sparsity``;
            else an empty dict.

        Raises:
            ValueError: A shape is wrong, or a target is missing or not wanted.
        """
        if not self._scale_in:
            self.set_normalisation(x, target)
        x, y = self._raw(x, target)
        x = x / self._scale_in
        y = y / self._scale_out if self.is_transcoder else x
        switch = math.ceil(self.config.topk_until * self.config.steps)
        if self.config.activation == "jumprelu" and self.step_count == switch:
            self._start_thresholds(x)
        penalty = self._penalty(self.step_count)
        result = sparse_gradients(x, y, self._parameters, penalty, self._gradients)
        rate = self.config.learning_rate(self.step_count)
        self._update(rate)
        self._since_fired += len(x)
        self._since_fired[result.fired > 0] = 0
        if self.config.activation == "relu":
            excess = result.l0 / self.config.target_at(self.step_count) - 1
            self._l1 *= math.exp(CONTROL_RATE * max(-1.0, min(1.0, excess)))
        self.step_count += 1
        if self._revives_now():
            self._revive(x, y, result.error)
        if self.step_count % self.config.log_every and self.step_count != self.config.steps:
            return {}
        return self._measure(y, result, rate)

    @torch.no_grad()
    def sae(self, *, model: str = "", layer: int = 0, kind: str = "res", path: str = "") -> SAE:
        """The SAE as trained so far, folded so that it takes raw activations.

        With the scalars ``C_in`` and ``C_out`` of input and target, the decoder keeps unit rows and
        a feature's activation is in raw units of what is written: `W_enc' = W_enc C_out / C_in`,
        and everything else is multiplied by ``C_out``. For an autoencoder the two are one.

        A JumpReLU whose thresholds are not trained yet (`TrainConfig.topk_until`) is the TopK that
        the last step trained: with thresholds it would be another function than was measured.

        Args:
            model: Name of the model whose activations these are.
            layer: Its layer.
            kind: Kind of site (``res``, ``att``, ``mlp``, ``transcoder``, ``embed``).
            path: Where the SAE comes from, for its `config`.

        Raises:
            ValueError: The normalisation is not known yet.
        """
        if not self._scale_in:
            raise ValueError(f"{self!r} has seen no activations: call set_normalisation or step.")
        parts, scale = self._parameters, self._scale_out
        trained = self._penalty(max(0, self.step_count - 1))
        jumprelu, topk = (trained.activation == name for name in ("jumprelu", "topk"))
        bias = parts.b_enc - parts.encoder @ parts.b_dec if self.centered else parts.b_enc
        config = SAEConfig(
            model=model,
            layer=layer,
            kind=kind,
            width=self.config.d_sae,
            l0=self.config.target_l0,
            source=path,
            d_in=self.d_in,
            d_out=self.d_out,
            d_sae=self.config.d_sae,
        )
        return SAE(
            W_enc=(parts.encoder.T * (scale / self._scale_in)).contiguous(),
            b_enc=bias * scale,
            W_dec=parts.decoder.clone(),
            b_dec=parts.b_dec * scale,
            threshold=parts.threshold * scale if jumprelu else None,
            activation="topk" if topk else self.config.activation,
            k=trained.k if topk else None,
            config=config,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that is needed to go on, as tensors that safetensors can store.

        The configuration is not among them: keep `config.to_dict()` beside them.
        """
        state = {
            "parameters": self._flat.clone(),
            "second_moment": self._second.clone(),
            "since_fired": self._since_fired.clone(),
            "generator": self._generator.get_state(),
            "step_count": torch.tensor(self.step_count),
            "scales": torch.tensor(
                [self._scale_in, self._scale_out, self._l1], dtype=torch.float64
            ),
        }
        if self._first is not None:
            state["first_moment"] = self._first.clone()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken; later steps are the same to the last bit.

        Raises:
            ValueError: The state belongs to another configuration (names or shapes differ).
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            raise ValueError(f"state holds {sorted(state)}, expected {sorted(own)}.")
        for name, tensor in own.items():
            if state[name].shape != tensor.shape:
                raise ValueError(
                    f"state[{name!r}] has shape {tuple(state[name].shape)}, expected "
                    f"{tuple(tensor.shape)}: it was saved with another TrainConfig or width."
                )
        self._flat.copy_(state["parameters"])
        self._second.copy_(state["second_moment"])
        self._since_fired.copy_(state["since_fired"])
        self._generator.set_state(state["generator"])
        self.step_count = int(state["step_count"])
        self._scale_in, self._scale_out, self._l1 = state["scales"].tolist()
        if self._first is not None:
            self._first.copy_(state["first_moment"])

    def _raw(self, x: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Check and widen a batch; the target of an autoencoder is its input."""
        if (target is not None) != self.is_transcoder:
            wanted = "needs a target" if self.is_transcoder else "takes no target"
            raise ValueError(f"{self!r} {wanted}: d_out makes a Trainer a transcoder's.")
        for name, tensor, width in (("input", x, self.d_in), ("target", target, self.d_out)):
            if tensor is not None and (tensor.ndim != 2 or tensor.shape[1] != width):
                raise ValueError(
                    f"{name} of shape {tuple(tensor.shape)}: expected (batch, {width})."
                )
        x = x.float()
        return (x, x) if target is None else (x, target.float())

    def _draw_weights(self) -> None:
        parts = self._parameters
        shape = parts.decoder.shape
        # He-uniform only fixes the distribution: the rows are rescaled at once.
        rows = torch.rand(shape, generator=self._generator) * 2 - 1
        parts.decoder.copy_(rows / rows.norm(dim=1, keepdim=True))
        if self.is_transcoder:
            columns = torch.rand(parts.encoder.shape, generator=self._generator) * 2 - 1
            parts.encoder.copy_(columns / columns.norm(dim=1, keepdim=True))
        else:
            parts.encoder.copy_(parts.decoder)

    def _penalty(self, step: int) -> Penalty:
        """What decides on activity in a step, and its price."""
        config = self.config
        relu = config.activation == "relu"
        annealed = config.activation == "jumprelu"
        return Penalty(
            activation="topk" if self._selects(step) else config.activation,
            center=self.centered,
            bandwidth=config.bandwidth,
            target_l0=config.target_at(step) if annealed else config.target_l0,
            weight=self._l1 if relu else config.weight,
        )

    def _calibrate(self, x: Tensor, which: Tensor, density: float) -> None:
        """Set encoder bias and threshold of some features to fire on a share of tokens."""
        parts = self._parameters
        directions = parts.encoder[which]
        origin = parts.b_dec if self.centered else x.mean(0)
        pre = x @ directions.T - directions @ origin
        rank = min(len(x), max(1, round(density * len(x))))
        level = pre.topk(rank, dim=0).values[-1].clamp_(min=self.config.bandwidth / 2)
        bias = torch.zeros_like(level) if self.centered else -(directions @ origin)
        if self.config.activation == "jumprelu":
            parts.threshold[which] = level
        elif self.config.activation == "relu":
            bias = bias - level
        parts.b_enc[which] = bias

    def _update(self, rate: float) -> None:
        """Adam on the flat vector, then the constraints."""
        parts, gradients = self._parameters, self._gradients
        parallel = (gradients.decoder * parts.decoder).sum(1, keepdim=True)
        gradients.decoder.addcmul_(parts.decoder, parallel, value=-1)
        beta1, beta2 = self.config.betas
        done = self.step_count + 1
        self._second.mul_(beta2).addcmul_(self._gradient, self._gradient, value=1 - beta2)
        direction = self._gradient
        if self._first is not None:
            direction = self._first.lerp_(self._gradient, 1 - beta1)
        correction = math.sqrt(1 - beta2**done)
        root = torch.sqrt(self._second).add_(self.config.adam_eps * correction)
        if self.config.threshold_lr != 1:
            root[-self.config.d_sae :] /= self.config.threshold_lr
        self._flat.addcdiv_(direction, root, value=-rate * correction / (1 - beta1**done))
        parts.decoder.div_(parts.decoder.norm(dim=1, keepdim=True))
        if self.config.activation == "jumprelu":
            parts.threshold.clamp_(min=TINY)

    def _selects(self, step: int) -> bool:
        """Whether a step is of the first part of a JumpReLU, which is trained as a TopK."""
        first = self.config.topk_until * self.config.steps
        return self.config.activation == "jumprelu" and step < first

    def _start_thresholds(self, x: Tensor) -> None:
        """One threshold for all that gives the target L0 on a batch; training parts them."""
        parts = self._parameters
        pre = torch.addmm(parts.b_enc, x - parts.b_dec if self.centered else x, parts.encoder.T)
        rank = round(self.config.target_l0 * len(x))
        level = float(pre.flatten().topk(rank).values[-1])
        parts.threshold.fill_(max(level, self.config.bandwidth / 2))

    def _revives_now(self) -> bool:
        every = self.config.revive_every
        early = self.step_count <= self.config.revive_until * self.config.steps
        return bool(every) and early and self.step_count % every == 0

    def _revive(self, x: Tensor, y: Tensor, error: Tensor) -> None:
        """Restart dead features from the unreconstructed part of badly reconstructed inputs."""
        dead = (self._since_fired >= self.config.dead_tokens).nonzero().squeeze(1)[: len(x)]
        if not len(dead):
            return
        loss = error.square().sum(1)
        chances = (loss.square() + TINY).cpu()
        chosen = torch.multinomial(chances, len(dead), generator=self._generator).to(x.device)
        parts = self._parameters
        directions = -error[chosen]
        directions /= directions.norm(dim=1, keepdim=True) + TINY
        parts.decoder[dead] = directions
        if self.is_transcoder:
            directions = x[chosen] - x.mean(0)
            directions /= directions.norm(dim=1, keepdim=True) + TINY
        parts.encoder[dead] = directions
        self._calibrate(x, dead, self.config.target_l0 / self.config.d_sae)
        self._since_fired[dead] = 0
        self._forget(dead)

    def _forget(self, which: Tensor) -> None:
        """Give restarted features the moments of an average one: zeros would give huge steps."""
        shape = (self.d_in, self.config.d_sae, self.d_out)
        for moment, fill in ((self._second, True), (self._first, False)):
            if moment is None:
                continue
            parts = Pieces.views(moment, *shape)
            for piece in (parts.encoder, parts.decoder, parts.b_enc, parts.threshold):
                piece[which] = piece.mean(0) if fill else torch.zeros_like(piece[0])

    def _measure(self, y: Tensor, result: Result, rate: float) -> dict[str, float]:
        squared = float(result.error.square().sum())
        dead = (self._since_fired >= self.config.dead_tokens).float().mean()
        relu = self.config.activation == "relu"
        return {
            "step": float(self.step_count),
            "loss": squared / len(y),
            "fvu": squared / max(TINY, float((y - y.mean(0)).square().sum())),
            "l0": result.l0,
            "dead": float(dead),
            "lr": rate,
            "sparsity": self._l1 if relu else self.config.weight,
        }


def _spread(x: Tensor, name: str) -> float:
    """Root of the mean squared distance from the mean."""
    spread = float((x.double() - x.double().mean(0)).square().sum(1).mean().sqrt())
    if not (math.isfinite(spread) and spread > 0):
        raise ValueError(
            f"{name} of shape {tuple(x.shape)} has spread {spread}: expected finite, "
            "varying activations of at least two tokens."
        )
    return spread
