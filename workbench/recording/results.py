"""What was computed of a run, kept beside it so that a recording can answer the same questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import pandas as pd

from workbench.analysis.attribution import Attribution, Target
from workbench.analysis.causes import Causes, How
from workbench.analysis.circuit import Circuit
from workbench.analysis.lineage import Feature, Lineage
from workbench.sites import Site

Asked = Mapping[str, Any]
"""What a question about a next token was asked with: ``token``, ``position``, ``against`` ..."""


@dataclass(frozen=True, eq=False)
class Results:
    """Answers by question; the newest of each."""

    lineages: dict[Feature, Lineage] = field(default_factory=dict)
    """A feature's way through the layers."""
    causes: dict[tuple[Feature, How], Causes] = field(default_factory=dict)
    """What a feature causes on the text."""
    attributions: list[tuple[Asked, Attribution]] = field(default_factory=list)
    """To next tokens, the newest last."""
    circuits: list[tuple[Asked, Circuit]] = field(default_factory=list)
    """To next tokens, the newest last."""
    lenses: dict[int, pd.DataFrame] = field(default_factory=dict)
    """The logit lens by its ``k``."""
    spelled: dict[int, str] = field(default_factory=dict)
    """What to show for a token id; filled in a recording, which has no tokenizer."""

    def forget(self) -> None:
        """Drop what was computed with SAEs; the lens needs none."""
        for kept in (self.lineages, self.causes, self.attributions, self.circuits):
            kept.clear()

    def note_lineage(self, found: Lineage) -> Lineage:
        """Keep a lineage, unless one over more sites is known."""
        known = self.lineages.get(found.origin)
        if known is None or len(known.kin) <= len(found.kin):
            self.lineages[found.origin] = found
        return found

    def note_causes(self, found: Causes) -> Causes:
        """Keep causes, with those that were found at other sites before."""
        key = found.feature, found.how
        known = self.causes.get(key, found)
        changes = {**known.changes, **found.changes}
        self.causes[key] = replace(
            found,
            changes={site: changes[site] for site in sorted(changes)},
            estimates={**known.estimates, **found.estimates},
        )
        return found

    def note_attribution(self, asked: Asked, found: Attribution) -> Attribution:
        """Keep an attribution in the place of one that was asked alike at none but its sites."""
        self.attributions[:] = [
            (how, old)
            for how, old in self.attributions
            if how != asked or not set(old.parts) <= set(found.parts)
        ]
        self.attributions.append((asked, found))
        return found

    def note_circuit(self, asked: Asked, found: Circuit) -> Circuit:
        """Keep a circuit in the place of one that was asked alike."""
        self.circuits[:] = [(how, old) for how, old in self.circuits if how != asked]
        self.circuits.append((asked, found))
        return found

    # ------------------------------------------------------------------------- in a recording

    def lineage(self, origin: Feature) -> Lineage:
        """The kept way of a feature.

        Raises:
            ValueError: If it is not kept; names those that are.
        """
        if origin not in self.lineages:
            site, index = origin
            more = f"{site.layer}, {index}" + ("" if site.kind == "res" else f", {site.kind!r}")
            raise ValueError(
                "a recorded run has no SAEs to find relatives with: this one keeps the way of "
                f"{_named(self.lineages)} through the layers. Save it with evolution=[({more})], "
                "or open the model and run again"
            )
        return self.lineages[origin]

    def caused(self, feature: Feature, how: How, sites: Iterable[Site]) -> Causes:
        """What a feature causes at those of `sites` that are later, as kept.

        Raises:
            ValueError: If it is not kept, or not at all of them; names what is.
        """
        if (feature, how) not in self.causes:
            kept = ", ".join(f"{s} {i} ({by})" for (s, i), by in self.causes) or "none"
            raise _no_gradient(f"the causes that it keeps: {kept}")
        found = self.causes[feature, how]
        asked = sorted({site for site in sites if site > feature[0]})
        lacking = [site for site in asked if site not in found.changes]
        if lacking or not asked:
            raise ValueError(
                f"this recorded run keeps what feature {feature[1]} at {feature[0]} causes ({how}) "
                f"at {_short(map(str, found.changes))}, and not at "
                f"{_short(map(str, lacking)) or 'a site that is no later'}. Give sites= that it "
                "keeps, ask before you save, or open the model and run again"
            )
        return replace(
            found,
            changes={site: found.changes[site] for site in asked},
            estimates={one: by for one, by in found.estimates.items() if one[0] in asked},
        )

    def attributed(self, asked: Asked, sites: Sequence[Site] | None) -> Attribution:
        """A kept attribution: at `sites`, or of those asked alike the one at the most sites.

        Raises:
            ValueError: If none was asked like that; names those that were.
        """
        fit = [
            found
            for how, found in reversed(self.attributions)
            if _alike(how, asked, found.target) and set(sites or ()) <= set(found.parts)
        ]
        if fit and sites is None:
            return max(fit, key=lambda found: len(found.parts))
        if fit and sites is not None:
            return replace(fit[0], parts={site: fit[0].parts[site] for site in sorted(sites)})
        kept = ", ".join(_said(one.target, len(one.parts)) for _, one in self.attributions)
        raise _no_gradient(f"the attributions that it keeps: {kept or 'none'}")

    def traced(self, asked: Asked) -> Circuit:
        """A kept circuit.

        Raises:
            ValueError: If none was asked like that; names those that were.
        """
        for how, found in reversed(self.circuits):
            if _alike(how, asked, found.target):
                return found
        kept = ", ".join(_said(one.target, len(one.sites)) for _, one in self.circuits)
        raise _no_gradient(f"the circuits that it keeps: {kept or 'none'}")

    def lens(self, k: int) -> pd.DataFrame:
        """The ``k`` first tokens of the kept lens.

        Raises:
            ValueError: If none is kept, or only with fewer tokens.
        """
        enough = [table for kept, table in sorted(self.lenses.items()) if kept >= k]
        if not enough:
            kept = f"it keeps the lens with k={max(self.lenses)}" if self.lenses else ""
            raise ValueError(
                "a recorded run has no unembedding: "
                f"{kept or 'call run.lens() before you save it'}, or open the model and run again"
            )
        return enough[0].loc[enough[0]["rank"] < k].reset_index(drop=True)

    def spell(self, ids: Sequence[int]) -> list[str]:
        """What to show for token ids, as far as it is kept."""
        return [self.spelled.get(one, f"token {one}") for one in ids]


def asked_of(count: int, token: Any, position: int, against: Any, **more: Any) -> dict[str, Any]:
    """A question about a next token, in one form however it was written.

    Args:
        count: Tokens of the text.
        token: Text or id.
        position: After which token, perhaps counted from the end.
        against: One text or id, or several.
        more: Other settings.
    """
    others = [against] if isinstance(against, str | int | Integral) else list(against)
    place = position % count if -count <= position < count else position
    return {"token": _plain(token), "position": place, "against": list(map(_plain, others)), **more}


def _plain(token: Any) -> Any:
    return int(token) if isinstance(token, Integral) else token


def _alike(kept: Asked, asked: Asked, target: Target) -> bool:
    """Whether a kept question is the one that is asked; a token also by its id."""
    same = {target.token, target.string, kept["token"]}
    others = [list(kept["against"]), list(target.against)]
    rest = [name for name in asked if name not in ("token", "against")]
    return (
        asked["token"] in same
        and list(asked["against"]) in others
        and all(kept.get(name) == asked[name] for name in rest)
    )


def _named(features: Mapping[Feature, Any]) -> str:
    return _short(f"{site} {index}" for site, index in sorted(features)) or "no feature"


def _short(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    names = list(names)
    shown = names if len(names) < 9 else [*names[:8], f"{len(names) - 8} more"]
    return ", ".join(shown)


def _said(target: Target, sites: int) -> str:
    return f"to {target.string!r} after token {target.position} ({sites} sites)"


def _no_gradient(kept: str) -> ValueError:
    return ValueError(
        f"a recorded run has no model to differentiate, and this is not among {kept}. Ask before "
        "you save, or open the model and run again"
    )
