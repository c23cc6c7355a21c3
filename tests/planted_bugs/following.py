"""Bugs in what follows features: kinship, births, shares, causes, circuits, the map."""

from __future__ import annotations

from tests.planted_bugs.bug import Bug

KIN = ("tests/evolution/test_kinship.py",)
BORN = ("tests/evolution/test_births.py",)
READ = ("tests/evolution/test_reading.py",)
CAUSED = ("tests/circuits/test_causes.py",)
GRAPH = ("tests/circuits/test_circuit.py", "tests/circuits/test_known_circuit.py")
MAP = ("tests/test_evolution_panel.py",)
OWN = ("tests/test_own_saes.py",)
NAMED = ("tests/test_feature_names.py",)
HUB = ("tests/sae/test_published.py",)
BUGS = (
    Bug(
        "using an SAE that is not on disk fetches it",
        "sae/remote.py",
        "def check_values(self) -> None:",
        "def checks(self) -> None:",
        HUB,
    ),
    Bug(
        "using another in its place fetches the published one",
        "sae/suite.py",
        "if self.on_disk(site):",
        "if site in self._published_sites and self.at_hand(site):",
        HUB,
    ),
    Bug(
        "a run keeps features of the SAE that was there",
        "runs.py",
        "self._features.pop(site, None)",
        "pass",
        OWN,
    ),
    Bug(
        "a run keeps fits of the SAE that was there",
        "runs.py",
        "self._fits.pop(site, None)",
        "pass",
        OWN,
    ),
    Bug(
        "a recording keeps ways through the SAE that was there",
        "runs.py",
        "self.results.forget()",
        "pass",
        OWN,
    ),
    Bug(
        "a map follows the SAE that was there",
        "panels/evolution.py",
        "if changes != self._changes:",
        "if self._kinship is None:",
        OWN,
    ),
    Bug(
        "an index takes a TopK of another k for its own",
        "index/identity.py",
        "does = (sae.activation, sae.k, ",
        "does = (sae.activation, None, ",
        OWN,
    ),
    Bug(
        "labels leave the copy of a shipped SAE",
        "sae/suite.py",
        "self._as_published.add(site)",
        "pass",
        OWN,
    ),
    Bug(
        "a label of no feature is another's",
        "index/searchable.py",
        "if label and 0 <= i < width",
        "if label",
        NAMED,
    ),
    Bug(
        "a search in the labels that were there",
        "lab/core.py",
        "self._search = None  # it knows the labels that were there",
        "pass",
        NAMED,
    ),
    Bug(
        "kinship: unrelated directions lose the decoder's mean",
        "analysis/kinship.py",
        "drawn = mean + drawn / math.sqrt(rows)",
        "drawn = drawn / math.sqrt(rows)",
        KIN,
    ),
    Bug(
        "kinship: the null of another level",
        "analysis/kinship.py",
        "rank = math.ceil((1 - level) * (len(best) + 1))",
        "rank = math.ceil((1 - 4 * level) * (len(best) + 1))",
        KIN,
    ),
    Bug(
        "kinship: matches back are of the first block",
        "analysis/kinship.py",
        "whose = torch.where(values > back, rows + start, whose)",
        "whose = torch.where(values > back, rows, whose)",
        KIN,
    ),
    Bug(
        "kinship: attention is not carried into the stream",
        "analysis/kinship.py",
        'if site.kind == "att":',
        'if site.kind == "nowhere":',
        KIN,
    ),
    Bug(
        "births: the smallest margin brings it",
        "analysis/births.py",
        "torch.stack([one.margins for one in self.sources.values()]).max(0)",
        "torch.stack([one.margins for one in self.sources.values()]).min(0)",
        BORN,
    ),
    Bug(
        "births: strength without the stream's norm",
        "analysis/births.py",
        "sizes.append(maximum * length / norm)",
        "sizes.append(maximum * length)",
        BORN,
    ),
    Bug(
        "births: branches that are nearer to another",
        "analysis/births.py",
        "return tuple(back.features[back.indices == index].tolist())",
        "return tuple(back.features.tolist())",
        BORN,
    ),
    Bug(
        "shares: attention counts as the stream below",
        "analysis/shares.py",
        "(stream - attention - mlp, attention, mlp)",
        "(stream - mlp, attention, mlp)",
        READ,
    ),
    Bug(
        "correlation: shifts of nothing",
        "analysis/correlation.py",
        "*(activations.roll(shift) for shift in by)",
        "*(activations.roll(0) for shift in by)",
        READ,
    ),
    Bug(
        "causes: logits before less those after",
        "analysis/causes.py",
        "moved = (found.logits[1] - found.logits[0])[at]",
        "moved = (found.logits[0] - found.logits[1])[at]",
        CAUSED,
    ),
    Bug(
        "causes: features before less those after",
        "analysis/causes.py",
        'after.scores("sum") - before.scores("sum")',
        'before.scores("sum") - after.scores("sum")',
        CAUSED,
    ),
    Bug(
        "causes: an estimate of the wrong sign",
        "analysis/causes.py",
        "values = -(along * f)[:, 1:].sum(-1)",
        "values = (along * f)[:, 1:].sum(-1)",
        CAUSED,
    ),
    Bug(
        "causes: controls of another size",
        "analysis/causes.py",
        "return [size[:, None] * row for row in rows.cpu()]",
        "return [2 * size[:, None] * row for row in rows.cpu()]",
        CAUSED,
    ),
    Bug(
        "circuit: errors forget their features",
        "analysis/circuit_edges.py",
        "slopes[p] if p == 0 else slopes[p] - one",
        "slopes[p]",
        GRAPH,
    ),
    Bug(
        "circuit: the strongest by value",
        "analysis/circuit_edges.py",
        "sizes = part.effects.values.abs() * part.effects.scored",
        "sizes = part.effects.values * part.effects.scored",
        GRAPH,
    ),
    Bug(
        "circuit: nodes kept by the other kind of ablation",
        "analysis/faithfulness.py",
        "zip(scores[3::3], scores[4::3], scores[5::3], strict=True)",
        "zip(scores[4::3], scores[3::3], scores[5::3], strict=True)",
        GRAPH,
    ),
    Bug(
        "map: an edit is not in the values",
        "panels/evolution.py",
        "edited = [maps_of.with_edits(run, wanted.edits) for run in runs if wanted.edits]",
        "edited = [maps_of.with_edits(run, ()) for run in runs if wanted.edits]",
        MAP,
    ),
    Bug(
        "map: an edit of the same feature is added, not replaced",
        "panels/evolution.py",
        "return replace(wanted, edits=(*kept, edit))",
        "return replace(wanted, edits=(*wanted.edits, edit))",
        MAP,
    ),
)
