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

from workbench.analysis.autosteer import Autosteer, autosteer
from workbench.analysis.calibration import Calibration, Mode
from workbench.analysis.contrast import Contrast, contrast
from workbench.analysis.evaluation import Check, check, mean_activations, mean_norms
from workbench.analysis.evolution import relatives, relatives_frame
from workbench.analysis.strengths import Control, Effect, beginnings, calibrate
from workbench.analysis.text_features import Pool
from workbench.doctor import free_bytes
from workbench.engine.binding import site_of
from workbench.engine.edits import Ablate, Clamp, Edit, Steer, When, edit_list
from workbench.engine.tracing import Generation, LiveEdits, Step, generate, trace
from workbench.features import logit_effects
from workbench.models import Busy, Model, load, wrap
from workbench.pocket.manifest import verify, weights
from workbench.runs import Run
from workbench.sae import SAE
from workbench.sae.catalog_data import model_name
from workbench.sae.published import PublishedSuite, is_published, open_sae
from workbench.sae.shelf import parse_bytes
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site, check_kind
from workbench.tokens import Prompt, Tokens, tokenize

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from torch import nn

SHIPPED = {"pocket": "base", "pocket-it": "it"}
"""Name -> folder of the models that come with the package."""
SHARE = 0.5
"""Of the memory that is free once the model is open, what open SAEs may take unless told."""


def open(
    name: str | nn.Module = "pocket",
    *,
    suite: str | Path | Suite | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    memory: str | int | None = None,
    sae_dtype: torch.dtype = torch.float32,
    tokenizer: Any = None,
    **loading: Any,
) -> Lab:
    """Open a model with its SAEs.

    Args:
        name: ``"pocket"`` or ``"pocket-it"``, which are shipped; a hub id or short name such as
            ``"gemma-2-2b"``, whose SAEs are Gemma Scope's; a folder of a model in Hugging Face's
            layout, or of a PEFT adapter; or a loaded transformers module.
        suite: Folder of SAEs in Gemma Scope's layout, or the name of the model whose published SAEs
            to use (those of ``"gemma-2-2b"`` for your fine-tune of it).
        device: Such as ``"cuda"``; a GPU if there is one, else the CPU, if left out.
        dtype: Of the model; chosen for the device if left out. Float16 overflows.
        memory: What open SAEs may take together, such as ``"8GB"``: the least recently used are
            closed. Half of what is free if left out.
        sae_dtype: What SAEs compute in, float32 or bfloat16.
        tokenizer: For a loaded module.
        loading: For large models: ``attention``, ``device_map``, ``quantization`` (``"8bit"`` or
            ``"4bit"``) and ``token``; see `workbench.models.load`. `Lab.notes` says what was
            chosen and why.

    Raises:
        ValueError: If a shipped file does not match its manifest, or the model cannot be opened.
    """
    published = None
    if isinstance(name, str) and name in SHIPPED:
        verify()
        folder = weights() / SHIPPED[name]
        # So small a model gains nothing from a GPU or from half the bits.
        model = load(
            folder, name=name, device=device or "cpu", dtype=dtype or torch.float32, **loading
        )
        suite, published = suite or weights() / "sae", "pocket"
    elif isinstance(name, str):
        model = load(name, device=device, dtype=dtype, **loading)
    else:
        if tokenizer is None or device or dtype or loading:
            raise ValueError(
                "a loaded module stays as it is: give its tokenizer=, and no device, dtype or "
                f"loading options (got {', '.join(loading) or 'tokenizer=None, a device or dtype'})"
            )
        model = wrap(name, tokenizer, name=type(name).__name__)
    return Lab(model, _suite(model, suite, published, parse_bytes(memory), sae_dtype))


def _suite(
    model: Model,
    suite: str | Path | Suite | None,
    published: str | None,
    memory: int | None,
    dtype: torch.dtype,
) -> Suite | None:
    """The SAEs that were asked for, or those that are published for the model."""
    if isinstance(suite, Suite):
        return suite
    options: dict[str, Any] = {
        "device": model.device,
        "dtype": dtype,
        "memory": memory or int(SHARE * free_bytes(model.device)),
    }
    name = published or model_name(model.name)
    if suite is None:
        # Those of the base model serve its tuned sibling where it has none, and a note says so.
        known = next((n for n in (name, name.removesuffix("-it")) if is_published(n)), None)
        return PublishedSuite(known, **options) if known else None
    if isinstance(suite, str) and is_published(model_name(suite)):
        return PublishedSuite(model_name(suite), **options)
    return Suite(suite, model=name, **options)


class Lab:
    """A model and its SAEs, ready to use."""

    def __init__(self, model: Model, suite: Suite | None = None) -> None:
        self._model = model
        self._suite = suite

    def __repr__(self) -> str:
        config = self._model.config
        suite = f", {len(self._suite.entries)} SAEs" if self._suite else ", no SAEs"
        size = f"{config.num_hidden_layers} layers of {config.hidden_size}"
        notes = () if self._model.name in SHIPPED else self.notes
        return "\n  ".join([f"<Lab {self._model.name}: {size}{suite}>", *notes])

    @property
    def model(self) -> TransformersModel:
        """The plain nnsight model, for ``with lab.model.trace(...)``."""
        return self._model.nnsight

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen when the model was opened (device, dtype, attention), each with why."""
        return self._model.notes

    @property
    def engine(self) -> Model:
        """The model as the functions of `workbench.engine.tracing` take it."""
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
        name: str | Path | None = None,
        *,
        layer: int | None = None,
        kind: Kind | None = None,
        width: str | int | None = None,
        l0: float | None = None,
    ) -> SAE:
        """An SAE, by the site or by any name.

        Args:
            name: What `wb.catalog_entry` understands, a folder on the hub such as
                ``"owner/repository/folder"``, or a file or folder on disk in any format of
                `workbench.sae.formats`.
            layer: Layer of the site; beside a name only where the file does not say it.
            kind: Kind of site, ``"res"`` if left out; beside a name as `layer`.
            width: Number of features, or a name such as ``"16k"``; the smallest if left out.
            l0: Mean active features a token; the nearest to 100 if left out.

        Raises:
            ValueError: If there is no such SAE; names what is near.
        """
        if name is not None:
            if width is not None or l0 is not None:
                raise ValueError("width and l0 choose among the SAEs of a site: leave the name out")
            dtype = torch.float32 if self._suite is None else self._suite.dtype
            return open_sae(name, layer=layer, kind=kind, dtype=dtype, device=self._model.device)
        if layer is None:
            raise ValueError("give the name of an SAE or the layer of its site")
        return self.suite.sae(layer=layer, kind=kind or "res", width=width, l0=l0)

    def use(self, sae: SAE) -> SAE:
        """Let `sae` be the one of its site from now on, for runs, edits and widgets.

        Raises:
            ValueError: If the model has no such site or it has another width.
        """
        site = site_of(sae, self._model.module)
        if self._suite is None:
            self._suite = Suite(None, model=self._model.name)
        self._suite.use(sae, site)
        return sae

    def check(self, sae: SAE, *, texts: Sequence[Prompt] | None = None) -> Check:
        """L0, FVU and loss recovered of an SAE; refused where it does not belong.

        Args:
            sae: The SAE or transcoder.
            texts: What to measure on; some passages of ours if left out.

        Raises:
            WrongSiteError: See `workbench.analysis.evaluation.check`.
        """
        return check(self._model, sae, self._passages(texts))

    def prepare(self, edits: Sequence[Edit]) -> None:
        """Measure what `edits` need and nobody knows yet: mean norms and mean activations."""
        if self._suite is None:
            return
        inner = [edit.edit if isinstance(edit, When) else edit for edit in edit_list(edits)]
        written = {
            edit.site.writes_at
            for edit in inner
            if isinstance(edit, Steer | Clamp) and edit.unit == "norm"
        }
        if not all(map(self._suite.knows_norm, written)):
            sites = sorted({site.writes_at for site in self._suite.sites} | written)
            self._suite.norms |= mean_norms(self._model, sites, self._passages(None))
        features: dict[Site, list[int]] = {}
        for edit in inner:
            if isinstance(edit, Ablate) and edit.to == "mean":
                self._suite.sae_at(edit.site).check_index(edit.index)
                if not self._suite.knows_mean(edit.site, edit.index):
                    features.setdefault(edit.site.check(self._model.config), []).append(edit.index)
        if features:
            saes = {site: self._suite.sae_at(site) for site in features}
            found = mean_activations(self._model, saes, features, self._passages(None))
            for site, means in found.items():
                self._suite.means.setdefault(site, {}).update(means)

    def _passages(self, texts: Sequence[Prompt] | None) -> list[Tokens]:
        """`texts` as tokens, or the suite's passages, cut to the context."""
        if texts is not None:
            return [self.tokens(text) for text in texts]
        room = self._model.context - 1  # for <bos>
        encoded = (
            self.tokenizer(passage, add_special_tokens=False)["input_ids"]
            for passage in (self._suite or Suite(None, model=self._model.name)).sample
        )
        return [self.tokens(ids[:room]) for ids in encoded]

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
        """One traced forward pass; see `workbench.engine.tracing.trace`.

        Args:
            prompt: Text, ids or chat turns.
            sites: What to read; every site with an SAE if left out.
            edits: What to change.
            busy: ``"wait"`` or ``"cancel"`` if the model is in use.
        """
        self.prepare(edits)
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
            ValueError: If `batch` is below 1.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        tokens, found = self.tokens(prompt), []
        for start in range(0, len(each), batch):
            part = each[start : start + batch]
            found += self.generate_many([tokens] * len(part), each=part, **options)
        return found

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

    def relatives(self, feature: tuple[int, int], kind: Kind = "res") -> pd.DataFrame:
        """The nearest relative of a feature at every site; see `workbench.analysis.evolution`."""
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
        self, prompt: Prompt = "", features: Sequence[tuple[int, int]] = (), **options: Any
    ) -> Any:
        """Edits, live, beside unsteered text and baselines; see `workbench.panels.Steering`."""
        from workbench.panels import Steering

        return Steering(self, prompt, features, **options)
