"""The stream of activations, beside the engine's own trace of the same texts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.engine.tracing import trace
from workbench.lab import Lab
from workbench.sites import Site
from workbench.tokens import tokens_of
from workbench.training import ActivationStream

SITE = Site(1)
SHORT = ["Anna loved the boat.", "Das Boot ist im Hafen.", "1 2 3 4 5 6 7"]


def stream(lab: Lab, texts: object, site: Site = SITE, **options: int) -> ActivationStream:
    options = {"context": 32, "pool": 256, **options}
    return ActivationStream(lab.engine, texts, site, **options)  # pyright: ignore[reportArgumentType]


def packed(lab: Lab, texts: list[str], site: Site) -> Tensor:
    """Activations of the documents' tokens in one row: written out, with no packer."""
    ids, scored = [lab.tokenizer.bos_token_id], [False]
    for text in texts:
        own = lab.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += [*own, lab.tokenizer.eos_token_id]
        scored += [True] * len(own) + [False]
    found = trace(lab.engine, [tokens_of(lab.tokenizer, ids)], [site]).activations[site][0]
    return found[torch.tensor(scored)]


def places(x: Tensor, wanted: Tensor) -> list[int]:
    """Which row of `wanted` each row of `x` is; each must be one."""
    distances = torch.cdist(x.double(), wanted.double())
    assert float(distances.min(1).values.max()) < 0.02
    return distances.argmin(1).tolist()


def test_each_token_of_the_texts_comes_as_often_as_asked_for(pocket: Lab) -> None:
    wanted = packed(pocket, SHORT, SITE)
    assert float(torch.cdist(wanted, wanted).fill_diagonal_(9).min()) > 0.1, "tokens look alike"
    one = stream(pocket, iter(SHORT), context=64, reuse=3)
    taken = torch.cat([one.batch(len(wanted))[0] for _ in range(3)])
    assert Counter(places(taken, wanted)) == dict.fromkeys(range(len(wanted)), 3)
    assert one.tokens_read == len(wanted)
    with pytest.raises(ValueError, match=r"the texts ended after .* give a list of texts"):
        one.batch(1)


def test_a_batch_is_drawn_from_all_over_the_pool(pocket: Lab, texts: list[str]) -> None:
    short = [texts[0][:300]]
    wanted = packed(pocket, short, SITE)
    one = stream(pocket, iter(short), context=256, pool=512)
    found = places(one.batch(32)[0], wanted)
    assert found != sorted(found)
    assert max(found) - min(found) > len(wanted) / 2
    assert len(set(found)) == 32


def test_the_seed_decides_the_order(pocket: Lab, texts: list[str]) -> None:
    first, again, other = (stream(pocket, texts, seed=seed).batch(64)[0] for seed in (3, 3, 4))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_the_pool_is_refilled_and_short_texts_are_read_again(pocket: Lab) -> None:
    one = stream(pocket, SHORT, context=64, pool=128)
    wanted = packed(pocket, SHORT, SITE)
    counts: Counter[int] = Counter()
    for _ in range(6):
        counts.update(places(one.batch(60)[0], wanted))
        assert one.waiting <= 128
    assert one.passes > 2
    # Nothing that was read is thrown away: what was read so often came so often, or waits.
    assert one.tokens_read == counts.total() + one.waiting
    assert max(counts.values()) - min(counts.values()) <= 1 + one.waiting // len(wanted) + 1


def test_what_is_used_up_does_not_come_back(pocket: Lab, texts: list[str]) -> None:
    short = [texts[0][:300]]
    wanted = packed(pocket, short, SITE)
    one = stream(pocket, iter(short), context=256, pool=512)
    seen = Counter(i for _ in range(4) for i in places(one.batch(len(wanted) // 4)[0], wanted))
    assert max(seen.values()) == 1


def test_a_transcoder_gets_input_and_target_of_the_same_token(pocket: Lab) -> None:
    site = Site(2, "transcoder")
    inputs, outputs = (packed(pocket, SHORT, one) for one in (site, site.writes_at))
    x, y = stream(pocket, SHORT, site, context=64).batch(16)
    assert y is not None
    torch.testing.assert_close(y, outputs[places(x, inputs)], rtol=1e-3, atol=1e-2)
    assert not torch.allclose(x, y, atol=1e-2)


def test_what_interrupts_the_filling_costs_nothing_that_was_read(pocket: Lab) -> None:
    one = stream(pocket, SHORT, pool=512)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.prepare(16, during=interrupt)
    assert one.waiting == one.tokens_read > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 1}, "context=1: expected 2 to 256, what pocket can read"),
        ({"context": 100_000}, "context=100000: expected 2 to 256"),
        ({"reuse": 0}, "reuse=0: expected at least 1"),
        ({"pool": 1}, "pool=1: expected at least 64, two rows"),
    ],
)
def test_impossible_numbers_are_refused(pocket: Lab, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stream(pocket, SHORT, **options)


def test_a_batch_beyond_half_of_the_pool_is_refused(pocket: Lab) -> None:
    with pytest.raises(ValueError, match=r"size=129: expected 1 to 128, half of the pool"):
        stream(pocket, SHORT).batch(129)


def test_texts_without_a_token_end_at_once(pocket: Lab) -> None:
    with pytest.raises(ValueError, match=r"the texts ended after 0 tokens"):
        stream(pocket, [""]).batch(4)
