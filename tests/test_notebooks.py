"""The tutorials: how they are stored, and the form that all of them share.

That they run is tested elsewhere: ``pytest`` executes every notebook, and ``python -m
tests.stand_in`` does so with the name of the 2B model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MB = 2**20
WANTED = (
    "01_first_look",
    "02_features",
    "03_evolution",
    "04_steering",
    "05_gemma_scope",
    "06_labels",
    "07_train_an_sae",
    "08_your_own",
)

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(c["source"]) for c in read(path)["cells"] if c["cell_type"] == kind]


def code(path: Path) -> list[str]:
    """Code cells, without the one that installs on a hosted notebook."""
    return [source for source in cells(path, "code") if "google.colab" not in source]


def test_all_tutorials_are_there() -> None:
    assert tuple(path.stem for path in NOTEBOOKS) == WANTED


@each
def test_stored_without_outputs(path: Path) -> None:
    for cell in read(path)["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@each
def test_the_kernel_is_a_neutral_one(path: Path) -> None:
    metadata = read(path)["metadata"]
    kernel = metadata["kernelspec"]
    assert (kernel["name"], kernel["display_name"]) == ("python3", "Python 3")
    assert "widgets" not in metadata
    assert "version" not in metadata.get("language_info", {})


@each
def test_small(path: Path) -> None:
    assert path.stat().st_size < MB


@each
def test_it_begins_with_what_one_will_learn(path: Path) -> None:
    first = read(path)["cells"][0]
    assert first["cell_type"] == "markdown"
    text = "".join(first["source"])
    assert text.startswith("# ")
    assert re.search(r"you will\b.*\n\n(- .+\n){3,}", text, re.IGNORECASE)


@each
def test_one_word_says_which_model(path: Path) -> None:
    sources = code(path)
    assert sum(source.count('MODEL = "pocket"') for source in sources) == 1
    assert 'MODEL = "pocket"' in sources[0]
    opened = re.findall(r"wb\.open\(([^,)]*)", "\n".join(sources))
    assert opened
    assert not [one for one in opened if one.startswith(('"', "'")) or not one]


@each
def test_code_is_short_and_explained(path: Path) -> None:
    sources, texts = code(path), cells(path, "markdown")
    lines = [sum(bool(line.strip()) for line in source.splitlines()) for source in sources]
    assert median(lines) <= 5
    assert max(lines) <= 18
    assert 0.9 <= len(texts) / len(sources) <= 1.6


@each
def test_it_says_what_to_notice_and_whose_idea_it_was(path: Path) -> None:
    text = "\n".join(cells(path, "markdown"))
    assert text.count("**What to notice.**") >= 3
    assert re.search(r"\((?:[^()]|\([^()]*\))* (?:et al\.? )?20[12]\d|arXiv \d{4}\.\d{5}", text)


@each
def test_it_ends_with_an_exercise_whose_answer_is_folded(path: Path) -> None:
    last = read(path)["cells"][-1]
    assert last["cell_type"] == "markdown"
    text = "".join(last["source"])
    assert text.startswith("## Your turn\n")
    folded = re.search(
        r"<details><summary>Answer</summary>\n\n(.+)</details>\s*\Z", text, re.DOTALL
    )
    assert folded
    answer = re.search(r"```python\n(.+?)```", folded[1], re.DOTALL)
    assert answer
    compile(answer[1], "answer", "exec")
