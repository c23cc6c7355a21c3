"""Ask a language model what a feature stands for.

The method of Bills et al. 2023 ("Language models can explain neurons in language models", OpenAI),
step 1: the model sees passages and how strongly the feature fires on their tokens, scaled to whole
numbers from 0 to 10, and says in a few words what they have in common. As in Paulo et al. 2024
(arXiv 2410.13928) the firing tokens are marked in the text, ``<<so>>``, passages come from the
whole range of activation and not from its top alone, and the tokens that the feature makes most
likely are given where they stand out. The prompts are our own.
"""

from __future__ import annotations

import re

from workbench.labels.endpoint import Messages
from workbench.labels.examples import Material, Passage

VERSION = "prompts 1"
SCALE = 10
SHOWN = 16
"""Passages in the prompt."""
LONGEST_ANSWER = 400
LONGEST_LABEL = 200
"""Characters. What is longer is no label."""
TASK = """\
You study one feature inside a language model. It fires on some tokens of a text and stays silent \
on all others. Below are passages in which it fires. Tokens on which it clearly fires are marked \
<<like this>>; after each passage they are listed with their strength, from 1 to 10.

Find what the marked tokens have in common: the tokens themselves, their meaning, what stands \
before them, or the kind of text they stand in. Do not describe single passages, and do not \
mention the marks. The strongest ones count most.

Think in one or two sentences. Then end with one line of at most twelve words:
LABEL: <what the feature fires on>"""


def explain_messages(material: Material, *, shown: int = SHOWN) -> Messages:
    """The turns that ask for a label.

    Args:
        material: The feature; only what may be looked at is used.
        shown: Most passages.
    """
    step = max(1, -(-len(material.shown) // shown))
    passages = material.shown[::step]
    said = [f"Passage {i}: {_with_strengths(p, material)}" for i, p in enumerate(passages, 1)]
    if material.promoted:
        tokens = ", ".join(repr(token) for token in material.promoted)
        said.append(f"Where it fires, the model is more likely to write next: {tokens}")
    return [
        {"role": "system", "content": TASK},
        {"role": "user", "content": "\n\n".join(said)},
    ]


def marked(tokens: tuple[str, ...], marks: list[bool]) -> str:
    """A passage with marks around its marked tokens; neighbours share one."""
    text, open_ = "", False
    for token, mark in zip(tokens, marks, strict=True):
        if mark != open_:
            text += "<<" if mark else ">>"
            open_ = mark
        text += token
    return text + (">>" if open_ else "")


def _with_strengths(passage: Passage, material: Material) -> str:
    clear = material.clear(passage)
    strengths = [
        f"{token.strip() or repr(token)}={max(1, round(SCALE * value / material.maximum))}"
        for token, value, fires in zip(passage.tokens, passage.activations, clear, strict=True)
        if fires
    ]
    return f"{marked(passage.tokens, clear)}\nStrengths: {', '.join(strengths)}"


def read_label(answer: str) -> str | None:
    """The label in an answer: the text after the last ``LABEL:``; None if there is none."""
    found = re.findall(r"LABEL:\s*(.+)", answer)
    text = found[-1].strip(" \t*\"'`<>.") if found else ""
    return text if 0 < len(text) <= LONGEST_LABEL else None
