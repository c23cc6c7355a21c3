"""The label that is shown of a feature: the user's own, else what the suite of SAEs brings."""

from __future__ import annotations

from workbench.index.identity import of_sae
from workbench.labels.records import Label
from workbench.labels.store import Labels
from workbench.sae.suite import Suite
from workbench.sites import Kind, Site


def sae_name(suite: Suite, site: Site) -> str:
    """What the labels of a site's features are kept under: their SAE, told without opening it.

    One that `Suite.use` was given is told by its content: labels of one that was trained here must
    not turn up on the next.
    """
    sae, name = suite.chosen.get(site), suite.named_in_use(site)
    return name if sae is None or name else f"content {of_sae(sae)}"


def label_of(
    labels: Labels, suite: Suite, site: Site | tuple[int, Kind], index: int
) -> Label | None:
    """The label of a feature: from `labels`, else what the suite brings."""
    site = site if isinstance(site, Site) else Site(*site)
    found = labels.label(site, index)
    if found is not None:
        return found
    source = f"SAEs of {suite.model}"
    brought = suite.labelled(site, index)
    if brought is not None:
        return Label(site, index, brought.label, "suite", brought.score, source=source)
    for name, one in suite.steering.items() if suite.knows(site) else ():
        if (site, index) == (Site(one["layer"]), one["feature"]):
            measure = "share of its words in steered text"
            return Label(
                site, index, f"writes {name}", "suite", one["share"], measure, source=source
            )
    return None
