"""The evolution map in a browser: places, sizes, ties, sliders, selection, edits, several maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.widgets import evolution_samples, samples
from tests.widgets.bridge import Bridge
from workbench.widgets import EvolutionMap, float32_bytes

pytestmark = pytest.mark.browser

ORIGIN, UNRELATED = 17, 0
PARIS = 6


def node(host: Locator, row: int) -> Locator:
    return host.locator(f'.wb-nodes [data-node="{row}"]')


def place(host: Locator, row: int) -> tuple[float, float]:
    x, y = re.findall(r"-?[\d.]+", node(host, row).get_attribute("transform") or "")
    return float(x), float(y)


def radius(host: Locator, row: int, which: str = "after") -> float:
    scale = node(host, row).locator(f".wb-{which}").get_attribute("transform") or ""
    return float(scale.removeprefix("scale(").removesuffix(")"))


def value(widget: EvolutionMap, row: int, column: int, name: str = "values") -> float:
    return memoryview(getattr(widget, name)).cast("f")[row * len(widget.tokens) + column]


def peak(widget: EvolutionMap, row: int) -> float:
    """Largest of a row, the masked first column left out."""
    return max(value(widget, row, column) for column in range(1, len(widget.tokens)))


def slide(host: Locator, name: str, *keys: str) -> None:
    """Move a slider by the keyboard."""
    for key in keys:
        host.get_by_role("slider", name=name).press(key)


def away(host: Locator, kind: str) -> int:
    return host.locator(f".wb-map-figure .wb-{kind}.wb-away").count()


# ------------------------------------------------------------------------------ what is drawn


def test_layers_rise_and_kinds_stand_in_execution_order(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    places = [place(host, row) for row in range(24)]
    for row, one in enumerate(widget.nodes):
        below = [places[r] for r, other in enumerate(widget.nodes) if other["layer"] < one["layer"]]
        assert all(places[row][1] < y for _, y in below)
        assert places[row][1] == places[row - row % 3][1]
        assert places[row][0] == places[row % 3][0]
    assert places[0][0] < places[1][0] < places[2][0]
    words = host.locator(".wb-map-figure .wb-kind").all_text_contents()
    assert words == ["attention", "MLP", "residual stream", "layer"]
    layers = host.locator(".wb-layer").all_text_contents()
    assert layers == [str(layer) for layer in range(8)]
    mixed = samples.evolution(
        nodes=[{"layer": 0, "kind": kind, "index": 1} for kind in ("res", "embed", "transcoder")],
        links=[],
        maps=[{"title": "", "origin": -1}],
        values=float32_bytes([[1.0] * 26] * 3),
    )
    other = bridge.show(mixed)
    res, embed, transcoder = (place(other, row)[0] for row in range(3))
    assert embed < transcoder < res


def test_areas_say_the_activation_of_the_token(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    kin = [row for row in range(24) if (widget.nodes[row]["cosine"] or 0) > 0.3]
    for row in kin:
        share = (radius(host, row) / radius(host, ORIGIN)) ** 2
        assert share == pytest.approx(peak(widget, row) / peak(widget, ORIGIN), rel=0.02)
    slide(host, "Token", *["ArrowRight"] * PARIS)
    bridge.until(lambda: widget.token == PARIS)
    bridge.painted()
    assert host.get_by_role("slider", name="Token").get_attribute("aria-valuetext") == "␣Paris (6)"
    assert value(widget, 20, PARIS) / value(widget, 10, PARIS) > 1.5
    share = (radius(host, 20) / radius(host, 10)) ** 2
    assert share == pytest.approx(value(widget, 20, PARIS) / value(widget, 10, PARIS), rel=0.02)
    # <bos> fires a hundred times as strongly: no position of the slider shows it.
    slide(host, "Token", "Home", "ArrowRight")
    bridge.until(lambda: widget.token == 1)
    slide(host, "Token", "End")
    bridge.until(lambda: widget.token == len(widget.tokens) - 1)


def test_what_is_silent_is_an_empty_mark(bridge: Bridge) -> None:
    widget = samples.evolution(token=PARIS)
    numbers: Any = memoryview(widget.values).cast("f").tolist()
    numbers[10 * 26 + PARIS] = 0.0
    widget.values = float32_bytes([numbers])
    host = bridge.show(widget)
    classes = [node(host, row).get_attribute("class") or "" for row in (10, 13)]
    assert "wb-off" in classes[0].split()
    assert "wb-off" not in classes[1].split()
    assert 2 < radius(host, 10) < 4


def test_sizes_against_each_features_own_maximum(bridge: Bridge) -> None:
    widget = samples.evolution()
    nodes = [dict(one) for one in widget.nodes]
    nodes[10]["maximum"], nodes[14]["maximum"] = 4 * peak(widget, 10), peak(widget, 14)
    widget.nodes = nodes
    host = bridge.show(widget)
    host.get_by_role("button", name="share of its maximum").click()
    bridge.until(lambda: widget.scale == "own")
    bridge.painted()
    assert (radius(host, 14) / radius(host, 10)) ** 2 == pytest.approx(4, rel=0.02)


def test_births_are_told_by_colour_and_shape_and_explained(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    seen = {}
    for row, birth in {11: "mlp", 8: "new", 14: "attention", 17: "carried"}.items():
        assert node(host, row).get_attribute("data-birth") == birth == widget.nodes[row]["birth"]
        mark = node(host, row).locator(".wb-after")
        seen[birth] = (
            mark.evaluate("m => getComputedStyle(m).fill"),
            mark.get_attribute("d"),
        )
    assert len({colour for colour, _ in seen.values()}) == 4
    assert len({shape for _, shape in seen.values()}) == 4
    # An MLP's feature looks like what is born of the MLP.
    assert node(host, 13).get_attribute("data-birth") == "mlp"
    legend = host.locator(".wb-map-legend").text_content() or ""
    for words in ["carried over", "the layer's MLP", "layer's attention", "new:", "no kin"]:
        assert words in legend
    assert "not known" not in legend
    assert "ticks above: splits in the next layer, below: merges" in legend
    assert "stronger, weaker than in the layer below" in legend
    plain = [{**one, "birth": None, "cosine": 0.9} for one in widget.nodes]
    widget.nodes = plain
    bridge.painted()
    assert "birth not known" in (host.locator(".wb-map-legend").text_content() or "")


def test_what_is_no_kin_is_hollow_and_faint(bridge: Bridge) -> None:
    host = bridge.show(samples.evolution())
    style = "m => { const s = getComputedStyle(m); return [s.fillOpacity, s.strokeDasharray]; }"
    assert node(host, UNRELATED).locator(".wb-after").evaluate(style) == ["0.6", "2.5px, 2px"]
    assert node(host, ORIGIN).locator(".wb-after").evaluate(style) == ["1", "none"]
    faint = [
        node(host, row).evaluate("n => getComputedStyle(n).opacity") for row in (UNRELATED, 17)
    ]
    assert float(faint[0]) < 0.7 < float(faint[1])


def test_ties_have_three_styles_and_the_width_of_their_strength(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    dashes, widths = {}, {}
    for number, link in enumerate(widget.links):
        line = host.locator(f'[data-link="{number}"] .wb-line')
        dash, width = line.evaluate(
            "l => { const s = getComputedStyle(l); return [s.strokeDasharray, s.strokeWidth]; }"
        )
        dashes.setdefault(link["tie"], set()).add(dash)
        widths.setdefault(link["tie"], []).append((abs(link["strength"]), float(width[:-2])))
    assert len(dashes) == len(set.union(*dashes.values())) == 3
    for pairs in widths.values():
        ordered = [width for _, width in sorted(pairs)]
        assert ordered == sorted(ordered)
        assert ordered[-1] > ordered[0]
    # An arrow where an ablation lowers the target, a bar where it raises it.
    marks = [
        host.locator(f'[data-link="{n}"] .wb-mark').get_attribute("d") or ""
        for n, link in enumerate(widget.links)
        if link["tie"] == "causes"
    ]
    assert [mark.count("L") for mark in marks] == [2, 2, 3]
    assert host.locator(".wb-mark").count() == 3 + 1  # and one in the legend


def test_splits_are_drawn_as_ticks(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    assert node(host, ORIGIN).locator(".wb-fork").count() == 2
    assert host.locator(".wb-map-figure .wb-fork").count() == 2  # the legend has some too
    nodes = [dict(one) for one in widget.nodes]
    nodes[14]["parents"], nodes[ORIGIN]["children"] = [1, 2, 3], []
    widget.nodes = nodes
    bridge.painted()
    lower = (
        node(host, 14)
        .locator(".wb-fork")
        .evaluate_all("all => all.map(l => +l.getAttribute('y2'))")
    )
    assert len(lower) == 3
    assert min(lower) > 0


# ------------------------------------------------------------------------------------ sliders


def test_the_threshold_hides_what_is_below_it(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    margins = [one["cosine"] - one["null"] for one in widget.nodes]
    assert away(host, "node") == away(host, "link") == 0
    assert host.locator("canvas").evaluate("c => c.clientHeight") > 24 * 22
    for threshold in (0.0, 0.25, 0.55):
        widget.threshold = threshold
        bridge.painted()
        shown = [m >= threshold or row == ORIGIN for row, m in enumerate(margins)]
        assert away(host, "node") == shown.count(False) > 0
        gone = sum(
            not (shown[link["source"]] and shown[link["target"]])
            or link["margin"] / (3.2 if link["tie"] == "causes" else 1) < threshold
            for link in widget.links
        )
        assert away(host, "link") == gone
        hidden = f"{shown.count(False)} of 24 hidden"
        assert hidden in (host.locator(".wb-slider-said").nth(1).text_content() or "")
    assert host.locator("canvas").evaluate("c => c.clientHeight") < 12 * 22


def test_the_threshold_slider_tells_python_and_ends_at_everything(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    slide(host, "Threshold", *["PageUp"] * 4)
    bridge.until(lambda: widget.threshold > -0.3)
    bridge.painted()
    assert away(host, "node") > 0
    slide(host, "Threshold", "Home")
    bridge.until(lambda: widget.threshold == -1.0)
    bridge.painted()
    assert away(host, "node") == 0


# ------------------------------------------------------------------------------------ pointing


def test_hovering_a_node_says_all_of_it(bridge: Bridge) -> None:
    host = bridge.show(samples.evolution())
    node(host, ORIGIN).locator(".wb-hit").hover()
    card = host.locator(".wb-card")
    bridge.painted()
    text = card.text_content() or ""
    for part in [
        "layer 5 res · 231", "capital cities", "␣Paris (6)", "null0.3", "margin0.7",
        "correlation0.9", "by chance0.12", "carried over", "strengthening", "splits into17, 94",
        "Origin",
    ]:  # fmt: skip
        assert part in text
    assert "layer 5 res · 231" in (host.locator(".wb-sr").text_content() or "")
    dimmed = "n => +getComputedStyle(n).opacity"
    assert node(host, 20).evaluate(dimmed) == 1  # tied to it
    assert node(host, 9).evaluate(dimmed) < 0.5
    node(host, UNRELATED).locator(".wb-hit").hover()
    bridge.painted()
    assert "Below the null" in (card.text_content() or "")
    bridge.page.mouse.move(5, 890)
    bridge.painted()
    assert card.is_hidden()
    assert node(host, 9).evaluate(dimmed) == 1


@pytest.mark.parametrize(
    ("tie", "words"),
    [
        ("similar", ["layer 3 att · 1595 → layer 3 res", "both write one direction", "cosine0.3"]),
        ("carries", ["layer 2 res", "passed on by the residual stream"]),
        ("causes", ["layer 3 mlp · 1740 → layer 5 res · 231", "−3.2", "driven by it"]),
    ],
)
def test_hovering_a_link_says_what_it_is(bridge: Bridge, tie: str, words: list[str]) -> None:
    host = bridge.show(samples.evolution())
    hit = host.locator(f'.wb-links [data-tie="{tie}"] .wb-hit').first
    x, y = hit.evaluate(
        """p => { const at = p.getPointAtLength(p.getTotalLength() * 0.45);
            const m = p.getScreenCTM(); return [at.x * m.a + m.e, at.y * m.d + m.f]; }"""
    )
    bridge.page.mouse.move(x, y)
    bridge.painted()
    text = host.locator(".wb-card").text_content() or ""
    for part in [*words, "above its null by"]:
        assert part in text


def test_clicking_selects_and_python_hears(bridge: Bridge) -> None:
    widget = samples.evolution()
    heard: list[tuple[int | None, int | None]] = []
    widget.on_select(lambda row, column: heard.append((row, column)))
    host = bridge.show(widget)
    assert host.get_by_role("button", name="Ablate", exact=True).is_hidden()
    node(host, 20).locator(".wb-hit").click()
    bridge.until(lambda: widget.selected == [20, -1])
    bridge.painted()
    assert "layer 6 res · 139" in (host.locator(".wb-details").text_content() or "")
    assert host.locator(".wb-card").is_hidden()  # it would cover the details
    assert "wb-selected" in (node(host, 20).get_attribute("class") or "")
    host.locator(".wb-map").first.click(position={"x": 20, "y": 3})
    bridge.until(lambda: widget.selected == [])
    assert heard == [(20, -1), (None, None)]
    widget.selected = [13, 4]
    bridge.painted()
    assert "layer 4 mlp" in (host.locator(".wb-details").text_content() or "")


def test_the_buttons_ask_python(bridge: Bridge) -> None:
    widget = evolution_samples.edited(selected=[20, -1])
    heard: list[tuple[str, dict[str, Any]]] = []
    for name in ("centre", "open", "ablate", "steer", "drop"):
        widget.on(name, lambda name=name, **fields: heard.append((name, fields)))
    host = bridge.show(widget)
    for name in ("Re-centre", "Dashboard", "Ablate"):
        host.get_by_role("button", name=name, exact=True).click()
    host.get_by_role("spinbutton").fill("-1.5")
    host.get_by_role("button", name="Steer", exact=True).click()
    host.get_by_role("spinbutton").fill("3")
    host.get_by_role("spinbutton").press("Enter")
    host.get_by_role("button", name="Undo: layer 3 mlp").click()
    bridge.until(lambda: len(heard) == 6)
    assert heard == [
        ("centre", {"node": 20}),
        ("open", {"node": 20}),
        ("ablate", {"node": 20}),
        ("steer", {"node": 20, "strength": -1.5}),
        ("steer", {"node": 20, "strength": 3}),
        ("drop", {"edit": 0}),
    ]
    widget.selected = [ORIGIN, -1]
    bridge.painted()
    assert host.get_by_role("button", name="Re-centre").is_disabled()
    with pytest.raises(ValueError, match="no message 'center'; there are centre, open"):
        widget.on("center", print)


def test_arrow_keys_walk_the_map(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    host.get_by_role("application", name="map of features").focus()
    press = bridge.page.keyboard.press
    press("ArrowUp")  # enters at the origin
    press("ArrowUp")
    press("Enter")
    bridge.until(lambda: widget.selected == [20, -1])
    for key in ("ArrowLeft", "ArrowDown", "ArrowDown", "Space"):
        press(key)
    bridge.until(lambda: widget.selected == [13, -1])
    assert "layer 4 mlp" in (host.locator(".wb-sr").text_content() or "")
    press("Escape")
    bridge.until(lambda: widget.selected == [])
    widget.threshold = 0.45
    bridge.painted()
    for key in ("ArrowUp", "ArrowLeft", "Enter"):  # nothing is left on the left
        press(key)
    bridge.until(lambda: widget.selected == [ORIGIN, -1])


# ------------------------------------------------------------------------- below: the tokens


def cell(host: Locator, column: int, line: float) -> Any:
    at = {k: float(v) for k, v in host.locator("canvas").evaluate("c => ({...c.dataset})").items()}
    return {
        "x": at["left"] + (column + 0.5) * at["cell"],
        "y": at["top"] + (line + 0.5) * at["row"],
    }


def test_pointing_at_a_token_sizes_the_nodes_and_a_click_keeps_it(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    canvas = host.locator("canvas")
    before = radius(host, 20), radius(host, 10)
    canvas.hover(position=cell(host, 12, -0.5))  # above the column of " Japan"
    bridge.painted()
    small = radius(host, 20)
    assert small < 0.5 * before[0]
    bridge.page.mouse.move(5, 890)
    bridge.painted()
    assert (radius(host, 20), radius(host, 10)) == before
    canvas.click(position=cell(host, 12, 4))
    bridge.until(lambda: widget.selected == [19, 12])
    bridge.until(lambda: widget.token == 12)
    bridge.page.mouse.move(5, 890)
    bridge.painted()
    assert radius(host, 20) == small
    canvas.click(position=cell(host, 0, 4))  # <bos> is not scored: only the feature is chosen
    bridge.until(lambda: widget.selected == [19, 0])
    assert widget.token == 12


def test_one_token_through_the_layers(bridge: Bridge) -> None:
    widget = samples.evolution(token=PARIS)
    host = bridge.show(widget)
    assert host.locator(".wb-chart").is_hidden()
    host.get_by_role("button", name="one token through the layers").click()
    bridge.until(lambda: widget.view == "layers")
    bridge.painted()
    assert host.locator("canvas").is_hidden()
    title, lines = host.locator(".wb-chart-title"), host.locator(".wb-series")
    assert "␣Paris (6)" in (title.text_content() or "")
    assert host.locator(".wb-series-name").all_text_contents() == ["res", "mlp", "att"]

    def heights() -> list[float]:
        points = (lines.nth(0).get_attribute("points") or "").split()
        return [float(point.split(",")[1]) for point in points]

    first = heights()
    floor = first[5] + (first[5] - first[6]) * value(widget, 17, PARIS) / (
        value(widget, 20, PARIS) - value(widget, 17, PARIS)
    )
    for row, y in zip(range(2, 24, 3), first, strict=True):
        assert (floor - y) / (floor - first[5]) == pytest.approx(
            value(widget, row, PARIS) / value(widget, ORIGIN, PARIS), rel=1e-3
        )
    widget.token = 14
    bridge.painted()
    assert "␣Tokyo (14)" in (title.text_content() or "")
    assert heights() != first
    host.locator(".wb-chart svg").hover(position={"x": 500, "y": 90})
    assert "cosine to the origin" in (host.locator(".wb-card").text_content() or "")


# ------------------------------------------------------------- edits, several maps, two texts


def test_a_ring_before_the_edits_and_filled_under_them(bridge: Bridge) -> None:
    widget = evolution_samples.edited(token=PARIS)
    host = bridge.show(widget)
    for row in (11, 17, 20):
        inner, outer = radius(host, row), radius(host, row, "before")
        before, after = value(widget, row, PARIS), value(widget, row, PARIS, "edited")
        assert (inner / outer) ** 2 == pytest.approx(after / before, rel=0.03)
        assert node(host, row).locator(".wb-before").is_visible()
    assert "wb-off" in (node(host, 10).get_attribute("class") or "")
    assert node(host, 10).locator(".wb-cross").is_visible()
    assert node(host, 11).locator(".wb-cross").is_hidden()
    details = host.locator(".wb-details").text_content() or ""
    assert "layer 3 mlp 1203 ablated" in details
    assert "␣Lyon" in details
    assert "upper half before the edits" in (host.locator(".wb-legend").text_content() or "")
    widget.update(edited=b"", edits=[], said="")
    bridge.painted()
    assert node(host, 11).locator(".wb-before").is_hidden()
    assert host.locator(".wb-edits").is_hidden()


def test_several_maps_side_by_side(bridge: Bridge) -> None:
    widget = evolution_samples.several(4)
    host = bridge.show(widget)
    figures = host.locator(".wb-map-figure")
    boxes = [figure.bounding_box() for figure in figures.all()]
    assert len(boxes) == 4
    assert all(a and b and a["x"] + a["width"] <= b["x"] for a, b in pairwise(boxes))
    assert figures.nth(2).locator(".wb-map-title").text_content() == "2: capital cities"
    assert figures.nth(2).locator("[data-node]").count() == 24
    title = host.locator(".wb-below-title")
    assert title.text_content() == "0: capital cities"
    figures.nth(2).locator('[data-node="65"] .wb-hit').click()
    bridge.until(lambda: widget.selected == [65, -1])
    bridge.painted()
    assert title.text_content() == "2: capital cities"

    def chosen() -> bool:
        """On a slow machine the strip is drawn a frame after its title."""
        host.locator("canvas").click(position=cell(host, 3, 0))
        bridge.painted()
        return widget.selected == [48 + 23, 3]

    bridge.until(chosen)
    one = samples.evolution()
    names = ("nodes", "links", "maps", "values")
    widget.update(**{name: getattr(one, name) for name in names})
    bridge.painted()
    assert figures.count() == 1
    assert title.is_hidden()


def test_features_of_a_next_token_flow_to_it(bridge: Bridge) -> None:
    widget = evolution_samples.towards()
    host = bridge.show(widget)
    assert "next token ␣Paris" in (host.locator(".wb-map").first.text_content() or "")
    effects = [one["attribution"] for one in widget.nodes]
    drawn = host.locator(".wb-map-figure .wb-effect").evaluate_all(
        """all => all.map((l) => [+l.getAttribute('data-of'), l.getAttribute('data-sign'),
            parseFloat(getComputedStyle(l).strokeWidth)])"""
    )
    assert [row for row, _, _ in drawn] == list(range(10))
    assert [sign for _, sign, _ in drawn] == ["more" if e > 0 else "less" for e in effects]
    assert {"more", "less"} == {sign for _, sign, _ in drawn}
    wide = sorted(range(10), key=lambda row: drawn[row][2])
    assert wide == sorted(range(10), key=lambda row: abs(effects[row]))
    # Two features of one site stand beside each other.
    assert place(host, 6)[1] == place(host, 7)[1]
    assert abs(place(host, 6)[0] - place(host, 7)[0]) > 60
    node(host, 4).locator(".wb-hit").hover()
    bridge.painted()
    card = host.locator(".wb-card").text_content() or ""
    assert f"attribution to the next token{effects[4]:g}".replace("-", "−") in card


def test_two_texts_beside_each_other(bridge: Bridge) -> None:
    widget = evolution_samples.beside()
    host = bridge.show(widget)
    assert host.locator(".wb-map-title").all_text_contents() == ["France", "Hungary"]
    assert "upper half France, lower half Hungary" in (
        host.locator(".wb-legend").text_content() or ""
    )
    slide(host, "Token", *["ArrowRight"] * 4)
    said = host.locator(".wb-slider-said").first
    expect(said).to_have_text("␣France → ␣Hungary (4)")
    slide(host, "Token", *["ArrowRight"] * 3)
    expect(said).to_have_text("− , (7)")
    colours = """(c, {x, y}) => [-5, 5].map((d) => {
        const ratio = c.width / c.clientWidth;
        return [...c.getContext('2d').getImageData(x * ratio, (y + d) * ratio, 1, 1).data].join();
    })"""
    upper, lower = host.locator("canvas").evaluate(colours, cell(host, PARIS, 3))
    assert upper != lower
    assert value(widget, 20, PARIS) != value(widget, 44, PARIS)


# ------------------------------------------------------------------------------ room and shape


@pytest.mark.parametrize("width", [600, 1100, 1400])
def test_legible_at_26_layers_of_three_sites(
    open_bridge: Callable[..., Bridge], width: int
) -> None:
    bridge = open_bridge(width=width)
    host = bridge.show(evolution_samples.large())
    boxes = host.locator(".wb-map-figure .wb-name").evaluate_all(
        """all => all.map((t) => { const b = t.getBoundingClientRect();
            return [b.left, b.right, b.top + 2, b.bottom - 2]; })"""
    )
    assert len(boxes) == 78
    for a, b in combinations(boxes, 2):
        apart = a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]
        assert apart, (a, b)
    frame = host.locator(".wb-map").first.bounding_box()
    assert frame is not None
    assert frame["x"] + frame["width"] <= width
    assert frame["height"] < 720
    assert all(
        left >= frame["x"] and right <= frame["x"] + frame["width"] + 1 for left, right, *_ in boxes
    )
    size = host.locator(".wb-name").first.evaluate("t => parseFloat(getComputedStyle(t).fontSize)")
    assert size >= 11.5
    assert bridge.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("make", ["several", "edited", "towards", "beside"])
def test_narrow_pages_do_not_overflow(open_bridge: Callable[..., Bridge], make: str) -> None:
    bridge = open_bridge(width=420)
    widget = getattr(evolution_samples, make)(selected=[2, -1])
    host = bridge.show(widget)
    assert bridge.page.evaluate("document.documentElement.scrollWidth") <= 420
    for part in host.locator(".wb-map-controls > *, .wb-details, .wb-map, .wb-chip").all():
        box = part.bounding_box()
        assert box is None or box["x"] + box["width"] <= 421


def test_a_gap_between_layers_keeps_its_room(bridge: Bridge) -> None:
    host = bridge.show(evolution_samples.towards())
    # Layers 0 and 2 are given, and what lies between them is drawn empty.
    assert host.locator(".wb-layer").all_text_contents() == [str(n) for n in range(8)]


def test_new_features_take_the_place_of_the_old(bridge: Bridge) -> None:
    widget = evolution_samples.large(token=30, selected=[70, 4])
    host = bridge.show(widget)
    node(host, 70).locator(".wb-hit").hover()
    small = samples.evolution()
    names = ("nodes", "links", "maps", "values", "tokens")
    bridge.pump()
    before = len(bridge.sent)
    widget.update(**{name: getattr(small, name) for name in names})
    bridge.painted()
    assert len(bridge.sent) == before + 1
    assert host.locator(".wb-nodes [data-node]").count() == 24
    assert host.locator(".wb-links [data-link]").count() == len(small.links)
    assert widget.selected == []
    assert host.locator(".wb-card").is_hidden()
    said = host.locator(".wb-slider-said").first
    assert said.text_content() == "maximum over all"


def test_values_that_do_not_fit_are_said(bridge: Bridge) -> None:
    widget = samples.evolution()
    host = bridge.show(widget)
    widget.values = b"\0" * 8
    bridge.painted()
    assert "2 values for 24 nodes × 26 tokens" in (host.text_content() or "")
    assert host.locator(".wb-map").first.is_hidden()
    widget.values = samples.evolution().values
    bridge.painted()
    assert host.locator(".wb-map").first.is_visible()


# ------------------------------------------------------------------------- Python's side alone


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"node 0: birth is 'born'; it is one of None, 'carried'"):
        EvolutionMap(nodes=[{"layer": 1, "kind": "res", "index": 3, "birth": "born"}])
    with pytest.raises(TypeError, match=r"link 0 lacks 'margin'"):
        EvolutionMap(links=[{"source": 0, "target": 1, "tie": "causes", "strength": 1}])
    with pytest.raises(ValueError, match=r"link 0: tie is 'loves'; it is one of 'similar'"):
        samples.evolution(links=[{**samples.evolution().links[0], "tie": "loves"}])
    with pytest.raises(ValueError, match=r"link 0 ties node 3 to node 24; there are 24 nodes"):
        samples.evolution(links=[{**samples.evolution().links[0], "source": 3, "target": 24}])
    nodes = samples.evolution().nodes
    with pytest.raises(ValueError, match=r"node 23 is of map 1; there are 1"):
        samples.evolution(nodes=[*nodes[:-1], {**nodes[-1], "map": 1}])
    with pytest.raises(ValueError, match="edited has 4 bytes and values 2496"):
        samples.evolution().update(edited=b"\0" * 4)
    with pytest.raises(ValueError, match="other_tokens has 2 columns and tokens 26"):
        samples.evolution().update(other_tokens=["a", "b"])
    with pytest.raises(TypeError, match=r"node 0 has no 'lable'. Did you mean 'label'\?"):
        EvolutionMap(nodes=[{"layer": 1, "kind": "res", "index": 3, "lable": "x"}])


def test_the_page_sets_settings_and_no_more() -> None:
    widget = samples.evolution()
    nodes = widget.nodes
    widget.set_state({"nodes": [], "token": 4, "title": "x", "threshold": 0.5})
    assert (widget.nodes, widget.token, widget.threshold) == (nodes, 4, 0.5)
    assert widget.title != "x"


def test_handlers_errors_are_shown() -> None:
    widget = samples.evolution()
    widget.on("ablate", lambda node: 1 / node)
    widget._handle_custom_msg({"type": "ablate", "node": 0}, [])
    assert "on 'ablate': ZeroDivisionError" in widget.error
    widget._handle_custom_msg({"type": "explode"}, [])
    assert "no message 'explode'" in widget.error


def test_twins_of_many_maps_stay_small() -> None:
    twin = evolution_samples.large().static_html()
    # Kin only where there are many, last layer first.
    assert "sites without kin are left out" in twin
    assert twin.index("<td>18 res</td>") < twin.index("<td>12 res (origin)</td>")
    assert "<td>25 res</td>" not in twin
    many = evolution_samples.several(6).static_html()
    assert many.count("<table>") == 4
    assert "and 2 maps more" in many
    assert "layer 3 mlp 1203 ablated" in evolution_samples.edited().static_html()
