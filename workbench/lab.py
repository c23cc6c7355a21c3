"""The facade: one object that holds a model, its SAEs and what is known of their features.

No logic of its own: each method says which module does the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from workbench.edits import Edit, Steer
from workbench.evolution import relatives, relatives_frame
from workbench.features import logit_effects
from workbench.models import Busy, Model, load
from workbench.pocket.manifest import verify, weights
from workbench.runs import Run
from workbench.sae import SAE
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Prompt, Tokens, tokenize
from workbench.tracing import Generation, LiveEdits, Step, generate, trace

if TYPE_CHECKING:
    from nnsight import TransformersModel

SHIPPED = {"pocket": "base", "pocket-it": "it"}
"""Name -> folder of the models that come with the package."""


def open(
    name: str = "pocket",
    *,
    suite: str | Path | Suite | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> Lab:
    """Open a model with its SAEs.

    Args:
        name: ``"pocket"`` or ``"pocket-it"``, which are shipped, a hub id, or a local folder in
            Hugging Face's layout.
        suite: Folder of SAEs in Gemma Scope's layout; shipped with the shipped models.
        device: Such as ``"cuda"``; the CPU if left out.
        dtype: ``torch.float32`` if left out; bfloat16 works, float16 overflows.

    Raises:
        ValueError: If a shipped file does not match its manifest, or the model cannot be opened.
    """
    if name in SHIPPED:
        verify()
        model = load(weights() / SHIPPED[name], name=name, device=device, dtype=dtype)
        suite = suite or weights() / "sae"
    else:
        model = load(name, device=device, dtype=dtype)
    if suite is not None and not isinstance(suite, Suite):
        suite = Suite(suite, model=name, device=model.device)
    return Lab(model, suite)


class Lab:
    """A model and its SAEs, ready to use."""

    def __init__(self, model: Model, suite: Suite | None = None) -> None:
        self._model = model
        self._suite = suite

    def __repr__(self) -> str:
        config = self._model.config
        suite = f", {len(self._suite.entries)} SAEs" if self._suite else ", no SAEs"
        size = f"{config.num_hidden_layers} layers of {config.hidden_size}"
        return f"<Lab {self._model.name}: {size}{suite}>"

    @property
    def model(self) -> TransformersModel:
        """The plain nnsight model, for ``with lab.model.trace(...)``."""
        return self._model.nnsight

    @property
    def engine(self) -> Model:
        """The model as the functions of `workbench.tracing` take it."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._model.tokenizer

    @property
    def suite(self) -> Suite:
        """The SAEs.

        Raises:
            ValueError: If the lab was opened without any.
        """
        if self._suite is None:
            raise ValueError(
                "this lab has no SAEs: open it with wb.open(name, suite='folder of SAEs')"
            )
        return self._suite

    @property
    def saes(self) -> pd.DataFrame:
        """The SAEs at hand, with columns ``layer, kind, width, l0, path``."""
        rows = [(e.layer, e.kind, e.width, e.l0, str(e.path)) for e in self.suite.entries]
        return pd.DataFrame(rows, columns=["layer", "kind", "width", "l0", "path"])

    def sae(
        self,
        *,
        layer: int,
        kind: Kind = "res",
        width: str | int | None = None,
        l0: float | None = None,
    ) -> SAE:
        """The SAE of a site; see `workbench.sae.suite.Suite.sae`."""
        return self.suite.sae(layer=layer, kind=kind, width=width, l0=l0)

    def tokens(self, prompt: Prompt | Tokens) -> Tokens:
        """`prompt` as tokens, with exactly one ``<bos>``; see `workbench.tokens.tokenize`."""
        return tokenize(self.tokenizer, prompt, context=self._model.context)

    def run(
        self,
        prompt: Prompt | Tokens,
        *,
        sites: Sequence[Site] | None = None,
        edits: Sequence[Edit] = (),
        busy: Busy = "wait",
    ) -> Run:
        """One traced forward pass; see `workbench.tracing.trace`.

        Args:
            prompt: Text, ids or chat turns.
            sites: What to read; every site with an SAE if left out.
            edits: What to change.
            busy: ``"wait"`` or ``"cancel"`` if the model is in use.
        """
        tokens = self.tokens(prompt)
        wanted = (self._suite.sites if self._suite else ()) if sites is None else tuple(sites)
        traced = trace(self._model, [tokens], wanted, edits=edits, source=self._suite, busy=busy)
        return Run(
            model=self._model.name,
            tokens=tokens,
            logits=traced.logits[0],
            activations={site: x[0] for site, x in traced.activations.items()},
            receipt=traced.receipts[0],
            suite=self._suite,
            module=self._model.module,
        )

    def generate(
        self,
        prompt: Prompt | Tokens,
        *,
        edits: Sequence[Edit] | LiveEdits = (),
        max_new_tokens: int = 64,
        min_new_tokens: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        stream: Callable[[Step], None] | None = None,
        stop: threading.Event | None = None,
        busy: Busy = "wait",
    ) -> Generation:
        """Let the model continue a prompt; see `workbench.tracing.generate`."""
        return generate(
            self._model,
            [self.tokens(prompt)],
            edits=edits,
            source=self._suite,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stream=stream,
            stop=stop,
            busy=busy,
        )[0]

    def generate_many(
        self,
        prompts: Sequence[Prompt | Tokens],
        **options: Any,
    ) -> list[Generation]:
        """As `generate`, for several prompts in one batch; each gives what it would give alone."""
        return generate(
            self._model, [self.tokens(p) for p in prompts], source=self._suite, **options
        )

    def find(self, label: str) -> pd.DataFrame:
        """Features whose label contains a text, surest first.

        Returns:
            Columns ``layer, kind, feature, label, score``.
        """
        rows = [
            (f.site.layer, f.site.kind, f.index, f.label, f.score) for f in self.suite.find(label)
        ]
        return pd.DataFrame(rows, columns=["layer", "kind", "feature", "label", "score"])

    def feature(self, label: str, kind: Kind = "res") -> tuple[int, int]:
        """``(layer, index)`` of the surest feature with exactly this label.

        Raises:
            ValueError: If there is none; names labels that are near.
        """
        check_kind(kind)
        found = self.suite.find("")
        for one in found:
            if one.label == label and one.site.kind == kind:
                return one.site.layer, one.index
        near = get_close_matches(
            label, {f.label for f in found if f.site.kind == kind}, n=4, cutoff=0.3
        )
        raise ValueError(
            f"no feature of kind {kind!r} is labelled {label!r}; near: {', '.join(near) or 'none'}"
        )

    def edit_for(self, label: str) -> Steer:
        """The edit that writes `label`: a residual feature at a strength that was tried and tested.

        The feature that tells a concept best from others is rarely the one that writes it best, so
        both are looked for apart.

        Raises:
            ValueError: If no feature passed the test for it; names labels that have one.
        """
        known = self.suite.steering
        if label not in known:
            near = get_close_matches(label, known, n=4, cutoff=0.3) or list(known)
            raise ValueError(
                f"no feature is known to write {label!r}; near: {', '.join(near) or 'none'}"
            )
        best = known[label]
        return Steer((best["layer"], best["feature"]), best["strength"])

    def relatives(self, feature: tuple[int, int], kind: Kind = "res") -> pd.DataFrame:
        """The nearest relative of a feature at every site; see `workbench.evolution`."""
        site = Site(feature[0], check_kind(kind)).check(self._model.config)
        found = relatives(self._model.module, self.suite, site, feature[1])
        return relatives_frame(self.suite, found)

    def logit_effects(self, feature: tuple[int, int], *, k: int = 10) -> pd.DataFrame:
        """The tokens that a residual feature makes more likely, most first.

        See `workbench.features.logit_effects`.
        """
        direction = self.sae(layer=feature[0]).direction(feature[1])
        effects = logit_effects(self._model.module, direction)
        best = effects.topk(k)
        return pd.DataFrame(
            {
                "token": [self.tokenizer.decode([i]) for i in best.indices.tolist()],
                "effect": best.values.tolist(),
            }
        )

    def steering(
        self, prompt: str, features: Sequence[tuple[int, int]] = (), **options: Any
    ) -> Any:
        """Sliders beside steered and unsteered text; see `workbench.panels.Steering`."""
        from workbench.panels import Steering

        return Steering(self, prompt, features, **options)
