"""A language model in this process as a writer of labels."""

from __future__ import annotations

import pytest
import torch
from labels.cases import SITE, make

from workbench.labels.job import Autolabel
from workbench.labels.local import LocalModel
from workbench.labels.store import Labels
from workbench.models import Model

ASK = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['content'] }}<end_of_turn>"
    "{% endfor %}<start_of_turn>"
)


@pytest.fixture
def chatting(fresh: Model) -> Model:
    fresh.tokenizer.chat_template = TEMPLATE
    return fresh


def test_it_answers_greedily_and_counts(chatting: Model) -> None:
    local = LocalModel(chatting)
    answer = local.write(ASK, longest=5)
    ids = [2, *chatting.tokenizer("Be short.\n\nHi", add_special_tokens=False)["input_ids"]]
    ids = [2, 4, *ids[1:], 5, 4]
    assert answer.read == local.count(ASK) == len(ids)
    with torch.no_grad():
        for _ in range(answer.written):
            logits = chatting.module(input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
    assert answer.written in range(1, 6)
    assert answer.text == chatting.tokenizer.decode(ids[-answer.written :])
    assert local.sends_to == ""


def test_a_prompt_that_does_not_fit_is_told(chatting: Model, tmp_path) -> None:
    with Labels(tmp_path / "l.sqlite", model="m") as labels:
        job = Autolabel(labels, [(SITE, 0)], make, method="explain", writer=LocalModel(chatting))
        assert "passages of the corpus" not in repr(job)
        with pytest.raises(ValueError, match=r"do not fit into the context of fresh, 64 tokens"):
            job.run(progress=False)


def test_a_model_without_a_chat_template_is_refused(fresh: Model) -> None:
    fresh.tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        LocalModel(fresh)
