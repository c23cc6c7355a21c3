"""Tokens: one beginning however it is written, and strings that can be shown."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer

from workbench.tokens import tokenize, tokens_of

BOS = 2


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n"
        "{{ m['content'] }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    return tokenizer


def spelled(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_every_spelling_has_one_beginning(tokenizer: Any) -> None:
    body = spelled(tokenizer, "Hi you")
    spellings = [
        "Hi you",
        "<bos>Hi you",
        "<bos><bos>Hi you",
        body,
        [BOS, *body],
        [BOS, BOS, *body],
        tuple(body),
        torch.tensor(body),
        torch.tensor([[BOS, *body]]),
        list(np.array(body)),
    ]
    for prompt in spellings:
        assert tokenize(tokenizer, prompt).ids == (BOS, *body)


def test_a_beginning_in_the_middle_stays(tokenizer: Any) -> None:
    body = spelled(tokenizer, "Hi")
    assert tokenize(tokenizer, [*body, BOS, *body]).ids == (BOS, *body, BOS, *body)


def test_a_chat_has_one_beginning_and_ends_where_the_model_answers(tokenizer: Any) -> None:
    tokens = tokenize(tokenizer, [{"role": "user", "content": "Hi"}])
    text = "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    assert list(tokens.ids) == spelled(tokenizer, text)
    assert tokens.ids.count(BOS) == 1
    assert [s for s, special in zip(tokens.strings, tokens.special, strict=True) if special] == [
        "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_turn>",
    ]  # fmt: skip


def test_tokens_pass_through(tokenizer: Any) -> None:
    tokens = tokenize(tokenizer, "Hi")
    assert tokenize(tokenizer, tokens) is tokens
    assert len(tokens) == 3
    assert tokens.tensor().tolist() == [list(tokens.ids)]


def test_pieces_of_a_character_are_shown_as_bytes(tokenizer: Any) -> None:
    tokens = tokenize(tokenizer, "a é🙂")
    assert tokens.strings == (
        "<bos>", "a", " ", "<0xC3>", "<0xA9>", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>",
    )  # fmt: skip
    assert tokens.special == (True,) + (False,) * 8
    assert tokens.text == "a é🙂"
    assert tokens_of(tokenizer, tokens.ids[:-1]).text == "a é\ufffd"


def test_whole_characters_are_shown_as_they_are() -> None:
    class Pieces:
        all_special_ids: list[int] = []

        def decode(self, ids: list[int]) -> str:
            return {0: "\ufffd", 1: "\ufffd", 2: "été"}[ids[0]]

        def convert_ids_to_tokens(self, token: int) -> str:
            return {0: "\ufffd", 1: "<0xF0>", 2: "été"}[token]

    # The replacement character may itself be a token, as in Gemma's vocabulary.
    assert tokens_of(Pieces(), [0, 1, 2]).strings == ("\ufffd", "<0xF0>", "été")


def test_the_context_is_a_limit_that_may_be_reached(tokenizer: Any) -> None:
    assert len(tokenize(tokenizer, "abc", context=4)) == 4
    with pytest.raises(ValueError, match=r"has 4 tokens and the model's context is 3; .* least 1"):
        tokenize(tokenizer, "abc", context=3)


@pytest.mark.parametrize(
    "prompt", ["", "<bos>", [], [BOS], [BOS, BOS], torch.tensor([], dtype=torch.long)], ids=repr
)
def test_an_empty_prompt_is_refused(tokenizer: Any, prompt: Any) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        tokenize(tokenizer, prompt)


@pytest.mark.parametrize(
    ("prompt", "error", "match"),
    [
        (5, TypeError, "a prompt is a text, token ids or chat turns.*got int"),
        (["a", "b"], TypeError, "got list"),
        ([1.5, 2.0], TypeError, "got list"),
        (b"abc", TypeError, r"got bytes: prompt\.decode\(\) makes a text"),
        (bytearray(b"abc"), TypeError, "got bytearray"),
        ("a\ud800b", ValueError, r"character 1 of the prompt is '\\ud800', half of a pair"),
        ([5, 262], ValueError, "token id 262 does not exist; the vocabulary is 0 to 261"),
        ([5, -1], ValueError, "token id -1 does not exist"),
        (torch.tensor([1.0, 2.0]), ValueError, "token ids must be whole numbers"),
        (torch.ones(2, 2, dtype=torch.long), ValueError, r"got torch.int64 \(2, 2\)"),
        ([{"role": "user"}], ValueError, r"'role' and 'content', got \['role'\]"),
    ],
    ids=repr,
)
def test_what_is_no_prompt_is_refused(
    tokenizer: Any, prompt: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        tokenize(tokenizer, prompt)


def test_what_the_template_refuses_is_explained(tokenizer: Any) -> None:
    system = "{{ raise_exception('System role not supported') }}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "chat_template", system)
        with pytest.raises(
            ValueError, match=r"System role not supported.*Gemma has no system turn"
        ):
            tokenize(tokenizer, [{"role": "system", "content": "Be nice."}])


def test_a_long_text_is_refused_without_another_word(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("transformers"), "propagate", True)
        patch.setattr(tokenizer, "model_max_length", 8)
        with pytest.raises(ValueError, match="leave out at least 93"):
            tokenize(tokenizer, "a" * 100, context=8)
    assert not caplog.records


def test_a_chat_needs_a_template() -> None:
    with pytest.raises(ValueError, match="no chat template"):
        tokenize(byte_tokenizer(), [{"role": "user", "content": "Hi"}])
