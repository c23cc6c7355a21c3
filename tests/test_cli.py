"""The console command: what it prints, what it refuses, and what it asks of JupyterLab."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import pytest

import workbench
from workbench import cli, serving
from workbench.doctor import Check, Report

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The argument lists with which JupyterLab would have started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(cli, "start_jupyterlab", lambda arguments: calls.append(list(arguments)))
    return calls


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without a checkout around it, which carries two notebooks."""
    package = tmp_path / "site-packages" / "workbench"
    (package / "notebooks").mkdir(parents=True)
    for name in (cli.FIRST_NOTEBOOK, "02_second.ipynb"):
        (package / "notebooks" / name).write_text("as shipped", encoding="utf-8")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr(cli, "notebook_folder", partial(cli.notebook_folder, package=package))
    return package


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"sae-workbench {workbench.__version__}\n"


def test_python_m_workbench_is_the_same_command_and_needs_no_torch() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['workbench', '--version']\n"
        "try: runpy.run_module('workbench', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"sae-workbench {workbench.__version__}\n"


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_a_loop_unless_the_user_says_so(
    given: str | None, expected: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    source = "import os, workbench; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == expected


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "doctor" in capsys.readouterr().out


def test_an_unknown_command_names_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["docter"])
    message = capsys.readouterr().err
    assert "no command 'docter'" in message
    assert "lab, app, doctor" in message
    assert "Did you mean 'doctor'?" in message
    assert "workbench --help" in message


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["lab", "--prot", "1"])
    assert "--prot" in capsys.readouterr().err


@pytest.mark.parametrize(("fix", "status"), [(None, 0), ("buy more", 1)])
def test_doctor_prints_its_report_and_fails_on_a_problem(
    fix: str | None,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report((Check("memory", "0 GB", fix),))
    monkeypatch.setattr(cli, "doctor", lambda *, gpu: report if gpu else None)
    assert cli.main(["doctor", "--gpu"]) == status
    assert capsys.readouterr().out == f"{report}\n"


def test_lab_opens_the_first_notebook_of_an_installed_package_in_a_copy(
    installed: Path, started: list[list[str]]
) -> None:
    assert cli.main(["lab", "--port", "8899", "--no-browser"]) == 0
    (arguments,) = started
    assert f"--ServerApp.root_dir={Path.cwd()}" in arguments
    assert "--LabApp.default_url=/lab/tree/workbench-notebooks/01_first_look.ipynb" in arguments
    assert "--port=8899" in arguments
    assert "--no-browser" in arguments
    assert (Path.cwd() / cli.COPY_FOLDER / "02_second.ipynb").read_text() == "as shipped"


def test_lab_opens_a_browser_unless_told_not_to(installed: Path, started: list[list[str]]) -> None:
    cli.main(["lab"])
    assert "--no-browser" not in started[0]


def test_what_the_user_wrote_in_a_copy_stays(installed: Path) -> None:
    mine = cli.notebook_folder(package=installed) / cli.FIRST_NOTEBOOK
    mine.write_text("my own work", encoding="utf-8")
    assert cli.notebook_folder(package=installed) == mine.parent
    assert mine.read_text(encoding="utf-8") == "my own work"


def test_a_checkout_is_used_in_place(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    assert cli.notebook_folder(package=tmp_path / "workbench") == tmp_path / "notebooks"


def test_a_folder_is_filled_from_a_checkout_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / cli.FIRST_NOTEBOOK).touch()
    folder = cli.notebook_folder(tmp_path / "mine", package=tmp_path / "workbench")
    assert folder == tmp_path / "mine"
    assert (folder / cli.FIRST_NOTEBOOK).is_file()


def test_an_installation_without_notebooks_says_how_to_mend_it(installed: Path) -> None:
    shutil.rmtree(installed / "notebooks")
    with pytest.raises(cli.UsageError, match="reinstall it: python -m pip install"):
        cli.notebook_folder(package=installed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--notebook", "99_none.ipynb"], "no notebook '99_none.ipynb'.*there are: 01_first_look"),
        (["--port", "70000"], "port 70000 is out of range; give one from 0 to 65535"),
    ],
)
def test_lab_refuses_what_is_not_there(
    words: list[str],
    message: str,
    installed: Path,
    started: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["lab", *words])
    assert re.search(message, capsys.readouterr().err)
    assert started == []


def test_words_after_two_dashes_reach_jupyterlab_last(
    installed: Path, started: list[list[str]]
) -> None:
    cli.main(["lab", "--", "--ServerApp.ip=0.0.0.0"])
    assert started[0][-1] == "--ServerApp.ip=0.0.0.0"


@pytest.mark.parametrize(("user", "asked"), [(0, True), (1000, False)])
def test_root_is_allowed_where_root_is_who_runs_it(
    user: int,
    asked: bool,
    installed: Path,
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli.os, "geteuid", lambda: user, raising=False)
    cli.main(["lab"])
    assert ("--allow-root" in started[0]) is asked


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict]]:
    """Voila's arguments and the notebook with which it would have started."""
    calls: list[tuple[list[str], dict]] = []

    class Stub:
        """Reads the notebook as Voila would: while the folder is there."""

        @staticmethod
        def launch_instance(arguments: list[str]) -> None:
            calls.append((arguments, json.loads(Path(arguments[0]).read_text("utf-8"))))

    monkeypatch.setattr(serving, "installed", lambda: True)
    monkeypatch.setitem(sys.modules, "voila", types.ModuleType("voila"))
    module = types.ModuleType("voila.app")
    module.Voila = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "voila.app", module)
    monkeypatch.setenv("JUPYTER_PATH", "/elsewhere")
    return calls


def test_app_serves_this_machine_alone_and_leaves_nothing_behind(
    served: list[tuple[list[str], dict]], capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = 'it\'s a "boat"\n🚢'
    words = ["app", "--model", "pocket-it", "--prompt", prompt, "--port", "0", "--no-browser"]
    assert cli.main([*words, "--", "--debug"]) == 0
    ((arguments, notebook),) = served
    assert "--Voila.ip=127.0.0.1" in arguments
    assert "--token" not in arguments
    assert "--no-browser" in arguments
    assert arguments[-1] == "--debug"
    (port,) = (int(one.removeprefix("--port=")) for one in arguments if "--port=" in one)
    assert port > 0
    assert not Path(arguments[0]).exists()
    assert os.environ["JUPYTER_PATH"].split(os.pathsep)[1:] == ["/elsewhere"]
    source = notebook["cells"][0]["source"]
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    said = {ast.unparse(call.func): [ast.literal_eval(a) for a in call.args] for call in calls}
    assert said["wb.open"] == ["pocket-it"]
    assert said["lab.app"] == [prompt]
    assert capsys.readouterr().err == ""


def test_app_for_others_asks_for_a_token_and_warns(
    served: list[tuple[list[str], dict]], capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["app", "--ip", "0.0.0.0", "--theme", "dark"])
    arguments = served[0][0]
    assert "--token" in arguments
    assert "--theme=dark" in arguments
    assert "open to other machines" in capsys.readouterr().err


def test_the_template_of_the_page_is_where_voila_looks(tmp_path: Path) -> None:
    options = argparse.Namespace(
        model="m", suite=None, prompt="", ip="::1", port=1, theme="system", no_browser=False
    )
    found = serving.arguments(options, tmp_path, ())
    name = next(one.removeprefix("--template=") for one in found if "--template=" in one)
    assert (serving.SERVED / "voila" / "templates" / name / "index.html.j2").is_file()
    assert not any("theme" in one for one in found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r'python -m pip install "sae-workbench\[app\]"'),
        (["--port", "-1"], "port -1 is out of"),
    ],
)
def test_app_says_what_is_missing(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(serving, "installed", lambda: bool(words))
    with pytest.raises(SystemExit, match="2"):
        cli.main(["app", *words])
    assert re.search(message, capsys.readouterr().err)
