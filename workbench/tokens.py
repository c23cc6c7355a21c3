"""Tokens: ids with the strings to show for them, and the one rule about ``<bos>``.

Gemma's activations are only what Gemma Scope was trained on when exactly one ``<bos>`` stands
first; without it peaks are 30 to 45 % low, and its own activation is so large that position 0 must
never be scored. So: every prompt gets exactly one, however it was written, and `Tokens.special`
says which positions to leave out.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

Chat = Sequence[Mapping[str, str]]
"""Turns such as ``[{"role": "user", "content": "Hello"}]``."""
Prompt = str | Sequence[int] | Tensor | Chat
"""A text, token ids, or the turns of a chat."""


@dataclass(frozen=True)
class Tokens:
    """A tokenized prompt."""

    ids: tuple[int, ...]
    """Token ids, ``<bos>`` first."""
    strings: tuple[str, ...]
    """What to show for each: the token's own text, or ``<0xF0>`` for a piece of a character."""
    special: tuple[bool, ...]
    """True where a token is ``<bos>``, ``<start_of_turn>`` or the like."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def text(self) -> str:
        """What the tokens say together, special ones left out."""
        shown = (s for s, special in zip(self.strings, self.special, strict=True) if not special)
        parts = (_as_bytes(s) for s in shown)
        return b"".join(parts).decode("utf-8", "replace")

    def tensor(self) -> Tensor:
        """Ids ``(1, pos)``."""
        return torch.tensor([self.ids])


def tokens_of(tokenizer: Any, ids: Sequence[int]) -> Tokens:
    """`Tokens` for finished ids, nothing added."""
    ids = tuple(int(i) for i in ids)
    special = set(tokenizer.all_special_ids)
    return Tokens(ids, strings_of(tokenizer, ids), tuple(i in special for i in ids))


def strings_of(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """What to show for each of `ids`."""
    return tuple(_display(tokenizer, i) for i in ids)


def tokenize(
    tokenizer: Any,
    prompt: Prompt | Tokens,
    *,
    context: int | None = None,
) -> Tokens:
    """Tokens of a text, of ids or of a chat, with exactly one ``<bos>`` in front.

    Args:
        tokenizer: A transformers tokenizer.
        prompt: Text, ids ``(pos,)``, chat turns, or `Tokens`, which pass through.
        context: Most positions that the model takes.

    Raises:
        TypeError: If the prompt is none of these.
        ValueError: If it is empty, holds half of a character or an id that the tokenizer does not
            have, is longer than `context`, or is a chat that the model's template refuses.
    """
    tokens = prompt if isinstance(prompt, Tokens) else _tokenize(tokenizer, prompt)
    if len(tokens) < (1 if tokenizer.bos_token_id is None else 2):
        raise ValueError(
            "the prompt is empty: give at least one token besides <bos>, such as 'The'"
        )
    if context is not None and len(tokens) > context:
        raise ValueError(
            f"the prompt has {len(tokens)} tokens and the model's context is {context}; "
            f"leave out at least {len(tokens) - context}"
        )
    return tokens


def _tokenize(tokenizer: Any, prompt: Prompt) -> Tokens:
    bos = tokenizer.bos_token_id
    if isinstance(prompt, bytes | bytearray | memoryview):
        # Python takes them for lists of numbers.
        raise TypeError(
            f"a prompt is a text, token ids or chat turns, got {type(prompt).__name__}: "
            "prompt.decode() makes a text of it"
        )
    if isinstance(prompt, str):
        ids = _ids(tokenizer, prompt)
    elif isinstance(prompt, Tensor) or _all(prompt, Integral):
        ids = _checked_ids(tokenizer, prompt)  # pyright: ignore[reportArgumentType]
    elif _all(prompt, Mapping):
        ids = _chat_ids(tokenizer, prompt)  # pyright: ignore[reportArgumentType]
    else:
        raise TypeError(
            "a prompt is a text, token ids or chat turns like {'role': 'user', 'content': 'Hi'}, "
            f"got {type(prompt).__name__}"
        )
    if bos is None:
        return tokens_of(tokenizer, ids)
    start = 0
    while start < len(ids) and ids[start] == bos:
        start += 1
    return tokens_of(tokenizer, [bos, *ids[start:]])


def _all(prompt: object, kind: type) -> bool:
    # An empty list is a list of ids, so that it is called empty and not of the wrong type.
    return isinstance(prompt, Sequence) and all(isinstance(p, kind) for p in prompt)


def _checked_ids(tokenizer: Any, prompt: Sequence[int] | Tensor) -> list[int]:
    if not isinstance(prompt, Tensor):
        prompt = torch.tensor([operator.index(i) for i in prompt], dtype=torch.long)
    tensor = prompt
    if tensor.is_floating_point() or tensor.dim() > 2 or (tensor.dim() == 2 and len(tensor) != 1):
        raise ValueError(
            f"token ids must be whole numbers of shape (pos,) or (1, pos), got {tensor.dtype} "
            f"{tuple(tensor.shape)}"
        )
    ids = tensor.flatten().tolist()
    wrong = [i for i in ids if not 0 <= i < len(tokenizer)]
    if wrong:
        raise ValueError(
            f"token id {wrong[0]} does not exist; the vocabulary is 0 to {len(tokenizer) - 1}"
        )
    return ids


def _chat_ids(tokenizer: Any, turns: Chat) -> list[int]:
    for turn in turns:
        if set(turn) != {"role", "content"}:
            raise ValueError(f"a chat turn has the keys 'role' and 'content', got {sorted(turn)}")
    if tokenizer.chat_template is None:
        raise ValueError("this tokenizer has no chat template; give a text instead of chat turns")
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise ValueError(
            f"the model's chat template refuses these turns: {error}. Gemma has no system turn "
            "(put the instruction at the beginning of the first user turn), and turns alternate"
        ) from error
    return _ids(tokenizer, text)


def _ids(tokenizer: Any, text: str) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the prompt is {text[error.start]!r}, half of a pair that "
            "stands for nothing alone: leave it out"
        ) from None
    # Without its remark on length: `tokenize` knows the model's own context, and refuses.
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _display(tokenizer: Any, token: int) -> str:
    text = tokenizer.decode([token])
    if "\N{REPLACEMENT CHARACTER}" not in text:
        return text
    # A byte-level token that holds only a part of a character.
    piece = tokenizer.convert_ids_to_tokens(token)
    if _BYTES.fullmatch(piece):
        return piece
    table = _byte_table()
    if not all(character in table for character in piece):
        return text  # the replacement character itself
    return "".join(f"<0x{table[character]:02X}>" for character in piece)


_BYTES = re.compile(r"(<0x[0-9A-F]{2}>)+")


def _as_bytes(shown: str) -> bytes:
    """The bytes behind a token's string."""
    if not _BYTES.fullmatch(shown):
        return shown.encode("utf-8", "replace")
    return bytes.fromhex(shown.replace("<0x", "").replace(">", ""))


@cache
def _byte_table() -> dict[str, int]:
    """The byte behind each printable stand-in of byte-level BPE."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}
