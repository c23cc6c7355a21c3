"""The doctor: each row in health and in sickness, and what it must never do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from workbench import doctor as doctor_name
from workbench.doctor import Check, Report, doctor
from workbench.pocket import manifest

ROOT = Path(__file__).resolve().parents[1]
module = sys.modules["workbench.doctor"]


def put(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Replace a name of the module, which hides behind the function of the same name."""
    monkeypatch.setattr(module, name, value)


def test_the_public_name_is_the_function() -> None:
    assert doctor_name is doctor


def test_the_report_answers_every_question() -> None:
    names = [check.name for check in doctor().checks]
    assert names == [
        "python",
        "sae-workbench",
        *module.PACKAGES,
        *module.OPTIONAL,
        "widget front end",
        "pocket",
        "cores",
        "memory",
        "fits in memory",
        "disk",
        "gpu",
        "hugging face token",
    ]


def test_versions_are_those_installed() -> None:
    report = doctor()
    for name in module.PACKAGES:
        assert report[name] == Check(name, metadata.version(name))


def test_asking_does_not_import_torch() -> None:
    code = "import sys, workbench; workbench.doctor(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)


def test_a_row_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(KeyError, match="no row 'ram'; it has: memory"):
        Report((Check("memory", "1 GB"),))["ram"]


def test_a_report_is_a_value() -> None:
    report = Report((Check("a", "1"),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.checks = ()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_text_shows_each_fix_below_its_row() -> None:
    report = Report((Check("a", "1"), Check("memory", "none", "buy some")))
    assert repr(report) == (
        "ok  a       1\n!!  memory  none\n            fix: buy some\n1 problem."
    )
    assert repr(Report((Check("a", "1"),))).endswith("\nNothing to mend.")
    assert [check.name for check in report.problems] == ["memory"]


def test_the_page_treats_what_was_found_as_text() -> None:
    page = Report((Check("<b>", "<script>1</script>", "<i>&"),))._repr_html_()
    for tag in ("<b></th>", "<script>", "<i>"):
        assert tag not in page
    assert "&lt;script&gt;" in page
    assert "&lt;i&gt;&amp;" in page


def test_a_missing_package_gets_its_install_line() -> None:
    bounds = {"no-such-package": ">=2"}
    check = module._package("no_such_package", bounds)
    assert check.value == "not installed"
    assert check.fix == 'python -m pip install "no_such_package>=2"'


@pytest.mark.parametrize(("bound", "healthy"), [(">=1", True), (">=99999", False), ("<1", False)])
def test_a_version_is_held_against_its_bound(bound: str, *, healthy: bool) -> None:
    check = module._package("pytest", {"pytest": bound})
    assert (check.fix is None) is healthy
    assert check.value.startswith(metadata.version("pytest"))


def test_bounds_are_those_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.4", "huggingface_hub>=0.34", 'ruff>=1; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    assert module._bounds() == {"torch": ">=2.4", "huggingface-hub": ">=0.34"}


def test_a_checkout_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    check = module._own_version(module._bounds())
    assert check.fix is not None
    assert "pip install -e ." in check.fix


def test_an_optional_package_is_no_problem() -> None:
    check = module._optional("no_such_package", "app", "the app view")
    assert check.fix is None
    assert "optional" in check.value


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of lab extensions, as JupyterLab would look them up."""
    import jupyter_core.paths

    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda _: [str(tmp_path)])
    for name in module.EXTENSIONS:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        version = metadata.version("anywidget") if name == "anywidget" else "5.0.0"
        (folder / "package.json").write_text(f'{{"version": "{version}"}}', encoding="utf-8")
    return tmp_path


def test_the_front_end_of_this_environment_is_found() -> None:
    assert doctor()["widget front end"].fix is None


def test_a_complete_front_end_is_healthy(extensions: Path) -> None:
    assert module._front_end() == Check(
        "widget front end", f"found, anywidget {metadata.version('anywidget')}"
    )


@pytest.mark.parametrize("name", module.EXTENSIONS)
def test_a_missing_extension_names_the_package_that_brings_it(extensions: Path, name: str) -> None:
    (extensions / name / "package.json").unlink()
    check = module._front_end()
    assert name in check.value
    assert check.fix is not None
    assert check.fix.endswith(f"pip install --force-reinstall {module.EXTENSIONS[name]}")


def test_an_extension_of_another_version_is_a_problem(extensions: Path) -> None:
    (extensions / "anywidget" / "package.json").write_text('{"version": "0.0.1"}')
    check = module._front_end()
    assert "0.0.1" in check.value
    assert check.fix is not None


def test_colab_brings_its_own_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    assert module._front_end() == Check("widget front end", "Colab's own")


def shipped(monkeypatch: pytest.MonkeyPatch, folder: Path, sha256: str) -> None:
    """Let pocket's files be one, with the hash that its manifest gives."""
    (folder / "model.safetensors").write_bytes(b"weights" * 2**19)
    content = {"files": {"model.safetensors": sha256}}
    (folder / manifest.NAME).write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(manifest, "weights", lambda: folder)


def test_a_sound_model_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped(monkeypatch, tmp_path, hashlib.sha256(b"weights" * 2**19).hexdigest())
    assert module._pocket() == Check("pocket", "1 files, 4 MB, unchanged")


def test_a_damaged_model_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped(monkeypatch, tmp_path, "0" * 64)
    check = module._pocket()
    assert "model.safetensors is not the one that was shipped" in check.value
    assert check.fix is not None


def test_a_missing_model_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(manifest, "weights", lambda: tmp_path)
    assert "missing" in module._pocket().value
    assert module._pocket().fix is not None


@pytest.mark.parametrize(
    ("free", "healthy", "fits"),
    [
        (0.5, False, "pocket"),
        (4, True, "pocket"),
        (16, True, "pocket, gemma-2-2b"),
        (100, True, "pocket, gemma-2-2b, gemma-2-9b, gemma-2-27b"),
    ],
)
def test_memory(free: float, fits: str, monkeypatch: pytest.MonkeyPatch, *, healthy: bool) -> None:
    put(monkeypatch, "memory_bytes", lambda: (128 * 2**30, int(free * 2**30)))
    assert (module._memory().fix is None) is healthy
    assert module._fits().value == fits


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"memory.max": 2 * 2**20, "memory.current": 2**20, "memory.stat": 2**18}
    put(monkeypatch, "_cgroup_bytes", lambda name, key=None: limits.get(name))
    assert module.memory_bytes() == (2 * 2**20, 2**20 + 2**18)


def test_memory_without_a_limit_is_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    put(monkeypatch, "_cgroup_bytes", lambda _: None)
    assert module.memory_bytes()[0] == psutil.virtual_memory().total


def test_control_group_numbers(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("123\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 77\n")
    assert module._cgroup_bytes("memory.stat", tmp_path, key="inactive_file") == 77
    assert module._cgroup_bytes("memory.stat", tmp_path, key="none") is None
    read = [module._cgroup_bytes(n, tmp_path) for n in ("memory.max", "memory.current", "none")]
    assert read == [None, 123, None]


@pytest.mark.parametrize(("free", "healthy"), [(2**29, False), (2**33, True)])
def test_disk(free: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, healthy: bool) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda path: SimpleNamespace(free=free, path=path)
    )
    check = module._disk()
    assert (check.fix is None) is healthy
    assert str(tmp_path) in check.value


@pytest.mark.parametrize(
    ("driver", "torch_version", "value", "healthy"),
    [
        (None, "2.13.0+cpu", "none seen", True),
        ("/usr/bin/nvidia-smi", "2.13.0", "NVIDIA driver", True),
        ("/usr/bin/nvidia-smi", "2.13.0+cpu", "CPU build", False),
    ],
)
def test_a_gpu_is_told_without_torch(
    driver: str | None,
    torch_version: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    healthy: bool,
) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: driver)
    monkeypatch.setattr(module.sys, "platform", "linux")
    put(monkeypatch, "_installed", lambda _: torch_version)
    check = module._gpu_seen()
    assert value in check.value
    assert (check.fix is None) is healthy


def test_torch_is_asked_for_the_gpu_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    card = SimpleNamespace(name="Some GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    check = doctor(gpu=True)["gpu"]
    assert check.value.startswith("Some GPU, 80 GB, Some GPU, 80 GB (CUDA")
    assert check.value.endswith("; fits gemma-2-2b, gemma-2-9b, gemma-2-27b")
    assert check.fix is None


def test_a_driver_that_torch_cannot_use_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(module.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    put(monkeypatch, "_installed", lambda _: "2.13.0")
    assert "cannot use" in module._gpu_of_torch().value
    assert module._gpu_of_torch().fix is not None


def test_a_token_is_seen_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert module._token().value.startswith("none")
    assert module._token().fix is None
    (tmp_path / "token").write_text("hf_secret")
    assert module._token().value == "stored on disk"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert module._token().value == "set in the environment"
    report = doctor()
    assert "hf_secret" not in repr(report) + report._repr_html_()


def test_the_cache_folder_follows_the_hub_s_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module._cache_folder() == tmp_path / "huggingface"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert module._cache_folder() == tmp_path / "elsewhere"
