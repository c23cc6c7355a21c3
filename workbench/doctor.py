"""What is installed, what fits this machine, and what to do about each problem.

`doctor` asks one question a row: the interpreter, the version of each package against the bounds
in this distribution's own metadata, JupyterLab's widget extensions, the shipped model, cores,
memory, disk, GPU, the Hugging Face token (whether there is one, never what it is). Nothing here
imports torch unless the GPU is asked about: a version is in the package's metadata, and a doctor
must be able to speak where torch cannot be imported.
"""

from __future__ import annotations

import html
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from workbench.colab import in_colab

__all__ = ["Check", "Report", "doctor"]

DISTRIBUTION = "sae-workbench"
GIB = 2**30
PACKAGES = (
    "torch",
    "transformers",
    "nnsight",
    "huggingface_hub",
    "safetensors",
    "numpy",
    "pandas",
    "plotly",
    "anywidget",
    "ipywidgets",
    "ipykernel",
    "jupyterlab",
)
OPTIONAL = {"voila": ("app", "workbench app")}
EXTENSIONS = {
    "@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets",
    "anywidget": "anywidget",
}
"""JupyterLab extension -> the distribution that brings it."""

MODEL_SIZES = {"gemma-2-2b": 2.61e9, "gemma-2-9b": 9.24e9, "gemma-2-27b": 27.23e9}
"""Parameters of each Gemma 2 (model cards, June 2024), at 2 bytes each in bfloat16."""
FILL = 0.85
"""Share of a GPU's memory that weights may take, so that a prompt and some SAEs have room."""
PACKED = 1.15
"""Bytes a parameter where linear layers are in 8 bits: the embedding stays in bfloat16."""


@dataclass(frozen=True)
class Check:
    """One row of the report."""

    name: str
    """What was looked at."""
    value: str
    """What was found."""
    fix: str | None = None
    """What to do about it, in one line; None where nothing is wrong."""


@dataclass(frozen=True, repr=False)
class Report:
    """What `doctor` found: a table in the terminal and in a notebook."""

    checks: tuple[Check, ...]
    """The rows, in the order they were asked."""

    @property
    def problems(self) -> tuple[Check, ...]:
        """The rows that ask for something to be done."""
        return tuple(check for check in self.checks if check.fix is not None)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        names = ", ".join(check.name for check in self.checks)
        msg = f"the report has no row {name!r}; it has: {names}."
        raise KeyError(msg)

    def __repr__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        lines = []
        for check in self.checks:
            mark = "ok " if check.fix is None else "!! "
            lines.append(f"{mark} {check.name:<{width}}  {check.value}")
            if check.fix is not None:
                lines.append(f"    {'':<{width}}  fix: {check.fix}")
        return "\n".join([*lines, self._verdict()])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'ok' if check.fix is None else '&#9888;'}</td>"
            f"<th scope='row' style='text-align:left'>{html.escape(check.name)}</th>"
            f"<td style='text-align:left'>{html.escape(check.value)}"
            + (f"<br><b>fix:</b> {html.escape(check.fix)}" if check.fix else "")
            + "</td></tr>"
            for check in self.checks
        )
        return f"<table><caption>{html.escape(self._verdict())}</caption>{rows}</table>"

    def _verdict(self) -> str:
        count = len(self.problems)
        if count == 0:
            return "Nothing to mend."
        return "1 problem." if count == 1 else f"{count} problems."


def doctor(*, gpu: bool = False) -> Report:
    """Look at this installation and this machine.

    Args:
        gpu: import torch and ask what it can use; otherwise the row tells what can be seen without.

    Returns:
        The rows, each problem with one line that mends it.

    Examples:
        >>> report = doctor()
        >>> report["python"].fix is None
        True
    """
    return Report(tuple(_checks(gpu=gpu)))


def _checks(*, gpu: bool) -> Iterator[Check]:
    yield _python()
    bounds = _bounds()
    yield _own_version(bounds)
    for name in PACKAGES:
        yield _package(name, bounds)
    for name, (extra, purpose) in OPTIONAL.items():
        yield _optional(name, extra, purpose)
    yield _front_end()
    yield _pocket()
    yield _cores()
    yield _memory()
    yield _fits()
    yield _disk()
    yield _gpu_of_torch() if gpu or "torch" in sys.modules else _gpu_seen()
    yield _token()


def _python() -> Check:
    value = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    return Check("python", value)


def _bounds() -> dict[str, str]:
    """Normalised name -> version specifier; empty where the distribution is not installed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(found.name): str(found.specifier)
        for found in requirements
        if found.marker is None
    }


def _own_version(bounds: dict[str, str]) -> Check:
    if bounds:
        return Check(DISTRIBUTION, metadata.version(DISTRIBUTION))
    return Check(
        DISTRIBUTION, "a checkout, not installed", "in its folder: python -m pip install -e ."
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _package(name: str, bounds: dict[str, str]) -> Check:
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    bound = bounds.get(canonicalize_name(name), "")
    install = f'python -m pip install "{name}{bound}"'
    found = _installed(name)
    if found is None:
        return Check(name, "not installed", install)
    if not SpecifierSet(bound).contains(found, prereleases=True):
        return Check(name, f"{found}, but {bound} is needed", install)
    return Check(name, found)


def _optional(name: str, extra: str, purpose: str) -> Check:
    found = _installed(name)
    return Check(name, found or f"not installed (optional: {purpose}, extra {extra!r})")


def _front_end() -> Check:
    """Whether the JupyterLab of this environment can draw widgets."""
    if in_colab():
        return Check("widget front end", "Colab's own")
    for extension, distribution in EXTENSIONS.items():
        mend = f"where JupyterLab runs: python -m pip install --force-reinstall {distribution}"
        front = _extension_version(extension)
        if front is None:
            return Check("widget front end", f"extension {extension} not found", mend)
        back = _installed(distribution)
        # anywidget numbers its extension like its package; the other has numbers of its own.
        if extension == "anywidget" and front != back:
            return Check("widget front end", f"anywidget {front} beside package {back}", mend)
    return Check("widget front end", f"found, anywidget {_installed('anywidget')}")


def _extension_version(extension: str) -> str | None:
    """The version of a JupyterLab extension, or None where JupyterLab would not find it."""
    from jupyter_core import paths

    for folder in paths.jupyter_path("labextensions"):
        path = Path(folder) / extension / "package.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))["version"]
    return None


def _pocket() -> Check:
    """Whether the shipped model's files are all there and unchanged."""
    mend = f"python -m pip install --force-reinstall --no-deps {DISTRIBUTION}"
    if (Path(__file__).parents[1] / ".git").exists():
        mend = "git checkout -- workbench/pocket"
    from workbench.pocket import manifest

    try:
        manifest.verify()
        files = manifest.read()["files"]
    except (OSError, ValueError) as error:
        return Check("pocket", f"{error}", mend)
    size = sum((manifest.weights() / name).stat().st_size for name in files)
    return Check("pocket", f"{len(files)} files, {size / 2**20:.0f} MB, unchanged")


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("cores", str(usable))


def free_bytes(device: object) -> int:
    """Free bytes of the memory that a torch device uses."""
    import torch

    if torch.device(str(device)).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(str(device)))[0]
    return memory_bytes()[1]


def memory_bytes() -> tuple[int, int]:
    """Total and available bytes, where a container's limit counts and not the host's memory."""
    import psutil

    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and limit < total:
        total = limit
        # Pages of files that nobody uses are given back at need: a fresh download is not memory.
        cached = _cgroup_bytes("memory.stat", key="inactive_file") or 0
        available = min(available, limit - (used or 0) + cached)
    return total, max(available, 0)


def _cgroup_bytes(
    name: str, root: Path = Path("/sys/fs/cgroup"), *, key: str | None = None
) -> int | None:
    """A number of control group v2, or of `key` in one of its tables; None for no limit ("max")."""
    try:
        text = (root / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    if key is not None:
        text = dict(line.split(" ", 1) for line in text.splitlines()).get(key, "")
    return int(text) if text.isdigit() else None


def _memory() -> Check:
    total, available = memory_bytes()
    value = f"{available / GIB:.1f} GB free of {total / GIB:.1f} GB"
    if available < GIB:
        return Check("memory", value, "close other notebooks and programs: pocket wants 1 GB")
    return Check("memory", value)


def _fits() -> Check:
    """Which models this machine's memory holds, weights in bfloat16 and 1 GB beside them."""
    _, available = memory_bytes()
    fitting = [name for name, size in MODEL_SIZES.items() if 2 * size + GIB < available]
    return Check("fits in memory", ", ".join(["pocket", *fitting]))


def _cache_folder() -> Path:
    """Hugging Face's cache, by its own rules of precedence."""
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "huggingface"


def _disk() -> Check:
    folder = _cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    value = f"{free / GIB:.1f} GB free for downloads in {folder}"
    if free < GIB:
        return Check("disk", value, "free some space, or set HF_HOME to a folder on a larger disk")
    return Check("disk", value)


def _gpu_seen() -> Check:
    """What can be told of a GPU without torch."""
    torch_version = _installed("torch") or ""
    if shutil.which("nvidia-smi"):
        if torch_version.endswith("+cpu"):
            return Check(
                "gpu",
                "an NVIDIA driver, but torch is a CPU build",
                "install a CUDA build of torch: pytorch.org/get-started/locally",
            )
        return Check("gpu", "an NVIDIA driver (doctor(gpu=True) asks torch)")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Check("gpu", "Apple silicon (doctor(gpu=True) asks torch)")
    return Check("gpu", "none seen: models run on the CPU")


def _gpu_of_torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("gpu", f"torch cannot be imported: {error}", "python -m pip install torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        value = ", ".join(f"{gpu.name}, {gpu.total_memory / GIB:.0f} GB" for gpu in names)
        value += f" (CUDA {torch.version.cuda})"
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Check("gpu", "; ".join([value, *_fits_gpu(names[0].total_memory, native=native)]))
    if torch.backends.mps.is_available():
        return Check("gpu", "Apple silicon (MPS)")
    seen = _gpu_seen()
    if shutil.which("nvidia-smi") and seen.fix is None:
        return Check(
            "gpu",
            f"an NVIDIA driver that torch {torch.__version__} cannot use",
            "install the torch build for your driver: pytorch.org/get-started/locally",
        )
    return seen


def _fits_gpu(total: int, *, native: bool) -> Iterator[str]:
    """Which models the memory of a GPU holds, and how they compute there.

    Args:
        total: Its bytes.
        native: Whether it computes in bfloat16. Those before compute capability 8.0, such as the T4
            of Colab (7.5, 14.6 GiB), do not: torch emulates it, slower than float32
            (pytorch/pytorch pull request 148322; 1.85 times in kubeedge/ianvs issue 888).
    """
    if not native:
        yield "no bfloat16 arithmetic, so models open in float32 where they fit"
    plain = [
        name for name, size in MODEL_SIZES.items() if (2 if native else 4) * size < FILL * total
    ]
    packed = [name for name, size in MODEL_SIZES.items() if PACKED * size < FILL * total]
    if plain:
        yield f"fits {', '.join(plain)}"
    if more := [name for name in packed if name not in plain]:
        yield f"with quantization='8bit' also {', '.join(more)}"


def _token() -> Check:
    """Whether a Hugging Face token is set; its value is neither kept nor shown."""
    path = Path(os.environ.get("HF_TOKEN_PATH") or _cache_folder() / "token").expanduser()
    if any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return Check("hugging face token", "set in the environment")
    if path.is_file() and path.stat().st_size > 0:
        return Check("hugging face token", "stored on disk")
    if in_colab():
        # Not asked for here: Colab then asks the user, and waits.
        return Check("hugging face token", "Colab's secret HF_TOKEN, if there is one")
    return Check("hugging face token", "none (only gated weights such as Gemma's need one)")
