"""What is stored: top level, notebooks, sizes, paths and hosts, widgets' files, public names."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
from pathlib import Path

import pytest

import workbench
from tests.planted_bugs.__main__ import BUGS
from workbench import widgets

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"binder", "notebooks", "tests", "workbench"}
FILES = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "environment.yml",
    "pyproject.toml",
    "requirements.lock",
}
MB = 2**20
# Written in two parts, so that this file does not hold what it looks for.
MACHINE = re.compile(
    "|".join(
        "/".join(parts)
        for parts in (
            ("", r"home/(?!jovyan)\w+", ""),
            ("", "Users", r"\w+", ""),
            ("", "root", ""),
            ("", "opt", "wheels"),
            ("", "work", r"(main|shared|steering|\.library)"),
            ("", "tmp", r"(w|bash_jobs)\b"),
        )
    )
)
REGISTRY = re.compile(
    "|".join(
        r"\.".join(parts)
        for parts in (
            ("pypi", "org"),
            ("files", "pythonhosted"),
            ("registry", "npmjs"),
            ("deb", "debian"),
            ("download", "pytorch"),
        )
    )
)
FRONT_END = ROOT / "workbench" / "widgets"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "workbench").rglob("*.py")
    if path.name != "__main__.py"
)


def tracked() -> list[Path]:
    """The files under version control that are in the work tree."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_top_level_is_as_designed() -> None:
    parts = [path.relative_to(ROOT).parts for path in tracked()]
    visible = {p for p in parts if not p[0].startswith(".")}
    assert {p[0] for p in visible if len(p) > 1} == FOLDERS
    assert {p[0] for p in visible if len(p) == 1} == FILES


def test_sizes_stay_within_bounds() -> None:
    sizes = {path: path.stat().st_size for path in tracked()}
    pocket = [size for path, size in sizes.items() if "pocket" in path.parts]
    assert sum(sizes.values()) < 60 * MB
    assert sum(pocket) < 40 * MB


@pytest.mark.parametrize("pattern", [MACHINE, REGISTRY], ids=["machine path", "registry host"])
def test_no_file_names_a_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found


def test_the_patterns_match_what_they_are_for() -> None:
    assert MACHINE.search("/".join(["", "home", "someone", "project"]))
    assert not MACHINE.search("notebooks/01_first_look.ipynb in workbench/home")
    assert REGISTRY.search(".".join(["https://pypi", "org"]))


def test_a_widget_is_python_script_and_style_side_by_side() -> None:
    named = {getattr(widgets, name) for name in widgets.__all__}
    classes = {v for v in named if inspect.isclass(v) and issubclass(v, widgets.Widget)}
    modules = {cls.__module__.rpartition(".")[2] for cls in classes - {widgets.Widget}}
    assert len(modules) >= 5
    for module in modules:
        text = (FRONT_END / f"{module}.py").read_text(encoding="utf-8")
        for end in ("js", "css"):
            files = set(re.findall(rf'"(\w+\.{end})"', text))
            assert files - {f"shared.{end}"}, module
            assert not {name for name in files if not (FRONT_END / name).is_file()}, module


def test_widgets_fetch_nothing_and_are_type_checked() -> None:
    scripts = sorted(FRONT_END.glob("*.js"))
    assert scripts
    for path in scripts:
        assert path.read_text(encoding="utf-8").startswith("// @ts-check\n"), path.name
    for path in [*scripts, *FRONT_END.glob("*.css")]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        found = re.search(r"https?://|\bfetch\(|@import|\bimport\((?!\"\./)|innerHTML", text)
        assert found is None, path.name


def exported() -> list[tuple[str, str]]:
    """Every (module, public name)."""
    named = []
    for name in MODULES:
        module = importlib.import_module(name)
        named += [(name, public) for public in getattr(module, "__all__", [])]
    return named


def test_every_module_says_what_it_is() -> None:
    modules = [importlib.import_module(name) for name in MODULES]
    assert not [module.__name__ for module in modules if not (module.__doc__ or "").strip()]


def test_every_public_name_exists_and_is_documented() -> None:
    undocumented = []
    for module, name in exported():
        value = getattr(importlib.import_module(module), name)
        explains_itself = inspect.isclass(value) or inspect.isroutine(value)
        if explains_itself and not (inspect.getdoc(value) or "").strip():
            undocumented.append(f"{module}.{name}")
    assert exported()
    assert not undocumented


def test_the_table_of_contents_is_complete() -> None:
    assert len(set(workbench.__all__)) == len(workbench.__all__)
    assert dir(workbench) == sorted(workbench.__all__)
    assert set(workbench.__all__) == {"__version__", "doctor", *workbench._HOME}
    for name in workbench.__all__:
        assert getattr(workbench, name) is not None


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no 'opne'\. It has: .*doctor"):
        workbench.opne  # noqa: B018


def test_the_readme_shows_code_within_thirty_lines() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 30
    assert "make lab" in "\n".join(lines)
    assert "make test" in "\n".join(lines)


def test_the_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    local = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert local
    assert not [target for target in local if not (ROOT / target).exists()]


def test_every_planted_bug_has_its_place() -> None:
    for bug in BUGS:
        text = (ROOT / "workbench" / bug.file).read_text(encoding="utf-8")
        assert text.count(bug.right) == 1, f"{bug.name}: {bug.right!r} in {bug.file}"
        assert all((ROOT / test.partition("::")[0]).exists() for test in bug.tests), bug.name
    assert len({bug.name for bug in BUGS}) == len(BUGS)
