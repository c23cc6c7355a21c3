"""A language model in this process, as a writer of labels."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from workbench.engine.tracing import generate
from workbench.labels.endpoint import Answer, Messages
from workbench.models import Model
from workbench.tokens import tokenize


class LocalModel:
    """A chat model of transformers; nothing leaves the machine."""

    price: tuple[float, float] | None = (0.0, 0.0)
    parallel = 1
    sends_to = ""

    def __init__(self, model: Model) -> None:
        """Use a model that is open.

        Args:
            model: Such as ``wb.open("gemma-2-2b-it").engine`` or ``workbench.models.load(name)``.

        Raises:
            ValueError: If it has no chat template.
        """
        if not getattr(model.tokenizer, "chat_template", None):
            raise ValueError(
                f"{model.name} has no chat template, so it does not answer: open its instruction-"
                "tuned sibling, such as 'gemma-2-2b-it'"
            )
        self._model = model
        self.name = model.name

    def __repr__(self) -> str:
        return f"<LocalModel {self.name}, context of {self._model.context} tokens>"

    @property
    def identity(self) -> str:
        """The model's name."""
        return f"local {self.name}"

    def write(self, messages: Messages, *, longest: int) -> Answer:
        """Answer, greedily.

        Raises:
            ValueError: If the messages do not fit into the context.
        """
        tokens = self._tokens(messages)
        room = self._model.context - len(tokens)
        if room < 1:
            raise ValueError(
                f"{len(tokens)} tokens of prompt do not fit into the context of {self.name}, "
                f"{self._model.context} tokens: use a model with a longer one, or fewer passages"
            )
        begin = perf_counter()
        (found,) = generate(
            self._model, [tokens], max_new_tokens=min(longest, room), temperature=0.0
        )
        new = len(found.ids) - len(tokens)
        return Answer(found.text, len(tokens), new, perf_counter() - begin)

    def count(self, messages: Messages) -> int:
        """How many tokens the messages have."""
        return len(self._tokens(messages))

    def _tokens(self, messages: Messages) -> Any:
        # Gemma's template knows no system turn.
        first = [m["content"] for m in messages if m["role"] == "system"]
        turns = [dict(m) for m in messages if m["role"] != "system"]
        turns[0]["content"] = "\n\n".join([*first, turns[0]["content"]])
        return tokenize(self._model.tokenizer, turns)

    def close(self) -> None:
        """Nothing is open."""
