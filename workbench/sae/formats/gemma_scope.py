"""Gemma Scope: ``params.npz`` in folders that say which SAE it is; see `workbench.sae.gemma_scope`.

Here more is asked: where the folders do not name the site the caller must, and an array that the
formula has no place for is refused. Some files have a ``scaling_factor`` of ones, which is none.
"""

from __future__ import annotations

import numpy as np

from workbench.sae.base import SAE
from workbench.sae.formats.files import Request, check_keys
from workbench.sae.gemma_scope import KEYS, entry_of, load_sae, open_params

MATRICES = ("w_enc", "w_dec")
"""Spellings of some files."""


def read(request: Request) -> SAE:
    """Open the SAE of a request; nothing is copied on the CPU in float32.

    Raises:
        ValueError: The file is not whole, or nobody says where the SAE belongs.
    """
    layer, kind = request.layer, request.kind
    if layer is None or kind is None:
        try:
            entry = entry_of(request.weights)
        except ValueError:
            entry = None
        layer = entry.layer if layer is None and entry else layer
        kind = (entry.kind or None) if kind is None and entry else kind
        layer, kind = Request(request.folder, request.weights, layer=layer, kind=kind).site("")
    open_params(request.weights)
    with np.load(request.weights, allow_pickle=False) as arrays:
        check_keys(request.weights, arrays.files, (), (*KEYS, *MATRICES, "scaling_factor"))
        if "scaling_factor" in arrays and not (arrays["scaling_factor"] == 1).all():
            raise ValueError(
                f"{request.weights}: scaling_factor is not 1, and what it scales is not known."
            )
    return load_sae(
        request.weights,
        model=request.model,
        layer=layer,
        kind=kind,
        dtype=request.dtype,
        device=request.device,
    )
