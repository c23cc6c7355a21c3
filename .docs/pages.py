"""What the site takes from the repository: the notebooks, and the order of the modules.

Notebooks are stored without outputs. Here they are copied, or run and copied with their outputs if
WORKBENCH_DOCS_EXECUTE is set. Of a widget the static twin stays and of a Plotly figure a drawing by
the copy of plotly.js that the plotly package brings: nothing is fetched when a page is read.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TUTORIALS = HERE / "tutorials"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
FIGURE = """<div class="figure-plotly" style="height: {height}px"></div>
<script type="application/json">{figure}</script>"""


def executed(path: Path) -> dict[str, Any]:
    """A notebook with its outputs, run from top to bottom in a fresh kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    client.execute()
    return json.loads(nbformat.writes(notebook))


def readable(notebook: dict[str, Any]) -> dict[str, Any]:
    """A notebook whose outputs a page without a kernel and without a network can show."""
    for cell in notebook["cells"]:
        cell["outputs"] = [shown(output) for output in cell.get("outputs", []) if kept(output)]
        if cell["cell_type"] != "code":
            del cell["outputs"]
    return notebook


def kept(output: dict[str, Any]) -> bool:
    """Not what a terminal shows while it waits: progress bars go to stderr."""
    return output.get("name") != "stderr"


def shown(output: dict[str, Any]) -> dict[str, Any]:
    """An output in the form for a page: a widget's twin, a figure's data, or as it was."""
    data = output.get("data", {})
    if WIDGET in data and "text/html" in data:
        twin = "".join(data["text/html"])
        output["data"] = {"text/html": f'<div class="static-twin">{twin}</div>'}
    elif PLOTLY in data:
        figure = data[PLOTLY]
        height = figure.get("layout", {}).get("height", 450)
        text = json.dumps({"data": figure["data"], "layout": figure["layout"]})
        html = FIGURE.format(height=height, figure=text.replace("<", "\\u003c"))
        output["data"] = {"text/html": html}
    return output


def write_tutorials() -> None:
    """Bring every notebook under `tutorials/`, where Sphinx finds it."""
    TUTORIALS.mkdir(exist_ok=True)
    run = bool(os.environ.get("WORKBENCH_DOCS_EXECUTE"))
    wanted = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for old in {*TUTORIALS.glob("*.ipynb")} - {TUTORIALS / path.name for path in wanted}:
        old.unlink()
    for path in wanted:
        print(f"{'running' if run else 'copying'} {path.name}")
        notebook = executed(path) if run else json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(readable(notebook), ensure_ascii=False, indent=1)
        target = TUTORIALS / path.name
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def module_order() -> list[tuple[str, str]]:
    """(module, first line of its docstring) from top to bottom, as the layering test holds it."""
    tree = ast.parse((ROOT / "tests" / "test_layering.py").read_text(encoding="utf-8"))
    order = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    rows = []
    for name in order:
        path = ROOT / "workbench" / Path(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        document = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        first = document.split("\n\n")[0].replace("\n", " ")
        if not name.startswith("__") and first:
            rows.append((name.removesuffix(".__init__"), first.replace("`", "")))
    return rows


# ----------------------------------------------------------------------------- for Sphinx


def setup(app: Any) -> dict[str, bool]:
    """Register the table of modules; bring notebooks and, if one is shown, plotly.js."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class Modules(SphinxDirective):
        """``.. modules::``: every module with what it does, in the order of the imports."""

        def run(self) -> list[Any]:
            items = nodes.definition_list(classes=["modules"])
            for name, what in module_order():
                term = nodes.term("", "", nodes.literal(name, name))
                text = nodes.definition("", nodes.paragraph(what, what))
                items += nodes.definition_list_item("", term, text)
            return [items]

    app.add_directive("modules", Modules)
    app.connect("config-inited", lambda *_: write_tutorials())
    app.connect("html-page-context", _figures)
    app.connect("build-finished", _plotly)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _figures(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "figure-plotly" in context.get("body", ""):
        app.add_js_file("plotly.min.js")
        app.add_js_file("figures.js")


def _plotly(app: Any, exception: Exception | None) -> None:
    """Beside the pages that draw a figure, the script that draws it."""
    static = Path(app.outdir) / "_static"
    pages = Path(app.outdir).glob("tutorials/*.html")
    if exception is None and any("figure-plotly" in p.read_text(encoding="utf-8") for p in pages):
        import plotly

        script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
        shutil.copyfile(script, static / script.name)
