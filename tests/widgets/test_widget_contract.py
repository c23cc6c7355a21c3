"""What holds for every widget, whatever it shows."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from playwright.sync_api import BrowserContext, Locator

import workbench.widgets
from tests.widgets import dashboard_samples, samples, steering_samples, training_samples
from tests.widgets.bridge import Bridge
from workbench.widgets import (
    FeatureDashboard,
    SteeringPanel,
    TrainingCurves,
    Widget,
    float32_bytes,
)
from workbench.widgets.matrix import MatrixWidget

pytestmark = pytest.mark.browser

FOLDER = Path(workbench.widgets.__file__).parent
LIGHT = ("workbench.colab", "workbench.files")
"""What widgets may import of the package besides; held to the same."""
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def hostile_heatmap() -> Widget:
    tokens = [HOSTILE, *samples.TOKENS[1:]]
    features = [{"id": n, "label": HOSTILE} for n in range(len(samples.FEATURES))]
    return samples.heatmap(tokens=tokens, features=features, title=HOSTILE, masked=[])


def hostile_compared() -> Widget:
    features = [{"id": n, "label": HOSTILE, "site": HOSTILE} for n in range(len(samples.FEATURES))]
    made = samples.compared_heatmap(features=features, title=HOSTILE, names=[HOSTILE, HOSTILE])
    made.tokens, made.masked = [HOSTILE, *made.tokens[1:]], []
    made.orders = {HOSTILE: list(range(12)), "other": list(range(12))}
    return made


def hostile_evolution() -> Widget:
    made = samples.evolution()
    nodes = [{**node, "label": HOSTILE, "kind": HOSTILE, "trend": HOSTILE} for node in made.nodes]
    return samples.evolution(
        nodes=nodes,
        tokens=[HOSTILE, *samples.TOKENS[1:]],
        title=HOSTILE,
        masked=[],
        maps=[{"title": HOSTILE, "origin": 17, "target": HOSTILE}],
        edits=[{"text": HOSTILE, "nodes": [3]}],
        edited=made.values,
        said=HOSTILE,
        busy=HOSTILE,
        selected=[3, 5],
    )


def hostile_steering() -> Widget:
    words = {"label": HOSTILE, "unit": HOSTILE, "formula": HOSTILE, "warning": HOSTILE}
    rows = [{**row, **words} for row in [*steering_samples.ROWS, *steering_samples.RARE_ROWS]]
    panel = steering_samples.steering(
        rows=rows,
        prompt=HOSTILE,
        title=HOSTILE,
        baselines=[{"id": HOSTILE, "title": HOSTILE, "hint": HOSTILE, "on": True}],
        columns=[{"id": i, "title": HOSTILE, "note": HOSTILE} for i in ("steered", "plain", "x")],
    )
    hit = {"layer": 1, "kind": HOSTILE, "index": 2, "label": HOSTILE, "score": 1, "note": HOSTILE}
    panel.found = {"state": "done", "how": "label", "rows": [hit], "error": ""}
    run = panel.start(total=1, prompt_tokens=[{"text": HOSTILE, "special": True}])
    token = {"text": HOSTILE, "shift": 1.0, "p": 0.5, "top": [[HOSTILE, 0.5]]}
    for column in panel.columns:
        panel.stream(run, column["id"], [token])
    meter = {"verdict": HOSTILE}
    panel.finish(run, receipt=[HOSTILE], warnings=[HOSTILE], meters={"steered": meter})
    return panel


def hostile_dashboard() -> Widget:
    words = {"label": HOSTILE, "about": HOSTILE, "hint": HOSTILE}
    named = {**dashboard_samples.named(3), **words, "kind": HOSTILE}
    passage = {"tokens": [HOSTILE], "values": [1.0], "at": 0, "below": 0.5, "place": HOSTILE}
    tried = {"text": HOSTILE, "tokens": [HOSTILE], "values": [1.0], "state": "done"}
    return dashboard_samples.dashboard(
        title=HOSTILE,
        label=dict.fromkeys(dashboard_samples.LABEL, HOSTILE),
        note=HOSTILE,
        missing=HOSTILE,
        remedy=HOSTILE,
        facts=[dict.fromkeys(("name", "value", "hint"), HOSTILE)],
        promoted=[{"token": HOSTILE, "effect": 1.0}],
        suppressed=[{"token": HOSTILE, "effect": -1.0}],
        output_note=HOSTILE,
        histogram={**dashboard_samples.dashboard().histogram, "note": HOSTILE},
        top=[passage],
        spread=[passage],
        neighbours=[{"title": HOSTILE, "rows": [{**named, "cosine": 0.5}]}],
        cofiring=[{**named, "together": 1, "of": 2, "lift": 3.0}],
        tried=tried,
        history=[HOSTILE],
        busy=HOSTILE,
    )


def hostile_training() -> Widget:
    return training_samples.training(title=HOSTILE, status=HOSTILE, names=[HOSTILE] * 3)


Make = Callable[[], Widget]
MAKERS: dict[str, tuple[Make, Make]] = {
    "heatmap": (samples.heatmap, hostile_heatmap),
    "compared": (samples.compared_heatmap, hostile_compared),
    "evolution": (samples.evolution, hostile_evolution),
    "steering": (steering_samples.finished_steering, hostile_steering),
    "dashboard": (dashboard_samples.dashboard, hostile_dashboard),
    "training": (training_samples.training, hostile_training),
}


@pytest.fixture(params=list(MAKERS))
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param][0]


@pytest.fixture(params=list(MAKERS))
def make_hostile(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param][1]


def drawn(host: Locator) -> list[str]:
    """Markup, page colours and the pixels of every canvas, wherever on the page the widget is."""
    parts = host.evaluate(
        """el => [el.innerHTML, getComputedStyle(el.querySelector('.wb')).color,
            ...[...el.querySelectorAll('canvas')].map((c) => c.toDataURL())]"""
    )
    return [re.sub(r'data-frames="\d+"', "", part) for part in parts]


def other_values(widget: Widget) -> dict[str, Any]:
    """Traits of the same shape with other contents."""
    if isinstance(widget, SteeringPanel):
        texts = {"steered": steering_samples.tokens(steering_samples.PLAIN, seed=9)}
        return {"texts": {**widget.texts, **texts}}
    if isinstance(widget, FeatureDashboard):
        return {"histogram": {**widget.histogram, "counts": widget.histogram["counts"][::-1]}}
    if isinstance(widget, TrainingCurves):
        return {"points": float32_bytes(training_samples.rows(20))}
    assert isinstance(widget, MatrixWidget)
    values = memoryview(widget.values).cast("f").tolist()
    return {"values": float32_bytes([values[::-1]])}


def test_draws_and_redraws(bridge: Bridge, make: Make) -> None:
    widget = make()
    host = bridge.show(widget)
    before = drawn(host)
    for name, value in other_values(widget).items():
        setattr(widget, name, value)
    bridge.painted()
    assert drawn(host) != before


def test_two_instances_are_independent(bridge: Bridge, make: Make) -> None:
    first, second = make(), make()
    first_host, second_host = bridge.show(first), bridge.show(second)
    before = drawn(second_host)
    for name, value in other_values(first).items():
        setattr(first, name, value)
    first.title = "Only this one"
    bridge.painted()
    assert first_host.locator(".wb-title").text_content() == "Only this one"
    assert second_host.locator(".wb-title").text_content() == second.title
    assert drawn(second_host) == before
    assert bridge.page.locator("[id]").count() == 0


def test_cleanup_leaves_nothing(bridge: Bridge, make: Make) -> None:
    other = make()
    bridge.show(other)
    before = bridge.left(other)
    widget = make()
    bridge.show(widget)
    during = bridge.left(widget)
    assert during["handlers"] > 3
    assert during["nodes"] == 1
    assert during["listeners"] > before["listeners"]
    assert during["observers"] > before["observers"]
    bridge.clean(widget)
    after = bridge.left(widget)
    assert after["handlers"] == 0
    assert after["nodes"] == 0
    assert after["listeners"] == before["listeners"]
    assert after["observers"] == before["observers"]
    # A late message finds no one; that it raises nothing is asserted by the context fixture.
    widget.title = "late"
    bridge.painted()


def test_outside_text_is_text(bridge: Bridge, make_hostile: Make) -> None:
    widget = make_hostile()
    host = bridge.show(widget)
    host.locator(".wb-scroller, .wb-text, .wb-curves").first.press("ArrowRight")
    bridge.painted()
    assert HOSTILE in (host.locator(".wb-card").text_content() or "").replace("␣", " ")
    assert HOSTILE in (host.text_content() or "")
    assert host.locator("img, script").count() == 0
    assert bridge.page.evaluate("window.hacked === undefined")


def test_static_twin_is_escaped_and_says_something(make_hostile: Make, make: Make) -> None:
    twin = make_hostile().static_html()
    assert "<img" not in twin
    assert "<script" not in twin
    assert "&lt;img src=x" in twin
    bundle = make()._repr_mimebundle_()
    assert bundle is not None
    data = bundle[0]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "capital" in data["text/html"]
    assert len(data["text/html"]) < 20_000


def test_unknown_keyword_is_refused(make: Make) -> None:
    kind = type(make())
    with pytest.raises(
        TypeError, match=r"has no 'titel'. Did you mean 'title'\? Allowed: .*code, "
    ):
        kind(titel="x")


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_page_does_not_overflow(
    open_bridge: Callable[..., Bridge], make: Make, *, dark: bool
) -> None:
    bridge = open_bridge(width=400, dark=dark)
    host = bridge.show(make())
    canvas = host.locator("canvas, .wb-text, .wb-curves")
    canvas.first.hover(position={"x": 150, "y": 90})
    bridge.painted()
    width = bridge.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 400
    for part in host.locator(".wb-card, .wb-legend, .wb-tools, .wb-slider").all():
        box = part.bounding_box()
        assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= 400)


def test_dark_follows_the_host_and_the_system(
    open_bridge: Callable[..., Bridge], make: Make
) -> None:
    bridge = open_bridge()
    host = bridge.show(make())
    light = drawn(host)
    bridge.page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    bridge.painted()
    assert host.locator(".wb").get_attribute("data-theme") == "dark"
    assert drawn(host) != light
    bridge.page.evaluate("delete document.body.dataset.jpThemeLight")
    bridge.painted()
    assert drawn(host) == light
    bridge.page.emulate_media(color_scheme="dark")
    bridge.painted()
    assert host.locator(".wb").get_attribute("data-theme") == "dark"


def test_saved_page_draws_from_disk(context: BrowserContext, tmp_path: Path, make: Make) -> None:
    widget = make()
    path = widget.save_html(tmp_path / "new" / "saved.html", title="A <saved> page")
    assert path.stat().st_size < 120_000
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.title() == "A <saved> page"
    assert page.locator(".wb-title").text_content() == widget.title
    if isinstance(widget, SteeringPanel):
        assert "Tokyo" in (page.locator(".wb-text").first.text_content() or "")
        assert page.locator(".wb-run").is_disabled()
    elif isinstance(widget, FeatureDashboard):
        assert "Paris" in (page.locator(".wb-outputs").first.text_content() or "")
        page.locator(".wb-histogram").press("ArrowRight")
        assert page.locator(".wb-card").is_visible()
        controls = page.locator(".wb-try, .wb-feature, .wb-edit, .wb-tools button").all()
        assert len(controls) > 8
        left = [one.text_content() for one in controls if one.is_enabled()]
        assert left == ["Copy as code"]
    elif isinstance(widget, TrainingCurves):
        page.locator(".wb-curves").press("ArrowRight")
        assert page.locator(".wb-card").is_visible()
        assert page.locator(".wb-stop").is_disabled()
    else:
        page.wait_for_function("Number(document.querySelector('canvas').dataset.frames) > 0")
        colours = """c => {
            const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
        assert page.locator("canvas").evaluate(colours) > 50
        page.locator(".wb-scroller").press("ArrowRight")
        assert page.locator(".wb-card").is_visible()


def test_hostile_saved_page(context: BrowserContext, tmp_path: Path, make_hostile: Make) -> None:
    page = context.new_page()
    page.goto(make_hostile().save_html(tmp_path / "hostile.html").as_uri())
    page.wait_for_selector(".wb-title")
    assert page.locator(".wb img, .wb script").count() == 0
    assert page.evaluate("window.hacked === undefined")


def test_error_is_shown_and_dismissed(bridge: Bridge, make: Make) -> None:
    widget = make()
    host = bridge.show(widget)
    alert = host.get_by_role("alert")
    assert alert.count() == 0
    widget.error = f"on_run: ValueError: {HOSTILE}"
    bridge.painted()
    assert HOSTILE in (alert.text_content() or "")
    alert.get_by_role("button").click()
    bridge.until(lambda: widget.error == "")
    assert alert.count() == 0


def test_code_is_copied_or_shown(bridge: Bridge, make: Make) -> None:
    widget = make()
    host = bridge.show(widget)
    button = host.get_by_role("button", name="Copy as code")
    # A page that is not secure has no clipboard: the text is shown and selected.
    button.click()
    shown = host.locator(".wb-code")
    assert shown.input_value() == widget.code
    assert bridge.page.evaluate("getSelection().toString()") == widget.code
    bridge.page.evaluate(
        """() => Object.defineProperty(navigator, 'clipboard',
            { value: { writeText: async (text) => { window.copied = text; } } })"""
    )
    host.locator(".wb-tools .wb-button").last.click()
    bridge.page.wait_for_function("window.copied !== undefined")
    assert bridge.page.evaluate("window.copied") == widget.code
    assert shown.is_hidden()


def test_every_control_has_a_name_and_a_visible_focus(bridge: Bridge, make: Make) -> None:
    host = bridge.show(make())
    bridge.page.keyboard.press("Tab")
    stops = 0
    while bridge.page.evaluate("document.activeElement !== document.body"):
        name, outline = bridge.page.evaluate(
            """() => {
                const at = document.activeElement;
                const labels = [...(at.labels ?? [])].map((label) => label.textContent).join();
                const named = at.getAttribute('aria-label') || labels || at.textContent;
                return [named.trim(), getComputedStyle(at).outlineStyle];
            }"""
        )
        assert name
        assert outline == "solid"
        stops += 1
        bridge.page.keyboard.press("Tab")
    assert (
        stops
        == host.locator(
            "button:visible:enabled, input:visible, select:visible, textarea:visible, "
            "[tabindex='0']:visible, summary"
        ).count()
    )


def test_nothing_heavy_is_imported() -> None:
    for path in (*FOLDER.glob("*.py"), FOLDER.parent / "colab.py", FOLDER.parent / "files.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                assert root not in {"torch", "numpy", "transformers", "nnsight"}
                assert root != "workbench" or name.startswith(("workbench.widgets", *LIGHT))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.js")), ids=lambda path: path.name)
def test_scripts_are_plain_and_offline(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check\n")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(", text)
    addresses = re.findall(r"https?://[^\s\"']+", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert "fetch(" not in text


def test_a_widget_is_an_ordinary_ipywidget(make: Make) -> None:
    widget = make()
    assert isinstance(widget, ipywidgets.DOMWidget)
    assert type(widget).__name__ in repr(widget)
