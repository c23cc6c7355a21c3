"""`workbench verify`: right values pass, known wrong ones are recognised, errors are rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import workbench as wb
from workbench import cli, verify
from workbench.sites import Site
from workbench.verify import Band, Place, Reference

WORDS = ["<bos>", "My", " dog", " is", " sleeping", " on", " the", " couch", "."]
OTHERS = {
    verify.BARK: ["<bos>", "The", " dog", " barked", " at", " the", " mailman", "."],
    verify.CAT: ["<bos>", "My", " cat", " is", " sleeping", " on", " the", " couch", "."],
}
DOG, IS, PEAK = (20, "res", 12082, 2), (20, "res", 12082, 3), (19, "transcoder", 4607, 2)
BARK, SILENT = (*PEAK[:3], 2, verify.BARK), (*PEAK[:3], 4, verify.CAT)
RIGHT = {
    DOG: 87.0,
    IS: 69.5,
    PEAK: 32.0,
    BARK: 66.5,
    ("mlp", "fvu"): 0.26,
    ("mlp", "l0"): 81,
    ("transcoder", "fvu"): 0.5,
    ("transcoder", "l0"): 12.8,
}
GAIN, RAW = "the norm's gain was included", "the raw residual"
MLP, BOS = "read from the MLP itself", "no <bos>"


@dataclass
class StubSAE:
    """An SAE whose L0 and FVU are given: fifty tokens, of which the right share is active."""

    l0: float
    fvu: float
    W_enc: torch.Tensor = field(default_factory=lambda: torch.zeros(1))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        total = round(self.l0 * len(x))
        f = torch.zeros(len(x), total // len(x) + 1)
        f.view(-1)[:total] = 1.0
        return f

    def decode(self, f: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        # The stub's activation is the same wherever it is read, so x is the target as well.
        return x + self.fvu**0.5 * (x.mean(0) - x)


class StubLab:
    """Gives the values that it is told to give."""

    def __init__(self, values: dict[Any, float], words: list[str] = WORDS) -> None:
        self.values, self.words = RIGHT | values, words
        self.used: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.suite = SimpleNamespace(sample=["one", "two"])

    def sae(self, **where: Any) -> StubSAE:
        self.asked.append(where)
        kind = where["kind"]
        return StubSAE(self.values.get((kind, "l0"), 1), self.values.get((kind, "fvu"), 0.1))

    def use(self, sae: StubSAE) -> StubSAE:
        self.used.append(sae)
        return sae

    def run(self, prompt: str, *, sites: list[Site]) -> Any:
        assert self.used, "an SAE of another L0 would have been used"

        def features(layer: int, kind: str) -> Any:
            assert prompt == verify.PROMPT or prompt in OTHERS
            assert [Site(layer, cast("Any", kind))] == sites

            def of(feature: int) -> torch.Tensor:
                row = torch.zeros(len(OTHERS.get(prompt, WORDS)))
                row[0] = 5000.0  # <bos>, which never counts
                for key, value in self.values.items():
                    at = key[4] if len(key) == 5 else verify.PROMPT
                    if key[:3] == (layer, kind, feature) and at == prompt:
                        row[key[3]] = value
                return row

            return SimpleNamespace(of=of)

        def activation(layer: int, kind: str) -> torch.Tensor:
            assert Site(layer, cast("Any", kind)) in sites
            x = torch.randn(26, 6, generator=torch.Generator().manual_seed(len(prompt)))
            x[0] = 1e6  # <bos>
            return x

        strings = tuple(OTHERS.get(prompt, self.words))
        return SimpleNamespace(
            features=features, activation=activation, tokens=SimpleNamespace(strings=strings)
        )


def verified(values: dict[Any, float] | None = None, **options: Any) -> verify.Verification:
    return verify.verify(opened=lambda: cast("Any", StubLab(values or {}, **options)))


def test_the_published_values_pass() -> None:
    found = verified()
    assert found.ok
    assert [row.verdict for row in found.rows] == ["ok"] * 9
    assert [row.measured for row in found.rows] == [
        "87", "69.5", "32", "66.5", "0", "0.5", "12.8", "0.26", "81",
    ]  # fmt: skip
    assert str(found).endswith("gemma-2-2b: as published.")


def test_the_saes_are_those_that_the_values_were_measured_with() -> None:
    lab = StubLab({})
    verify.verify(opened=lambda: cast("Any", lab))
    assert lab.asked == [
        {"layer": 20, "kind": "res", "width": "16k", "l0": 71},
        {"layer": 19, "kind": "transcoder", "width": "16k", "l0": 12},
        {"layer": 4, "kind": "mlp", "width": "16k", "l0": 85},
    ]
    assert len(lab.used) == 3


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        (PEAK, 41.0, GAIN),
        (PEAK, 256.0, RAW),
        (PEAK, 20.0, BOS),
        (PEAK, 2.0, "another model or a damaged file"),
        (DOG, 87.0 * 0.6, BOS),
        (DOG, 0.0, "another model"),
        (IS, 69.5 * 0.6, BOS),
        (DOG, 69.5, "one off"),
        (BARK, 80.0, "another model"),
        (SILENT, 1.0, "another model"),
        (("transcoder", "l0"), 664.0, RAW),
        (("transcoder", "fvu"), 6.8e4, RAW),
        (("mlp", "fvu"), 9.8, MLP),
        (("mlp", "l0"), 8.0, MLP),
        (("mlp", "fvu"), 0.6, "another model"),
    ],
    ids=str,
)
def test_a_wrong_value_is_recognised_by_its_cause(key: Any, value: float, cause: str) -> None:
    found = verified({key: value})
    assert not found.ok
    (row,) = [row for row in found.rows if not row.ok]
    assert cause in row.verdict
    assert row.measured == f"{value:.3g}"
    assert "1 of 9 checks failed" in str(found)


@pytest.mark.parametrize("value", [82.0, 92.0])
def test_the_band_of_bfloat16_passes(value: float) -> None:
    assert verified({DOG: value}).ok
    assert not verified({DOG: value + (value - 87) / 100}).ok


def test_an_error_while_opening_is_a_row() -> None:
    def opened() -> Any:
        raise OSError("no licence:\n  open the page")

    found = verify.verify(opened=opened)
    assert [row.check for row in found.rows] == ["open gemma-2-2b"]
    assert found.rows[0].verdict == "OSError: no licence: open the page"
    assert not found.ok


def test_an_sae_that_cannot_be_had_leaves_the_other_checks(monkeypatch: Any) -> None:
    plain = StubLab.sae

    def sae(self: StubLab, **where: Any) -> StubSAE:
        if where["kind"] == "transcoder":
            raise OSError("cut")
        return plain(self, **where)

    monkeypatch.setattr(StubLab, "sae", sae)
    found = verified()
    verdicts = [row.verdict for row in found.rows]
    assert verdicts == ["ok", "ok", *["OSError: cut"] * 5, "ok", "ok"]
    assert not found.ok


def test_a_tokenizer_without_the_word_is_said() -> None:
    found = verified(words=["<bos>", *"My dog is"])
    assert "makes no token 'dog'" in found.rows[0].verdict


def test_no_rows_are_no_success() -> None:
    assert not verify.Verification("m", ()).ok


def test_a_model_without_published_values_is_refused() -> None:
    with pytest.raises(ValueError, match="known for 'gpt2'; there are for: gemma-2-2b"):
        verify.verify("gpt2", opened=lambda: cast("Any", None))


def test_on_a_real_lab_the_measured_values_are_the_labs_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab = wb.open("pocket")
    layer, texts = 4, lab.suite.sample[:2]
    entry = next(e for e in lab.suite.entries if (e.layer, e.kind) == (layer, "mlp"))
    monkeypatch.setattr(verify, "WIDTH", entry.width)
    monkeypatch.setattr(verify, "PROMPT", texts[0])
    monkeypatch.setattr(type(lab.suite), "sample", texts)
    sae = lab.sae(layer=layer, kind="mlp", width=entry.width, l0=entry.l0)
    run = lab.run(texts[0])
    peaks = run.features(layer, "mlp").dense()[1:].max(0).values
    feature = int(peaks.argmax())
    check = lab.check(sae, texts=texts)
    place = Place(layer, "mlp", cast("float", entry.l0))
    exact = [
        Reference(place, v, Band(v * 0.999, v * 1.001), feature=f, measure=cast("Any", m))
        for v, f, m in (
            (float(peaks.max()), feature, None),
            (check.fit.fvu, None, "fvu"),
            (check.fit.l0, None, "l0"),
        )
    ]
    monkeypatch.setitem(verify.REFERENCES, "pocket", tuple(exact))
    assert verify.verify("pocket", opened=lambda: lab).ok, verify.verify(
        "pocket", opened=lambda: lab
    )
    doubled = tuple(replace(r, expected=Band(2 * r.published, 3 * r.published)) for r in exact)
    monkeypatch.setitem(verify.REFERENCES, "pocket", doubled)
    found = verify.verify("pocket", opened=lambda: lab)
    assert [row.ok for row in found.rows] == [False] * 3


def test_the_command_prints_the_table_and_tells_by_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[Any] = []

    def fake(name: str, **options: Any) -> StubLab:
        opened.append((name, options))
        return StubLab(values)

    monkeypatch.setattr(cli.workbench, "open", fake)
    values: dict[Any, float] = {}
    assert cli.main(["verify"]) == 0
    whole = capsys.readouterr().out
    assert "87" in whole
    assert "FVU" in whole.split("FVU and L0")[0]
    assert cli.main(["verify", "--quick"]) == 0
    assert "2 SAEs are fetched" in (short := capsys.readouterr().out)
    assert "FVU" not in short.split("FVU and L0")[0]
    values = {PEAK: 41.0}
    options = ["--folder", "mine", "--device", "cpu", "--dtype", "float32"]
    assert cli.main(["verify", "gemma-2-2b", *options]) == 1
    assert GAIN in capsys.readouterr().out
    plain = {"suite": "gemma-2-2b", "device": None, "dtype": None}
    chosen = plain | {"device": "cpu", "dtype": torch.float32}
    assert opened == [("gemma-2-2b", plain)] * 2 + [("mine", chosen)]


def test_the_command_refuses_a_model_that_nobody_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["verify", "gpt2"])
    assert "there are for: gemma-2-2b" in capsys.readouterr().err
