"""Colab's packages stay as they are when ours is installed beside them."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LIST = Path(__file__).with_name("constraints.txt")
THERE = {"python_version": "3.13", "python_full_version": "3.13.15", "sys_platform": "linux"}
THERE |= {"platform_system": "Linux", "platform_machine": "x86_64", "extra": ""}
NEW = {
    "nnsight",
    "async-lru",
    "json5",
    "jupyter-builder",
    "jupyter-lsp",
    "jupyterlab",
    "jupyterlab-server",
}
"""What our package adds to Colab: the tracer, and JupyterLab (20 MB) for `workbench lab`."""


def colab() -> dict[str, Version]:
    """Normalised name -> version there."""
    text = LIST.read_text(encoding="utf-8")
    lines = re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


def asked(requirements: list[str]) -> tuple[list[str], set[str]]:
    """What contradicts Colab's versions, and the names of what would be new there."""
    present, conflicts, new = colab(), [], set[str]()
    queue = [("sae-workbench", Requirement(line)) for line in requirements]
    while queue:
        by, requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate(THERE):
            continue
        if name in present:
            if not requirement.specifier.contains(present[name], prereleases=True):
                conflicts.append(f"{by} needs {requirement}, Colab has {present[name]}")
        elif name not in new:
            new.add(name)
            queue += [(name, Requirement(line)) for line in metadata.requires(name) or ()]
    return conflicts, new


def test_nothing_that_we_need_moves_a_package_of_colab() -> None:
    conflicts, new = asked(PROJECT["dependencies"])
    assert conflicts == []
    assert new == NEW


def test_colabs_python_is_supported() -> None:
    assert (
        Version(THERE["python_full_version"])
        in Requirement(f"python{PROJECT['requires-python']}").specifier
    )


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("numpy>=2.4", r"sae-workbench needs numpy>=2\.4, Colab has 2\.1\.3"),
        ("ipywidgets>=8", "ipywidgets>=8, Colab has 7"),
        ("pytest", None),
        ("torch>=99; python_version < '3.13'", None),
    ],
)
def test_a_planted_bound_is_found(planted: str, found: str | None) -> None:
    conflicts, new = asked([*PROJECT["dependencies"], planted])
    if found is None:
        assert conflicts == []
        assert ("pytest" in new) == (planted == "pytest")
    else:
        assert len(conflicts) == 1
        assert re.search(found, conflicts[0])
