"""Steered text in plain PyTorch; `workbench.recipes.standalone` fills in and leaves out.

Lines between ``# if word`` and ``# fi`` stay only in scripts that need them.
"""

from __future__ import annotations

import base64
import json
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

# >> constants
MODEL = ""
DEVICE, DTYPE = "cpu", torch.float32
ATTENTION = "eager"
PROMPT = ""
TURNS: list[dict[str, str]] = []
IDS: list[int] = []
END: tuple[int, ...] = ()
CONTEXT, MAX_NEW_TOKENS, TEMPERATURE, TOP_P, SEED = 1, 1, 0.0, 1.0, 0
SITES: dict[str, tuple[str, str]] = {}
EDITS: list[dict[str, Any]] = []
FROZEN: list[str] = []
# << constants


class Steering:
    """Applies EDITS to a model, by hooks, in each pass over new tokens."""

    def __init__(self, model: Any, prompt_length: int) -> None:
        self.prompt_length = prompt_length
        self.start = 0  # position of the first token of the pass; set before each
        self.active: dict[str, Tensor] = {}  # feature activations of the pass, by site
        self.pending: dict[str, list[Any]] = {}  # what to do at a site, by site
        # if freeze
        self.recording, self.frozen = False, {}
        # fi
        for sae in SAES.values():
            sae.update({k: v.to(DEVICE) for k, v in sae.items() if isinstance(v, Tensor)})
        for site, (path, side) in SITES.items():
            module = model.get_submodule(path)
            if "input" in side:
                module.register_forward_pre_hook(partial(self.on_input, site, side))
            else:
                module.register_forward_hook(partial(self.on_output, site, side))

    def on_input(self, site: str, side: str, module: Any, args: tuple) -> tuple | None:
        """A hook before a module; gives what its inputs become."""
        x = args[0]
        # if transcoder at-input
        if site.endswith("transcoder"):  # only read
            if side == "normalised input":  # without the norm's gain, as Gemma Scope's read it
                x = x.float()
                x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.eps)
            self.read(site, x)
            return None
        # fi
        return (self.changed(site, x), *args[1:])

    def on_output(self, site: str, side: str, module: Any, args: tuple, output: Any) -> Any:
        """A hook after a module; gives what its output becomes."""
        # if transcoder at-output
        if site.endswith("transcoder"):  # only read
            self.read(site, output)
            return None
        # fi
        # if embed
        if side == "output over scale":
            scale = float(getattr(module, "scalar_embed_scale", 1.0))
            return (self.changed(site, output.float() / scale) * scale).to(output.dtype)
        # fi
        if isinstance(output, tuple):
            return (self.changed(site, output[0]), *output[1:])
        return self.changed(site, output)

    def read(self, site: str, x: Tensor) -> None:
        """Work out what the edits that read at `site` add, from `x` (1, pos, d_in)."""
        # if freeze
        if self.recording:
            return
        # fi
        if site in SAES:
            self.active[site] = activations(SAES[site], x)
        for edit in EDITS:
            if edit["reads"] == site:
                self.pending.setdefault(edit.get("writes", site), []).append(self.part(edit, x))

    def part(self, edit: dict[str, Any], x: Tensor) -> tuple[Tensor, Tensor | float]:
        """What an edit adds (1, pos, d), and the share of what is there that it takes away."""
        position = torch.arange(x.shape[1], device=x.device) + self.start
        on = acts_at(edit, position, self.prompt_length)[:, None]
        # if activation
        if "activation" in edit:  # by position: the activation in another text
            other = ACTIVATIONS[edit["activation"]].to(x.device)
            on &= (position < len(other))[:, None]
            value = other[position.clamp(max=len(other) - 1)]
            return torch.where(on, value, 0.0), on.float()
        # fi
        sae, f = SAES[edit["reads"]], self.active[edit["reads"]]
        # if splice
        if "splice" in edit:  # the reconstruction from some features instead
            device, named = x.device, edit["features"]
            named = torch.isin(torch.tensor(sae["features"]), torch.tensor(named)).to(device)
            value = (f * (~named if edit["splice"] == "all but" else named)) @ sae["W_dec"]
            if edit["splice"] != "without":
                value = value + sae["b_dec"]
            # if normalised
            if "normalize" in sae:
                shift, scale = statistics(sae["normalize"], x)
                value = value * scale + (0.0 if edit["splice"] == "without" else shift)
            # fi
            if edit["splice"] == "without":  # what the SAE does not reconstruct stays
                return torch.where(on, -value, 0.0), 0.0
            # if skip
            if "W_skip" in sae:
                value = value + x.float() @ sae["W_skip"].T
            # fi
            return torch.where(on, value, 0.0), on.float()
        # fi
        i = sae["features"].index(edit["feature"])
        constant, slope = edit["constant"], edit["slope"]
        # if condition
        if "above" in edit:
            site, feature, limit = edit["above"]
            watched = self.active[site][0, :, SAES[site]["features"].index(feature)]
            on &= (watched > limit)[:, None]
        # fi
        # if patch
        if isinstance(constant, list):  # by position: the feature's activation in another text
            values = torch.tensor(constant, device=x.device)
            on &= (position < len(values))[:, None]
            constant = values[position.clamp(max=len(values) - 1)]
        # fi
        coefficient = constant + slope * f[..., i]
        # if normalised
        if "normalize" in sae:  # the SAE reads each token over its own scale
            _, scale = statistics(sae["normalize"], x)
            constant = constant * scale[..., 0] if edit.get("scaled", True) else constant
            coefficient = constant + slope * scale[..., 0] * f[..., i]
        # fi
        return torch.where(on, coefficient[..., None] * sae["W_dec"][i], 0.0), 0.0

    def changed(self, site: str, x: Tensor) -> Tensor:
        """The activation `x` (1, pos, d) after the edits that write here."""
        # if freeze
        if self.recording:  # the unedited run, over the same tokens
            self.frozen[site] = x
            return x
        x = self.frozen[site] if site in FROZEN else x
        # fi
        self.read(site, x)
        parts = self.pending.pop(site, [])
        if not parts:
            return x
        return (x.float() + sum(add - less * x.float() for add, less in parts)).to(x.dtype)


def activations(sae: dict[str, Any], x: Tensor) -> Tensor:
    """Activations (1, pos, feature) of the features kept here, at `x` (1, pos, d_in)."""
    # if normalised
    if "normalize" in sae:
        shift, scale = statistics(sae["normalize"], x)
        tiny = 1e-5 if sae["normalize"] == "layer_norm" else 0.0
        x = (x.float() - shift) / (scale + tiny)
    # fi
    pre = x.to(sae["W_enc"].dtype) @ sae["W_enc"] + sae["b_enc"]
    # if topk
    if "k" in sae:
        best = pre.relu().topk(sae["k"], dim=-1)
        return torch.zeros_like(pre).scatter(-1, best.indices, best.values).float()
    # fi
    # if jumprelu
    if "threshold" in sae:
        return torch.where(pre > sae["threshold"], pre, 0.0).float()
    # fi
    return pre.relu().float()


# if normalised
def statistics(how: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale (1, pos, 1) of each token, which the SAE puts back after decoding."""
    if how == "layer_norm":
        std, mean = torch.std_mean(x.float(), dim=-1, keepdim=True)
        return mean, std
    norm = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    return torch.zeros_like(norm), norm / x.shape[-1] ** 0.5


# fi
def acts_at(edit: dict[str, Any], position: Tensor, prompt_length: int) -> Tensor:
    """Where an edit acts (pos,): never at <bos>, position 0, unless it is named."""
    in_prompt = position < prompt_length
    on = position > 0
    if "positions" in edit:
        named = [p + prompt_length if p < 0 else p for p in edit["positions"]]
        on = torch.isin(position, torch.tensor(named, device=position.device)) & in_prompt
    if "steps" in edit:  # pass 0 reads the prompt, pass 1 the first new token
        step = (position - prompt_length + 1).clamp(min=0)
        on &= torch.isin(step, torch.tensor(edit["steps"], device=position.device))
    if edit.get("when") == "prompt":
        on &= in_prompt
    if edit.get("when") == "generated":
        on &= ~in_prompt
    return on


def choose(logits: Tensor, random: torch.Generator) -> int:
    """The next token from `logits` (vocabulary,)."""
    if TEMPERATURE == 0:
        return int(logits.argmax())
    p = torch.softmax((logits - logits.max()) / TEMPERATURE, -1).cpu()
    if TOP_P < 1:  # the smallest set of tokens that holds this probability
        ordered, order = p.sort(descending=True, stable=True)
        kept = ordered.masked_fill(ordered.cumsum(-1) - ordered >= TOP_P, 0)
        p = torch.zeros_like(p).scatter(0, order, kept)
    return int(torch.multinomial(p, 1, generator=random))


def prompt_ids(tokenizer: Any) -> list[int]:
    """Ids of the prompt, with exactly one <bos> in front."""
    # if turns
    text = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # fi
    # if prompt
    ids = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    # fi
    # if ids
    ids = list(IDS)
    # fi
    # if bos
    while ids and ids[0] == tokenizer.bos_token_id:
        del ids[0]
    ids.insert(0, tokenizer.bos_token_id)
    # fi
    return ids


@torch.inference_mode()
def main() -> None:
    """Write the text, print it, and print all ids in the last line."""
    name = sys.argv[1] if len(sys.argv) > 1 else MODEL
    tokenizer = AutoTokenizer.from_pretrained(name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        name, dtype=DTYPE, attn_implementation=ATTENTION
    )
    model = model.to(DEVICE).eval()
    prompt = prompt_ids(tokenizer)
    steering = Steering(model, len(prompt))
    random = torch.Generator().manual_seed(SEED)
    ids, new, cache = prompt, [], None
    # if freeze
    plain = None
    # fi
    while len(new) < MAX_NEW_TOKENS and len(prompt) + len(new) < CONTEXT:
        # if freeze
        steering.recording = True
        tokens = torch.tensor([ids], device=DEVICE)
        plain = model(input_ids=tokens, past_key_values=plain, use_cache=True).past_key_values
        steering.recording = False
        # fi
        out = model(
            input_ids=torch.tensor([ids], device=DEVICE),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        steering.start += len(ids)
        new.append(choose(out.logits[0, -1].float(), random))
        if new[-1] in END:
            break
        ids = new[-1:]
    print(tokenizer.decode(new, skip_special_tokens=True))  # noqa: T201 (a script of its own)
    print(json.dumps([*prompt, *new]))  # noqa: T201


def numbers(text: str, *shape: int) -> Tensor:
    """A tensor that is kept as base64 of its float32 numbers."""
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32).reshape(shape)


# >> weights
SAES: dict[str, dict[str, Any]] = {}
ACTIVATIONS: dict[str, Tensor] = {}
# << weights

if __name__ == "__main__":
    main()
