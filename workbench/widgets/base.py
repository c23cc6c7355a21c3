"""What every widget has: strict keywords, a visible error, a saved page, a static twin.

1. A widget is Python traits plus one ES module. `source` joins the module's parts (``shared.js``,
   perhaps ``matrix.js``, the widget's own file) into one string: the imports between them are
   dropped, because anywidget loads a single module and nothing may be fetched.
2. The constructor refuses keywords that are no trait (traitlets would swallow a typo).
3. Handlers called from the page run inside `Widget.call_handlers`: an exception is written to the
   trait ``error``, which the widget shows, because a notebook shows no output of such a callback.
4. `Widget.save_html` writes the same module with the traits as one file that opens from disk.
5. ``_repr_mimebundle_`` adds an HTML twin for viewers without a kernel. It is plain tables and
   text, escaped, since GitHub and nbviewer remove scripts and style sheets.
"""

from __future__ import annotations

import array
import base64
import html
import json
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from workbench.colab import enable_widgets
from workbench.files import write_whole

HERE = Path(__file__).parent
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[a-z_]+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) )", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/)\n", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^ +", re.MULTILINE)
_ENTRY = "export default { render };"

Handler = Callable[..., object]


def source(*names: str) -> str:
    """One ES module out of several files of this folder, in the given order.

    Comments that have lines of their own and indents stay behind: every widget on a page is sent
    its module. So no text of a script may run over several lines.

    Args:
        names: File names such as `"shared.js"`; only the last has a default export.
    """
    texts = [_COMMENT.sub("", (HERE / name).read_text(encoding="utf-8")) for name in names]
    parts = [_INDENT.sub("", _IMPORT.sub("", text)) for text in texts]
    return "\n".join([*(_EXPORT.sub("", part) for part in parts[:-1]), parts[-1]])


def style(*names: str) -> str:
    """One style sheet out of several files of this folder, in the given order."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def refuse_unknown(owner: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse names that are not allowed, and guess which one was meant.

    Args:
        owner: What takes the names, for the message.
        given: Names that were passed.
        allowed: Names that exist.

    Raises:
        TypeError: If a given name is not allowed; lists the allowed ones.
    """
    names = sorted(allowed)
    for name in given:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{owner} has no {name!r}.{guess} Allowed: {', '.join(names)}.")


def checked_records(
    owner: str, records: Sequence[Mapping[str, Any]], needed: Sequence[str], optional: Sequence[str]
) -> list[dict[str, Any]]:
    """Copies of records whose keys are checked, so that a typo is not a silent blank.

    Args:
        owner: What a record is, for the messages.
        records: Mappings with string keys.
        needed: Keys that every record must have.
        optional: Keys that a record may have.

    Raises:
        TypeError: If a key is missing or unknown.
    """
    copies = []
    for number, record in enumerate(records):
        refuse_unknown(f"{owner} {number}", record, [*needed, *optional])
        missing = [key for key in needed if key not in record]
        if missing:
            raise TypeError(f"{owner} {number} lacks {', '.join(map(repr, missing))}: {record!r}.")
        copies.append(dict(record))
    return copies


def float32_bytes(rows: Sequence[Sequence[float]]) -> bytes:
    """Row-major float32 bytes of a list of rows.

    With an array at hand, `array.astype("float32").tobytes()` does the same at once.

    >>> len(float32_bytes([[0.0, 1.5], [2.0, 0.0]]))
    16
    """
    return array.array("f", [value for row in rows for value in row]).tobytes()


def floats_of(values: bytes) -> array.array[float]:
    """The float32 numbers in a bytes trait, flat."""
    numbers = array.array("f")
    numbers.frombytes(bytes(values))
    return numbers


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A small HTML table of escaped text, readable without any style."""
    head = "".join(f'<th align="left">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def visible(token: str) -> str:
    r"""A token with its white space visible, as the widgets show it.

    >>> visible(" the\n")
    '␣the↵'
    """
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")


class Widget(anywidget.AnyWidget):
    """Creates the common part of the three widgets; not used by itself.

    Args:
        **traits: Initial values of the traits; `layout`, `tabbable` and `tooltip` as in ipywidgets.
    """

    _esm: str | Path = f"function render() {{}}\n{_ENTRY}"
    """The ES module; a subclass gives its own."""

    _css: str | Path = ""
    """The style sheet; a subclass gives its own."""

    title = traitlets.Unicode("").tag(sync=True)
    """Heading, one line."""

    subtitle = traitlets.Unicode("").tag(sync=True)
    """Second line: model, layer, what is shown."""

    code = traitlets.Unicode("").tag(sync=True)
    """Python that does the same without the widget; empty: no 'Copy as code' button."""

    error = traitlets.Unicode("").tag(sync=True)
    """Shown in the widget until dismissed; set when a handler raises."""

    def __init__(self, **traits: Any) -> None:
        refuse_unknown(type(self).__name__, traits, [*self.public_traits(), "tabbable", "tooltip"])
        enable_widgets()
        super().__init__(**traits)

    @classmethod
    def public_traits(cls) -> list[str]:
        """Names of the traits that a user may set, `layout` included."""
        inherited = {name for name in ipywidgets.DOMWidget.class_trait_names() if name != "layout"}
        return [
            name
            for name in cls.class_trait_names(sync=True)
            if name not in inherited and not name.startswith("_")
        ]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def summary(self) -> str:
        """What the widget holds, in a few words, for its repr."""
        return repr(self.title)

    def call_handlers(self, name: str, handlers: Sequence[Handler], *arguments: object) -> None:
        """Call handlers that the page asked for; show an exception instead of losing it.

        Args:
            name: What happened, for the message.
            handlers: Called in order; the first exception ends the row.
            *arguments: Passed to each.
        """
        try:
            for handler in handlers:
                handler(*arguments)
        except Exception as exception:
            self.error = describe(name, exception)

    # ------------------------------------------------------------------- without a kernel

    def static_html(self) -> str:
        """The widget as plain HTML, for viewers that run nothing."""
        return self.static_heading()

    def static_heading(self) -> str:
        """Title and subtitle as escaped HTML."""
        title = f"<p><b>{html.escape(self.title)}</b></p>" if self.title else ""
        return title + (f"<p>{html.escape(self.subtitle)}</p>" if self.subtitle else "")

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {**data, "text/html": self.static_html()}, metadata

    def save_html(self, path: str | Path, *, title: str | None = None) -> Path:
        """Write the widget as one file that opens from disk, with no network and no kernel.

        Args:
            path: File to write; replaced if it exists.
            title: Title of the page; the widget's own if None.

        Returns:
            The path of the file.
        """
        return write_whole(path, self.page(title if title is not None else self.title))

    def page(self, title: str) -> str:
        """The HTML of `save_html`."""
        return pages([self], title)

    def saved_script(self, number: int) -> str:
        """A module that draws the stored state into the page's element `widget-number`."""
        module = str(self._esm)
        if _ENTRY not in module or "</script" in module:
            raise ValueError(f"{type(self).__name__}: the module must end in {_ENTRY!r}.")
        return "\n".join(
            [
                _EXPORT.sub("", (HERE / "saved_page.js").read_text(encoding="utf-8")),
                module.replace(_ENTRY, ""),
                f'const saved = document.querySelector("#state-{number}").textContent;',
                f'const host = document.querySelector("#widget-{number}");',
                "render({ model: recordedModel(saved), el: host });",
            ]
        )

    def _saved_state(self) -> str:
        """The public traits as JSON that cannot end the script element it stands in."""
        values = {name: getattr(self, name) for name in self.public_traits() if name != "layout"}
        raw = {name: value for name, value in values.items() if isinstance(value, bytes)}
        state = {name: value for name, value in values.items() if name not in raw}
        coded = {name: base64.b64encode(value).decode("ascii") for name, value in raw.items()}
        text = json.dumps({"state": {**state, "error": "", "recorded": True}, "bytes": coded})
        return text.replace("<", "\\u003c")


def pages(widgets: Sequence[Widget], title: str) -> str:
    """Widgets, one below the other, as one HTML page that needs no network and no kernel.

    Args:
        widgets: What to draw.
        title: Title of the page.
    """
    hosts, scripts = [], []
    for number, widget in enumerate(widgets):
        twin, state = widget.static_html(), widget._saved_state()
        hosts.append(f'<div id="widget-{number}"></div>\n<noscript>{twin}</noscript>')
        scripts.append(f'<script type="application/json" id="state-{number}">{state}</script>')
        scripts.append(f'<script type="module">\n{widget.saved_script(number)}\n</script>')
    return _PAGE.format(
        title=html.escape(title or (type(widgets[0]).__name__ if widgets else "")),
        style="\n".join(dict.fromkeys(str(widget._css) for widget in widgets)),
        hosts="\n".join(hosts),
        scripts="\n".join(scripts),
    )


def describe(name: str, exception: BaseException) -> str:
    """An exception in a handler as text for the widget: what, and where it was raised.

    Args:
        name: The handler's name.
        exception: What it raised.
    """
    frames = traceback.extract_tb(exception.__traceback__)
    where = f"\n{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{name}: {type(exception).__name__}: {exception}{where}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 1200px; padding: 24px 20px; background: #fff; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14171c; color: #e8ebef; }} }}
{style}
</style>
</head>
<body>
<main>
{hosts}
</main>
{scripts}
</body>
</html>
"""
