"""``python -m tests.benchmarks.memory``: the memory that each tutorial takes, server and kernel.

JupyterLab is started with the environment of ``binder/start``. Each notebook runs from top to
bottom in a kernel of that server, over its websocket, as a page would run it. The figure is the
largest sum, over samples a tenth of a second apart, of the proportional set sizes (PSS: resident
memory, with pages that processes share counted once) of the server and all its kernels. Linux only.

    python -m tests.benchmarks.memory                        every notebook, against the limit
    python -m tests.benchmarks.memory 01_first_look.ipynb    one of them
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import websocket

from tests.jupyter.server import Server, jupyterlab

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
START = ROOT / "binder" / "start"
LIMIT_MB = 1000
"""What a tutorial may take: half of what Binder allows."""
PATIENCE = 300.0
"""Seconds that a cell may take."""


@dataclass
class Sampler:
    """The memory of this process's descendants, watched from a thread."""

    every: float = 0.1
    peak: int = 0
    at_peak: dict[str, int] = field(default_factory=dict)
    """Bytes of each kind of process when the sum was largest."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Sampler:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
            found = sizes()
            if sum(found.values()) > self.peak:
                self.peak, self.at_peak = sum(found.values()), found


def sizes() -> dict[str, int]:
    """Bytes of the server and of its kernels now."""
    found = {"server": 0, "kernel": 0}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            kind = "kernel" if "ipykernel_launcher" in " ".join(process.cmdline()) else "server"
            found[kind] += process.memory_full_info().pss
    return found


def start_environment(start: Path = START) -> dict[str, str]:
    """The environment in which ``binder/start`` starts what it is given."""
    said = subprocess.run([str(start), "env", "-0"], check=True, capture_output=True, text=True)
    return dict(line.split("=", 1) for line in said.stdout.split("\0") if line)


@contextmanager
def kernel(server: Server, notebook: str) -> Iterator[Any]:
    """A websocket to a new kernel of the server, which is ended afterwards."""
    session = _ask(server, "POST", "sessions", _session(notebook))
    address = server.url.replace("http", "ws", 1)
    channels = f"{address}/api/kernels/{session['kernel']['id']}/channels?token={server.token}"
    try:
        with closing(websocket.create_connection(channels, timeout=PATIENCE)) as socket:
            yield socket
    finally:
        _ask(server, "DELETE", f"sessions/{session['id']}")


def _session(notebook: str) -> dict[str, Any]:
    kind = {"name": "python3"}
    return {"path": f"notebooks/{notebook}", "name": notebook, "type": "notebook", "kernel": kind}


def _ask(server: Server, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"{server.url}/api/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"token {server.token}"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        content = reply.read()
    return json.loads(content) if content else None


def execute(socket: Any, code: str) -> None:
    """Run a cell.

    Raises:
        RuntimeError: The cell failed.
    """
    number = uuid.uuid4().hex
    header = {"msg_id": number, "msg_type": "execute_request", "username": "", "session": number}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
    while True:
        received = socket.recv()
        if isinstance(received, bytes):  # a widget's message with buffers
            continue
        reply = json.loads(received)
        if reply["parent_header"].get("msg_id") != number:
            continue
        if reply["msg_type"] == "error":
            found = reply["content"]
            raise RuntimeError(f"{found['ename']}: {found['evalue']}\nin the cell\n{code}")
        if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
            return


def code_cells(path: Path) -> list[str]:
    """The code of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def measured(path: Path, *, keep: Path | None = None) -> tuple[Sampler, float]:
    """The memory of one notebook, and the seconds that it took.

    Args:
        path: The notebook.
        keep: Where a trace of single cells is appended, as lines ``cell, MB of the kernel``.
    """
    with tempfile.TemporaryDirectory() as scratch, jupyterlab(ROOT, Path(scratch)) as server:
        urllib.request.urlopen(f"{server.document(f'notebooks/{path.name}')}", timeout=60).close()
        with Sampler() as sampler, kernel(server, path.name) as socket:
            began = time.monotonic()
            for number, code in enumerate(code_cells(path)):
                execute(socket, code)
                if keep is not None:
                    with keep.open("a", encoding="utf-8") as file:
                        file.write(f"{path.stem} {number} {sizes()['kernel'] / 1e6:.0f} {code!r}\n")
            return sampler, time.monotonic() - began


def main(argv: list[str] | None = None) -> int:
    """Print a row for each notebook; the status is 1 if one takes more than the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="names in notebooks/; all if left out")
    parser.add_argument("--limit", type=int, default=LIMIT_MB, help="MB (%(default)s)")
    parser.add_argument("--cells", type=Path, help="append the kernel's size after each cell here")
    options = parser.parse_args(argv)
    os.environ.update(start_environment())
    names = options.notebooks or sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
    failed = False
    print(f"{'notebook':32} {'peak MB':>8} {'server':>7} {'kernel':>7} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as data:
        # The tutorials' own labels and calibrations, not those of whoever measures.
        os.environ["WORKBENCH_DATA"] = data
        for name in names:
            sampler, seconds = measured(NOTEBOOKS / name, keep=options.cells)
            parts = (f"{sampler.at_peak[kind] / 1e6:7.0f}" for kind in ("server", "kernel"))
            over = sampler.peak > options.limit * 1e6
            failed |= over
            note = f"   over {options.limit}" if over else ""
            row = f"{name:32} {sampler.peak / 1e6:8.0f} {' '.join(parts)} {seconds:8.1f}{note}"
            print(row, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
