"""Modules import only from those above them, and outside packages stay where they belong.

Read from the source by walking its syntax tree, so that imports inside functions count too. Those
for the type checker alone do not: an annotation needs nothing at run time.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "workbench"

ORDER = (
    "colab",
    "pocket.__init__",  # reading the manifest runs it, so it imports nothing
    "pocket.manifest",
    "doctor",
    "files",
    "architectures",
    "sites",
    "names",
    "tokens",
    "sae",
    "sources",
    "loading",
    "models",
    "scopes",
    "engine.__init__",
    "engine.site_edits",
    "engine.edits",
    "engine.live",
    "engine.program",
    "engine.binding",
    "engine.directions",
    "engine.receipts",
    "engine.surgeon",
    "engine.writing",
    "engine.tracing",
    "features",
    "figures",
    "index",
    "training",
    "analysis.__init__",  # one file a technique
    "analysis.evaluation",
    "analysis.side_by_side",
    "analysis.compare",
    "analysis.attribution",
    "analysis.faithfulness",
    "analysis.circuit",
    "analysis.circuit_edges",
    "analysis.lineage",
    "analysis.kinship",
    "analysis.births",
    "analysis.passages",
    "analysis.correlation",
    "analysis.shares",
    "analysis.lens",
    "analysis.causes",
    "analysis.evolution",
    "analysis.anatomy",
    "analysis.fluency",
    "analysis.calibration",
    "analysis.strengths",
    "analysis.noted",
    "analysis.text_features",
    "index.by_model",  # reads texts as the analyses do
    "index.searchable",
    "index.scores",
    "index.search",
    "analysis.contrast",
    "analysis.trials",
    "analysis.autosteer",
    "analysis.baselines",
    "analysis.shifts",
    "labels",
    "recipes.__init__",
    "recipes.standalone_template",
    "recipes.standalone_text",
    "recipes.standalone",
    "recipes.fields",
    "recipes.rows",
    "recipes.saes",
    "recipes.recipe",
    "recording",
    "widgets",
    "panels",
    "runs",
    "lab",
    "__init__",
    "pocket",
    "verify",
    "serving",
    "cli",
    "__main__",
)
"""Top to bottom: a module may import from those above it. A package stands for all in it."""

NNSIGHT = {"engine.tracing", "models"}
HUB = ("sae.hub.", "labels.web")  # models' and SAEs' files; language models and Neuronpedia
NETWORK = {
    "huggingface_hub",
    "requests",
    "httpx",
    "httpx2",
    "aiohttp",
    "urllib3",
    "urllib.request",
    "ftplib",
}
HEAVY = {"torch", "transformers", "nnsight"}
LATER = {"httpx", "plotly.subplots", "ray", "scipy", "sklearn", "networkx", "voila", "peft"}
"""Slow to load, and needed by none of what a first heatmap shows."""


@cache
def modules() -> dict[str, ast.Module]:
    """Name below `workbench` -> syntax tree; a package's own file is `name.__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def entry(name: str) -> str:
    """The line of `ORDER` that a module falls under: its own, or that of the nearest package."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        candidate = ".".join(parts[:length])
        if candidate in ORDER:
            return candidate
    pytest.fail(f"workbench/{name.replace('.', '/')}.py has no place in ORDER: give it one")


def file_of(dotted: str) -> str | None:
    """The module of ours that a dotted name below `workbench` leads to, if it is one."""
    return next((name for name in (dotted, f"{dotted}.__init__") if name in modules()), None)


def imported(name: str, *, inside_functions: bool = True) -> set[str]:
    """Dotted names that a module imports; `from a import b` is `a.b`, whatever `b` is."""
    names: set[str] = set()
    queue: list[ast.AST] = [modules()[name]]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            queue += node.orelse
            continue
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            queue += ast.iter_child_nodes(node)
    return names


def ours(names: set[str]) -> set[str]:
    """Those of the imported names that are modules of ours, packages on the way included."""
    found: set[str] = set()
    for dotted in names:
        top, *parts = dotted.split(".")
        if top == "workbench":
            prefixes = (".".join(parts[: i + 1]) for i in range(len(parts)))
            found |= {file for p in prefixes if (file := file_of(p))} or {"__init__"}
    return found


def outside(name: str, packages: set[str], *, inside_functions: bool = True) -> set[str]:
    """Those of `packages` that a module imports, whole or in part."""
    names = imported(name, inside_functions=inside_functions)
    return {p for p in packages for n in names if n == p or n.startswith(f"{p}.")}


def at_import(name: str) -> set[str]:
    """Our modules that are loaded when a module is: what it imports outside functions."""
    return ours(imported(name, inside_functions=False)) - {name}


def test_every_module_has_a_place() -> None:
    assert len(set(ORDER)) == len(ORDER)
    assert {entry(name) for name in modules()} >= {"__init__", "__main__", "cli", "doctor"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_those_above(name: str) -> None:
    here = ORDER.index(entry(name))
    upward = {other for other in ours(imported(name)) if ORDER.index(entry(other)) > here}
    assert not upward, f"{name} imports from below it: {sorted(upward)}"


def test_no_import_cycle() -> None:
    graph = {name: at_import(name) for name in modules()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                # A package's own file and what it gathers know each other by construction.
                if not (other.endswith("__init__") and name.startswith(other[: -len("__init__")])):
                    visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    assert done == graph.keys()


def test_nnsight_is_imported_where_models_are_made_and_traced() -> None:
    found = {name for name in modules() if outside(name, {"nnsight"})}
    assert found <= NNSIGHT, f"nnsight stays out of {sorted(found - NNSIGHT)}: its API moves"


def test_the_network_is_used_in_two_places() -> None:
    found = {name for name in modules() if outside(name, NETWORK) and not name.startswith(HUB)}
    assert not found, f"ask workbench.sae.hub or workbench.labels.web instead, in {sorted(found)}"


def test_what_a_first_heatmap_does_without_is_loaded_by_what_needs_it() -> None:
    found = {name: outside(name, LATER, inside_functions=False) for name in modules()}
    early = {name: packages for name, packages in found.items() if packages}
    assert not early, f"import it where it is used, as a first heatmap waits for it: {early}"


def test_widgets_and_figures_work_without_torch() -> None:
    for start in (name for name in modules() if entry(name) in {"widgets", "figures", "doctor"}):
        reached, queue = {start}, [start]
        while queue:
            new = ours(imported(queue.pop())) - reached
            reached |= new
            queue += new
        heavy = {name: outside(name, HEAVY) for name in reached if outside(name, HEAVY)}
        if start == "doctor":  # only when asked about the GPU
            assert heavy == {"doctor": {"torch"}}
        else:
            assert not heavy, f"{start} reaches {heavy}"


def test_the_walk_sees_every_spelling_of_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from typing import TYPE_CHECKING
import workbench as wb
import workbench.sites
if TYPE_CHECKING:
    from workbench.panels import Panel
from workbench import tokens
from workbench.sae.base import SAE
def f():
    from workbench.lab import open
    import torch.nn
"""
    trees = {name: ast.Module([], []) for name in ("__init__", "sites", "tokens", "lab")}
    trees["panels.__init__"] = ast.Module([], [])
    trees |= {"sae.__init__": ast.Module([], []), "sae.base": ast.Module([], [])}
    trees["new"] = ast.parse(source)
    monkeypatch.setattr(sys.modules[__name__], "modules", lambda: trees)
    assert ours(imported("new")) == trees.keys() - {"new", "panels.__init__"}
    assert at_import("new") == trees.keys() - {"new", "lab", "panels.__init__"}
    assert outside("new", {"torch", "sites"}) == {"torch"}
