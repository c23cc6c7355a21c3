"""How the documentation is built: `make docs`, or with the notebooks run, `make docs EXECUTE=1`.

Every warning is an error there. Two small modules beside this one do what is special here:
`names.py` makes single backticks into links and finds names that are gone, `pages.py` brings the
notebooks and what pages say about the code itself.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]
os.environ["WORKBENCH_DATA"] = str(ROOT / "build" / "docs-data")  # nobody's own labels on a page

_metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "sae-workbench"
author = "the sae-workbench authors"
version = release = _metadata["version"]
project_copyright = f"{author}, Apache-2.0"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "names",
    "pages",
]
exclude_patterns = ["README.md"]
nitpicky = True  # a reference that leads nowhere is a warning, and a warning is an error
default_role = "api"
suppress_warnings = ["mystnb.unknown_mime_type"]  # every output has a second form that is shown

autoclass_content = "both"  # a panel says in its constructor what it takes
autodoc_inherit_docstrings = False  # what is not ours is documented where it comes from
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# Names that say more than what they stand for; the others, such as Literal["res", ...], say it all.
autodoc_type_aliases = {
    "Edit": "workbench.engine.edits.Edit",
    "Prompt": "workbench.tokens.Prompt",
    "Texts": "workbench.index.corpus.Texts",
    "Token": "workbench.analysis.attribution.Token",
}
autodoc_default_options = {"no-value": True}
python_maximum_signature_line_length = 90
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # pages.py runs them, and keeps of a widget its static twin
nb_merge_streams = True

html_theme = "furo"
html_title = f"sae-workbench {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme_options = {"navigation_with_keys": True}
if _repository := _metadata.get("urls", {}).get("Repository"):
    html_theme_options["source_repository"] = _repository
    html_theme_options["source_branch"] = "main"
    html_theme_options["source_directory"] = ".docs/"
