"""An SAE on the hub that is not on this machine: one feature at a time.

Gemma Scope's arrays lie in their file as they do in memory, so a feature's decoder row, its bias
and its threshold are three short ranges of it. That is all that steering needs: adding 9 kB of the
19 GB of a 1M-wide SAE. What needs a whole matrix, such as encoding, downloads the file, once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.sae.base import SAE, SAEConfig
from workbench.sae.gemma_scope import Extent, find_params, params_config
from workbench.sae.hub import RangeFile

__all__ = ["RemoteSAE"]

WHOLE = {name for name in dir(SAE) if not name.startswith("_")} | {f.name for f in fields(SAE)}


class RemoteSAE:
    """An SAE read by ranges for as long as that is enough. Thread-safe.

    Everything of `SAE` is here. `config`, `name`, `check_index`, `direction`, `bias_of` and
    `threshold_of` need no download; everything else makes one, and from then on is the SAE on disk.

    Args:
        file: The ``params.npz``.
        extents: Where its arrays lie.
        config: Site and sizes.
        whole: Downloads and opens the SAE; called at most once.
    """

    activation = "jumprelu"
    k = None
    apply_b_dec_to_input = False
    normalize = "none"
    W_skip = None

    def __init__(
        self,
        file: RangeFile,
        extents: dict[str, Extent],
        *,
        config: SAEConfig,
        whole: Callable[[], SAE],
    ) -> None:
        self.config = config
        self._file, self._extents, self._whole = file, extents, whole
        self._sae: SAE | None = None
        self._lock = threading.Lock()
        self._read: dict[tuple[str, int], Tensor] = {}

    @classmethod
    def open(
        cls,
        repo: str,
        path: str,
        *,
        whole: Callable[[], SAE],
        model: str = "",
        layer: int | None = None,
        kind: str | None = None,
        revision: str = "main",
    ) -> RemoteSAE:
        """Read an SAE's headers and shapes on the hub, some 30 kB.

        Args:
            repo: Repository, such as ``"google/gemma-scope-2b-pt-res"``.
            path: Path of the ``params.npz`` in it.
            whole: Downloads and opens the SAE; called at most once.
            model: Name of the model it belongs to.
            layer: Layer; read from the folders if left out.
            kind: Kind of site; read from repository and folders if left out.
            revision: Branch, tag or commit.

        Raises:
            HubError: The file cannot be had.
            ValueError: It is not a whole SAE, or one of which no single rows can be read.
        """
        file = RangeFile(repo, path, revision=revision)
        extents = find_params(file, file.address)  # pyright: ignore[reportArgumentType]
        if extents["W_dec"].fortran:
            raise ValueError(f"{file.address}: W_dec is stored by columns; fetch the whole file.")
        config = params_config(
            Path("/", repo, path),
            {name: extent.shape for name, extent in extents.items()},
            model=model,
            layer=layer,
            kind=kind,
            source=file.address,
        )
        return cls(file, extents, config=config, whole=whole)

    # The same code as the SAE's, which needs nothing but its config.
    name = SAE.name
    check_index: Callable[[int], int] = SAE.check_index  # pyright: ignore[reportAssignmentType]

    @property
    def bytes_read(self) -> int:
        """Bytes of the file that were received, a whole download not counted."""
        return self._file.bytes_read

    @property
    def downloaded(self) -> bool:
        """Whether something has needed the whole file."""
        return self._sae is not None

    def __repr__(self) -> str:
        """Name, sizes and where it is."""
        if self._sae is not None:
            return repr(self._sae)
        where = f"on the hub ({self._file.size / 1e9:.2f} GB, {self.bytes_read / 1e3:.0f} kB read)"
        return f"<{self.name}: jumprelu, {self.config.d_in} -> {self.config.d_out}, {where}>"

    def direction(self, index: int) -> Tensor:
        """A feature's decoder row `(d_out,)`, float32 while it is read from the hub."""
        return self._row("W_dec", index)

    def check_values(self) -> None:
        """Nothing to read: a row is checked when it comes, and the file when it is fetched."""

    def same_as(self, other: SAE) -> bool:
        """Whether both compute the same, as far as is known without a download."""
        return self.downloaded and self.whole().same_as(other)

    def output_scale(self, x: Tensor) -> None:
        """None: nothing of Gemma Scope normalises its input."""

    def bias_of(self, index: int) -> float:
        """A feature's encoder bias."""
        return float(self._row("b_enc", index))

    def threshold_of(self, index: int) -> float:
        """The pre-activation that a feature must exceed."""
        return float(self._row("threshold", index))

    def whole(self) -> SAE:
        """The SAE itself, downloaded and opened at the first call."""
        with self._lock:
            if self._sae is None:
                self._sae = self._whole()
            return self._sae

    def __getattr__(self, name: str) -> Any:
        # Only what an SAE has: a notebook asks every object for many other names.
        if name not in WHOLE:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.whole(), name)

    def _row(self, array: str, index: int) -> Tensor:
        """One entry of an array's first axis, kept once it was read.

        Raises:
            HubError: It cannot be read.
            ValueError: There is no such feature, or it holds a value that is not finite.
        """
        index = self.check_index(index)
        if self._sae is not None:
            return getattr(self._sae, array)[index]
        if (array, index) not in self._read:
            extent = self._extents[array]
            shape = extent.shape[1:]
            length = extent.dtype.itemsize * int(np.prod(shape))
            content = self._file.at(extent.offset + index * length, length)
            row = np.frombuffer(content, extent.dtype).reshape(shape).astype(np.float32)
            if not np.isfinite(row).all():
                raise ValueError(
                    f"{self._file.address}: {array}[{index}] holds values that are not finite; "
                    "choose another SAE."
                )
            self._read[array, index] = torch.from_numpy(row)
        return self._read[array, index]
