"""What the engine must give, worked out with plain PyTorch hooks on an untouched module.

Nothing here knows nnsight, caches or masks: one prompt at a time, without padding, the whole text
again for every token, and the formulas of sites and edits written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from conftest import D_MODEL, D_SAE, LAYERS, RandomSuite, byte_tokenizer, loud_module, random_sae
from torch import Tensor
from transformers import DynamicCache

Place = tuple[int, str]
"""Layer and kind of a site."""
PLACES: list[Place] = [(0, "embed")] + [
    (layer, kind) for layer in range(LAYERS) for kind in ("att", "transcoder", "mlp", "res")
]
BOS, EOS = 2, 1
TOLERANCE = {"atol": 1e-3, "rtol": 1e-4}


def never_bos(position: int, length: int) -> bool:
    """Where an edit acts that says nothing about it."""
    return position > 0


@dataclass
class Rule:
    """An edit, written out: what it adds, and where."""

    place: Place
    delta: Callable[[Tensor, Tensor], Tensor]
    """From the arriving activation ``(pos, d_in)`` and positions ``(pos,)`` to what is added."""
    where: Callable[[int, int], bool] = never_bos
    """From a position and the prompt's length."""
    condition: tuple[Place, Callable[[Tensor], Tensor]] | None = None
    """Another place, and which of its activations ``(pos, d_in)`` allow the edit ``(pos,)``."""
    replaces: bool = False
    """Whether `delta` is what stands there afterwards, and not what is added."""


@dataclass
class Oracle:
    """A Gemma 2 with hooks, and what they saw in the last run."""

    module: Any
    arriving: dict[Place, Tensor] = field(default_factory=dict)
    leaving: dict[Place, Tensor] = field(default_factory=dict)
    norms: dict[int, Tensor] = field(default_factory=dict)
    """What each rule of the last run added ``(pos,)``."""

    @torch.no_grad()
    def run(
        self,
        ids: Sequence[int],
        length: int,
        rules: Sequence[Rule] = (),
        *,
        cache: DynamicCache | None = None,
        start: int = 0,
        frozen: Sequence[Place] = (),
    ) -> Tensor:
        """Logits ``(pos, vocabulary)`` of `ids`, which stand from position `start` on.

        The places in `frozen` hold what they hold without any rule.
        """
        held: dict[Place, Tensor] = {}
        if frozen:
            self.run(ids, length)
            held = {place: self.leaving[place] for place in frozen}
        self.arriving.clear()
        self.leaving.clear()
        self.norms.clear()
        positions = torch.arange(start, start + len(ids))
        written: dict[int, list[tuple[int, Tensor, Tensor]]] = {}

        def found(place: Place, x: Tensor) -> list[tuple[int, Tensor, Tensor]]:
            self.arriving[place] = x
            values = []
            for number, rule in enumerate(rules):
                if rule.place != place:
                    continue
                on = torch.tensor([rule.where(int(p), length) for p in positions])
                if rule.condition is not None:
                    on &= rule.condition[1](self.arriving[rule.condition[0]])
                values.append((number, on, rule.delta(x, positions)))
            return values

        def change(place: Place, x: Tensor) -> Tensor:
            x = held.get(place, x[0])
            parts = found(place, x)
            if place[1] == "mlp":
                parts += written.pop(place[0], [])
            total = x
            for number, on, value in parts:
                difference = value - x if rules[number].replaces else value
                difference = torch.where(on[:, None], difference, 0.0)
                self.norms[number] = difference.pow(2).sum(-1).sqrt()
                total = total + difference
            self.leaving[place] = total
            return total[None]

        def transcode(layer: int, x: Tensor, eps: float) -> None:
            normal = x[0] / (x[0].pow(2).mean(-1, keepdim=True) + eps).sqrt()
            written[layer] = found((layer, "transcoder"), normal)
            self.leaving[layer, "transcoder"] = normal

        root, handles = self.module.model, []
        size = D_MODEL**0.5
        handles.append(
            root.embed_tokens.register_forward_hook(
                lambda m, a, out: change((0, "embed"), out / size) * size
            )
        )
        for i, layer in enumerate(root.layers):
            handles += [
                layer.self_attn.o_proj.register_forward_pre_hook(
                    lambda m, a, i=i: (change((i, "att"), a[0]),)
                ),
                layer.pre_feedforward_layernorm.register_forward_pre_hook(
                    lambda m, a, i=i: transcode(i, a[0], m.eps)
                ),
                layer.post_feedforward_layernorm.register_forward_hook(
                    lambda m, a, out, i=i: change((i, "mlp"), out)
                ),
                layer.register_forward_hook(lambda m, a, out, i=i: change((i, "res"), out)),
            ]
        try:
            return self.module(
                input_ids=torch.tensor([list(ids)]),
                position_ids=positions[None],
                past_key_values=cache,
                use_cache=cache is not None,
            ).logits[0]
        finally:
            for handle in handles:
                handle.remove()

    def write(
        self,
        ids: Sequence[int],
        rules: Sequence[Rule],
        count: int,
        *,
        least: int | None = None,
        frozen: Sequence[Place] = (),
    ) -> tuple[list[int], list[Tensor]]:
        """The likeliest `count` tokens and the logits of each, the whole text read again each time.

        No end of sequence among the first `least` (all of them, if not given).
        """
        text, steps = list(ids), []
        for index in range(count):
            logits = self.run(text, len(ids), rules, frozen=frozen)[-1]
            steps.append(logits)
            allowed = logits.clone()
            if least is None or index < least:
                allowed[EOS] = -torch.inf
            text.append(int(allowed.argmax()))
        return text[len(ids) :], steps


@cache
def oracle() -> Oracle:
    """One for all tests; its module is never wrapped."""
    return Oracle(loud_module())


@cache
def saes() -> dict[Place, Any]:
    """The random SAEs of the tests' suite, by place."""
    heads = 32  # 4 heads of 8, which is not the model's 24
    return {
        place: random_sae(_site(place), heads if place[1] == "att" else D_MODEL, 100 + i)
        for i, place in enumerate(PLACES)
    }


def _site(place: Place) -> Any:
    from workbench.sites import Site

    return Site(*place)  # pyright: ignore[reportArgumentType]


def feature(place: Place, x: Tensor, index: int) -> Tensor:
    """JumpReLU activation ``(pos,)`` of one feature at `x` ``(pos, d_in)``."""
    sae = saes()[place]
    pre = x @ sae.W_enc[:, index] + sae.b_enc[index]
    return torch.where(pre > sae.threshold[index], pre, torch.zeros_like(pre))


def row(place: Place, index: int) -> Tensor:
    """A feature's decoder row ``(d_out,)``."""
    return saes()[place].W_dec[index]


@cache
def text_ids(text: str) -> tuple[int, ...]:
    """``<bos>`` and the bytes of `text`."""
    return (BOS, *byte_tokenizer()(text, add_special_tokens=False)["input_ids"])


@cache
def seen(text: str, place: Place) -> Tensor:
    """The unedited activation ``(pos, d_in)`` at `place`."""
    ids = text_ids(text)
    oracle().run(ids, len(ids))
    return oracle().leaving[place].clone()


@cache
def most_active(text: str, place: Place) -> int:
    """The feature with the largest activation anywhere but at ``<bos>``."""
    x = seen(text, place)[1:]
    return max(range(D_SAE), key=lambda index: float(feature(place, x, index).max()))


def maximum(place: Place, index: int) -> float:
    """The typical maximum that the suite makes up for a feature."""
    return 1.0 + place[0] + len(place[1]) / 2 + index / 10


def usual_norm(place: Place) -> float:
    """The mean norm that the suite makes up for a place."""
    return 3.0 + place[0] + len(place[1])


def source() -> RandomSuite:
    """The SAEs as the engine takes them."""
    return RandomSuite({_site(place): sae for place, sae in saes().items()})


def close(got: Tensor, wanted: Tensor) -> None:
    """Equal up to rounding; activations here are of the order of 1 to 100."""
    torch.testing.assert_close(got, wanted, rtol=TOLERANCE["rtol"], atol=TOLERANCE["atol"])


def mean(place: Place, index: int) -> float:
    """The mean activation that the suite makes up for a feature."""
    return 0.5 + place[0] / 4 + len(place[1]) / 8 + index / 20


def reconstruction(place: Place, x: Tensor, kept: Sequence[int] | None = None) -> Tensor:
    """What the SAE makes of `x` ``(pos, d_in)`` from all features or the `kept` ones, by one."""
    total = saes()[place].b_dec.expand(len(x), -1)
    for index in range(D_SAE) if kept is None else kept:
        total = total + feature(place, x, index)[:, None] * row(place, index)
    return total
