"""Which model and SAEs an index belongs to, so that it is never used with others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.index.plan import Settings
from workbench.models import Model
from workbench.sae import SAE
from workbench.sites import Site


@dataclass(frozen=True)
class KnownSite:
    """A site and its SAE, as far as an index needs to know."""

    site: Site
    d_sae: int
    name: str
    """Of the SAE, for people."""
    fingerprint: str


def identity_of(model: Model, sites: Sequence[KnownSite], settings: Settings) -> dict[str, Any]:
    """What must be the same for an index to go on."""
    return {
        "weights": fingerprint(dict(model.module.named_parameters())),
        "saes": {f"{one.site.kind}/{one.site.layer}": one.fingerprint for one in sites},
        "settings": asdict(settings),
    }


def of_sae(sae: SAE) -> str:
    """Fingerprint of an SAE: of its weights, and of what it does with them."""
    tensors = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    more = {"t": sae.threshold, "W_skip": sae.W_skip}
    weights = fingerprint(tensors | {k: x for k, x in more.items() if x is not None})
    does = (sae.activation, sae.k, sae.normalize, sae.apply_b_dec_to_input)
    # Of the most usual kind the weights say all, and so they do in indexes of earlier versions.
    if does == ("jumprelu", None, "none", False):
        return weights
    return hashlib.blake2b(f"{weights} {does}".encode(), digest_size=16).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor], *, samples: int = 256) -> str:
    """A hash of names, shapes and evenly spaced numbers of each tensor.

    Not of all: a model of 2B would take many seconds each time an index is opened. Other weights
    differ nearly everywhere.
    """
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        flat = tensors[name].detach().reshape(-1)
        places = torch.arange(samples, device=flat.device) * (len(flat) - 1) // (samples - 1)
        found.update(f"{name} {tuple(tensors[name].shape)}".encode())
        found.update(flat[places].float().cpu().numpy().tobytes())
    return found.hexdigest()
