"""The panel: it trains in the background, stops, fails in the open, and gives SAEs to use."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.lab import Lab
from workbench.panels import training as panel_module
from workbench.panels.training import POINTS, Training, points
from workbench.sites import Site
from workbench.training import Measured, TrainConfig

SMALL = {"d_sae": 64, "target_l0": 8.0, "batch_size": 256, "dead_tokens": 2000, "log_every": 2}
SMALL |= {"lr": 5e-3, "warmup_steps": 5}
OPTIONS: dict[str, Any] = {"layer": 1, "context": 64, "pool": 1024, "reuse": 4}


def configs(steps: int = 12, **changes: Any) -> dict[str, TrainConfig]:
    fields: dict[str, Any] = {**SMALL, "steps": steps, **changes}
    kinds: dict[str, Any] = {"Jump": "jumprelu", "Top": "topk", "L1": "relu"}
    return {name: TrainConfig(activation=kind, **fields) for name, kind in kinds.items()}


@pytest.fixture
def start(pocket: Lab, texts: list[str]) -> Iterator[Callable[..., Training]]:
    """Starts a training, and ends it with the test."""
    begun: list[Training] = []

    def begin(chosen: dict[str, TrainConfig] | None = None, **options: Any) -> Training:
        source = options.pop("texts", texts)
        given = configs() if chosen is None else chosen
        begun.append(pocket.train_saes(source, given, **{**OPTIONS, **options}))
        return begun[-1]

    yield begin
    for one in begun:
        one.stop()
        assert one.job.join(60)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still not true"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def done(pocket: Lab, texts: list[str]) -> Training:
    training = pocket.train_saes(texts, configs(40), **OPTIONS)
    training.wait(300)
    return training


def test_saes_of_every_kind_come_out_and_know_where_they_belong(done: Training) -> None:
    saes = done.saes
    assert {name: sae.activation for name, sae in saes.items()} == {
        "Jump": "jumprelu",
        "Top": "topk",
        "L1": "relu",
    }
    for sae in saes.values():
        assert (sae.config.layer, sae.config.kind, sae.config.model) == (1, "res", "pocket")
    assert done.state == "finished"
    assert done.widget.done == 1.0
    assert "step 40 of 40" in done.widget.status
    history: Any = done.history
    assert history["step"].max() == 40
    for name in ("Jump", "Top"):  # a ReLU's falls later: its L0 comes down first
        own = history[history["name"] == name]["fvu"]
        assert own.iloc[-1] < 0.7 * own.iloc[0]


def test_the_page_holds_what_was_measured(done: Training) -> None:
    history: Any = done.history
    for name, curve in zip(done.widget.names, done.widget.curves(), strict=True):
        own = history[history["name"] == name]
        assert len(curve) == len(own) == 20
        for point, row in zip(curve, own.itertuples(), strict=True):
            assert point == pytest.approx((row.tokens, row.fvu, row.l0, row.dead), rel=1e-6)


def test_the_figure_shows_the_same(done: Training) -> None:
    figure: Any = done.figure()
    history: Any = done.history
    own = history[history["name"] == "Top"]
    lines = [line for line in figure.data if line.name == "Top"]
    assert [list(line.y) for line in lines] == [list(own[key]) for key in ("fvu", "l0", "dead")]
    assert len(figure.data) == 9


def test_the_same_seed_trains_the_same_sae(start: Callable[..., Training]) -> None:
    first, again = (start(configs(6)).wait(120) for _ in range(2))
    for name, sae in first.items():
        torch.testing.assert_close(sae.W_dec, again[name].W_dec, rtol=0, atol=0)
    other = start(configs(6), seed=5).wait(120)
    assert not torch.equal(first["Top"].W_dec, other["Top"].W_dec)


def test_stop_ends_it_and_what_was_trained_can_be_used(
    start: Callable[..., Training], pocket: Lab, tmp_path: Path
) -> None:
    training = start(configs(1_000_000))
    until(lambda: training.state == "running" and training._together.step_count > 3)
    halfway = training.saes["Top"]  # also before the end
    training.widget._receive(None, {"type": "stop"}, [])  # as the page asks for it
    saes = training.wait(60)
    assert training.state == "stopped"
    assert training.widget.status.startswith("stopped · step ")
    assert 3 < training._together.step_count < 1_000_000
    assert saes["Top"].W_dec.shape == halfway.W_dec.shape
    # Its thresholds were not trained yet, so that it is the TopK that was.
    kept = pocket.sae(training.save(tmp_path)["Jump"])
    assert (kept.activation, kept.threshold, kept.k) == ("topk", None, saes["Jump"].k)
    # A stop that comes late leaves the word that stands there.
    training.stop()
    assert training.state == "stopped"


def test_a_stop_is_heard_while_the_pool_is_filled(
    start: Callable[..., Training], texts: list[str]
) -> None:
    training = start(configs(5), pool=10_000_000, texts=texts * 100)
    until(lambda: training._together.stream.tokens_read > 0)
    training.stop()
    assert training.job.join(60)
    assert training.state == "stopped"
    assert training._together.step_count == 0
    with pytest.raises(ValueError, match="nothing was trained: it ended before the first step"):
        training.wait()


def test_what_is_asked_before_a_step_is_told_to_wait(
    start: Callable[..., Training], tmp_path: Path
) -> None:
    training = start(configs(5), synchronous=True)
    for ask in (
        lambda: training.saes,
        lambda: training.evaluate(["One text."]),
        lambda: training.save(tmp_path / "mine"),
    ):
        with pytest.raises(ValueError, match=r"nothing is trained yet: training\.wait\(\) waits"):
            ask()
    assert not (tmp_path / "mine").exists()


def test_an_interrupt_of_wait_stops_and_returns_what_there_is(
    start: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start(configs(1_000_000))
    until(lambda: training._together.step_count > 1)
    join, calls = training.job.join, itertools.count()

    def interrupted(timeout: float | None = None) -> bool:
        if next(calls) == 0:
            raise KeyboardInterrupt
        return join(timeout)

    monkeypatch.setattr(training.job, "join", interrupted)
    assert set(training.wait()) == {"Jump", "Top", "L1"}
    assert training.state == "stopped"


def test_wait_gives_up_in_time_and_training_goes_on(start: Callable[..., Training]) -> None:
    training = start(configs(1_000_000))
    with pytest.raises(TimeoutError, match=r"not done after 0\.3 s"):
        training.wait(0.3)
    assert training.job.busy


def test_a_failure_is_shown_and_raised_where_it_is_waited_for(
    start: Callable[..., Training],
) -> None:
    training = start(texts=[{"words": "no text"}])
    with pytest.raises(RuntimeError, match=r"training failed: text 0 is a row with \['words'\]"):
        training.wait(60)
    assert training.state == "failed"
    assert training.widget.error.startswith("TypeError: text 0 is a row with ['words']")


def test_texts_that_end_too_soon_are_a_failure_that_says_what_to_do(
    start: Callable[..., Training],
) -> None:
    training = start(configs(1000), texts=iter(["Anna loved the boat. " * 40]))
    with pytest.raises(RuntimeError, match="an iterator cannot be read again"):
        training.wait(60)
    assert training.widget.error.startswith("ValueError: the texts ended after ")


def test_synchronous_training_is_done_by_the_thread_that_waits(
    start: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = start(configs(4), synchronous=True)
    assert training._together.step_count == 0
    assert training.widget.status == "begins with .wait()"
    threads: set[int] = set()
    step = training._together.step

    def noted() -> list[Measured]:
        threads.add(threading.get_ident())
        return step()

    monkeypatch.setattr(training._together, "step", noted)
    assert set(training.wait()) == {"Jump", "Top", "L1"}
    assert training.state == "finished"
    assert threads == {threading.get_ident()}
    training.wait()  # once is enough
    assert training._together.step_count == 4


def test_the_page_is_told_at_most_ten_times_a_second(
    pocket: Lab, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = itertools.count(1000.0, 0.01)  # each look at the clock takes a hundredth
    monkeypatch.setattr(panel_module, "monotonic", lambda: next(moments))
    told: list[int] = []
    original = panel_module.points

    def counted(*arguments: Any) -> list[list[float]]:
        told.append(1)
        return original(*arguments)

    monkeypatch.setattr(panel_module, "points", counted)
    pocket.train_saes(texts, configs(40, log_every=1), **OPTIONS, synchronous=True).wait()
    # Forty steps and the readings are little more than a second on this clock.
    assert 3 <= len(told) <= 12


def test_a_long_history_is_thinned_for_the_page_and_keeps_its_end() -> None:
    history = [
        Measured(name, step, 10 * step, 0.5, 1 / step, 8.0, 0.0, 1e-3, 1.0)
        for step in range(1, 1001)
        for name in ("a", "b")
    ]
    rows = points(history, ["a", "b"])
    for number in (0, 1):
        own = [row for row in rows if row[0] == number]
        assert POINTS / 2 < len(own) <= POINTS
        assert own[-1][1] == 10_000
        gaps = {b[1] - a[1] for a, b in itertools.pairwise(own)}
        assert len(gaps) == 1


def test_what_was_trained_is_kept_in_a_published_format(
    done: Training, pocket: Lab, tmp_path: Path
) -> None:
    folders = done.save(tmp_path)
    x = torch.randn(20, 128, generator=torch.Generator().manual_seed(0)) * 5
    for name, sae in done.saes.items():
        again = pocket.sae(folders[name])
        assert (again.config.layer, again.config.kind) == (1, "res")
        f = sae.encode(x)
        torch.testing.assert_close(again.encode(x), f)
        assert float(f.abs().max()) > 0


def test_evaluation_puts_others_beside_them(done: Training, pocket: Lab) -> None:
    held_out = [text[:250] for text in pocket.suite.sample[:3]]
    table = done.evaluate(held_out, others={"shipped": pocket.sae(layer=1)})
    assert list(table.index) == ["Jump", "Top", "L1", "shipped"]
    assert table.loc["shipped", "fvu"] == table["fvu"].min()
    with pytest.raises(ValueError, match=r"others has 'Top', which is the name .*'Jump', 'Top'"):
        done.evaluate(held_out, others={"Top": pocket.sae(layer=1)})
    # A text that is longer than the context is cut, not refused.
    assert done.evaluate(["Anna loved the boat. " * 200])["tokens"].iloc[0] == 255


def test_the_code_beside_the_curves_trains_the_same(pocket: Lab, texts: list[str]) -> None:
    training = pocket.train_saes(texts, configs(3), **OPTIONS, seed=2)
    training.wait(120)
    scope: dict[str, Any] = {"wb": wb, "texts": texts}
    exec(training.widget.code, scope)
    again = scope["training"]
    assert set(again.wait(120)) == {"Jump", "Top", "L1"}
    for name, sae in training.saes.items():
        torch.testing.assert_close(again.saes[name].W_dec, sae.W_dec, rtol=0, atol=0)


def test_every_widget_shows_the_trained_sae(done: Training) -> None:
    lab, site, sae = wb.open("pocket"), Site(1), done.saes["Top"]
    lab.use(sae)
    run = lab.run("Anna loved the boat.")
    torch.testing.assert_close(
        run.features(1).dense(), sae.encode(run.activation(1, "res")), rtol=1e-4, atol=1e-4
    )
    index = int(run.top(layer=1, k=1)["feature"].iloc[0])
    assert str(index) in run.heatmap(layer=1).widget.static_html()
    board = lab.dashboard((1, index), text="Anna loved the boat.")
    assert max(board.widget.tried["values"][1:]) > 0
    assert "made with another SAE" in board.widget.missing
    assert any(
        (node["layer"], node["kind"], node["index"]) == (1, "res", index)
        for node in run.evolution((1, index)).widget.nodes
    )
    edit = wb.Steer((1, index), 0.5, unit="norm")
    steered = lab.generate("Anna", edits=[edit], max_new_tokens=4, seed=0)
    assert steered.receipt.acts[0].acted
    panel = lab.steering("Anna", features=[(1, index)])
    assert (panel.widget.rows[0]["layer"], panel.widget.rows[0]["index"]) == (1, index)
    assert lab.suite.sae_at(site) is sae
