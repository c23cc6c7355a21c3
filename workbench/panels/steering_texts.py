"""The texts of the steering panel: what to write, streaming it, and what to say of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workbench.analysis.baselines import live_source, random_source
from workbench.analysis.fluency import Fluency
from workbench.analysis.shifts import LOGITS, prediction
from workbench.engine.binding import FeatureSource
from workbench.engine.edits import Edit
from workbench.engine.receipts import Act
from workbench.engine.tracing import Generation, Step
from workbench.recipes.rows import Row
from workbench.tokens import Chat, Prompt, Tokens

if TYPE_CHECKING:
    from workbench.lab import Lab
    from workbench.widgets import SteeringPanel

BASELINES = (
    {
        "id": "random",
        "title": "Random direction",
        "hint": "The same edits along random directions of the same norm, at the same sites",
    },
    {
        "id": "feature",
        "title": "Random feature",
        "hint": "The same edits along a random live feature of the same SAE, at the same norm",
    },
    {
        "id": "prompt",
        "title": "Prompting",
        "hint": "No edit: an instruction before the text instead",
    },
)
TITLES = {"steered": "Steered", "plain": "Unsteered"} | {b["id"]: b["title"] for b in BASELINES}


@dataclass(frozen=True)
class Plan:
    """One text to write."""

    column: str
    prompt: Tokens
    edits: Any = ()
    """Edits, or `LiveEdits`."""
    source: FeatureSource | None = None
    note: str = ""


@dataclass(eq=False)
class Column:
    """One text while it is written."""

    widget: SteeringPanel
    run: int
    name: str
    tokenizer: Any
    keeps: bool = False
    """Whether the logits will be asked for."""
    tokens: list[dict[str, Any]] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    """Of each step, as long as they are not too many to keep."""
    began: float | None = None

    def __call__(self, step: Step) -> None:
        """Take a token from the model and show it."""
        self.began = time.monotonic() if self.began is None else self.began
        logits = step.logits[0].float().cpu()
        if self.keeps and (len(self.logits) + 1) * len(logits) <= LOGITS:
            self.logits.append(logits)
        found = prediction(logits, step.ids[0], self.tokenizer)
        token = {
            "text": step.strings[0],
            "p": found.p,
            "entropy": found.entropy,
            "top": [list(pair) for pair in found.top],
        }
        self.tokens.append(token)
        self.widget.stream(self.run, self.name, [token])

    def rate(self) -> float:
        """Tokens a second, from the first token on."""
        if self.began is None or len(self.tokens) < 2:
            return 0.0
        return (len(self.tokens) - 1) / max(time.monotonic() - self.began, 1e-9)


def check_baselines(names: Sequence[str]) -> None:
    """Refuse what is no baseline.

    Raises:
        ValueError: Naming it, and those that there are.
    """
    known = [one["id"] for one in BASELINES]
    unknown = sorted({*names} - {*known})
    if unknown:
        raise ValueError(f"no such baseline: {', '.join(unknown)}; there are {', '.join(known)}")


def baseline_plan(
    lab: Lab, name: str, text: Prompt, edits: Sequence[Edit], instruction: str, seed: int
) -> Plan:
    """What to write for a baseline.

    Args:
        lab: The lab.
        name: "random", "feature" or "prompt".
        text: Text or turns.
        edits: Those of the steered text.
        instruction: What plain prompting puts before the text.
        seed: Of the texts; fixes the directions, too.

    Raises:
        ValueError: If there is no instruction, or no live feature.
    """
    if name == "prompt":
        return Plan(name, lab.tokens(prompted(text, instruction)), note=instruction.strip())
    source = (live_source if name == "feature" else random_source)(lab.suite, edits, seed)
    return Plan(name, lab.tokens(text), edits, source)


def prompted(text: Prompt, instruction: str) -> Prompt:
    """A text with an instruction before it, a chat with one in its first turn.

    Raises:
        ValueError: If the instruction is empty.
    """
    instruction = instruction.strip()
    if not instruction:
        raise ValueError("plain prompting needs an instruction to put before the text")
    if isinstance(text, str):
        return f"{instruction} {text}"
    turns: Chat = text  # pyright: ignore[reportAssignmentType]
    first = {**turns[0], "content": f"{instruction}\n{turns[0]['content']}"}
    return [first, *turns[1:]]


def prompt_tokens(tokens: Tokens) -> list[dict[str, Any]]:
    """A prompt as the model reads it, for the page."""
    pairs = zip(tokens.strings, tokens.special, strict=True)
    return [{"text": text, "special": special} for text, special in pairs]


def receipt_lines(rows: Sequence[Row], acts: Sequence[Act], others: Sequence[str]) -> list[str]:
    """What each edit did.

    Args:
        rows: The rows that were run, in the order of the edits.
        acts: Of the receipt: those of the rows, then those of the freezes.
        others: What to say of rows that were not run.
    """
    lines = []
    for row, act in zip(rows, acts, strict=False):
        idle = " (at its neutral value)" if row.neutral else ""
        lines.append(f"{row}: {act}{idle}")
    held = acts[len(rows) :]
    if held:
        moved = [act for act in held if act.acted]
        line = f"frozen: {len(held)} sites held at their unedited values"
        largest = max((act.relative_norm for act in moved), default=0.0)
        lines.append(f"{line}; {len(moved)} would have moved, by up to {largest:.0%}")
    lines += others
    return lines or ["no edit: add a feature, or take a row off mute"]


def silent(rows: Sequence[Row], acts: Sequence[Act]) -> dict[str, str]:
    """Ids of the rows that were run and did nothing, and what to say of each."""
    return {
        row.id: "did not act: its feature, places or condition never came up"
        for row, act in zip(rows, acts, strict=False)
        if not act.acted and not row.neutral
    }


def meter(found: Fluency) -> dict[str, Any]:
    """How a text reads, for the page."""
    return {
        "repetition": found.repetition,
        "loss": found.loss,
        "excess": found.excess,
        "verdict": found.verdict,
    }


def ending(name: str, text: Generation, context: int) -> str:
    """What a reader must know of how a text ended; empty if nothing."""
    if text.finish == "context":
        title = TITLES[name].lower()
        return f"the model's context of {context} tokens is full: the {title} text ends there"
    return ""
