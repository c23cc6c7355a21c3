"""Rows of tokens through model and SAEs, and what that adds to what is known of every feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.engine.binding import FeatureSource
from workbench.engine.tracing import read
from workbench.index.corpus import Rows
from workbench.index.identity import KnownSite
from workbench.index.plan import Settings
from workbench.index.sample import TokenSample
from workbench.index.state import SiteState
from workbench.models import Model
from workbench.sites import Site

CHUNK = 16
"""Batches whose sums are added up before they are added to the whole."""


class Counter:
    """The state of a pass over any part of a corpus."""

    def __init__(
        self,
        model: Model,
        source: FeatureSource,
        known: Sequence[KnownSite],
        settings: Settings,
        *,
        arrays: Mapping[str, np.ndarray] | None = None,
        batches: int = 0,
        tokens: int = 0,
    ) -> None:
        """Begin, or go on.

        Args:
            model: The model.
            source: Its SAEs.
            known: The sites.
            settings: What to keep.
            arrays: What `arrays` gave.
            batches: Of the pass so far.
            tokens: The same.
        """
        self.model, self.source, self.known, self.settings = model, source, known, settings
        self.sites, d_saes = [one.site for one in known], [one.d_sae for one in known]
        shape = settings.shape
        if arrays is None:
            self.states = [SiteState(d, shape) for d in d_saes]
            self.sample = TokenSample(settings.sample, d_saes)
        else:
            self.states = [
                SiteState.of(_below(arrays, f"site/{i}/"), d, shape) for i, d in enumerate(d_saes)
            ]
            self.sample = TokenSample.of(_below(arrays, "sample/"), settings.sample, d_saes)
        self.batches, self.tokens = batches, tokens

    def take(self, rows: Rows) -> None:
        """Count the features of some rows at every site."""
        number = self.sample.begin(rows.where)
        scored = torch.from_numpy(rows.scored).to(self.model.device)
        index = {site: i for i, site in enumerate(self.sites)}

        def consume(site: Site, x: Tensor) -> None:
            i = index[site]
            sae = self.source.sae_at(site)
            with torch.inference_mode():
                x = x.reshape(-1, x.shape[-1])[scored].to(sae.W_enc.device)
                tokens, features, values = (y.cpu() for y in sae.encode_sparse(x))
            tokens, features = tokens.numpy(), features.numpy()
            self.states[i].add(rows, tokens, features, values.float().numpy())
            self.sample.add(i, number, tokens, features)

        read(self.model, torch.from_numpy(rows.ids), self.sites, consume)
        self.sample.end()
        self.batches += 1
        self.tokens += len(rows.scored)
        if self.batches % CHUNK == 0:
            for state in self.states:
                state.close_chunk()

    def merge(self, batches: Sequence[Rows], arrays: Mapping[str, np.ndarray]) -> None:
        """Take in the next chunk of the corpus, counted apart.

        Args:
            batches: The chunk; where it is shorter than `CHUNK` batches, the last of the corpus.
            arrays: What `arrays` gave for it.
        """
        part = Counter(self.model, self.source, self.known, self.settings, arrays=arrays)
        for mine, other in zip(self.states, part.states, strict=True):
            mine.merge(other)
            # Of a last chunk that is not full; a full one is closed, and these are 0.
            mine.open_sums += other.open_sums
        self.sample.merge(part.sample)
        self.batches += len(batches)
        self.tokens += sum(len(rows.scored) for rows in batches)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, to be stored or sent."""
        found = {f"sample/{name}": x for name, x in self.sample.arrays().items()}
        for i, state in enumerate(self.states):
            found |= {f"site/{i}/{name}": x for name, x in state.arrays().items()}
        return found


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
