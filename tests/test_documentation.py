"""The documentation says what the code does: names exist, tables are complete, links lead on.

That it builds without a warning is a step of CI (`make docs`), as it takes a minute.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import json
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import workbench

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / ".docs"
PACKAGE = ROOT / "workbench"
FOREIGN = {
    "Error displaying widget: model not found",
    "ModuleNotFoundError: No module named 'workbench'",
    "module 'workbench' has no attribute 'open'",
    "no Chromium found",
    "make test",
    "workbench lab",
}
"""Code in the first column of the table of errors that is not raised by the package."""


def extension(name: str) -> ModuleType:
    """A module of the documentation's own, which lies in no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names = extension("names")
pages = extension("pages")


@cache
def sources() -> dict[str, ast.Module]:
    """Name of every module -> its syntax tree."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "__main__.py":
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return found


@cache
def reference() -> str:
    """All pages of the reference."""
    return "\n".join(path.read_text("utf-8") for path in sorted((DOCS / "api").glob("*.rst")))


def described(text: str) -> set[str]:
    """Full names that the directives of a page describe."""
    return set(re.findall(r"^\.\. auto\w+:: (workbench[\w.]*)$", text, re.MULTILINE))


def own_methods(cls: type) -> set[str]:
    """Public methods and properties that our own classes define."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("workbench")]
    public = {n for base in ours for n in vars(base) if not n.startswith("_")}
    return {
        name
        for name in public
        if isinstance(value := inspect.getattr_static(cls, name), property)
        or inspect.isfunction(value)
        or isinstance(value, classmethod)
    }


def errors() -> dict[str, str]:
    """Every public exception and warning class of the package -> its module."""
    found = {}
    for name, tree in sources().items():
        module = importlib.import_module(name)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                cls = getattr(module, node.name)
                if issubclass(cls, BaseException):
                    found[node.name] = name
    return found


def rows_of_errors() -> list[str]:
    """First column of every row of the table of errors."""
    lines = (DOCS / "errors.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| error")]
    return [re.split(r"(?<!\\) \| ", row[2:])[0] for row in rows]


@cache
def said() -> str:
    """Every text in the package, with a hole where a value goes in."""
    texts = []
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_every_public_name_is_in_the_reference() -> None:
    wanted = {f"workbench.{name}" for name in workbench.__all__ if name != "__version__"}
    assert wanted - described(reference()) == set()


@pytest.mark.parametrize("cls", [workbench.Lab, workbench.Run], ids=["Lab", "Run"])
def test_every_method_is_in_the_reference(cls: type) -> None:
    name = f"workbench.{cls.__name__}"
    methods = own_methods(cls)
    assert {"evolution"} <= methods
    block = re.search(rf"^\.\. autoclass:: {name}\n((?:   :.*\n)*)", reference(), re.MULTILINE)
    assert block is not None
    missing = {m for m in methods if f"{name}.{m}" not in described(reference())}
    if ":members:" in block[1]:
        excluded = re.search(r":exclude-members: (.*)", block[1])
        assert excluded is not None
        missing &= set(excluded[1].split(", "))
    assert not missing


def test_everything_that_the_reference_describes_exists() -> None:
    for name in described(reference() + (DOCS / "errors.md").read_text("utf-8")):
        names.target_of(name)


def test_nothing_is_described_twice() -> None:
    found = re.findall(r"^\.\. auto\w+:: (workbench[\w.]*)$", reference(), re.MULTILINE)
    assert sorted(found) == sorted({*found, "workbench.open_recipe"})


@pytest.mark.parametrize("module", sorted(sources()))
def test_names_in_docstrings_lead_somewhere(module: str) -> None:
    importlib.import_module(module)
    gone = []
    for line, qualname, text in names.docstrings(sources()[module]):
        for tick in names.backticks(text):
            try:
                names.read(" ".join(tick.split()), module, qualname)
            except names.UnknownNameError:
                gone.append(f"line {line}, {qualname or 'module'}: `{tick}`")
    assert not gone


def test_the_resolver_of_names_tells_names_from_code_and_from_what_is_gone() -> None:
    edits = "workbench.engine.edits"
    assert names.read("Steer", edits, "Clamp") == f"{edits}.Steer"
    assert names.read("unit", edits, "Steer.strength") is None  # a parameter
    assert names.read("(pos, d_in)", edits, "") is None
    assert names.read("lab.run", "workbench", "") == "workbench.lab.core.Core.run"
    assert names.read("wb.Site.hook_name", edits, "") == "workbench.sites.Site.hook_name"
    for gone in ("Stear", "Steer.unti", "workbench.trace", "lab.save", "wb.opne"):
        with pytest.raises(names.UnknownNameError):
            names.read(gone, edits, "Clamp")


def test_the_roles_of_the_pages_lead_somewhere() -> None:
    found = 0
    for path in sorted(DOCS.glob("*.md")):
        for target in re.findall(r"\{api\}`([^`]+)`", path.read_text("utf-8")):
            names.target_of(target)
            found += 1
    assert found > 50


def test_the_table_of_errors_has_every_class() -> None:
    known = errors()
    assert {"HubError", "WrongSiteError", "NoEffectWarning"} <= known.keys()
    text = "\n".join(rows_of_errors())
    assert not [name for name in known if f"`{name}`" not in text]


def test_the_classes_in_the_table_of_errors_exist() -> None:
    named = {n for row in rows_of_errors() for n in re.findall(r"`(\w+(?:Error|Warning))`", row)}
    assert named - vars(builtins).keys() == errors().keys()


def test_the_messages_in_the_table_of_errors_are_those_of_the_code() -> None:
    """Piece by piece, because values stand between the pieces."""
    checked = 0
    for row in rows_of_errors():
        for message in re.findall(r"`([^`]+)`", row):
            if " " not in message or message in FOREIGN or message.startswith(".reason"):
                continue
            pieces = [p.strip(" ") for p in message.split("…") if len(p.strip(" .,:;")) > 3]
            assert pieces, message
            assert not [p for p in pieces if p not in said()], message
            checked += 1
    assert checked > 30


def test_the_docs_name_every_reason_of_a_hub_error() -> None:
    hub = importlib.import_module("workbench.sae.hub.failures")
    reasons = set(re.findall(r'``"(\w+)"``', inspect.getdoc(hub.HubError) or ""))
    text = "\n".join(row for row in rows_of_errors() if "HubError" in row)
    assert len(reasons) == 10
    assert not {reason for reason in reasons if f'"{reason}"' not in text}


def test_the_modules_of_the_architecture_page_are_those_of_the_layering_test() -> None:
    rows = dict(pages.module_order())
    assert {"sites", "engine.tracing", "panels", "lab"} <= rows.keys()
    assert list(rows).index("sites") < list(rows).index("lab")
    assert all(rows.values())


def test_a_widget_and_a_figure_need_no_kernel_and_no_network_on_a_page() -> None:
    widget = {pages.WIDGET: {"model_id": "1"}, "text/html": ["<p>a ", "twin</p>"]}
    figure = {pages.PLOTLY: {"data": [{"x": ["</script>"]}], "layout": {"height": 300}}}
    cells = [
        {"cell_type": "markdown", "source": ["# A"]},
        {
            "cell_type": "code",
            "outputs": [
                {"output_type": "display_data", "data": widget, "metadata": {}},
                {"output_type": "display_data", "data": figure, "metadata": {}},
                {"output_type": "stream", "name": "stderr", "text": ["50 %"]},
                {"output_type": "stream", "name": "stdout", "text": ["kept"]},
            ],
        },
    ]
    markdown, code = pages.readable({"cells": cells})["cells"]
    assert "outputs" not in markdown
    twin, drawn, printed = code["outputs"]
    assert twin["data"] == {"text/html": '<div class="static-twin"><p>a twin</p></div>'}
    (html,) = drawn["data"].values()
    assert "300px" in html
    assert html.count("</script>") == 1
    inside = re.search(r'application/json">(.*)</script>', html)
    assert inside is not None
    assert json.loads(inside[1])["data"] == [{"x": ["</script>"]}]
    assert printed["text"] == ["kept"]


def test_every_notebook_is_a_tutorial() -> None:
    index = (DOCS / "tutorials" / "index.md").read_text("utf-8")
    assert "[0-9]*" in index
    assert not [p.name for p in (ROOT / "notebooks").glob("*.ipynb") if not p.name[0].isdigit()]


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for path in [DOCS / "index.md", DOCS / "api" / "index.rst"]:
        listed |= set(
            re.findall(r"^ *([a-z_]+(?:/index)?)$", path.read_text("utf-8"), re.MULTILINE)
        )
    written = {p.stem for p in DOCS.glob("*.md")} | {p.stem for p in (DOCS / "api").glob("*.rst")}
    assert written - {"index"} - listed == set()


def test_the_site_fetches_nothing() -> None:
    for path in (DOCS / "static").iterdir():
        text = path.read_text("utf-8")
        assert not re.search(r"https?://|@import|fetch\(", text), path.name


def test_the_peers_are_named_with_their_sources() -> None:
    text = (DOCS / "tools.md").read_text("utf-8").split("(peers)=")[1]
    entries = re.findall(r"^\*\*([^*]+)\*\* \(", text, re.MULTILINE)
    assert len(entries) >= 14
    for entry in re.split(r"^\*\*", text, flags=re.MULTILINE)[1:]:
        name = entry.partition("**")[0]
        assert "https://" in entry, name
        assert re.search(r"commit|at [0-9a-f]{7}|\d\.\d|version|\d{4}", entry), name
