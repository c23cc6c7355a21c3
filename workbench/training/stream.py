"""Shuffled activations of one site, read from texts as training asks for them.

1. Texts are packed into rows (`workbench.index.corpus`) and read by the engine, some rows at once.
   ``<bos>`` and the tokens that close a document are left out, as Gemma Scope does.
2. What was read waits in a pool, and a batch is drawn from all over it, so that the tokens of a
   batch come from many texts. When half of the pool is used up, it is filled again.
3. Each token is used ``reuse`` times, which are spread at random over the time that it is in the
   pool. Reading costs a pass through the model and a training step on pocket costs less, so a short
   run learns more in a minute by looking at each token several times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from workbench.engine.tracing import read
from workbench.index.corpus import Packer, Rows, Texts
from workbench.models import Model
from workbench.sites import Site

__all__ = ["ActivationStream"]

TOGETHER = 4096
"""Tokens that are read at once, as far as whole rows allow."""


class ActivationStream:
    """Batches of activations of one site, and of what a transcoder there is to write.

    Attributes:
        site: Where the activations are read.
        target_site: Where a transcoder writes; `site` itself for every other kind.
        tokens_read: Tokens read so far.
        passes: How often the texts were begun; more than 1 where they are too short.
    """

    def __init__(
        self,
        model: Model,
        texts: Texts,
        site: Site,
        *,
        context: int = 128,
        pool: int = 32_768,
        reuse: int = 1,
        seed: int = 0,
    ) -> None:
        """Prepare to read; nothing is read yet.

        Args:
            model: The model.
            texts: What `workbench.index.corpus.read_texts` takes. Where they end before training
                does, they are read again, but an iterator cannot be.
            site: Where to read.
            context: Tokens of a row.
            pool: Tokens to keep and shuffle; two rows at least.
            reuse: How often each token is used.
            seed: Of the shuffling.

        Raises:
            ValueError: If a number is too small, the context too long, or there is no such site.
        """
        room = model.context
        if not 2 <= context <= room:
            raise ValueError(
                f"context={context}: expected 2 to {room}, what {model.name} can read."
            )
        if pool < 2 * context:
            raise ValueError(f"pool={pool}: expected at least {2 * context}, two rows of context.")
        if reuse < 1:
            raise ValueError(f"reuse={reuse}: expected at least 1.")
        self.site = site.check(model.config)
        self.target_site = self.site.writes_at
        self.tokens_read = 0
        self.passes = 0
        self._model, self._texts = model, texts
        self._context, self._pool, self._reuse = context, pool, reuse
        self._together = min(TOGETHER, pool // 2) // context or 1
        self._rows: Iterator[Rows] = iter(())
        self._in_pass = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._stored: dict[Site, Tensor] = {}
        self._uses = torch.zeros(pool, dtype=torch.int64)
        self._queue = torch.zeros(0, dtype=torch.int64)

    @property
    def is_transcoder(self) -> bool:
        """Whether batches come with a target of their own."""
        return self.target_site != self.site

    @property
    def width(self) -> int:
        """Width of the activations, and of the target where there is one."""
        return self.site.width(self._model.config)

    @property
    def waiting(self) -> int:
        """Tokens in the pool that are not used up."""
        return int((self._uses > 0).sum())

    def prepare(self, size: int, *, during: Callable[[], object] = lambda: None) -> None:
        """Read, if it is time to, so that the next batch is at hand.

        Args:
            size: Tokens of that batch; at most half of the pool.
            during: Called after each read, since filling the pool takes a while. What it raises
                ends the filling; the next call goes on with it.

        Raises:
            ValueError: If the batch is too large, or the texts came to an end.
        """
        if not 1 <= size <= self._pool // 2:
            raise ValueError(f"size={size}: expected 1 to {self._pool // 2}, half of the pool.")
        if len(self._queue) < size or self.waiting <= self._pool // 2:
            self._fill(during)
        if len(self._queue) < size:
            raise ValueError(
                f"the texts ended after {self.tokens_read:,} tokens, and an iterator cannot be "
                "read again: give a list of texts, more of them, or a larger reuse="
            )

    def batch(self, size: int) -> tuple[Tensor, Tensor | None]:
        """The next activations ``(size, d_in)``, and targets ``(size, d_in)`` or None.

        Raises:
            ValueError: See `prepare`.
        """
        self.prepare(size)
        places, self._queue = self._queue[:size], self._queue[size:]
        self._uses.index_add_(0, places, torch.full_like(places, -1))
        x = self._stored[self.site][places]
        return x, self._stored[self.target_site][places] if self.is_transcoder else None

    def _fill(self, during: Callable[[], object]) -> None:
        """Read while the pool has room for all that one reading gives."""
        free = (self._uses == 0).nonzero()[:, 0]
        while len(free) >= self._together * self._context:
            rows = self._next_rows()
            if rows is None:
                break
            count = len(rows.scored)
            self._store(free[:count], self._read(rows))
            free = free[count:]
            during()

    def _next_rows(self) -> Rows | None:
        """Some rows, of the texts' beginning where their end was reached; None: there are none."""
        rows = next(self._rows, None)
        # Texts that gave nothing would be begun for ever, and an iterator gives nothing twice.
        if rows is None and (self._in_pass or not self.passes):
            self.passes += 1
            self._in_pass = 0
            self._rows = iter(self._packer())
            rows = next(self._rows, None)
        if rows is not None:
            self._in_pass += len(rows.scored)
        return rows

    def _packer(self) -> Packer:
        return Packer(
            self._model.tokenizer,
            self._texts,
            context=self._context,
            rows=self._together,
        )

    def _read(self, rows: Rows) -> dict[Site, Tensor]:
        """Activations ``(token, d_in)`` of the scored tokens of some rows, shuffled."""
        order = torch.randperm(len(rows.scored), generator=self._generator)
        scored = torch.from_numpy(rows.scored)[order]
        found: dict[Site, Tensor] = {}

        def keep(site: Site, x: Tensor) -> None:
            found[site] = x.flatten(0, 1)[scored.to(x.device)].float().cpu()

        sites = {self.site, self.target_site}
        read(self._model, torch.from_numpy(rows.ids), sorted(sites), keep)
        self.tokens_read += len(scored)
        return found

    def _store(self, places: Tensor, found: dict[Site, Tensor]) -> None:
        for site, x in found.items():
            if site not in self._stored:
                self._stored[site] = torch.zeros(self._pool, x.shape[1])
            self._stored[site][places] = x
        self._uses[places] = self._reuse
        queue = torch.cat([self._queue, places.repeat(self._reuse)])
        self._queue = queue[torch.randperm(len(queue), generator=self._generator)]
