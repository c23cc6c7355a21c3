"""A language model behind an address: what goes wrong, what is told, and that no key gets out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from labels.servers import Reply, Server, as_json, chat, serving

from workbench.labels.endpoint import Endpoint
from workbench.labels.web import TRIES, WebError

SECRET = "sk-proj-Zx81TopSecretValue"
ASK = [{"role": "user", "content": "Say yes."}]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda request: chat("yes")) as found:
        yield found


@pytest.fixture
def endpoint(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("TEST_KEY", SECRET)
    found = Endpoint("small", f"{server.url}/v1", key="TEST_KEY", top_p=0.5, temperature=None)
    yield found
    found.close()


def test_it_speaks_chat_completions(server: Server, endpoint: Endpoint) -> None:
    answer = endpoint.write(ASK, longest=7)
    assert (answer.text, answer.read, answer.written) == ("yes", 100, 10)
    assert answer.seconds > 0
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.body == {"model": "small", "messages": ASK, "max_tokens": 7, "top_p": 0.5}


def test_usage_that_a_server_does_not_tell_is_estimated(server: Server, endpoint: Endpoint) -> None:
    server.faults = [as_json({"choices": [{"message": {"content": "y" * 40}}]})]
    answer = endpoint.write(ASK, longest=7)
    assert (answer.read, answer.written) == (endpoint.count(ASK), 10)


def test_a_server_without_a_key_gets_none(server: Server) -> None:
    plain = Endpoint("small", server.url, key=None)
    plain.write(ASK, longest=7)
    plain.close()
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_accepted_is_named_and_not_shown(
    status: int, server: Server, endpoint: Endpoint, pauses: list[float]
) -> None:
    server.faults = [as_json({"error": f"Incorrect API key provided: {SECRET}"}, status)]
    with pytest.raises(WebError, match=rf"does not accept the key in TEST_KEY \({status}\)") as at:
        endpoint.write(ASK, longest=7)
    assert at.value.reason == "key"
    assert SECRET not in str(at.value)
    assert len(server.requests) == 1
    assert not pauses


def test_a_missing_key_is_told(
    server: Server, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY")
    assert "not set" in repr(endpoint)
    server.faults = [Reply(401)]
    with pytest.raises(WebError, match=r"asks for a key \(401\): put a valid one into TEST_KEY"):
        endpoint.write(ASK, longest=7)
    assert "authorization" not in server.requests[0].headers


def test_it_waits_as_long_as_it_is_asked_to(
    server: Server, endpoint: Endpoint, pauses: list[float]
) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.faults = [
        Reply(429, headers={"Retry-After": "7"}),
        Reply(429, headers={"Retry-After": soon}),
        Reply(503),
    ]
    assert endpoint.write(ASK, longest=7).text == "yes"
    assert pauses[0] == 7
    assert 25 < pauses[1] <= 30
    assert pauses[2] == 4
    assert len(server.requests) == 4


def test_it_does_not_wait_for_an_hour(
    server: Server, endpoint: Endpoint, pauses: list[float]
) -> None:
    server.faults = [Reply(429, b'{"error": "quota"}', {"Retry-After": "3600"})]
    with pytest.raises(WebError, match=r"too many requests.* in 3600 seconds.*quota") as at:
        endpoint.write(ASK, longest=7)
    assert at.value.reason == "busy"
    assert not pauses


@pytest.mark.parametrize("fault", [Reply(500, b"down"), Reply(200, b"x" * 999, cut=10)])
def test_what_fails_for_a_moment_is_tried_again(
    fault: Reply, server: Server, endpoint: Endpoint, pauses: list[float]
) -> None:
    server.faults = [fault, fault]
    assert endpoint.write(ASK, longest=7).text == "yes"
    assert pauses == [1, 2]


def test_what_fails_for_good_is_told(
    server: Server, endpoint: Endpoint, pauses: list[float]
) -> None:
    server.faults = [Reply(200, b"x" * 999, cut=10)] * TRIES
    with pytest.raises(WebError, match=r"connection to 127.0.0.1:\d+ failed") as at:
        endpoint.write(ASK, longest=7)
    assert at.value.reason == "connection"
    assert at.value.__cause__ is None
    assert at.value.__suppress_context__
    assert len(pauses) == TRIES - 1


@pytest.mark.parametrize(
    "body",
    [b"<html>Log in</html>", b"", b'{"choices": []}', b"[1]", b'{"choices": [{"text": "yes"}]}'],
)
def test_nonsense_is_no_answer(
    body: bytes, server: Server, endpoint: Endpoint, pauses: list[float]
) -> None:
    server.faults = [Reply(200, body)] * 2
    with pytest.raises(WebError, match=r"instead of JSON|something else than a chat") as at:
        endpoint.write(ASK, longest=7)
    assert at.value.reason == "answer"


def test_what_the_server_says_is_told_without_the_key(server: Server, endpoint: Endpoint) -> None:
    said = f"model small wants max_completion_tokens; you are {SECRET} or sk-proj-***alue"
    server.faults = [as_json({"error": {"message": said}}, 400)]
    with pytest.raises(WebError, match="wants max_completion_tokens") as at:
        endpoint.write(ASK, longest=7)
    assert at.value.reason == "refused"
    assert SECRET not in str(at.value)
    assert "alue" not in str(at.value)


def test_a_key_of_no_known_form_is_not_told_either(
    server: Server, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "plainword42")
    server.faults = [as_json({"error": "who is plainword42?"}, 400)]
    with pytest.raises(WebError, match=r"who is \*\*\*") as at:
        endpoint.write(ASK, longest=7)
    assert "plainword42" not in str(at.value)


def test_the_key_goes_to_no_other_address(server: Server, endpoint: Endpoint) -> None:
    with serving(lambda request: chat("mine")) as other:
        server.faults = [Reply(307, headers={"Location": f"{other.url}/v1/chat/completions"})]
        with pytest.raises(WebError, match=r"has moved \(307\)"):
            endpoint.write(ASK, longest=7)
        assert not other.requests


def test_no_key_in_logs_and_objects(
    server: Server, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, pauses: list[float]
) -> None:
    server.faults = [Reply(500), Reply(200, b"x" * 99, cut=3)]
    with caplog.at_level(logging.DEBUG):
        endpoint.write(ASK, longest=7)
    assert caplog.records
    assert "TopSecret" not in caplog.text
    assert "TopSecret" not in repr(endpoint) + repr(vars(endpoint)) + repr(vars(endpoint._web))


@pytest.mark.parametrize("key", [SECRET, "gsk_AbCdEf123456", "hf_abcdefgh"])
def test_a_key_instead_of_its_name_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="never the key itself") as at:
        Endpoint("small", key=key)
    assert key not in str(at.value)


def test_a_key_is_not_sent_in_the_clear() -> None:
    with pytest.raises(ValueError, match="unencrypted"):
        Endpoint("small", "http://models.example/v1")
    Endpoint("small", "http://models.example/v1", key=None)
    Endpoint("small", "http://localhost:11434/v1")


@pytest.mark.parametrize("url", ["models.example/v1", "ftp://models.example", "https://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="give an address"):
        Endpoint("small", url)


def test_an_address_with_a_secret_is_refused_and_not_repeated() -> None:
    for url in ("https://ann:hunter22@models.example/v1", "https://models.example/v1?key=hunter22"):
        with pytest.raises(ValueError, match="name, a password or a query") as at:
            Endpoint("small", url)
        assert "hunter22" not in str(at.value)
