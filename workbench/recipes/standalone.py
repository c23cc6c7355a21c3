"""Standalone scripts: a steered text as one file of plain PyTorch that anybody can run and read.

The file needs torch and transformers and nothing else: no SAE, and no network besides the model's.
It holds the numbers of the edits in activation units and, as base64 of float32, the rows and
columns of the SAEs that they use. Its code is that of `workbench.recipes.standalone_template`, of
which only the parts that its edits need go in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from workbench.architectures import architecture_of
from workbench.engine.binding import FeatureSource, bind, check_program
from workbench.engine.edits import Edit, FeatureEdit, Freeze, Patch, Scope, Splice, When
from workbench.models import Model
from workbench.recipes.standalone_text import filled, numbers, place_of, short, template
from workbench.sae import SAE
from workbench.sites import Site
from workbench.tokens import Prompt, tokenize

LARGEST = 64 * 2**20
"""Bytes of weights above which a script is refused: no editor opens so large a text with ease."""


def standalone_script(
    model: Model,
    source: FeatureSource | None,
    prompt: Prompt,
    edits: Sequence[Edit],
    *,
    titles: Sequence[str] = (),
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """A program that prints what `workbench.engine.tracing.generate` writes.

    Args:
        model: The model.
        source: SAEs and calibration of the edits.
        prompt: Text, ids or chat turns.
        edits: What to change.
        titles: What to call each of the first edits.
        max_new_tokens: See ``generate``.
        temperature: See there.
        top_p: See there.
        seed: See there.

    Raises:
        ValueError: If a feature does not exist, or the weights would be too many.
    """
    book = _Book(model, source, prompt)
    book.constants |= {
        "MAX_NEW_TOKENS": max_new_tokens,
        "TEMPERATURE": temperature,
        "TOP_P": top_p,
        "SEED": seed,
    }
    book.note(edits, titles)
    return book.script()


class _Book:
    """Collects what one script needs."""

    def __init__(self, model: Model, source: FeatureSource | None, prompt: Prompt) -> None:
        self.model, self.source = model, source
        self.words: set[str] = set()
        """Optional parts of the template that go in."""
        self.edits: list[tuple[str, dict[str, Any]]] = []
        self.sites: set[Site] = set()
        self.saes: dict[Site, set[int] | None] = {}
        """Features that are needed at each site; None for all."""
        self.spliced: set[Site] = set()
        """Sites where the SAE's own terms are needed, too."""
        self.activations: dict[str, Tensor] = {}
        self.frozen: list[str] = []
        tokens = tokenize(model.tokenizer, prompt, context=model.context)
        if isinstance(prompt, str):
            text: dict[str, Any] = {"PROMPT": prompt}
        elif isinstance(prompt, Sequence) and all(isinstance(p, Mapping) for p in prompt):
            text = {"TURNS": [dict(turn) for turn in prompt]}  # pyright: ignore
        else:
            text = {"IDS": list(tokens.ids)}
        self.words.add(next(iter(text)).lower())
        self.words |= {"bos"} if model.tokenizer.bos_token_id is not None else set()
        self.constants = {
            "MODEL": place_of(model),
            "DEVICE": model.device.type,
            "DTYPE": next(model.module.parameters()).dtype,
            "ATTENTION": model.config._attn_implementation,
            **text,
            "END": model.end_tokens,
            "CONTEXT": model.context,
        }

    # --------------------------------------------------------------------- what the edits need

    def note(self, edits: Sequence[Edit], titles: Sequence[str]) -> None:
        """Keep every edit with the rows that it needs, in the caller's order."""
        program = check_program(bind(edits, self.source), self.model.config)
        # What the strengths are in activation units, the engine has worked out.
        amounts = {
            term.number: term.amount for group in program.groups.values() for term in group.terms
        }
        for number, edit in enumerate(program.edits):
            title = titles[number] if number < len(titles) else ""
            if isinstance(edit, Freeze):
                self.words.add("freeze")
                self.frozen.append(str(edit.site))
                continue
            if isinstance(edit, Patch):
                found = self._patch(edit)
            elif isinstance(edit, Splice):
                found = self._splice(edit)
            else:
                found = [self._change(edit, amounts[number])]
            self.edits += [(title, part) for part in found]
        self.sites |= {*program.sites}

    def _change(self, edit: FeatureEdit | When, amount: float) -> dict[str, Any]:
        inner = edit.edit if isinstance(edit, When) else edit
        constant, slope = inner.line(amount)
        part = self._feature(inner.site, inner.index, inner.scope)
        part |= {"constant": constant, "slope": slope}
        if inner.amount[1] == "norm" and self._sae_at(inner.site).normalize != "none":
            part["scaled"] = False
        if isinstance(edit, When):
            self.words.add("condition")
            self._need(edit.condition_site, [edit.condition[1]])
            part["above"] = (str(edit.condition_site), edit.condition[1], edit.above)
        return part

    def _patch(self, edit: Patch) -> list[dict[str, Any]]:
        if edit.features is None:
            self.words.add("activation")
            name = f"{edit.site} {len(self.activations)}"
            self.activations[name] = edit.activation
            return [{"reads": str(edit.site), "activation": name} | _scope(edit.scope)]
        self.words.add("patch")
        # The activation in the other text is known here, so the script need not read that text.
        sae = self._sae_at(edit.site)
        found = sae.encode_features(edit.activation.to(sae.W_enc.device), list(edit.features))
        scale = sae.output_scale(edit.activation)
        shares = (found if scale is None else found * scale).float().cpu()
        return [
            self._feature(edit.site, index, edit.scope)
            | {"constant": [short(v) for v in values.tolist()], "slope": -1.0}
            | ({} if scale is None else {"scaled": False})
            for index, values in zip(edit.features, shares.T, strict=True)
        ]

    def _sae_at(self, site: Site) -> SAE:
        assert self.source is not None
        return self.source.sae_at(site)

    def _splice(self, edit: Splice) -> list[dict[str, Any]]:
        """A reconstruction; with its error term only what is left out counts, so that is kept."""
        sae = self._sae_at(edit.site)
        keep, drop = edit.keep, edit.drop
        if edit.error:
            how, named = "without", list(drop or ())
            if keep is not None:
                named = sorted({*range(sae.config.d_sae)} - {*keep})
        else:
            how, named = ("all but", list(drop or ())) if keep is None else ("keep", list(keep))
        self.words.add("splice")
        self._need(edit.site, None if how == "all but" else named)
        self.spliced |= set() if how == "without" else {edit.site}
        return [self._place(edit.site) | {"splice": how, "features": named} | _scope(edit.scope)]

    def _feature(self, site: Site, index: int, scope: Scope) -> dict[str, Any]:
        self._need(site, [index])
        return self._place(site) | {"feature": index} | _scope(scope)

    def _place(self, site: Site) -> dict[str, Any]:
        writes = {} if site.writes_at == site else {"writes": str(site.writes_at)}
        return {"reads": str(site)} | writes

    def _need(self, site: Site, indices: Sequence[int] | None) -> None:
        before = self.saes.get(site, set())
        self.saes[site] = None if indices is None or before is None else before | {*indices}

    # ------------------------------------------------------------------------------ as a text

    def script(self) -> str:
        """The finished program."""
        weights = self._weights()  # first: it notes what the SAEs need of the template
        text = template(self.words | self._site_words())
        title = f"Steered text of {self.model.name} in plain PyTorch, edits: {len(self.edits)}."
        text = _ABOUT.format(title=title) + text
        text = filled(text, "constants", self._constants())
        return filled(text, "weights", weights)

    def _site_words(self) -> set[str]:
        reads = architecture_of(self.model.module).transcoder_reads
        return {site.kind for site in self.sites} | {f"at-{reads.split()[-1]}"}

    def _constants(self) -> str:
        row = architecture_of(self.model.module)
        lines = [f"{name} = {value!r}" for name, value in self.constants.items()]
        lines += ["", "# Where each activation is: a module, and which side of it.", "SITES = {"]
        for site in sorted(self.sites):
            side = {
                "att": "input",
                "transcoder": row.transcoder_reads,
                "embed": "output over scale",
            }
            path = row.module_path(site.kind, site.layer)
            lines.append(f"    {str(site)!r}: ({path!r}, {side.get(site.kind, 'output')!r}),")
        lines += ["}", "", *_FORMULA, "EDITS = ["]
        said = ""
        for title, edit in self.edits:
            lines += [f"    # {title}"] if title and title != said else []
            lines.append(f"    {edit!r},")
            said = title
        lines.append("]")
        if self.frozen:
            lines += ["# Held at what they are in the unedited run over the same tokens."]
            lines += ["FROZEN = [", *(f"    {site!r}," for site in self.frozen), "]"]
        return "\n".join(lines)

    def _weights(self) -> str:
        parts = [f"    {str(site)!r}: {self._sae(site)},\n" for site in sorted(self.saes)]
        text = "SAES = {\n" + "".join(parts) + "}"
        if self.activations:
            rows = [f"    {k!r}: {numbers(v, 4)},\n" for k, v in self.activations.items()]
            text += "\nACTIVATIONS = {\n" + "".join(rows) + "}"
        if len(text) > LARGEST:
            raise ValueError(
                f"the script would hold {len(text) / 2**20:.0f} MB of weights (at most "
                f"{LARGEST >> 20}): a splice without its error, or a TopK, needs the whole SAE; "
                "splice with error=True and drop=[...], or share the recipe instead"
            )
        return text

    def _sae(self, site: Site) -> str:
        """The dict of one SAE with the features that are needed, as source."""
        sae, wanted = self._sae_at(site), self.saes[site]
        if sae.k is not None:
            wanted = None  # whether a feature is among the k largest depends on all
        features = list(range(sae.config.d_sae)) if wanted is None else sorted(wanted)
        W_enc, b_enc = sae.W_enc[:, features], sae.b_enc[features]
        if sae.apply_b_dec_to_input:
            b_enc = b_enc - sae.b_dec @ W_enc
        shown = f"list(range({len(features)}))" if wanted is None else repr(features)
        parts = {"features": shown, "W_enc": numbers(W_enc), "b_enc": numbers(b_enc)}
        if sae.threshold is not None:
            self.words.add("jumprelu")
            parts["threshold"] = numbers(sae.threshold[features])
        if sae.k is not None:
            self.words.add("topk")
            parts["k"] = repr(sae.k)
        if sae.normalize != "none":
            self.words.add("normalised")
            parts["normalize"] = repr(sae.normalize)
        parts["W_dec"] = numbers(sae.W_dec[features].float())
        if site in self.spliced:
            parts["b_dec"] = numbers(sae.b_dec.float())
        if site in self.spliced and sae.W_skip is not None:
            self.words.add("skip")
            parts["W_skip"] = numbers(sae.W_skip.float())
        body = "".join(f"        {name!r}: {value},\n" for name, value in parts.items())
        return f"{{  # {sae.name}\n{body}    }}"


_ABOUT = '''"""{title}

    python THIS_FILE [folder or hub id of the model]

Prints the text and, in the last line, the ids of all its tokens. Needs torch and transformers.
"""

'''
_FORMULA = (
    "# Each edit adds (constant + slope * f) * d where it acts, with f the feature's activation as",
    "# it arrives and d its decoder row. Edits of one site are summed.",
)


def _scope(scope: Scope) -> dict[str, Any]:
    """What of a scope is not as usual."""
    found: dict[str, Any] = {} if scope.when == "both" else {"when": scope.when}
    if scope.positions is not None:
        found["positions"] = list(scope.positions)
    if scope.steps is not None:
        found["steps"] = list(scope.steps)
    return found
