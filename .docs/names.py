"""Single backticks name things. This makes them links, and finds names that lead nowhere.

In a docstring a name in single backticks is a parameter, or something that can be reached from
where the docstring stands: an attribute of the class, a name of the module, a public name of the
package, a dotted path. What has a page becomes a link, what exists without a page stays code, and
what does not exist is a warning. Text that is no name, such as a shape, is code.

On pages the role `api` does the same, in the short forms that users write: ``lab.run``,
``run.heatmap``, ``wb.Steer``.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "workbench"
SHORT = {"wb": PACKAGE, "lab": f"{PACKAGE}.Lab", "run": f"{PACKAGE}.Run"}
"""What a first part stands for, as in the examples."""

_NAME = re.compile(r"\.?[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")
_TICKS = re.compile(r"(?<![`:])`([^`]+)`(?![`_])")


class UnknownNameError(LookupError):
    """A name that leads nowhere."""


def is_name(text: str) -> bool:
    """Whether a text in backticks is a name: identifiers with dots, perhaps with ``()``."""
    return _NAME.fullmatch(text) is not None


def walk(value: Any, parts: list[str]) -> Any:
    """Follow attributes; fields of a dataclass, annotated only, count as well.

    Raises:
        UnknownNameError: If one is missing.
    """
    for number, part in enumerate(parts):
        if inspect.isclass(value) and part in declared(value):
            value = inspect.getattr_static(value, part, None)
            if value is None or number == len(parts) - 1:
                return value
        elif part in ("save", "__nnsight__"):  # nnsight puts `save` on every object
            raise UnknownNameError(part)
        elif isinstance(value, ModuleType):
            value = member(value, part)
        else:
            try:
                value = getattr(value, part)
            except (AttributeError, ImportError):
                raise UnknownNameError(part) from None
    return value


@cache
def declared(cls: type) -> set[str]:
    """What a class and its bases define, fields and attributes set in `__init__` included."""
    found: set[str] = set()
    for base in cls.__mro__[:-1]:
        found |= {*vars(base), *getattr(base, "__annotations__", {})}
        found |= assigned(base.__module__).get(base.__qualname__, set())
    return found


@cache
def source_of(module: str) -> str:
    """The text of a module of ours."""
    return Path(sys.modules[module].__file__ or "").read_text(encoding="utf-8")


@cache
def assigned(module: str) -> dict[str, set[str]]:
    """Class -> the attributes that its methods set on ``self``, in a module of ours."""
    if not module.startswith(PACKAGE):
        return {}
    classes = re.split(r"^class (\w+)", source_of(module), flags=re.MULTILINE)[1:]
    return {
        name: set(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", body))
        for name, body in zip(classes[::2], classes[1::2], strict=True)
    }


def member(module: ModuleType, name: str) -> Any:
    """A name of a module, one of its submodules, or what it imports for the type checker only."""
    if name in vars(module):
        return vars(module)[name]
    if hasattr(module, "__path__"):
        try:
            return importlib.import_module(f"{module.__name__}.{name}")
        except ImportError:
            pass
    for home, wanted, known in type_imports(module.__name__):
        if known == name:
            found = importlib.import_module(home)
            return getattr(found, wanted) if wanted else found
    try:
        return getattr(module, name)
    except (AttributeError, ImportError):
        raise UnknownNameError(name) from None


@cache
def type_imports(module: str) -> list[tuple[str, str, str]]:
    """(module, name or "", name here) of imports of ours under ``if TYPE_CHECKING:``."""
    if not module.startswith(PACKAGE):
        return []
    found = []
    for node in ast.walk(ast.parse(source_of(module))):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for line in ast.walk(node):
                if isinstance(line, ast.ImportFrom):
                    found += [(line.module or "", a.name, a.asname or a.name) for a in line.names]
                elif isinstance(line, ast.Import):
                    found += [(a.name, "", a.asname or a.name) for a in line.names]
    return found


def starts(module: str, qualname: str) -> Iterator[Any]:
    """Where a name may begin: the object itself, the classes around it, its module, ours."""
    here = importlib.import_module(module)
    parts = qualname.split(".") if qualname else []
    for length in range(len(parts), 0, -1):
        try:
            yield walk(here, parts[:length])
        except UnknownNameError:
            continue
    yield here
    while "." in module:
        module = module.rpartition(".")[0]
        yield importlib.import_module(module)
    yield builtins


def target_of(text: str, module: str = PACKAGE, qualname: str = "") -> str:
    """The full dotted name of what a text names.

    Args:
        text: As it stands between backticks.
        module: Where it stands.
        qualname: In which class, function or method.

    Raises:
        UnknownNameError: If it names nothing.
    """
    parts = text.removesuffix("()").lstrip(".").split(".")
    if parts[0] in SHORT:
        parts = [*SHORT[parts[0]].split("."), *parts[1:]]
    if parts[0] not in (PACKAGE, "self"):
        for start in starts(module, qualname):
            try:
                return full_name(start, parts)
            except UnknownNameError:
                continue
    # `workbench.doctor` is a function and a module: what the one lacks, the other may have.
    for length in range(1, len(parts) + 1):
        try:
            return full_name(importlib.import_module(".".join(parts[:length])), parts[length:])
        except (UnknownNameError, ImportError):
            continue
    raise UnknownNameError(text)


def full_name(start: Any, parts: list[str]) -> str:
    """Where the thing that `parts` lead to was defined, as far as it knows.

    Raises:
        UnknownNameError: If they lead nowhere.
    """
    if not parts:
        home = f"{start.__module__}." if inspect.isclass(start) else ""
        return home + getattr(start, "__qualname__", getattr(start, "__name__", ""))
    value = walk(start, parts)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if home and name and (inspect.isclass(value) or inspect.isroutine(value)):
        return f"{home}.{name}"
    owner = full_name(start, parts[:-1])
    return f"{owner}.{parts[-1]}"


def parameters(module: str, qualname: str) -> set[str]:
    """Names of the parameters of a function or of a class's constructor, and of those around it."""
    found: set[str] = set()
    for start in starts(module, qualname):
        if isinstance(start, ModuleType):
            break
        value = start.fget if isinstance(start, property) else start
        value = getattr(value, "__func__", value)
        try:
            found |= set(inspect.signature(value).parameters)
        except (TypeError, ValueError):
            continue
    return found


def read(text: str, module: str, qualname: str) -> str | None:
    """The full name behind a text in single backticks, or None if it is code.

    Raises:
        UnknownNameError: If it is a name that leads nowhere.
    """
    if not is_name(text):
        return None
    if text in parameters(module, qualname):
        return None
    return target_of(text, module, qualname)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, qualified name, text) of every docstring, those below assignments included."""
    queue: list[tuple[Any, str]] = [(tree, "")]
    while queue:
        node, qualname = queue.pop()
        if text := ast.get_docstring(node):
            yield getattr(node, "lineno", 1), qualname, text
        for before, after in pairwise(node.body):
            known = isinstance(before, ast.Assign | ast.AnnAssign)
            if known and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                target = before.target if isinstance(before, ast.AnnAssign) else before.targets[0]
                name = f"{qualname}.{ast.unparse(target)}".lstrip(".")
                yield after.lineno, name, inspect.cleandoc(str(after.value.value))
        inner = [n for n in node.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        queue += [(n, f"{qualname}.{n.name}".lstrip(".")) for n in inner]


def backticks(docstring: str) -> list[str]:
    """The texts in single backticks, ``code`` left out."""
    return [text.group(1) for text in _TICKS.finditer(_without_code(docstring))]


def _without_code(docstring: str) -> str:
    return re.sub(r"``.*?``", lambda m: "\0" * len(m.group()), docstring, flags=re.DOTALL)


# ----------------------------------------------------------------------------- for Sphinx


def setup(app: Any) -> dict[str, bool]:
    """Register the role and the handlers."""
    from sphinx.util.docutils import SphinxRole

    class Api(SphinxRole):
        """``:api:`name```, or ``:api:`text <full.name>``` out of a docstring."""

        def run(self) -> tuple[list[Any], list[Any]]:
            title, _, full = self.text.partition(" <")
            try:
                target = full.rstrip(">") or target_of(title)
            except UnknownNameError:
                where = self.inliner.reporter
                return [], [where.warning(f"{title!r} names nothing", line=self.lineno)]
            return [_link(title, target, self.env.docname)], []

    app.add_role("api", Api())
    app.connect("autodoc-process-docstring", _docstring, priority=100)  # before napoleon
    app.connect("missing-reference", _missing)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _link(title: str, target: str, docname: str) -> Any:
    from docutils import nodes
    from sphinx.addnodes import pending_xref

    text = nodes.literal(title, title, classes=["xref", "py", "py-obj"])
    return pending_xref(
        "", text, refdomain="py", reftype="obj", reftarget=target, refdoc=docname, refexplicit=True
    )


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    from sphinx.util import logging

    module, qualname = _place(name)
    text = "\n".join(lines)
    pieces, done = [], 0
    for found in _TICKS.finditer(_without_code(text)):
        inner = " ".join(found.group(1).split())
        try:
            target = read(inner, module, qualname)
        except UnknownNameError:
            target = None
            logging.getLogger(__name__).warning("%s: `%s` names nothing", name, inner)
        new = f":api:`{inner} <{target}>`" if target else f"``{inner}``"
        pieces += [text[done : found.start()], new]
        done = found.end()
        if text[done : done + 1].isalnum():  # as in `Path`s
            pieces.append("\\ ")
    lines[:] = "".join([*pieces, text[done:]]).split("\n")


def _place(name: str) -> tuple[str, str]:
    """Module and qualified name where a documented name was defined."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        rest = parts[length:]
        break
    module = ".".join(parts[:length])
    owner, own = module, ".".join(rest)
    try:
        value = walk(sys.modules[module], rest) if rest else None
    except UnknownNameError:
        return owner, own
    value = value.fget if isinstance(value, property) else value
    value = getattr(value, "__func__", value)
    if str(getattr(value, "__module__", "")).startswith(PACKAGE) and hasattr(value, "__qualname__"):
        return value.__module__, value.__qualname__
    if len(rest) > 1:  # a field: where its class is
        inner, qualname = _place(".".join(parts[:-1]))
        return inner, f"{qualname}.{rest[-1]}"
    return owner, own


def _missing(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """A reference by another name than the documented one, or to what has no page."""
    from sphinx.util.nodes import make_refnode

    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    module = node.get("py:module") or PACKAGE
    try:
        full = target_of(target, module if module in sys.modules else PACKAGE)
    except UnknownNameError:
        return _in_any_module(target) and contnode
    entry = documented(env).get(full)
    if entry is None or not full.startswith(PACKAGE):
        return contnode
    docname, anchor = entry
    return make_refnode(app.builder, node["refdoc"], docname, anchor, contnode, target)


def _in_any_module(name: str) -> bool:
    """Whether an annotation's name is known to a module of ours: autodoc does not say which."""
    for module in [m for key, m in sys.modules.items() if key.startswith(PACKAGE)]:
        typed = {known for *_, known in type_imports(module.__name__)}
        if name in vars(module) or name in typed:
            return True
    return False


_documented: dict[str, tuple[str, str]] = {}


def documented(env: Any) -> dict[str, tuple[str, str]]:
    """Full name -> (page, anchor) of everything in the reference."""
    if not _documented:
        for name, entry in env.domains["py"].objects.items():
            try:
                full = target_of(name)
            except UnknownNameError:
                full = name
            _documented.setdefault(full, (entry.docname, entry.node_id))
            _documented.setdefault(name, (entry.docname, entry.node_id))
    return _documented


def _skip(app: Any, what: str, name: str, obj: Any, skip: object, options: Any) -> bool | None:
    """Leave out the method ``save`` that nnsight gives every object, and keep our own."""
    if name == "save" and getattr(obj, "__module__", PACKAGE).split(".")[0] != PACKAGE:
        return True
    return None
