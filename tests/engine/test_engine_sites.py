"""Sites: what is read is what plain hooks see, in every layer, alone and in a padded batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from conftest import D_MODEL, byte_tokenizer, loud_module
from engine.engine_oracle import PLACES, Oracle, Place, Rule, close, oracle, seen, source, text_ids
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer

from workbench.architectures import GEMMA2
from workbench.engine.edits import Ablate, Steer
from workbench.engine.tracing import generate, trace
from workbench.models import Model, wrap
from workbench.sites import KINDS, Site
from workbench.tokens import tokenize

LONG, SHORT = "The cat sat", "Hi 5"
SITES = [Site(*place) for place in PLACES]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_the_model_is_loud(place: Place) -> None:
    # A site whose loss goes unnoticed could be mixed up with another and no test would see it.
    ids = text_ids(LONG)
    plain = oracle().run(ids, len(ids))
    if place[1] == "transcoder":
        silent = Rule(place, lambda x, p: torch.ones(len(x), D_MODEL))
    else:
        silent = Rule(place, lambda x, p: -x)
    assert (oracle().run(ids, len(ids), [silent]) - plain).abs().mean() > 1


def test_one_prompt_reads_what_hooks_see(model: Model) -> None:
    run = trace(model, [tokenize(model.tokenizer, LONG)], SITES)
    ids = text_ids(LONG)
    close(run.logits[0], oracle().run(ids, len(ids)))
    assert len(run.activations) == len(PLACES)
    for place, site in zip(PLACES, SITES, strict=True):
        close(run.activations[site][0], oracle().leaving[place])


def test_a_padded_batch_reads_what_each_prompt_alone_gives(model: Model) -> None:
    run = trace(model, [tokenize(model.tokenizer, text) for text in (SHORT, LONG)], SITES)
    width = len(text_ids(LONG))
    for number, text in enumerate((SHORT, LONG)):
        ids = text_ids(text)
        padding = width - len(ids)
        close(run.logits[number, padding:], oracle().run(ids, len(ids)))
        assert not run.logits[number, :padding].any()
        for place, site in zip(PLACES, SITES, strict=True):
            close(run.activations[site][number, padding:], oracle().leaving[place])
            assert not run.activations[site][number, :padding].any()


def test_logits_are_soft_capped(model: Model) -> None:
    run = trace(model, [tokenize(model.tokenizer, LONG)])
    x = seen(LONG, (2, "res"))
    norm, head = oracle().module.model.norm, oracle().module.lm_head.weight
    with torch.no_grad():
        normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps) * (1 + norm.weight)
        bare = normal @ head.T
    assert bare.abs().max() > 60
    close(run.logits[0], 30 * torch.tanh(bare / 30))


def test_sites_may_come_in_any_order_and_twice(model: Model) -> None:
    prompt = [tokenize(model.tokenizer, SHORT)]
    run = trace(model, prompt, [*reversed(SITES), SITES[3]])
    assert list(run.activations) == sorted(SITES)
    close(run.activations[SITES[3]][0], seen(SHORT, PLACES[3]))


def test_sites_sort_in_execution_order() -> None:
    order = [(0, "embed"), *(p for p in PLACES if p[1] != "embed")]
    assert [(s.layer, s.kind) for s in sorted(reversed(SITES))] == order
    assert tuple(dict.fromkeys(kind for _, kind in order)) == KINDS


def test_an_attention_site_is_wider_than_the_residual_stream(model: Model) -> None:
    assert [Site(1, kind).width(model.config) for kind in KINDS if kind != "embed"] == [
        32, 24, 24, 24,
    ]  # fmt: skip


def test_a_trace_may_train_a_probe(model: Model) -> None:
    run = trace(model, [tokenize(model.tokenizer, SHORT)], [Site(1)])
    weight = torch.zeros(D_MODEL, requires_grad=True)
    (run.activations[Site(1)] @ weight + run.logits.sum()).sum().backward()
    assert weight.grad is not None
    close(weight.grad, seen(SHORT, (1, "res")).sum(0))


class TupleLayer(Gemma2DecoderLayer):
    """A layer as in transformers 4: it returns a tuple."""

    def forward(self, hidden_states, *args, **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ANN002, ANN003, ANN201
        if isinstance(hidden_states, tuple):
            hidden_states = hidden_states[0]
        return (super().forward(hidden_states, *args, **kwargs), "kept")


@pytest.fixture
def tuple_model() -> Model:
    module = loud_module()
    for layer in module.model.layers:
        layer.__class__ = TupleLayer
    module.model.norm.register_forward_pre_hook(
        lambda m, args: (args[0][0],) if isinstance(args[0], tuple) else None
    )
    return wrap(module, byte_tokenizer(), name="tuples")


def test_layers_that_return_tuples_are_read_and_written(tuple_model: Model) -> None:
    assert isinstance(tuple_model.module, torch.nn.Module)
    prompts = [tokenize(tuple_model.tokenizer, text) for text in (LONG, SHORT, "Hello")]
    edits = [Steer((1, 4), 5.0, unit="raw")]
    run = trace(tuple_model, prompts, [Site(1), Site(2)], edits=edits, source=source())
    row = source().sae_at(Site(1)).W_dec[4]
    for number, text in enumerate((LONG, SHORT, "Hello")):
        ids = text_ids(text)
        plain = oracle().run(ids, len(ids))
        wanted = oracle().run(ids, len(ids), [Rule((1, "res"), lambda x, p: 5 * row.expand_as(x))])
        close(run.logits[number, -len(ids) :], wanted)
        close(run.activations[Site(1)][number, -len(ids) :], oracle().leaving[1, "res"])
        close(run.activations[Site(2)][number, -len(ids) :], oracle().leaving[2, "res"])
        assert (wanted - plain).abs().max() > 1
    texts = generate(
        tuple_model, prompts, edits=edits, source=source(), temperature=0, max_new_tokens=3
    )
    whole = generate(
        tuple_model,
        prompts,
        edits=edits,
        source=source(),
        temperature=0,
        max_new_tokens=3,
        use_cache=False,
    )
    assert [t.ids for t in texts] == [t.ids for t in whole]


def test_a_tuple_keeps_its_other_members() -> None:
    x = torch.arange(12.0).reshape(3, 2, 2)
    layer = SimpleNamespace(output=(x, "cache"))
    model = SimpleNamespace(config=GEMMA2, model=SimpleNamespace(layers={1: layer}))
    assert Site(1).read(model) is x
    Site(1).write(model, x + 1)
    assert layer.output[0].equal(x + 1)
    assert layer.output[1:] == ("cache",)


def test_an_embedding_module_that_does_not_scale_is_read_as_it_is() -> None:
    # In transformers 4 the model multiplies after the module.
    x = torch.arange(12.0).reshape(3, 2, 2)
    module = SimpleNamespace(output=x)
    model = SimpleNamespace(config=GEMMA2, model=SimpleNamespace(embed_tokens=module))
    assert Site(0, "embed").read(model).equal(x)
    Site(0, "embed").write(model, x * 2)
    assert module.output.equal(x * 2)


def test_an_edit_of_the_embedding_leaves_other_positions_alone_in_bfloat16() -> None:
    model = wrap(loud_module().to(torch.bfloat16), byte_tokenizer(), name="half")  # pyright: ignore[reportArgumentType]
    prompt = [tokenize(model.tokenizer, LONG)]
    edits = [Steer((0, 3), 9.0, kind="embed", unit="raw", positions=(5,))]
    plain = trace(model, prompt, [Site(0)])
    edited = trace(model, prompt, [Site(0)], edits=edits, source=source())
    assert plain.logits[0, :5].equal(edited.logits[0, :5])
    assert not plain.logits[0, 5].equal(edited.logits[0, 5])


def test_the_model_is_left_as_it_was(fresh: Model) -> None:
    module = fresh.module
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def hooks() -> list[int]:
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]

    hooked, flag = hooks(), module.training
    prompts = [tokenize(fresh.tokenizer, text) for text in (LONG, SHORT)]
    edits = [Steer((1, 2), 3.0), Ablate((2, 5), kind="att"), Ablate((0, 5), kind="transcoder")]
    first = trace(fresh, prompts, SITES)
    trace(fresh, prompts, SITES, edits=edits, source=source())
    generate(fresh, prompts, edits=edits, source=source(), max_new_tokens=3)

    def interrupt(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(fresh, prompts, edits=edits, source=source(), stream=interrupt)
    assert hooks() == hooked
    assert module.training is flag is False
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].equal(value) for name, value in before.items())
    again = trace(fresh, prompts, SITES)
    assert again.logits.equal(first.logits)
    assert not fresh.turn.busy


def test_another_model_gives_other_numbers() -> None:
    # The oracle is compared with a module of the same seed; of another it must differ.
    ids = text_ids(LONG)
    other = Oracle(loud_module(1)).run(ids, len(ids))
    assert (other - oracle().run(ids, len(ids))).abs().mean() > 1
