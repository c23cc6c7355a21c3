"""How features hang together: relatives through the layers, attribution, causes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.analysis.attribution import Attribution, Target, Token, attribute
from workbench.analysis.causes import Causes, How, causes_over
from workbench.analysis.correlation import correlations
from workbench.analysis.evolution import (
    evolve,
    relatives,
    relatives_frame,
    with_correlations,
)
from workbench.analysis.kinship import LEVEL
from workbench.analysis.lens import direction_lens
from workbench.analysis.lineage import Lineage
from workbench.analysis.passages import TOKENS, passages
from workbench.analysis.shares import Shares, shares
from workbench.engine.edits import Edit
from workbench.features import logit_effects
from workbench.lab.finding import Finding
from workbench.runs import Run
from workbench.sites import Kind, Site, feature_at
from workbench.tokens import Prompt, Tokens, strings_of


class Following(Finding):
    """Follows features through the model."""

    def relatives(self, feature: tuple[int, int], kind: Kind = "res") -> pd.DataFrame:
        """The nearest relative of a feature at every site; see `workbench.analysis.evolution`."""
        site, index = feature_at(feature, kind)
        site.check(self._model.config)
        found = relatives(self._model.module, self.suite, site, index)
        return relatives_frame(self.suite, found)

    def lineage(
        self,
        feature: tuple[int, int],
        kind: Kind = "res",
        *,
        tokens: int = 0,
        sites: Sequence[Site] | None = None,
        level: float = LEVEL,
    ) -> Lineage:
        """A feature through the layers: kin, births, splits; see `workbench.analysis.evolution`.

        lab.lineage((4, 286)).to_frame()
        lab.lineage((4, 286), tokens=20_000)    # with correlations over text of the index in use

        Args:
            feature: ``(layer, index)``.
            kind: Kind of site.
            tokens: Of random documents of the index, over which activations are correlated; 0 for
                weights alone.
            sites: Where to look; every site whose SAE is at hand if left out.
            level: Share of unrelated features that may pass for kin at a site.

        Raises:
            ValueError: If the feature does not exist, or does not fire in so many tokens.
        """
        site, index = feature_at(feature, kind)
        site.check(self._model.config)
        found = evolve(self._model.module, self.suite, site, index, sites=sites, level=level)
        if not tokens:
            return found
        rows = passages(self._model, self.feature_index, tokens)
        where = [one.site for one in found.kin]
        read = correlations(self._model, self.suite, site, index, where, rows, level=level)
        return with_correlations(found, read)

    def shares(self, layer: int, *, tokens: int = TOKENS) -> Shares:
        """What the stream below, attention and MLP bring to the features of a residual stream.

        Read from random documents of the index in use; see `workbench.analysis.shares`.
        """
        rows = passages(self._model, self.feature_index, tokens)
        return shares(self._model, self.suite, [layer], rows)[layer]

    def reading(self, feature: tuple[int, int], kind: Kind = "res", *, k: int = 5) -> pd.DataFrame:
        """The tokens that a feature and its kin make more likely: `workbench.analysis.lens`.

        Returns:
            Columns ``layer, kind, feature, rank, says, id, effect``.
        """
        found = self.lineage(feature, kind)
        table = direction_lens(self._model.module, self.suite, found, k=k)
        table.insert(4, "says", strings_of(self.tokenizer, table["id"].tolist()))
        return table

    def logit_effects(self, feature: tuple[int, int], *, k: int = 10) -> pd.DataFrame:
        """The tokens that a residual feature makes more likely, most first.

        See `workbench.features.logit_effects`.
        """
        site, index = feature_at(feature)
        direction = self.suite.sae_at(site).direction(index)
        effects = logit_effects(self._model.module, direction)
        best = effects.topk(k)
        return pd.DataFrame(
            {
                "token": [self.tokenizer.decode([i]) for i in best.indices.tolist()],
                "effect": best.values.tolist(),
            }
        )

    def attribution(
        self,
        prompt: Run | Prompt | Tokens,
        token: Token,
        *,
        position: int = -1,
        against: Token | Sequence[Token] = (),
        sites: Sequence[Site] | None = None,
        dimmed: int = 0,
        edits: Sequence[Edit] = (),
    ) -> Attribution:
        """What each active feature has to do with a next token: `workbench.analysis.attribution`.

        Args:
            prompt: Text, ids, chat turns, or a run.
            token: Text of one token such as ``" Paris"``, or its id.
            position: After which token of the prompt it comes.
            against: Tokens whose mean logit is subtracted; all of them if left out.
            sites: Where; every site whose SAE is at hand without a download if left out.
            dimmed: As for `Run.attribution`.
            edits: What to change; a run brings its own.

        Raises:
            ValueError: If there is no such token, position or site, or edits are given to a run.
        """
        if isinstance(prompt, Run):
            if edits:
                raise ValueError(
                    "a run has its own edits: give its prompt to attribute with others"
                )
            return prompt.attribution(
                token, position=position, against=against, sites=sites, dimmed=dimmed
            )
        self.prepare(edits)
        tokens, suite = self.tokens(prompt), self.suite
        return attribute(
            self._model,
            suite,
            tokens,
            Target.of(self._model, tokens, token, position, against),
            [site for site in suite.sites if suite.at_hand(site)] if sites is None else sites,
            edits=edits,
            dimmed=dimmed,
            label=suite.label,
        )

    def causes(
        self,
        feature: tuple[int, int],
        kind: Kind = "res",
        *,
        how: How = "ablate",
        sites: Sequence[Site] | None = None,
        tokens: int = 4096,
    ) -> Causes:
        """What a feature causes on average where it fires in the index; see `Run.causes`.

        Args:
            feature: Layer and index.
            kind: Kind of its site.
            how: ``"ablate"``, or a factor.
            sites: Where to look; every later site whose SAE is at hand if left out.
            tokens: Most tokens to read.

        Raises:
            ValueError: If there is no index, it lacks the feature or was made with another SAE, or
                the feature never fires.
        """
        suite, (site, index) = self.suite, feature_at(feature, kind)
        return causes_over(
            self._model,
            suite,
            self.index_at([site]),
            (site, index),
            how=how,
            sites=[s for s in suite.sites if suite.at_hand(s)] if sites is None else sites,
            tokens=tokens,
            label=suite.label,
        )
