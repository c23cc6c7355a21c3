"""JupyterLab or Notebook 7 on a free port of the loopback, with a configuration of its own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FOLDERS = (
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "IPYTHONDIR",
)
SETTINGS = {
    # A toast about news covers the page, and off-screen cells are not drawn by default.
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
ARGUMENTS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)
APPLICATIONS = {
    "jupyterlab": ("--LabApp.expose_app_in_browser=True", "doc/tree"),
    "notebook": ("--JupyterNotebookApp.expose_app_in_browser=True", "notebooks"),
}
"""Module -> what lets a test ask the page, and where it shows one notebook."""


@dataclass(frozen=True)
class Server:
    """A running application."""

    url: str
    token: str
    application: str = "jupyterlab"

    def document(self, name: str) -> str:
        """Address of a notebook in single-document mode."""
        place = APPLICATIONS[self.application][1]
        return f"{self.url}/{place}/{name}?token={self.token}&reset"


@contextmanager
def jupyterlab(
    root: Path, scratch: Path, *, theme: str = "light", application: str = "jupyterlab"
) -> Iterator[Server]:
    """Serve the folder `root`; `scratch` takes configuration and log."""
    environment = dict(os.environ, PYDEVD_DISABLE_FILE_VALIDATION="1")
    for name in FOLDERS:
        environment[name] = str(scratch / name.lower())
        (scratch / name.lower()).mkdir(parents=True, exist_ok=True)
    themes = {"@jupyterlab/apputils-extension/themes": {"theme": f"JupyterLab {theme.title()}"}}
    for plugin, value in (SETTINGS | themes).items():
        path = scratch / "jupyterlab_settings_dir" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    command = [
        sys.executable, "-m", application, *ARGUMENTS, APPLICATIONS[application][0],
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
    ]  # fmt: skip
    with (scratch / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}/api?token={token}", process, scratch / "server.log")
            yield Server(f"http://127.0.0.1:{port}", token, application)
        finally:
            _stop(process)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(
                f"JupyterLab ended with {process.returncode}:\n{log.read_text()[-2000:]}"
            )
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise TimeoutError(f"JupyterLab did not answer within {seconds} s:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its kernels, which share its process group."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
