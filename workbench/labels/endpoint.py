"""A language model behind any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from workbench.labels.web import Web, WebError

Messages = Sequence[Mapping[str, str]]
"""Turns such as ``[{"role": "user", "content": "Hello"}]``."""
LETTERS_A_TOKEN = 4
"""For estimates where the tokenizer is not at hand: about so many characters of English."""


@dataclass(frozen=True)
class Answer:
    """What a language model wrote."""

    text: str
    read: int
    """Tokens of the prompt."""
    written: int
    """Tokens of the answer."""
    seconds: float


class Writer(Protocol):
    """A language model that answers."""

    name: str
    """For people; with `identity` it says which answers are the same."""
    parallel: int
    """Requests at once."""
    price: tuple[float, float] | None
    """For a million tokens read and a million written; None if unknown."""
    sends_to: str
    """Host that gets the passages; empty if they stay here."""

    @property
    def identity(self) -> str:
        """Everything that an answer depends on beside the messages."""
        ...

    def write(self, messages: Messages, *, longest: int) -> Answer:
        """The answer to some messages, of at most so many tokens."""
        ...

    def count(self, messages: Messages) -> int:
        """About how many tokens the messages have."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class Endpoint:
    """A language model behind an address."""

    def __init__(
        self,
        model: str,
        url: str = "https://api.openai.com/v1",
        *,
        key: str | None = "OPENAI_API_KEY",
        price: tuple[float, float] | None = None,
        parallel: int = 4,
        **options: Any,
    ) -> None:
        """Name the model; nothing is sent yet.

        Args:
            model: As the server calls it.
            url: Address of the API, up to and without ``/chat/completions``. Local servers such as
                ``"http://localhost:11434/v1"`` do as well.
            key: Name of the environment variable that holds the key, which is read at each request
                and kept nowhere; None for a server that wants none.
            price: For a million tokens read and a million written, to show the cost first.
            parallel: Requests at once.
            options: Further fields of the request, such as ``max_completion_tokens=2000`` or
                ``reasoning_effort="low"``; None leaves one of ours out, as ``temperature=None``.

        Raises:
            ValueError: If the address or the name of the key is none.
        """
        self._web = Web(url, key=key, header="Authorization", scheme="Bearer ")
        self.model, self.price, self.parallel = model, price, parallel
        self.options = options
        self.sends_to = self._web.host
        self.name = f"{model} at {self._web.host}"
        if not model:
            raise ValueError("name the model, as the server calls it")
        if parallel < 1:
            raise ValueError(f"parallel must be at least 1, got {parallel}")

    def __repr__(self) -> str:
        key = self._web.key
        state = (
            "no key"
            if key is None
            else f"key from {key}" + ("" if self._web.has_key() else ", which is not set")
        )
        return f"<Endpoint {self.name}: {state}>"

    @property
    def identity(self) -> str:
        """Address, model and options."""
        return f"{self._web.base} {self.model} {sorted(self.options.items())}"

    def write(self, messages: Messages, *, longest: int) -> Answer:
        """Ask for an answer.

        Raises:
            WebError: If none can be had, or it makes no sense.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "max_tokens": longest,
            "temperature": 0,
            **self.options,
        }
        if "max_completion_tokens" in self.options:
            body.pop("max_tokens")
        begin = perf_counter()
        found = self._web.post_json(
            "/chat/completions", {k: v for k, v in body.items() if v is not None}
        )
        seconds = perf_counter() - begin
        try:
            text = found["choices"][0]["message"]["content"] or ""
            usage = found.get("usage") or {}
            read = int(usage.get("prompt_tokens") or self.count(messages))
            written = int(usage.get("completion_tokens") or len(text) // LETTERS_A_TOKEN)
            if not isinstance(text, str):
                raise TypeError(type(text).__name__)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise WebError(
                f"{self.name} answered with something else than a chat completion "
                f"({type(error).__name__}): is that the address of an OpenAI-compatible API?",
                reason="answer",
            ) from None
        return Answer(text, read, written, seconds)

    def count(self, messages: Messages) -> int:
        """About how many tokens the messages have."""
        return sum(len(m["content"]) // LETTERS_A_TOKEN + 4 for m in messages)

    def close(self) -> None:
        """Close the connections."""
        self._web.close()
