"""The dashboard of a feature: each number on it against brute force, and what its page can do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import D_SAE, LAYERS
from index.conftest import CONTEXT, Truth, corpus, truth

import workbench as wb
from tests.steering.small_lab import write_small_lab
from workbench.index import Index
from workbench.lab import Lab
from workbench.panels import Dashboard, Evolution, Steering
from workbench.pocket.manifest import weights
from workbench.sae.gemma_scope import write_params
from workbench.sites import Site

SITE, FEATURE, SILENT = Site(1), 7, 5
TEXT = "the cat and the red dogs"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Index]:
    """A small lab in which one feature is silent, and its index."""
    folder = tmp_path_factory.mktemp("dashboard")
    model, suite = write_small_lab(folder)
    sae = wb.open(str(model), suite=suite, device="cpu").sae(layer=SITE.layer)
    b_enc = sae.b_enc.clone()
    b_enc[SILENT] = -1e9
    write_params(replace(sae, b_enc=b_enc), suite / "res/layer_1/width_40/average_l0_5")
    lab = wb.open(str(model), suite=suite, device="cpu")
    sites = [Site(layer) for layer in range(LAYERS)]
    index = lab.index(
        corpus(), path=folder / "i.duckdb", sites=sites, context=CONTEXT, batch=4, progress=False
    )
    return lab, index


@pytest.fixture
def lab(opened: tuple[Lab, Index]) -> Lab:
    lab, index = opened
    lab.feature_index = index
    return lab


@pytest.fixture(scope="module")
def known(opened: tuple[Lab, Index]) -> Truth:
    lab, _ = opened
    return truth(lab.engine, lab.suite, SITE, corpus(), CONTEXT)


def board(lab: Lab, feature: tuple[int, int] = (1, FEATURE), *kind: Any, **options: Any) -> Any:
    """A dashboard that works in the calling thread."""
    return lab.dashboard(feature, *kind, **{"synchronous": True, "nearest": 3, **options})


def ask(dashboard: Dashboard, name: str, **fields: Any) -> str:
    """What the page sends, and the error that it shows then."""
    dashboard.widget._receive(None, {"type": name, **fields}, [])
    return dashboard.widget.error


def fact(dashboard: Dashboard, name: str) -> tuple[str, str]:
    found = [(one["value"], one["hint"]) for one in dashboard.widget.facts if one["name"] == name]
    assert len(found) == 1, (name, dashboard.widget.facts)
    return found[0]


# -------------------------------------------------------------------------------- the numbers


def test_figures_are_those_of_every_token(lab: Lab, known: Truth) -> None:
    dashboard, acts = board(lab), known.acts[:, FEATURE]
    fires = acts[acts > 0]
    assert 0 < len(fires) < len(acts)
    share = f"{len(fires):,} of {len(acts):,} tokens"
    assert fact(dashboard, "density") == (f"{100 * len(fires) / len(acts):.3g} %", share)
    mean, hint = fact(dashboard, "mean activation")
    assert mean == f"{fires.mean():.3g}"
    assert hint == f"where it fires, ± {fires.std():.3g}"
    assert fact(dashboard, "maximum") == (f"{fires.max():.3g}", "in the index")
    maximum = torch.linspace(1, 5, D_SAE)[FEATURE]
    assert fact(dashboard, "typical maximum")[0] == f"{float(maximum):.3g}"
    sae = lab.suite.sae_at(SITE)
    angles = []
    for i in range(D_SAE):
        e, d = sae.W_enc[:, i].numpy(), sae.W_dec[i].numpy()
        angles.append(e @ d / np.sqrt((e @ e) * (d @ d)))
    degrees = np.degrees(np.arccos(angles[FEATURE]))
    median = sorted(angles)[(D_SAE - 1) // 2]
    shown = (f"{degrees:.0f}°", f"cosine {angles[FEATURE]:.2f}, median {median:.2f}")
    assert fact(dashboard, "encoder to decoder") == shown
    assert dashboard.widget.maximum == pytest.approx(fires.max(), rel=1e-5)


def test_the_histogram_counts_every_firing(lab: Lab, known: Truth) -> None:
    histogram, acts = board(lab).widget.histogram, known.acts[:, FEATURE]
    counts, _ = np.histogram(acts[acts > 0], histogram["edges"])
    assert histogram["counts"] == counts.tolist()
    assert sum(histogram["counts"]) == (acts > 0).sum() > 20


def test_passages_are_coloured_by_the_activation_of_each_token(lab: Lab, known: Truth) -> None:
    widget, acts = board(lab).widget, known.acts[:, FEATURE]
    strings = {i: lab.tokenizer.decode([i]) for i in range(len(lab.tokenizer))}
    where = {(d, p): i for i, (d, p) in enumerate(zip(known.document, known.position, strict=True))}
    assert len(widget.top) > 5
    assert len(widget.spread) > 5
    for passage in (*widget.top, *widget.spread):
        document, place = (int(w.split()[-1]) for w in passage["place"].split(", "))
        number = where[document, place]
        around, at = known.passage[number]
        assert passage["at"] == at
        ids = [known.documents[known.document[i]][known.position[i]] for i in around]
        assert passage["tokens"] == [strings[i] for i in ids]
        largest = float(acts[around].max())
        assert passage["values"] == pytest.approx(acts[around], abs=largest / 255)
        assert passage["values"][at] == pytest.approx(acts[number], rel=1e-5)
        weaker = (acts[acts > 0] < acts[number]).mean()
        assert passage["below"] == pytest.approx(weaker, abs=0.12)


def test_the_strongest_come_first_and_the_range_goes_to_its_weak_end(
    lab: Lab, known: Truth
) -> None:
    widget, acts = board(lab).widget, known.acts[:, FEATURE]
    peaks = [one["values"][one["at"]] for one in widget.top]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] == pytest.approx(acts.max(), rel=1e-5)
    spread = [one["values"][one["at"]] for one in widget.spread]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < np.quantile(acts[acts > 0], 0.25)
    assert spread[0] > np.quantile(acts[acts > 0], 0.75)


def test_company_is_counted(lab: Lab, known: Truth) -> None:
    company = board(lab).widget.cofiring
    fires = known.acts > 0
    mine, tokens = fires[:, FEATURE], len(fires)
    assert len(company) > 3
    assert FEATURE not in [one["index"] for one in company]
    for one in company:
        theirs = fires[:, one["index"]]
        assert (one["layer"], one["kind"]) == (1, "res")
        assert one["together"] == (mine & theirs).sum()
        assert one["of"] == mine.sum()
        expected = mine.sum() * theirs.sum() / tokens
        assert one["lift"] == pytest.approx(one["together"] / expected)


def test_output_tokens_are_those_of_the_direct_path(lab: Lab) -> None:
    widget, module = board(lab, tokens=4).widget, lab.engine.module
    inner: Any = module
    with torch.no_grad():
        direction = lab.suite.sae_at(SITE).W_dec[FEATURE]
        effects = inner.lm_head.weight @ ((1 + inner.model.norm.weight) * direction)
    order = effects.argsort(descending=True).tolist()
    strings = [lab.tokens([i]).strings[1] for i in (*order[:4], *order[:-5:-1])]
    assert [one["token"] for one in (*widget.promoted, *widget.suppressed)] == strings
    shown = [one["effect"] for one in (*widget.promoted, *widget.suppressed)]
    assert shown == pytest.approx(effects[[*order[:4], *order[:-5:-1]]].tolist(), rel=1e-4)
    assert "gain of the final norm" in widget.output_note
    assert "W_O" not in widget.output_note
    assert "W_O" in board(lab, (1, FEATURE), "att").widget.output_note


def test_nearest_features_with_what_they_fire_on(lab: Lab) -> None:
    groups = board(lab, nearest=3).widget.neighbours
    assert [(one["title"], one["own"]) for one in groups] == [
        ("layer 0 res", False),
        ("layer 1 res", True),
        ("layer 2 res", False),
    ]
    mine = lab.suite.sae_at(SITE).W_dec[FEATURE]
    for layer, group in enumerate(groups):
        rows = lab.suite.sae_at(Site(layer)).W_dec
        cosines = torch.nn.functional.cosine_similarity(rows, mine[None]).tolist()
        if layer == 1:
            cosines[FEATURE] = -2
        best = sorted(range(D_SAE), key=lambda i: -cosines[i])[:3]
        assert [one["index"] for one in group["rows"]] == best
        assert {one["layer"] for one in group["rows"]} == {layer}
        for one in group["rows"]:
            assert one["cosine"] == pytest.approx(cosines[one["index"]], abs=1e-5)
            if (layer, one["index"]) == (1, SILENT):
                assert one["hint"] == "never fires"
                continue
            top = lab.feature_index.feature((layer, "res"), one["index"]).top
            peaks = [example.tokens[example.at].replace(" ", "␣") for example in top]
            words = one["hint"].split("  ")
            assert peaks.count(words[0]) == max(peaks.count(word) for word in peaks)
            assert set(words) <= set(peaks)


# ------------------------------------------------------------------------------ an own text


def test_an_own_text_has_the_activations_of_a_plain_pass(lab: Lab) -> None:
    found = truth(lab.engine, lab.suite, SITE, [TEXT], 60).acts[:, FEATURE]
    assert (found > 0).any()
    assert (found == 0).any()
    dashboard = board(lab)
    assert ask(dashboard, "try", text=TEXT) == ""
    tried = dashboard.widget.tried
    assert tried["tokens"] == ["<bos>", *TEXT]
    assert tried["values"][1:] == pytest.approx(found.tolist(), rel=1e-4)
    assert (tried["masked"], tried["state"], tried["text"]) == ([0], "done", TEXT)
    assert dashboard.try_text("cat") == dashboard.widget.tried["values"]
    assert len(dashboard.widget.tried["values"]) == 4
    assert board(lab, text=TEXT).widget.tried == tried


def test_an_own_text_is_taken_along_to_the_next_feature(lab: Lab) -> None:
    dashboard = board(lab, text=TEXT)
    before = dashboard.widget.tried["values"]
    ask(dashboard, "open", layer=2, kind="res", index=3)
    assert dashboard.widget.tried["text"] == TEXT
    assert dashboard.widget.tried["values"] != before
    assert dashboard.widget.tried["values"] == board(lab, (2, 3), text=TEXT).widget.tried["values"]


def test_an_empty_own_text_is_forgotten_and_a_wrong_one_is_told(lab: Lab) -> None:
    dashboard = board(lab, text=TEXT)
    ask(dashboard, "try", text="")
    assert dashboard.widget.tried["tokens"] == []
    assert "text=" not in dashboard.widget.code
    assert "the model's context is 64" in ask(dashboard, "try", text="a" * 99)
    assert dashboard.widget.tried["state"] == "idle"
    assert ask(dashboard, "try", text="cat") == ""


def test_the_last_text_that_is_typed_wins(lab: Lab) -> None:
    dashboard = board(lab, synchronous=False)
    for end in range(1, len(TEXT) + 1):
        ask(dashboard, "try", text=TEXT[:end])
    assert dashboard.job.join(30)
    assert dashboard.widget.tried == board(lab, text=TEXT).widget.tried
    assert dashboard.errands.join(30)


# --------------------------------------------------------------------------- what is missing


def test_without_an_index_the_line_that_makes_one_is_shown_and_works(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = board(lab, (2, 3)).widget
    lab._index = None
    dashboard = board(lab, (2, 3))
    widget = dashboard.widget
    assert "no index" in widget.missing
    assert dashboard.record is None
    assert fact(dashboard, "density") == ("10 %", "the suite's calibration")
    assert [widget.top, widget.spread, widget.cofiring] == [[], [], []]
    assert (widget.histogram["counts"], widget.maximum) == ([], 0.0)
    assert widget.promoted == whole.promoted
    assert [len(group["rows"]) for group in widget.neighbours] == [3, 3]
    assert "Index" not in widget.code
    monkeypatch.chdir(tmp_path)
    shorter = f", context={CONTEXT}, progress=False)"  # the small model reads no 128 tokens
    exec(widget.remedy.removesuffix(")") + shorter, {"lab": lab, "texts": corpus()})
    dashboard.show((2, 3))
    assert dashboard.widget.missing == dashboard.widget.remedy == ""
    assert dashboard.widget.histogram["counts"] == whole.histogram["counts"]


def test_a_site_that_is_not_in_the_index(lab: Lab) -> None:
    widget = board(lab, (1, 3), "mlp").widget
    assert "without layer 1 mlp" in widget.missing
    assert "sites=[Site(1, 'mlp')]" in widget.remedy
    assert widget.top == []
    assert len(widget.promoted) == 10


def test_an_index_of_other_saes_is_not_believed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(2)
    sae = lab.suite.sae_at(site)
    monkeypatch.setitem(lab.suite._chosen, site, replace(sae, b_enc=sae.b_enc + 1))
    widget = board(lab, (2, 3)).widget
    assert "made with another SAE at layer 2 res" in widget.missing
    assert (widget.top, widget.histogram["counts"]) == ([], [])
    below = board(lab).widget.neighbours
    assert ["hint" in one["rows"][0] for one in below] == [True, True, False]


def test_a_feature_that_never_fires(lab: Lab) -> None:
    dashboard = board(lab, (1, SILENT))
    widget = dashboard.widget
    assert (
        widget.missing == f"It never fired on the {lab.feature_index.tokens:,} tokens of the index."
    )
    assert fact(dashboard, "density")[0] == "0 %"
    assert {one["name"] for one in widget.facts} == {
        "density",
        "typical maximum",
        "encoder to decoder",
    }
    assert [widget.top, widget.spread, widget.cofiring] == [[], [], []]
    assert widget.histogram["counts"] == []
    assert len(widget.promoted) == 10
    assert "never fired" in widget.static_html()
    assert "type one under" in ask(dashboard, "follow")
    assert set(dashboard.try_text(TEXT)) == {0.0}
    assert ask(dashboard, "follow") == ""
    assert ask(dashboard, "steer") == ""


def test_a_transcoder_has_no_angle(lab: Lab) -> None:
    value, hint = fact(board(lab, (1, 3), "transcoder"), "encoder to decoder")
    assert (value, hint) == ("–", "other spaces")


@pytest.mark.parametrize(
    ("feature", "kind", "message"),
    [
        ((1, D_SAE), "res", f"feature index {D_SAE}"),
        ((LAYERS, 0), "res", "layer"),
        ((1, 0), "resid", "unknown kind"),
    ],
)
def test_a_feature_that_does_not_exist(
    lab: Lab, feature: tuple[int, int], kind: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        board(lab, feature, kind)


# ------------------------------------------------------------------------------ the buttons


def test_steer_opens_the_panel_with_this_feature_below(lab: Lab) -> None:
    dashboard = board(lab, (1, 3), "mlp", text=TEXT)
    assert dashboard.box.children == (dashboard.widget,)
    assert ask(dashboard, "steer") == ""
    assert isinstance(dashboard.below, Steering)
    row = dashboard.below.widget.rows[0]
    assert (row["layer"], row["kind"], row["index"]) == (1, "mlp", 3)
    assert dashboard.below.widget.prompt == TEXT
    assert dashboard.box.children == (dashboard.widget, dashboard.below.widget)
    assert dashboard.widget.busy == ""


def test_follow_draws_the_map_of_the_own_text_or_of_the_strongest_passage(lab: Lab) -> None:
    dashboard = board(lab)
    ask(dashboard, "follow")
    assert isinstance(dashboard.below, Evolution)
    strongest = "".join(dashboard.widget.top[0]["tokens"])
    assert dashboard.below.run.tokens.text == strongest
    assert f"Feature {FEATURE} of layer 1 res" in dashboard.below.widget.title
    dashboard.try_text(TEXT)
    ask(dashboard, "follow")
    assert dashboard.below.run.tokens.text == TEXT
    assert dashboard.box.children == (dashboard.widget, dashboard.below.box)


def test_handlers_take_the_place_of_the_panels_below(lab: Lab) -> None:
    dashboard, told = board(lab, (1, 3), "mlp"), []
    dashboard.on_steer(lambda *feature: told.append(("steer", *feature)))
    dashboard.on_follow(lambda *feature: told.append(("follow", *feature)))
    ask(dashboard, "steer")
    ask(dashboard, "follow")
    assert told == [("steer", 1, 3, "mlp"), ("follow", 1, 3, "mlp")]
    assert dashboard.below is None


def test_another_feature_opens_in_the_same_place_and_back_returns(lab: Lab) -> None:
    dashboard = board(lab)
    assert ask(dashboard, "open", layer=2, kind="att", index=4) == ""
    assert (dashboard.feature, dashboard.site) == ((2, 4), Site(2, "att"))
    assert dashboard.widget.title == "Feature 4 · layer 2 att"
    assert dashboard.widget.history == [f"feature {FEATURE} · layer 1 res"]
    ask(dashboard, "open", layer=1, kind="res", index=SILENT)
    assert len(dashboard.widget.history) == 2
    assert f"feature index {D_SAE}" in ask(dashboard, "open", layer=0, kind="res", index=D_SAE)
    assert dashboard.feature == (1, SILENT)
    assert len(dashboard.widget.history) == 2
    ask(dashboard, "back")
    assert dashboard.site == Site(2, "att")
    ask(dashboard, "back")
    assert dashboard.widget.history == []
    fresh, shown = board(lab).widget, dashboard.widget
    for name in ("title", "facts", "histogram", "top", "neighbours", "cofiring", "code", "missing"):
        assert getattr(shown, name) == getattr(fresh, name), name
    assert ask(dashboard, "back") == ""


# ------------------------------------------------------------------------------- the labels


def test_an_edited_label_is_kept_and_told(lab: Lab) -> None:
    dashboard, told = board(lab, (0, 2)), []
    dashboard.on_label(lambda *edit: told.append(edit))
    dashboard.on_note(lambda *edit: told.append(edit))
    assert dashboard.widget.label["text"] == ""
    ask(dashboard, "label", text="cats")
    ask(dashboard, "note", text="look again")
    assert told == [("cats", 0, 2, "res"), ("look again", 0, 2, "res")]
    kept = lab.label(Site(0), 2)
    assert kept is not None
    assert (kept.text, kept.method, lab.labels.notes(Site(0), 2)) == (
        "cats",
        "manual",
        "look again",
    )
    again = board(lab, (0, 2)).widget
    assert again.label == dashboard.widget.label == {"text": "cats", "about": kept.provenance}
    assert again.note == dashboard.widget.note == "look again"
    assert board(lab, (0, 3)).widget.note == ""
    ask(dashboard, "label", text="")
    assert dashboard.widget.label["text"] == ""


def test_a_label_belongs_to_its_kind_of_site(lab: Lab) -> None:
    ask(board(lab, (2, 9), "mlp"), "label", text="dogs")
    assert board(lab, (2, 9), "mlp").widget.label["text"] == "dogs"
    assert board(lab, (2, 9)).widget.label["text"] == ""


def test_a_label_of_a_neighbour_comes_with_its_source(lab: Lab) -> None:
    near = board(lab).widget.neighbours[0]["rows"][0]
    assert (near["label"], near["about"]) == ("", "")
    lab.labels.set((near["layer"], near["index"]), "mats", author="A. Reader")
    again = board(lab).widget.neighbours[0]["rows"][0]
    assert again["label"] == "mats"
    assert "manual" in again["about"]
    assert "A. Reader" in again["about"]
    assert "hint" not in again
    lab.labels.set((near["layer"], near["index"]), "")


def test_the_label_of_a_suite_says_what_it_rests_on() -> None:
    lab = wb.open()
    stored = json.loads((weights() / "sae" / "labels.json").read_text(encoding="utf-8"))
    index, entry = next(iter(stored["res/4"].items()))
    label = board(lab, (4, int(index))).widget.label
    assert label["text"] == entry["label"]
    assert f"suite, score {entry['score']:.2f}" in label["about"]
    assert "SAEs of pocket" in label["about"]
    only = {
        name: one
        for name, one in lab.suite.steering.items()
        if str(one["feature"]) not in stored[f"res/{one['layer']}"]
    }
    name, one = next(iter(only.items()))
    label = board(lab, (one["layer"], one["feature"])).widget.label
    assert label["text"] == f"writes {name}"
    assert f"score {one['share']:.2f} (share of its words in steered text)" in label["about"]


# ------------------------------------------------------------------------------ as a whole


def test_the_copied_code_shows_the_same(lab: Lab) -> None:
    dashboard = board(lab, (2, 9), text=TEXT)
    names: dict[str, Any] = {"wb": wb}
    model = lab.engine.name
    suite = f"wb.open({model!r}, suite={str(lab.suite.root)!r}, device='cpu')"
    code = dashboard.widget.code.replace(f"wb.open({model!r})", suite)
    *lines, last = code.splitlines()
    # The lab of this test uses an SAE of its own at another site, which the index would refuse.
    lines = [line for line in lines if "feature_index" not in line]
    assert len(lines) == len(dashboard.widget.code.splitlines()) - 2
    exec("\n".join([*lines, f"shown = {last}"]), names)
    shown = names["shown"]
    assert shown.errands.join(30)
    assert shown.widget.tried == dashboard.widget.tried
    assert shown.widget.promoted == dashboard.widget.promoted
    assert f"Index.open({str(lab.feature_index.path)!r})" in dashboard.widget.code
    assert board(lab, (2, 9), "att").widget.code.endswith("lab.dashboard((2, 9), 'att')")


def test_it_is_shown_as_widget_and_twin_and_saved(lab: Lab, tmp_path: Path) -> None:
    dashboard = board(lab)
    data, _ = dashboard._repr_mimebundle_()
    view = data["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == dashboard.box.model_id
    assert f"Feature {FEATURE} · layer 1 res" in data["text/html"]
    assert "Strongest passages" in data["text/html"]
    assert data["text/plain"] == repr(dashboard)
    path = dashboard.save_html(tmp_path / "d.html")
    text = path.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert f"Feature {FEATURE}" in text
    assert repr(dashboard) == f"<Dashboard of feature {FEATURE} at layer 1 res>"
