"""Fetching from the hub, with everything that goes wrong on the way.

After each fault the cache is inspected: no file that is not what its hash says or that fails the
check, no link that leads nowhere, and what was valid before is there as it was.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from sae.hub_server import Hub, close_connections, connect, environment

from workbench.sae.gemma_scope import check_params, load_sae
from workbench.sae.hub import (
    HubError,
    RangeFile,
    cached,
    check_access,
    failures,
    fetch,
    fetch_folder,
    listing,
    ranges,
)
from workbench.sae.hub.source import Source

REPO = "google/gemma-scope-2b-pt-res"
PATH = "layer_20/width_4k/average_l0_71/params.npz"
OTHER = "layer_20/width_4k/average_l0_9/params.npz"
GATED = "google/gemma-2-2b"
TOKEN = "hf_ofNobodyAtAll"
D_IN, D_SAE = 16, 4096


def params(seed: int = 0, **changes: Any) -> bytes:
    """A `params.npz` as numpy writes it, about half a megabyte."""
    rng = np.random.default_rng(seed)
    arrays = {
        "W_enc": rng.normal(size=(D_IN, D_SAE)),
        "W_dec": rng.normal(size=(D_SAE, D_IN)),
        "b_enc": rng.normal(size=D_SAE),
        "b_dec": rng.normal(size=D_IN),
        "threshold": rng.uniform(0.1, 1, size=D_SAE),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{k: v.astype("f4") for k, v in (arrays | changes).items()})  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


CONTENT = params()
SIZE = len(CONTENT)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        server.put(REPO, PATH, CONTENT)
        server.put(REPO, OTHER, params(1))
        server.put(REPO, "README.md", b"# facts\n", lfs=False)
        server.put(GATED, "config.json", b"{}", lfs=False)
        server.gated.add(GATED)
        yield server
        close_connections()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, noted and not made."""
    made: list[float] = []
    monkeypatch.setattr(failures, "sleep", made.append)
    return made


@pytest.fixture
def cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits) -> Path:
    return connect(hub, tmp_path / "home", monkeypatch)


def refused(reason: str, *words: str, path: str = PATH, **options: Any) -> str:
    """The message of a fetch that fails for this reason, holding these words and no secret."""
    with pytest.raises(HubError) as caught:
        fetch(options.pop("repo", REPO), path, check=check_params, **options)
    message = str(caught.value)
    assert caught.value.reason == reason, message
    for word in words:
        assert word in message, message
    shown = "".join(traceback.format_exception(caught.value))
    assert TOKEN not in shown
    assert "signed-" not in shown, "the storage's address opens the file to everybody"
    return message


def entries(cache: Path) -> dict[str, Path]:
    """Files of all snapshots by path, after a look at the whole cache."""
    for blob in cache.glob("models--*/blobs/*"):
        if not blob.name.endswith(".incomplete"):
            content = blob.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            assert blob.name in (hashlib.sha256(content).hexdigest(), git), "a corrupt blob"
    found = {}
    for path in cache.glob("models--*/snapshots/**/*"):
        assert path.exists(), f"{path} leads nowhere"
        if path.is_file():
            if path.suffix == ".npz":
                check_params(path)
            found["/".join(path.relative_to(cache).parts[3:])] = path
    return found


def partial(cache: Path) -> int:
    """Bytes of partial files."""
    return sum(p.stat().st_size for p in cache.glob("models--*/blobs/*.incomplete"))


def test_a_file_is_fetched_once_and_opens(hub: Hub, cache: Path) -> None:
    path = fetch(REPO, PATH, check=check_params)
    assert path.read_bytes() == CONTENT
    assert path == cached(REPO, PATH) == entries(cache)[PATH]
    assert path.parts[-5:-1] == (hub.commit, *PATH.split("/")[:-1])
    assert load_sae(path).W_enc.shape == (D_IN, D_SAE)
    asked = len(hub.asked)
    assert fetch(REPO, PATH, check=lambda _: pytest.fail("checked again")) == path
    assert len(hub.asked) == asked
    assert hub.served(PATH) == SIZE
    assert partial(cache) == 0


def test_progress_is_shown(hub: Hub, cache: Path, capsys) -> None:
    fetch(REPO, PATH)
    shown = capsys.readouterr().err
    assert "params.npz: 100%" in shown
    assert f"{SIZE / 1000:.0f}k/{SIZE / 1000:.0f}k" in shown


def test_huggingface_hub_finds_what_was_fetched_and_the_other_way_round(
    hub: Hub, cache: Path
) -> None:
    from huggingface_hub import hf_hub_download

    path = fetch(REPO, PATH)
    assert hf_hub_download(REPO, PATH, local_files_only=True) == str(path)
    found = hf_hub_download(REPO, "README.md")
    asked = len(hub.asked)
    assert fetch(REPO, "README.md") == Path(found)
    assert len(hub.asked) == asked


def test_a_small_file_comes_from_the_hub_itself(hub: Hub, cache: Path) -> None:
    assert fetch(REPO, "README.md").read_bytes() == b"# facts\n"
    assert not hub.requests("storage")
    assert list(entries(cache)) == ["README.md"]


def test_the_token_goes_to_the_hub_and_not_to_the_storage(
    hub: Hub, cache: Path, monkeypatch
) -> None:
    hub.tokens[TOKEN] = set()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(REPO, PATH)
    assert all(one.authorized for one in hub.requests("hub", "HEAD"))
    assert [one.authorized for one in hub.requests("storage")] == [False]


def test_401_without_a_token_names_the_page_and_the_command(hub: Hub, cache: Path) -> None:
    message = refused("token", "there is no token", "hf auth login", repo=GATED, path="config.json")
    assert f"{hub.url}/{GATED}" in message
    assert not entries(cache)
    assert not hub.requests("hub")


def test_401_with_a_token_that_is_not_valid(hub: Hub, cache: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused("token", "does not accept the token", "hf auth login")
    assert not entries(cache)


def test_403_names_the_page_where_the_licence_is(hub: Hub, cache: Path, monkeypatch) -> None:
    hub.tokens[TOKEN] = set()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused("access", f"{hub.url}/{GATED}", "accept it", repo=GATED, path="config.json")
    with pytest.raises(HubError, match="has not accepted"):
        check_access(GATED)
    hub.tokens[TOKEN].add(GATED)
    check_access(GATED)
    assert not hub.requests("hub"), "asking downloads nothing"
    assert fetch(GATED, "config.json").read_bytes() == b"{}"


def test_403_of_a_token_without_the_right(hub: Hub, cache: Path, waits) -> None:
    hub.fault(PATH, where="hub", status=403)
    refused("access", "may not read it (403)")
    assert not waits
    assert not entries(cache)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_404_of_a_repository(hub: Hub, cache: Path, monkeypatch, token) -> None:
    if token:
        hub.tokens[token] = set()
        monkeypatch.setenv("HF_TOKEN", token)
    refused("missing", f"no repository {hub.url}/google/nothing", repo="google/nothing")
    assert not entries(cache)


def test_404_of_a_file_names_the_nearest(hub: Hub, cache: Path) -> None:
    fetch(REPO, OTHER)
    message = refused("missing", "(404)", path=PATH.replace("l0_71", "l0_72"))
    assert "layer_20/width_4k/average_l0_71, layer_20/width_4k/average_l0_9" in message
    assert "layer_20" in refused("missing", path="layer_99/width_4k/x/params.npz")
    assert list(entries(cache)) == [OTHER]


def test_404_of_a_revision(hub: Hub, cache: Path) -> None:
    refused("missing", "no revision 'mian'", revision="mian")


@pytest.mark.parametrize("where", ["hub", "storage"])
@pytest.mark.parametrize(
    "headers", [{"Retry-After": "7"}, {"RateLimit": '"resolvers";r=0;t=7'}], ids=["after", "limit"]
)
def test_429_is_waited_for_as_long_as_the_server_asks(
    hub: Hub, cache: Path, waits, where, headers
) -> None:
    hub.fault(PATH, where=where, status=429, headers=headers, times=2)
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert waits == [7, 7]
    assert hub.served(PATH) == SIZE


def test_429_with_a_long_wait_says_how_long(hub: Hub, cache: Path, waits) -> None:
    hub.fault(PATH, where="hub", status=429, headers={"Retry-After": "1800"})
    refused("busy", "in 1800 seconds")
    assert not waits
    assert not entries(cache)


@pytest.mark.parametrize("where", ["hub", "storage"])
@pytest.mark.parametrize("status", [500, 503])
def test_500_is_tried_again_and_then_told(hub: Hub, cache: Path, waits, where, status) -> None:
    hub.fault(PATH, where=where, status=status)
    refused("server", f"({status})", "call again later")
    assert waits == [1, 2, 4, 8]
    assert not entries(cache)
    assert partial(cache) == 0
    hub.mend()
    hub.fault(PATH, where=where, status=status, times=3)
    assert fetch(REPO, PATH).read_bytes() == CONTENT


@pytest.mark.parametrize("cut", [0, 1000, SIZE - 1])
def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, cache: Path, waits, cut) -> None:
    hub.fault(PATH, cut_after=cut, times=1)
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert waits == [1]
    assert hub.served(PATH) == SIZE, "not one byte twice"
    assert [one.range for one in hub.requests("storage")] == [
        f"bytes=0-{SIZE - 1}",
        f"bytes={cut}-{SIZE - 1}",
    ]


def test_a_connection_that_is_cut_always_arrives_in_the_end(hub: Hub, cache: Path, waits) -> None:
    hub.fault(PATH, cut_after=50_000)
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert hub.served(PATH) == SIZE
    assert set(waits) == {1}, "progress starts the count again"


def test_a_connection_that_is_lost_is_continued_by_the_next_call(
    hub: Hub, cache: Path, waits
) -> None:
    hub.fault(PATH, cut_after=300_000, times=1)
    hub.fault(PATH, cut_after=0)
    refused("connection", f"300,000 of {SIZE:,} bytes are here", "continues there")
    assert not entries(cache)
    assert partial(cache) == 300_000
    hub.mend()
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert hub.served(PATH) == SIZE
    assert partial(cache) == 0
    assert list(entries(cache)) == [PATH]


def test_nobody_answers(hub: Hub, cache: Path, monkeypatch, waits) -> None:
    with Hub() as gone:
        connect(gone, cache.parent, monkeypatch)
    refused("connection", "look at the network")
    assert waits == [1, 2, 4, 8]


def test_a_cause_that_names_a_signed_address_is_not_shown(
    hub: Hub, cache: Path, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no answer from storage/params.npz?Signature=signed-1")  # as requests

    monkeypatch.setattr(Source, "_get", fail)
    refused("connection")


def test_a_slow_server_is_waited_for(hub: Hub, cache: Path, monkeypatch, waits) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.4)
    hub.fault(PATH, speed=SIZE)  # a second for the whole file, never 0.4 s of silence
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert not waits


def test_a_server_that_falls_silent_is_asked_again(
    hub: Hub, cache: Path, monkeypatch, waits
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1.0)
    hub.fault(PATH, cut_after=200_000, stall=True, times=1)
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert hub.served(PATH) == SIZE
    assert waits == [1]


def test_an_address_that_has_expired_is_asked_for_anew(hub: Hub, cache: Path, waits) -> None:
    hub.fault(PATH, cut_after=1000, times=1)
    send = hub.count

    def expire(path: str, sent: int) -> None:
        hub.signature = "signed-2"
        send(path, sent)

    hub.count = expire  # pyright: ignore[reportAttributeAccessIssue]
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert hub.served(PATH) == SIZE


def test_a_server_that_ignores_ranges_starts_again(hub: Hub, cache: Path) -> None:
    hub.fault(PATH, cut_after=1000, ignores_range=True, times=1)
    hub.fault(PATH, ignores_range=True)
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    asked = [one.range.split("-")[0] for one in hub.requests("storage")]
    assert asked == ["bytes=0", "bytes=1000", "bytes=0"]
    assert list(entries(cache)) == [PATH]


def test_a_file_cut_short_in_the_storage(hub: Hub, cache: Path) -> None:
    hub.fault(PATH, keep=SIZE - 100)
    refused("damaged", f"{SIZE:,} bytes by the hub and {SIZE - 100} in its storage")
    assert len(hub.requests("storage")) == 1, "known from the first answer"
    assert not entries(cache)
    assert partial(cache) == 0


def test_a_partial_file_longer_than_the_storage_has(hub: Hub, cache: Path, waits) -> None:
    hub.fault(PATH, cut_after=1000, times=1)
    hub.fault(PATH, keep=500)
    refused("damaged", "in its storage")
    assert partial(cache) == 0


BAD = {
    "uploaded cut short": (CONTENT[:-5000], "cut short"),
    "wrong shape": (params(W_dec=np.zeros((D_SAE, 3))), "b_dec has shape (16,), expected (3,)"),
    "NaN inside": (params(W_dec=np.full((D_SAE, D_IN), np.nan)), "W_dec (float32) holds"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_sae_never_enters_the_cache(hub: Hub, cache: Path, name) -> None:
    fetch(REPO, OTHER, check=check_params)
    content, why = BAD[name]
    hub.put(REPO, PATH, content)
    message = refused("damaged", why, f"{hub.url}/{REPO}/blob/main/{PATH}", "was deleted")
    assert ".incomplete" not in message
    assert "fetch it again" not in message, "that would not help"
    assert cached(REPO, PATH) is None
    assert list(entries(cache)) == [OTHER]
    assert partial(cache) == 0


def test_a_file_damaged_on_the_way_is_deleted_and_comes_whole_the_next_time(
    hub: Hub, cache: Path
) -> None:
    hub.fault(PATH, cut_after=1000, times=1)
    hub.fault(PATH, cut_after=0)
    refused("connection")
    hub.mend()
    (rest,) = cache.glob("models--*/blobs/*.incomplete")
    rest.write_bytes(b"x" * 1000)
    refused("damaged", "its hash is not", "call again")
    assert not entries(cache)
    assert partial(cache) == 0
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT


def test_a_check_that_is_interrupted_loses_nothing(hub: Hub, cache: Path) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(REPO, PATH, check=interrupted)
    assert not entries(cache)
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT
    assert hub.served(PATH) == SIZE


def test_a_disk_without_room_is_noticed_before_the_download(
    hub: Hub, cache: Path, monkeypatch
) -> None:
    fetch(REPO, OTHER)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SIZE - 1))
    refused("disk", f"{SIZE:,} more bytes", f"{SIZE - 1:,} are free", "HF_HOME")
    assert hub.served(PATH) == 0
    assert list(entries(cache)) == [OTHER]
    assert fetch(REPO, OTHER).exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SIZE))
    assert fetch(REPO, PATH).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_fills_up_is_told_and_emptied(hub: Hub, cache: Path, monkeypatch) -> None:
    fetch(REPO, OTHER)
    opened = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        # What is written to this device fails as on a full disk.
        place = Path("/dev/full") if mode == "ab" else self
        if mode == "ab":
            self.write_bytes(b"")
        return opened(place, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    refused("disk", "the disk is full", f"{SIZE:,} bytes", "HF_HOME")
    monkeypatch.setattr(Path, "open", opened)
    assert list(entries(cache)) == [OTHER]
    assert not list(cache.glob("models--*/blobs/*.incomplete"))
    assert fetch(REPO, PATH, check=check_params).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(hub: Hub, cache: Path, monkeypatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", denied)
    refused("disk", "Permission denied", "may write to")


def test_offline_uses_what_is_there_and_says_what_is_missing(
    hub: Hub, cache: Path, monkeypatch
) -> None:
    path = fetch(REPO, PATH)
    # Another commit, of which one file was fetched: the older file still counts.
    hub.commit = "6" * 40
    fetch(REPO, "README.md")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert fetch(REPO, PATH, check=check_params) == path
    assert fetch_folder(REPO, "layer_20/width_4k/average_l0_71") == path.parent
    refused("offline", OTHER, f"hf download {REPO} {OTHER}", "HF_HUB_OFFLINE", path=OTHER)
    for call in (
        lambda: fetch_folder(REPO, "layer_1"),
        lambda: listing(REPO),
        lambda: RangeFile(REPO, OTHER),
    ):
        with pytest.raises(HubError, match="HF_HUB_OFFLINE") as caught:
            call()
        assert caught.value.reason == "offline"
    assert len(hub.asked) == asked
    assert sorted(entries(cache)) == ["README.md", PATH]


def test_a_file_of_an_older_commit_is_linked_and_not_loaded_again(hub: Hub, cache: Path) -> None:
    old = fetch(REPO, PATH)
    hub.commit = "6" * 40
    fetch(REPO, OTHER)
    new = fetch(REPO, PATH)
    assert (old.parts[-5], new.parts[-5]) == ("5" * 40, "6" * 40)
    assert old.samefile(new)
    assert hub.served(PATH) == SIZE


def test_without_links_one_copy_is_kept(hub: Hub, cache: Path, monkeypatch) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda *_: False)
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS_WARNING", True)
    path = fetch(REPO, PATH, check=check_params)
    assert not path.is_symlink()
    assert not list(cache.glob("models--*/blobs/*"))
    assert fetch(REPO, PATH) == path
    assert hub.served(PATH) == SIZE


def test_a_folder_is_fetched_as_one(hub: Hub, cache: Path) -> None:
    folder = "blocks.1/trainer_0"
    for name, content in (("cfg.json", b"{}"), ("weights.safetensors", b"12345")):
        hub.put(REPO, f"{folder}/{name}", content, lfs=name != "cfg.json")
    hub.put(REPO, f"{folder}/examples.safetensors", b"large")
    hub.put(REPO, f"{folder}/below/deep.json", b"{}", lfs=False)
    found = fetch_folder(REPO, folder, names=lambda name: name != "examples.safetensors")
    assert sorted(path.name for path in found.iterdir()) == ["cfg.json", "weights.safetensors"]
    with pytest.raises(HubError, match=r"it holds below, cfg\.json") as caught:
        fetch_folder(REPO, folder, names=lambda name: name.endswith(".bin"))
    assert caught.value.reason == "missing"


def test_a_folder_is_one_even_where_a_commit_came_in_between(hub: Hub, cache: Path) -> None:
    for name in ("a.json", "b.json"):
        hub.put(REPO, f"x/{name}", b"{}" + name.encode(), lfs=False)
    fetch(REPO, "x/a.json")
    hub.commit = "6" * 40
    found = fetch_folder(REPO, "x")
    assert sorted(path.name for path in found.iterdir()) == ["a.json", "b.json"]
    assert hub.served("x/a.json") == 8


def test_a_listing_has_all_files_below(hub: Hub, cache: Path) -> None:
    assert listing(REPO) == ["README.md", PATH, OTHER]
    assert listing(REPO, "layer_20/width_4k/average_l0_9") == [OTHER]
    with pytest.raises(HubError, match="layer_20") as caught:
        listing(REPO, "layer_21")
    assert caught.value.reason == "missing"


WORKER = textwrap.dedent(
    """
    import json, sys, time
    from workbench.sae.gemma_scope import check_params
    from workbench.sae.hub import fetch

    checked = []
    def check(path):
        check_params(path)
        checked.append(1)

    print("ready", flush=True)
    sys.stdin.readline()
    path = fetch(sys.argv[1], sys.argv[2], check=check)
    print(json.dumps([str(path), len(checked)]))
    """
)


@pytest.mark.slow
def test_two_processes_make_one_download(hub: Hub, cache: Path, tmp_path: Path) -> None:
    """As users start them: with environment variables, and a server slow enough to overlap."""
    hub.fault(PATH, speed=SIZE)
    home = tmp_path / "shared"
    variables = environment(hub, home) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, REPO, PATH],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    answers = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate(timeout=60)
        assert worker.returncode == 0
        answers.append(json.loads(out))
    assert answers[0][0] == answers[1][0]
    assert sorted(answer[1] for answer in answers) == [0, 1], "one downloads and checks"
    assert hub.served(PATH) == SIZE
    assert list(entries(home / "hub")) == [PATH]
    assert partial(home / "hub") == 0
    assert Path(answers[0][0]).read_bytes() == CONTENT


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_the_next_one_continues(
    hub: Hub, cache: Path, tmp_path: Path
) -> None:
    hub.fault(PATH, cut_after=200_000, stall=True, times=1)
    home = tmp_path / "shared"
    variables = environment(hub, home) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WORKER, REPO, PATH]
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
        while partial(home / "hub") < 150_000:
            assert worker.poll() is None
        worker.kill()
    assert not entries(home / "hub")
    kept = partial(home / "hub")
    subprocess.run(command, env=variables, input="go\n", check=True, capture_output=True, text=True)
    assert list(entries(home / "hub")) == [PATH]
    assert [one.range for one in hub.requests("storage")][-1] == f"bytes={kept}-{SIZE - 1}"


def test_a_range_is_read_and_kept(hub: Hub, cache: Path) -> None:
    file = RangeFile(REPO, PATH)
    assert (file.size, file.requests, file.bytes_read) == (SIZE, 1, 0)
    assert file.at(1000, 50) == CONTENT[1000:1050]
    assert file.at(1040, 3000) == CONTENT[1040:4040]
    assert (file.requests, file.bytes_read) == (2, 4096)
    assert hub.served(PATH) == 4096
    assert file.at(SIZE - 10, 100) == CONTENT[-10:]
    assert file.at(SIZE - 4096, 20) == CONTENT[-4096:-4076], "what lies before the end came along"
    assert file.at(SIZE, 5) == b""
    assert file.requests == 3
    file.seek(-22, os.SEEK_END)
    assert file.read() == CONTENT[-22:]
    file.seek(100)
    file.seek(50, os.SEEK_CUR)
    assert file.read(9000) == CONTENT[150:9150]
    assert file.tell() == 9150
    with pytest.raises(OSError, match="begins at 0"):
        file.seek(-1)


def test_numpy_reads_a_file_by_ranges(hub: Hub, cache: Path) -> None:
    with np.load(RangeFile(REPO, PATH)) as archive, np.load(io.BytesIO(CONTENT)) as plain:  # pyright: ignore[reportArgumentType]
        for name in plain.files:
            assert np.array_equal(archive[name], plain[name])


def test_a_server_that_ignores_ranges_is_not_read(hub: Hub, cache: Path) -> None:
    hub.fault(PATH, ignores_range=True)
    file = RangeFile(REPO, PATH)
    with pytest.raises(HubError, match=f"ignores ranges and would send all of its {SIZE:,}") as e:
        file.at(0, 10)
    assert e.value.reason == "range"
    assert file.bytes_read == 0


def test_more_than_is_sensible_is_not_read_by_range(hub: Hub, cache: Path, monkeypatch) -> None:
    file = RangeFile(REPO, PATH)
    monkeypatch.setattr(ranges, "LARGEST_READ", 10_000)
    assert len(file.at(0, 10_000)) == 10_000
    with pytest.raises(ValueError, match="fetch the file"):
        file.at(0, 10_001)


def test_a_range_survives_cuts_waits_and_expiry(hub: Hub, cache: Path, waits) -> None:
    file = RangeFile(REPO, PATH)
    hub.fault(PATH, cut_after=100, times=2)
    hub.fault(PATH, status=503, times=1)
    assert file.at(5000, 9000) == CONTENT[5000:14000]
    assert hub.served(PATH) == 9000
    assert waits == [1, 1, 2]
    hub.signature = "signed-2"
    assert file.at(50_000, 10) == CONTENT[50_000:50_010]
    hub.put(REPO, PATH, params(5))
    hub.signature = "signed-3"
    with pytest.raises(HubError, match="changed meanwhile"):
        file.at(90_000, 10)
