"""The four places that name dependencies agree: metadata, lock, conda environment, Binder."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT: dict[str, Requirement] = {
    canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])
}
EXTRAS = [
    Requirement(text) for lines in PROJECT["optional-dependencies"].values() for text in lines
]
FROM_CONDA = {"pytorch-cpu": "torch", "numpy": "numpy"}
ENVIRONMENTS = [ROOT / "environment.yml", ROOT / "binder" / "environment.yml"]
both_environments = pytest.mark.parametrize("path", ENVIRONMENTS, ids=["conda", "binder"])


def lock() -> dict[str, str]:
    """Normalised name -> version of every pin."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    loose = [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)]
    assert not loose, f"not an exact public version: {loose}"
    named = [pin.split("==") for pin in pins]
    assert len({canonicalize_name(name) for name, _ in named}) == len(named), "a name twice"
    return {canonicalize_name(name): version for name, version in named}


def split(path: Path) -> tuple[dict[str, Any], list[str], list[str]]:
    """An environment file, its conda lines and its pip lines."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    conda = [line for line in content["dependencies"] if isinstance(line, str)]
    pip = [
        line for part in content["dependencies"] if isinstance(part, dict) for line in part["pip"]
    ]
    return content, conda, pip


def test_the_lock_satisfies_every_bound() -> None:
    pins = lock()
    missing = [str(r) for r in [*DIRECT.values(), *EXTRAS] if canonicalize_name(r.name) not in pins]
    assert not missing
    outside = [
        f"{requirement} is locked at {pins[canonicalize_name(requirement.name)]}"
        for requirement in [*DIRECT.values(), *EXTRAS]
        if not requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    ]
    assert not outside


def test_the_lock_names_the_torch_that_the_makefile_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.search(r"^TORCH := (\S+)$", makefile, re.MULTILINE)
    assert named is not None
    assert lock()["torch"] == named[1]


def test_the_lock_brings_no_cuda() -> None:
    assert not [name for name in lock() if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_bounds_are_loose_so_that_a_hosted_notebook_keeps_its_torch_and_numpy() -> None:
    pinned = [str(r) for r in DIRECT.values() if any(s.operator == "==" for s in r.specifier)]
    assert not pinned
    for name in ("torch", "numpy"):
        assert {specifier.operator for specifier in DIRECT[name].specifier} == {">="}


@both_environments
def test_an_environment_is_complete(path: Path) -> None:
    _, conda, pip = split(path)
    names = {FROM_CONDA.get(name, name) for name in (re.split(r"[=<>]", c)[0] for c in conda)}
    names |= {canonicalize_name(Requirement(line).name) for line in pip if line[0] != "-"}
    assert names == DIRECT.keys() | {"python", "pip"}


@both_environments
def test_conda_packages_have_the_bounds_of_the_metadata(path: Path) -> None:
    _, conda, _ = split(path)
    given = [r for r in map(Requirement, (c for c in conda if ">" in c)) if r.name in FROM_CONDA]
    assert {r.name for r in given} == FROM_CONDA.keys()
    for requirement in given:
        assert requirement.specifier == DIRECT[FROM_CONDA[requirement.name]].specifier


@both_environments
def test_pip_packages_are_at_the_locked_versions(path: Path) -> None:
    pins = lock()
    _, _, pip = split(path)
    for requirement in (Requirement(line) for line in pip if line[0] != "-"):
        assert str(requirement.specifier) == f"=={pins[canonicalize_name(requirement.name)]}"


@both_environments
def test_the_conda_python_is_supported(path: Path) -> None:
    _, conda, _ = split(path)
    (python,) = [line.removeprefix("python=") for line in conda if line.startswith("python=")]
    assert Version(python) in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_binder_and_conda_agree_but_for_the_package_itself() -> None:
    here, here_conda, here_pip = split(ENVIRONMENTS[0])
    there, there_conda, there_pip = split(ENVIRONMENTS[1])
    assert here["channels"] == there["channels"]
    assert here_conda == there_conda
    assert here_pip == [*there_pip, "-e ."]


def test_binder_installs_the_package_after_the_build() -> None:
    post_build = ROOT / "binder" / "postBuild"
    text = post_build.read_text(encoding="utf-8")
    assert text.startswith("#!")
    assert "set -e" in text
    assert "pip install" in text
    assert "--no-deps --editable ." in text
    assert post_build.stat().st_mode & 0o111, "Binder runs it as a program"


def test_what_binder_pins_is_what_is_tested() -> None:
    _, _, pip = split(ENVIRONMENTS[1])
    pinned = {r.name: str(r.specifier).removeprefix("==") for r in map(Requirement, pip)}
    assert pinned
    assert {name: metadata.version(name) for name in pinned} == pinned
    for name in FROM_CONDA.values():
        assert DIRECT[name].specifier.contains(metadata.version(name), prereleases=True)


def test_binder_starts_a_session_on_one_processor_and_becomes_the_server() -> None:
    start = ROOT / "binder" / "start"
    code = (
        "import os, sys\n"
        "print(os.getpid(), os.environ['OMP_WAIT_POLICY'], os.environ['OMP_NUM_THREADS'])\n"
        "sys.exit(len(sys.argv))"
    )
    command = [str(start), sys.executable, "-c", code, "two words"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    assert said.split() == [str(process.pid), "PASSIVE", "1"]
    assert process.returncode == 2, "its words arrive, and its status is handed on"
