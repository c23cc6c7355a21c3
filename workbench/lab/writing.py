"""Text under edits, and what to edit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from workbench.analysis.autosteer import Autosteer, autosteer
from workbench.analysis.calibration import Calibration, Mode
from workbench.analysis.contrast import Contrast, contrast
from workbench.analysis.strengths import Control, Effect, beginnings, calibrate
from workbench.analysis.text_features import Pool
from workbench.engine.edits import Edit, Steer
from workbench.engine.tracing import Generation, LiveEdits, Step, generate
from workbench.models import Busy
from workbench.names import check_name, nearest_first
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Prompt, Tokens

if TYPE_CHECKING:
    from workbench.lab.facade import Lab


from workbench.lab.core import Core


class Writing(Core):
    """Writes, and finds what to write with."""

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
        """Let the model continue a prompt; see `workbench.engine.tracing.generate`."""
        self.prepare(edits.edits if isinstance(edits, LiveEdits) else edits)
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
        """As `generate`, for several prompts in one batch; each gives what it would give alone.

        ``each=`` in the place of ``edits=`` has a list of edits for every prompt.
        """
        lists = (options.get("edits", ()), *(options.get("each") or ()))
        plain = (edits.edits if isinstance(edits, LiveEdits) else edits for edits in lists)
        self.prepare([edit for edits in plain for edit in edits])
        return generate(
            self._model, [self.tokens(p) for p in prompts], source=self._suite, **options
        )

    def sweep(
        self,
        prompt: Prompt | Tokens,
        each: Sequence[Sequence[Edit]],
        *,
        batch: int = 32,
        **options: Any,
    ) -> list[Generation]:
        """One prompt under many lists of edits, such as one for each strength, side by side.

        Args:
            prompt: What every text begins with.
            each: The lists; ``[]`` gives the unedited text.
            batch: How many to write at once.
            options: Of `workbench.engine.tracing.generate`, such as ``max_new_tokens`` and
                ``seed``, which every text shares.

        Returns:
            A text for each list, equal to what `generate` gives for it alone.

        Raises:
            TypeError: If it is no list of lists.
            ValueError: If `batch` is below 1.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        if not _are_lists([each]) or not _are_lists(each):
            raise TypeError(
                "each variant is a list of edits: [[], [wb.Steer((5, 231), 6.0)], ...]; "
                f"got {each!r}"
            )
        tokens, found = self.tokens(prompt), []
        for start in range(0, len(each), batch):
            part = each[start : start + batch]
            found += self.generate_many([tokens] * len(part), each=part, **options)
        return found

    def steering(
        self, prompt: Prompt = "", features: Sequence[tuple[int, int]] = (), **options: Any
    ) -> Any:
        """Edits, live, beside unsteered text and baselines; see `workbench.panels.Steering`."""
        from workbench.panels import Steering

        return Steering(cast("Lab", self), prompt, features, **options)

    def app(self, prompt: str = "", **options: Any) -> Any:
        """Prompt, heatmap, dashboard, layers, steering and search as one linked page.

        See `workbench.panels.App`.
        """
        from workbench.panels import App

        return App(cast("Lab", self), prompt, **options)

    def edit_for(self, label: str) -> Steer:
        """The edit that writes `label`: a residual feature at a strength that was tried and tested.

        The feature that tells a concept best from others is rarely the one that writes it best, so
        both are looked for apart.

        Raises:
            TypeError: If it is no text.
            ValueError: If no feature passed the test for it; names labels that have one.
        """
        known = self.suite.steering
        if check_name("label", label) not in known:
            raise ValueError(
                f"no feature is known to write {label!r}; known, nearest first: "
                f"{nearest_first(label, known)}"
            )
        best = known[label]
        return Steer((best["layer"], best["feature"]), best["strength"])

    def calibrate(
        self,
        feature: tuple[int, int],
        kind: Kind = "res",
        *,
        mode: Mode = "steer",
        strengths: Sequence[float] | None = None,
        prompts: Sequence[Prompt | Tokens] | None = None,
        max_new_tokens: int = 40,
        seed: int = 0,
        effect: Effect | None = None,
        progress: bool = True,
        stop: threading.Event | None = None,
    ) -> Calibration:
        """How far to push a feature before the text breaks: `workbench.analysis.strengths`.

        Args:
            feature: ``(layer, index)``.
            kind: Kind of site of the feature.
            mode: ``"steer"``, ``"clamp"`` or ``"scale"``.
            strengths: What to try, in typical maxima (shares of the layer's mean norm where none is
                known; factors for ``"scale"``); a range that suits most features if left out.
            prompts: What the texts begin with; beginnings of the suite's passages if left out.
            max_new_tokens: Length of the texts.
            seed: Of the texts, which are drawn at temperature 1.
            effect: From the texts at a strength to a number, such as the share of words that you
                want to see; the feature's own mean activation in them if left out.
            progress: Whether to show a bar.
            stop: Set it from another thread, or interrupt the kernel: what is finished is returned.

        Raises:
            ValueError: If the feature, the mode or a strength is impossible.
        """
        control = Control.of(self.suite, feature, kind, mode)
        if control.unit == "norm":
            self.prepare([Steer(feature, 0.0, kind=kind, unit="norm")])
        return calibrate(
            self._model,
            self.suite,
            control,
            beginnings(self._passages(None), self.tokenizer)
            if prompts is None
            else [self.tokens(prompt) for prompt in prompts],
            strengths=strengths,
            max_new_tokens=max_new_tokens,
            seed=seed,
            effect=effect,
            progress=progress,
            stop=stop,
        )

    def contrast(
        self,
        positive: Sequence[Prompt | Tokens],
        negative: Sequence[Prompt | Tokens],
        *,
        layers: Sequence[int] | None = None,
        kinds: Sequence[Kind] = ("res",),
        k: int = 20,
        pool: Pool = "mean",
        seed: int = 0,
        progress: bool = True,
    ) -> Contrast:
        """Features that tell `positive` texts from `negative`: `workbench.analysis.contrast`.

        Args:
            positive: Texts that have it, best ten or more.
            negative: Texts that lack it and are alike in all else.
            layers: Where to look; all whose SAE is at hand without a download if left out.
            kinds: Kinds of site.
            k: Features to return.
            pool: A feature's ``"mean"`` over a text, or its ``"max"``, for what happens once.
            seed: Fixes which half of the texts chooses.
            progress: Show a bar.

        Raises:
            TypeError: If a side is one text instead of a list.
            ValueError: If a side is empty, a text stands on both, or there is no such SAE.
        """
        sides = [self._texts("positive", positive), self._texts("negative", negative)]
        sites = self._sites(layers, kinds)
        return contrast(
            self._model,
            self.suite,
            *sides,
            sites=sites,
            k=k,
            pool=pool,
            seed=seed,
            progress=progress,
        )

    def autosteer(
        self,
        name: str,
        examples: Sequence[Prompt | Tokens],
        *,
        against: Sequence[Prompt | Tokens] | None = None,
        size: int = 3,
        layers: Sequence[int] | None = None,
        kinds: Sequence[Kind] = ("res",),
        seed: int = 0,
        progress: bool = True,
    ) -> Autosteer:
        """Propose features and strengths that write what `examples` have in common.

        See `workbench.analysis.autosteer` for how they are found and scored.

        Args:
            name: What is wanted, such as ``"more formal"``.
            examples: Texts that have it, best ten or more.
            against: Texts that lack it; ordinary passages if left out.
            size: Most features.
            layers: Where to look; all whose SAE is at hand without a download if left out.
            kinds: Kinds of site.
            seed: Fixes which half of the texts chooses, and the controls.
            progress: Show bars.

        Raises:
            TypeError: If a side is one text instead of a list.
            ValueError: If a side is empty, a text stands on both, or there is no such SAE.
        """
        chosen = self._texts("examples", examples)
        neutral = self._passages(None) if against is None else self._texts("against", against)
        return autosteer(
            self._model,
            self.suite,
            name,
            chosen,
            neutral,
            sites=self._sites(layers, kinds),
            size=size,
            seed=seed,
            progress=progress,
        )

    def _texts(self, name: str, texts: Sequence[Prompt | Tokens]) -> list[Tokens]:
        """A list of texts as tokens.

        Raises:
            TypeError: If it is one text, or something in it is none.
        """
        if isinstance(texts, str | Tokens) or not isinstance(texts, Sequence):
            raise TypeError(
                f"{name} is a list of texts: write [text], or better many; got {texts!r}"
            )
        return [self.tokens(text) for text in texts]

    def _sites(self, layers: Sequence[int] | None, kinds: Sequence[Kind]) -> list[Site]:
        """The sites with an SAE at these layers and kinds.

        Raises:
            ValueError: If one of the layers has none, or none is at hand.
        """
        kinds = [check_kind(kind) for kind in ((kinds,) if isinstance(kinds, str) else kinds)]
        known = [site for site in self.suite.sites if site.kind in kinds]
        if layers is None:
            found = [site for site in known if self.suite.at_hand(site)]
            if not found:
                raise ValueError(
                    f"no SAE of kinds {kinds} is at hand; name layers=[...] to fetch theirs"
                    if known
                    else f"there is no SAE of kinds {kinds}; see lab.saes"
                )
            return found
        lacking = sorted(set(layers) - {site.layer for site in known})
        if lacking:
            raise ValueError(f"there is no SAE of kinds {kinds} at layers {lacking}; see lab.saes")
        return [site for site in known if site.layer in layers]


def _are_lists(values: Sequence[object]) -> bool:
    return all(isinstance(one, Sequence) and not isinstance(one, str) for one in values)
