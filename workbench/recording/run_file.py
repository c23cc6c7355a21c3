"""A run as a file: what is kept of it, and how it is read again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.circuit import Circuit
from workbench.analysis.evaluation import Fit
from workbench.engine.receipts import Act, Receipt
from workbench.features import Features
from workbench.recording import forms
from workbench.recording.box import read_box, write_box
from workbench.recording.results import Results
from workbench.sites import Site
from workbench.tokens import Tokens

if TYPE_CHECKING:
    from workbench.analysis.lineage import Feature
    from workbench.runs import Run

FORMAT = "workbench-run-2"
OLD = "workbench-run-1"
SPELLED = 50
"""Of the next tokens that a cause moves, how many at each end keep their text."""


def save_run(run: Run, path: str | Path, *, light: bool = False) -> Path:
    """Write a run with its results; see `workbench.runs.Run.save`."""
    for site in run.drawable(at_hand=True):
        run.features(site.layer, site.kind)
        with suppress(ValueError):  # one word, or a transcoder whose output was not read
            run.fit(site.layer, site.kind)
    tensors = {"ids": torch.tensor(run.tokens.ids)}
    if not light:
        tensors["logits"] = run.logits
        for site, activation in run.activations.items():
            tensors[f"activation/{site.kind}/{site.layer}"] = activation
    kept = run.kept
    for site, features in kept.features.items():
        key = f"features/{site.kind}/{site.layer}"
        forms.features_to(tensors, key, features)
        for name, known in (("density", run.density(site)), ("maximum", run.maxima(site))):
            if known is not None:
                tensors[f"{key}/{name}"] = known
    header = {
        "model": run.model,
        "strings": run.tokens.strings,
        "special": run.tokens.special,
        "fits": [[*forms.site_to_json(f.site), f.tokens, f.l0, f.fvu] for f in kept.fits.values()],
        "receipt": [asdict(act) for act in run.receipt.acts],
        "edits": [repr(edit) for edit in run.edits] or list(run.edited),
        "suite": run.suite_model,
        **_results_to_json(run, kept.results, tensors),
    }
    header["labels"] = _labels(run, kept.results)
    return write_box(path, FORMAT, header, tensors)


def read_run(path: str | Path) -> dict[str, Any]:
    """What `workbench.runs.Run` is made of, from a file that `save_run` wrote.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is no saved run, of a newer workbench, or damaged.
    """
    said, tensors = read_box(path, "a saved run")
    header = _header(path, said)
    try:
        return _run_of(header, tensors) | {"path": Path(path)}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is a saved run, but damaged: {type(error).__name__}: {error}. Save it again"
        ) from error


def _header(path: str | Path, said: Mapping[str, str]) -> dict[str, Any]:
    """What the file says beside its tensors, of either version."""
    format = said.get("format", "")
    if format == OLD:
        texts = {name: json.loads(said[name]) for name in ("strings", "special", "labels")}
        fits = [[row[0], row[1], *row[2:]] for row in json.loads(said.get("fits", "[]"))]
        return {"model": said["model"], "fits": fits, **texts}
    if format == FORMAT:
        return json.loads(said["header"])
    if format.startswith("workbench-run-"):
        raise ValueError(
            f"{path} was saved by a newer workbench ({format}), and this one reads {FORMAT}: "
            "update sae-workbench"
        )
    raise ValueError(f"{path} is not a saved run: its format is {said.get('format')!r}")


def _run_of(header: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    ids = tuple(tensors["ids"].tolist())
    tokens = Tokens(ids, tuple(header["strings"]), tuple(header["special"]))
    if not len(ids) == len(tokens.strings) == len(tokens.special):
        raise ValueError(f"{len(ids)} ids, {len(tokens.strings)} texts")
    activations: dict[Site, Tensor] = {}
    features, known = {}, {"density": {}, "maximum": {}}
    for name, tensor in tensors.items():
        what, *rest = name.split("/")
        if what not in ("activation", "features"):
            continue
        site = forms.site_of_json((rest[1], rest[0]))
        if what == "activation":
            activations[site] = tensor
        elif rest[2] in known:
            known[rest[2]][site] = tensor
        elif rest[2] == "values":
            features[site] = forms.features_of(tensors, "/".join(name.split("/")[:3]), site, tokens)
    labels = header["labels"]
    fits = (Fit(forms.site_of_json(row), *row[2:]) for row in header["fits"])
    return {
        "model": header["model"],
        "tokens": tokens,
        "logits": tensors.get("logits", torch.zeros(len(tokens), 0)),
        "activations": activations,
        "receipt": Receipt(tuple(map(_act, header.get("receipt", ())))),
        "edited": tuple(header.get("edits", ())),
        "results": _results_of(header, tensors, tokens, features),
        "_features": features,
        "_labels": labels,
        "_fits": {one.site: one for one in fits},
        "_densities": known["density"],
        "_maxima": known["maximum"],
        "_suite_model": header.get("suite", ""),
    }


def _act(found: Mapping[str, Any]) -> Act:
    places = {name: tuple(found[name]) for name in ("steps", "positions")}
    return Act(**{**found, **places})


# ------------------------------------------------------------------------------------- results


def _results_to_json(run: Run, results: Results, tensors: forms.Tensors) -> dict[str, Any]:
    attributions = [
        {
            "asked": dict(asked),
            **forms.attribution_to_json(one, tensors, f"attribution/{n}", run.kept.features),
        }
        for n, (asked, one) in enumerate(results.attributions)
    ]
    causes = [
        forms.causes_to_json(one, tensors, f"causes/{n}")
        for n, one in enumerate(results.causes.values())
    ]
    spelled = dict(results.spelled)
    for one in results.causes.values():
        rows = one.next_tokens(SPELLED)
        spelled |= dict(zip(map(int, rows["id"]), rows["token"], strict=True))
    against = {i for _, one in results.attributions for i in one.target.against} - {*spelled}
    spelled |= dict(zip(against, run.spelled(list(against)), strict=True))
    return {
        "lineages": [forms.lineage_to_json(one) for one in results.lineages.values()],
        "attributions": attributions,
        "causes": causes,
        "circuits": [
            {"asked": dict(asked), "circuit": one.to_json()} for asked, one in results.circuits
        ],
        "lenses": {
            k: json.dumps(table.to_dict(orient="split")) for k, table in results.lenses.items()
        },
        "spelled": spelled,
    }


def _results_of(
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tokens: Tokens,
    features: Mapping[Site, Features],
) -> Results:
    labels = header["labels"]

    def label(site: Site, index: int) -> str:
        return labels.get(label_key(site, index), "")

    results = Results(spelled={int(i): text for i, text in header.get("spelled", {}).items()})
    for one in map(forms.lineage_of_json, header.get("lineages", ())):
        results.lineages[one.origin] = one
    for k, text in header.get("lenses", {}).items():
        # `pandas.read_json` would guess: tokens that are digits would come back as numbers.
        results.lenses[int(k)] = pd.DataFrame(**json.loads(text))
    for one in header.get("circuits", ()):
        results.circuits.append((one["asked"], Circuit.of_json(one["circuit"])))
    for n, one in enumerate(header.get("attributions", ())):
        attribution = forms.attribution_of_json(
            one, tensors, f"attribution/{n}", tokens, known=features, label=label
        )
        results.attributions.append((one["asked"], attribution))
    for n, one in enumerate(header.get("causes", ())):
        found = forms.causes_of_json(
            one,
            tensors,
            f"causes/{n}",
            tokens,
            string=lambda i: results.spell([i])[0],
            label=label,
        )
        results.causes[found.feature, found.how] = found
    return results


def label_key(site: Site, index: int) -> str:
    """Under which name a recording keeps a feature's label."""
    return f"{site.kind}/{site.layer}/{index}"


def _labels(run: Run, results: Results) -> dict[str, str]:
    """Labels of all features of the text, and of those that the results name."""
    found: dict[str, str] = {}
    for site, index in _mentioned(run, results):
        label = run.label(site, index)
        if label:
            found[label_key(site, index)] = label
    return found


def _mentioned(run: Run, results: Results) -> Iterable[Feature]:
    for site, features in run.kept.features.items():
        for index in features.indices.unique().tolist():
            yield site, index
    for lineage in results.lineages.values():
        for one in lineage.kin:
            yield one.site, one.index
            yield from (link.source for link in one.sources)
            beside = {"children": one.site.layer + 1, "parents": one.site.layer - 1}
            for name, layer in beside.items():
                yield from ((Site(layer, one.site.kind), i) for i in getattr(one, name))
    for causes in results.causes.values():
        rows = causes.top(200)
        for layer, kind, index in zip(rows["layer"], rows["kind"], rows["feature"], strict=True):
            yield forms.site_of_json((layer, kind)), int(index)
