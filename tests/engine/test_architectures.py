"""Other decoders: what is read, changed and written is what plain hooks on named modules give.

Each model is tiny, random and loud. The modules of its sites are named here once more, by hand, and
everything expected is worked out with PyTorch's own hooks on a module that nnsight never saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import pytest
import torch
import transformers as tf
from conftest import RandomSuite, byte_tokenizer, random_sae
from engine.engine_oracle import close, text_ids
from torch import Tensor, nn

from workbench import architectures
from workbench.analysis.kinship import written_directions
from workbench.architectures import Architecture, architecture_of, register
from workbench.engine.edits import Steer
from workbench.engine.tracing import Step, generate, trace
from workbench.features import logit_effects
from workbench.models import Model, wrap
from workbench.sites import KINDS, Kind, Site
from workbench.tokens import tokenize

LONG, SHORT = "The cat sat", "Hi 5"
D, LAYERS, EOS, NEW = 24, 3, 1, 4
PHI = Architecture(
    model_type="phi",
    layers="model.layers",
    embed="model.embed_tokens",
    att="self_attn.dense",
    mlp="mlp",
    transcoder="mlp",
    transcoder_reads="input",
    norm="model.final_layernorm",
    norm_kind="layer",
)


@dataclass(frozen=True)
class Family:
    """An architecture, and by hand what the table says of it."""

    config: Callable[[], Any]
    model: type
    text: str
    """Path of the part that holds embedding, layers and final norm."""
    embed: str
    layers: str
    att: str
    heads: int
    """Width of ``att``."""
    reads: str
    """The module whose output the MLP reads."""
    mlp: str
    norm: str
    att_norm: str | None = None
    scale: float = 1.0
    """What the embedding module multiplies by."""
    gain: bool = True
    """Whether a transcoder's input has the norm's gain."""
    row: Architecture | None = None
    """To be registered, where the table has none."""


def text(config: type, **more: object) -> Callable[[], Any]:
    """A tiny config; the names are those that most families share."""
    shared = {
        "vocab_size": len(byte_tokenizer()),
        "hidden_size": D,
        "intermediate_size": 40,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": EOS,
        "bos_token_id": 2,
        "attn_implementation": "eager",
    }
    return lambda: config(**shared | more)


def gemma3_vision() -> Any:
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 8,
        "patch_size": 4,
    }
    language = text(tf.Gemma3TextConfig, **GEMMA3)().to_dict()
    more: dict[str, Any] = {"image_token_id": 5, "attn_implementation": "eager"}
    return tf.Gemma3Config(
        text_config=language,
        vision_config=vision | {"vision_use_head": False},
        mm_tokens_per_image=4,
        tie_word_embeddings=False,
        **more,
    )


GEMMA: dict[str, Any] = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 6,
}
GEMMA3: dict[str, Any] = GEMMA | {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]
}
GROUPED = {"num_key_value_heads": 2}
GEMMA_NAMES: dict[str, Any] = {
    "embed": "embed_tokens",
    "layers": "layers",
    "att": "self_attn.o_proj",
    "heads": 32,
    "reads": "pre_feedforward_layernorm",
    "mlp": "post_feedforward_layernorm",
    "norm": "norm",
    "att_norm": "post_attention_layernorm",
    "scale": D**0.5,
}
LLAMA_NAMES: dict[str, Any] = {
    "text": "model",
    "embed": "embed_tokens",
    "layers": "layers",
    "att": "self_attn.o_proj",
    "reads": "post_attention_layernorm",
    "mlp": "mlp",
    "norm": "norm",
}
NEOX_NAMES: dict[str, Any] = {
    "model": tf.GPTNeoXForCausalLM,
    "text": "gpt_neox",
    "embed": "embed_in",
    "layers": "layers",
    "att": "attention.dense",
    "heads": D,
    "reads": "post_attention_layernorm",
    "mlp": "mlp",
    "norm": "final_layer_norm",
}
FAMILIES = {
    "gemma2": Family(
        text(tf.Gemma2Config, **GEMMA),
        tf.Gemma2ForCausalLM,
        "model",
        gain=False,
        **GEMMA_NAMES,
    ),
    "gemma3_text": Family(
        text(tf.Gemma3TextConfig, **GEMMA3), tf.Gemma3ForCausalLM, "model", **GEMMA_NAMES
    ),
    "gemma3": Family(
        gemma3_vision, tf.Gemma3ForConditionalGeneration, "model.language_model", **GEMMA_NAMES
    ),
    "llama": Family(
        text(tf.LlamaConfig, head_dim=8, **GROUPED), tf.LlamaForCausalLM, heads=32, **LLAMA_NAMES
    ),
    "qwen2": Family(text(tf.Qwen2Config, **GROUPED), tf.Qwen2ForCausalLM, heads=D, **LLAMA_NAMES),
    "qwen3": Family(
        text(tf.Qwen3Config, head_dim=8, **GROUPED), tf.Qwen3ForCausalLM, heads=32, **LLAMA_NAMES
    ),
    "mistral": Family(
        text(tf.MistralConfig, sliding_window=6, **GROUPED),
        tf.MistralForCausalLM,
        heads=D,
        **LLAMA_NAMES,
    ),
    "gpt2": Family(
        text(tf.GPT2Config, n_inner=40),
        tf.GPT2LMHeadModel,
        text="transformer",
        embed="wte",
        layers="h",
        att="attn.c_proj",
        heads=D,
        reads="ln_2",
        mlp="mlp",
        norm="ln_f",
    ),
    "gpt_neox": Family(text(tf.GPTNeoXConfig, num_attention_heads=3), **NEOX_NAMES),
    "gpt_neox in sequence": Family(
        text(tf.GPTNeoXConfig, num_attention_heads=3, use_parallel_residual=False), **NEOX_NAMES
    ),
    "phi": Family(
        text(tf.PhiConfig, num_attention_heads=3),
        tf.PhiForCausalLM,
        "model",
        embed="embed_tokens",
        layers="layers",
        att="self_attn.dense",
        heads=D,
        reads="input_layernorm",
        mlp="mlp",
        norm="final_layernorm",
        row=PHI,
    ),
}
PLACES: list[tuple[int, Kind]] = [
    (0, "embed"),
    *((layer, kind) for layer in range(LAYERS) for kind in KINDS if kind != "embed"),
]
EDITED: list[tuple[int, Kind]] = [(0, "embed"), (1, "att"), (1, "mlp"), (1, "res")]
every_family = pytest.mark.parametrize("name", FAMILIES)
every_edit = pytest.mark.parametrize("place", EDITED, ids=str)


def build(name: str) -> Any:
    """A model of the family in which every part matters."""
    torch.manual_seed(3)
    module = FAMILIES[name].model(FAMILIES[name].config()).eval()
    for part in module.modules():
        is_norm = "norm" in type(part).__name__.lower()
        with torch.no_grad():
            for which, parameter in part.named_parameters(recurse=False):
                if is_norm and which == "weight":
                    parameter.normal_(0.0 if name.startswith("gemma") else 1.0, 0.3)
                else:
                    parameter.normal_(0, 0.7 if parameter.dim() > 1 else 0.3)
    with torch.no_grad():
        module.lm_head.weight.mul_(4)
    return module


@cache
def untouched(name: str) -> Any:
    """The module for hooks, which is never wrapped."""
    return build(name)


@cache
def wrapped(name: str) -> Model:
    return wrap(build(name), byte_tokenizer(), name=name)


@pytest.fixture(autouse=True)
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family's own row, if the table has none, for one test."""
    monkeypatch.setattr(architectures, "ARCHITECTURES", dict(architectures.ARCHITECTURES))
    call = getattr(request.node, "callspec", None)
    family = FAMILIES.get(call.params.get("name")) if call else None
    if family and family.row:
        register(family.row)


Hook = Callable[[Tensor], Tensor]


@contextmanager
def hooks(name: str, places: dict[tuple[int, Kind], Hook]) -> Iterator[Any]:
    """The untouched module with a plain hook at each of `places`, which gives the new value."""
    module, family = untouched(name), FAMILIES[name]
    root = module.get_submodule(family.text)
    handles = []
    for (layer, kind), change in places.items():
        block = root.get_submodule(f"{family.layers}.{layer}")

        def after(m: nn.Module, args: Any, out: Tensor, change: Hook = change) -> Tensor:
            return change(out)

        def before(m: nn.Module, args: Any, change: Hook = change) -> Any:
            return (change(args[0]), *args[1:])

        def look(m: Any, args: Any, change: Hook = change) -> None:
            x = args[0]
            change(x / (x.pow(2).mean(-1, keepdim=True) + m.eps).sqrt())

        def scaled(m: nn.Module, args: Any, out: Tensor, change: Hook = change) -> Tensor:
            return change(out / family.scale) * family.scale

        if kind == "embed":
            handles.append(root.get_submodule(family.embed).register_forward_hook(scaled))
        elif kind == "att":
            handles.append(block.get_submodule(family.att).register_forward_pre_hook(before))
        elif kind == "transcoder" and not family.gain:
            handles.append(block.get_submodule(family.reads).register_forward_pre_hook(look))
        else:
            part = {"res": block}.get(kind) or block.get_submodule(
                family.reads if kind == "transcoder" else family.mlp
            )
            handles.append(part.register_forward_hook(after))
    try:
        yield module
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def expected(name: str, ids: tuple[int, ...]) -> tuple[Tensor, dict[tuple[int, Kind], Tensor]]:
    """Logits ``(pos, vocabulary)`` and activations of one prompt."""
    kept: dict[tuple[int, Kind], Tensor] = {}

    def keeper(place: tuple[int, Kind]) -> Hook:
        def keep(x: Tensor) -> Tensor:
            kept[place] = x[0].clone()
            return x

        return keep

    with hooks(name, {place: keeper(place) for place in PLACES}) as module:
        logits = module(input_ids=torch.tensor([ids])).logits[0]
    return logits, kept


@torch.no_grad()
def steered(name: str, ids: tuple[int, ...], place: tuple[int, Kind], vector: Tensor) -> Tensor:
    """Logits ``(pos, vocabulary)`` with `vector` added everywhere but at ``<bos>``."""

    def add(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], x[:, 1:] + vector], 1)

    with hooks(name, {place: add}) as module:
        return module(input_ids=torch.tensor([ids])).logits[0]


def source(name: str) -> RandomSuite:
    """A random SAE at each site."""
    widths = {"att": FAMILIES[name].heads}
    return RandomSuite(
        {
            Site(layer, kind): random_sae(Site(layer, kind), widths.get(kind, D), i)
            for i, (layer, kind) in enumerate(PLACES)
        }
    )


def steer(name: str, place: tuple[int, Kind]) -> tuple[Steer, Tensor]:
    """An edit at `place`, and what it adds."""
    strength = 3.0
    row = source(name).sae_at(Site(*place)).W_dec[4]
    return Steer((place[0], 4), strength, kind=place[1], unit="raw"), strength * row


@every_family
def test_one_prompt_reads_what_hooks_see(name: str) -> None:
    model = wrapped(name)
    run = trace(model, [tokenize(model.tokenizer, LONG)], [Site(*place) for place in PLACES])
    logits, kept = expected(name, text_ids(LONG))
    close(run.logits[0], logits)
    for place in PLACES:
        close(run.activations[Site(*place)][0], kept[place])
        assert kept[place].shape[-1] == Site(*place).width(model.config)
    for layer in range(LAYERS):  # that no two kinds are one
        values = [kept[layer, kind] for kind in ("transcoder", "mlp", "res")]
        assert all((values[i] - values[j]).abs().mean() > 0.1 for i, j in ((0, 1), (0, 2), (1, 2)))


@every_family
def test_a_padded_batch_reads_what_each_prompt_alone_gives(name: str) -> None:
    model = wrapped(name)
    prompts = [tokenize(model.tokenizer, words) for words in (SHORT, LONG)]
    run = trace(model, prompts, [Site(*place) for place in PLACES])
    for number, words in enumerate((SHORT, LONG)):
        ids = text_ids(words)
        logits, kept = expected(name, ids)
        close(run.logits[number, -len(ids) :], logits)
        for place in PLACES:
            close(run.activations[Site(*place)][number, -len(ids) :], kept[place])


@every_family
@every_edit
def test_an_edit_adds_what_a_hook_adds(name: str, place: tuple[int, Kind]) -> None:
    model, ids = wrapped(name), text_ids(LONG)
    edit, vector = steer(name, place)
    wanted = steered(name, ids, place, vector)
    prompts = [tokenize(model.tokenizer, words) for words in (SHORT, LONG)]
    run = trace(model, prompts, edits=[edit], source=source(name))
    close(run.logits[1], wanted)
    assert (wanted - expected(name, ids)[0])[1:].abs().mean() > 0.2


@every_family
def test_a_transcoder_writes_what_the_mlp_adds(name: str) -> None:
    model, ids = wrapped(name), text_ids(LONG)
    edit, vector = steer(name, (1, "transcoder"))
    run = trace(model, [tokenize(model.tokenizer, LONG)], edits=[edit], source=source(name))
    close(run.logits[0], steered(name, ids, (1, "mlp"), vector))


@every_family
@every_edit
def test_steered_writing_with_a_cache_is_a_plain_loop_with_hooks(
    name: str, place: tuple[int, Kind]
) -> None:
    model = wrapped(name)
    edit, vector = steer(name, place)
    steps: list[Step] = []
    texts = generate(
        model,
        [tokenize(model.tokenizer, words) for words in (SHORT, LONG)],
        edits=[edit],
        source=source(name),
        temperature=0,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        stream=steps.append,
    )
    for number, words in enumerate((SHORT, LONG)):
        ids = text_ids(words)
        for step in range(NEW):
            logits = steered(name, ids, place, vector)[-1]
            close(steps[step].logits[number], logits)
            logits[EOS] = -torch.inf
            ids = (*ids, int(logits.argmax()))
        assert texts[number].ids == ids


def moved(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    """The derivative of `f` at `x` along `direction`, of unit norm."""
    slope: Any = torch.autograd.functional.jvp(f, x, direction)[1]
    return nn.functional.normalize(slope, dim=-1)


def at_right_angles(x: Tensor, direction: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """`x` with so much of `direction` taken off that the images of both under linear `f` are so.

    There a norm's division does not change along the direction.
    """
    return x - direction * (f(x) @ f(direction)) / f(direction).pow(2).sum()


@every_family
def test_effects_on_logits_are_the_derivative_of_the_models_own_last_step(name: str) -> None:
    module, family = untouched(name), FAMILIES[name]
    norm = module.get_submodule(f"{family.text}.{family.norm}")
    layer_norm = isinstance(norm, nn.LayerNorm)
    random = torch.Generator().manual_seed(1)
    direction, x = torch.randn(2, D, generator=random)
    x = at_right_angles(x, direction, lambda v: v - v.mean() if layer_norm else v)
    wanted = moved(lambda v: module.lm_head(norm(v)), x, direction)
    effects = logit_effects(module, direction)
    assert effects.shape == (len(byte_tokenizer()),)
    close(nn.functional.normalize(effects, dim=-1), wanted.detach())


@every_family
def test_attention_directions_are_the_derivative_of_what_the_layer_adds(name: str) -> None:
    module, family = untouched(name), FAMILIES[name]
    block = module.get_submodule(f"{family.text}.{family.layers}.2")
    project = block.get_submodule(family.att)
    norm = block.get_submodule(family.att_norm) if family.att_norm else nn.Identity()
    sae = source(name).sae_at(Site(2, "att"))
    direction = sae.W_dec[7]
    z = torch.randn(family.heads, generator=torch.Generator().manual_seed(1))
    if family.att_norm:
        z = at_right_angles(z, direction, lambda v: project(v).detach())
    wanted = moved(lambda v: norm(project(v[None])[0]), z, direction)
    close(written_directions(module, Site(2, "att"), sae)[7], wanted.detach())


def test_a_model_without_a_row_is_refused_with_its_modules_and_the_remedy() -> None:
    model = wrapped("phi")
    with pytest.raises(ValueError, match="'phi' is not in the table") as caught:
        trace(model, [tokenize(model.tokenizer, SHORT)], [Site(1)])
    message = str(caught.value)
    for word in ("gemma2", "llama", "gpt_neox", "'model.layers'", "self_attn.dense", "mlp.fc2"):
        assert word in message
    for word in ("model.embed_tokens", "model.final_layernorm", "lm_head"):
        assert word in message
    assert "register(Architecture(model_type='phi'" in message
    with pytest.raises(ValueError, match="'phi'"):
        Site(1).module_path_in(model.module)
    with pytest.raises(ValueError, match="'phi'"):
        logit_effects(model.module, torch.zeros(D))
    # What needs no site goes on as before.
    run = trace(model, [tokenize(model.tokenizer, SHORT)])
    close(run.logits[0], expected("phi", text_ids(SHORT))[0])


def test_a_row_that_names_no_module_is_told_what_there_is() -> None:
    model = wrapped("phi")
    register(
        Architecture(**vars(PHI) | {"mlp": "feed_forward"})  # pyright: ignore[reportArgumentType]
    )
    with pytest.raises(ValueError, match=r"no 'feed_forward' among self_attn, mlp, input_lay"):
        trace(model, [tokenize(model.tokenizer, SHORT)], [Site(1, "mlp")])
    assert architecture_of(model.module).mlp == "feed_forward"
    register(PHI)
    assert architecture_of(model.nnsight) is PHI


def test_names_in_other_models() -> None:
    gpt2, gemma = untouched("gpt2"), untouched("gemma2")
    assert [Site(0, "embed").module_path_in(gpt2)] + [
        Site(7, kind).module_path_in(gpt2) for kind in get_args(Kind)[1:]
    ] == [
        "transformer.wte",
        "transformer.h.7.attn.c_proj",
        "transformer.h.7.ln_2",
        "transformer.h.7.mlp",
        "transformer.h.7",
    ]
    images = untouched("gemma3")
    assert Site(3).module_path_in(images) == "model.language_model.layers.3"
    assert Site(3).module_path_in(gemma) == Site(3).module_path == "model.layers.3"
    assert Site(3, "transcoder").hook_name_in(gpt2) == "blocks.3.mlp.hook_in"
    assert Site(3, "transcoder").hook_name_in(gemma) == "blocks.3.ln2.hook_normalized"
    assert Site(3, "att").hook_name_in(gpt2) == "blocks.3.attn.hook_z"


def test_an_attention_width_without_head_dim_is_that_of_the_stream() -> None:
    # TinyLlama, Pythia and GPT-2 name only the number of heads; Mistral's config may hold None.
    assert Site(0, "att").width(tf.GPT2Config()) == 768
    assert Site(0, "att").width(tf.GPTNeoXConfig(hidden_size=512, num_attention_heads=8)) == 512
    assert Site(0, "att").width(tf.Qwen3Config(num_attention_heads=16, head_dim=128)) == 2048


def test_packed_weights_are_not_taken_for_numbers(fresh: Model) -> None:
    class Packed(nn.Linear):
        """Stands for a quantised layer: a linear layer by class, not by its weight."""

    module: Any = fresh.module
    attention = module.model.layers[1].self_attn
    attention.o_proj.__class__ = Packed
    sae = random_sae(Site(1, "att"), attention.o_proj.in_features, 0)
    with pytest.raises(ValueError, match="Packed, whose packed numbers are not its weights"):
        written_directions(module, Site(1, "att"), sae)
