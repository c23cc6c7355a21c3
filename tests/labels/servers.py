"""A loopback server that speaks chat completions, Neuronpedia's API and S3's listing."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Reply:
    """What to answer; `cut` closes the connection after so many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Server:
    """Answers by `answer`; what is in `faults` is used up first, in its order."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self.faults: list[Reply] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                self._do(None)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                self._do(json.loads(self.rfile.read(length)))

            def _do(self, body: Any) -> None:
                headers = {k.lower(): v for k, v in self.headers.items()}
                request = Request(self.command, self.path, headers, body)
                with server.lock:
                    server.requests.append(request)
                    fault = server.faults.pop(0) if server.faults else None
                reply = fault or server.answer(request)
                with suppress(OSError):
                    self._send(reply)

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body[: reply.cut])
                if reply.cut is not None:
                    self.close_connection = True

        return Handler


@contextmanager
def serving(answer: Callable[[Request], Reply]) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


def as_json(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def chat(text: str) -> Reply:
    """A chat completion, with the fields that servers send."""
    message = {"role": "assistant", "content": text}
    return as_json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
    )


def reader(request: Request) -> Reply:
    """A model that understands: labels name one word, and it knows where that word stands.

    It explains a feature by the word that is marked most often.
    """
    prompt = "\n".join(message["content"] for message in request.body["messages"])
    if "LABEL:" in prompt:
        words = re.findall(r"<<\s*(\w+)>>", prompt.partition("Passage 1")[2])
        best = max(sorted(set(words)), key=words.count)
        return chat(f"They are all the same word.\nLABEL: {best}")
    label = prompt.split("described here:\n\n")[1].split("\n")[0]
    passages = re.split(r"Passage \d+: ", prompt.split("Answer with a JSON")[0])[1:]
    if "<<like this>>" in prompt:
        said = [int(f"<< {label}>>" in passage) for passage in passages]
    else:
        said = [int(f" {label}" in passage) for passage in passages]
    return chat(f"Let me see. {said}")


@dataclass
class Exports:
    """Files of a bucket, listed one at a time, and features of an API."""

    files: dict[str, bytes]
    features: dict[str, dict[str, Any]]

    def __call__(self, request: Request) -> Reply:
        parts = urlsplit(request.path)
        if parts.path.startswith("/api/feature/"):
            name = unquote(parts.path.removeprefix("/api/feature/"))
            found = self.features.get(name)
            return as_json(found) if found else as_json({"error": "Not Found"}, 404)
        query = parse_qs(parts.query)
        if query.get("list-type") == ["2"]:
            return self._list(query["prefix"][0], query.get("continuation-token", ["0"])[0])
        name = unquote(parts.path).lstrip("/")
        return Reply(200, self.files[name]) if name in self.files else Reply(403, b"<Error/>")

    def _list(self, prefix: str, token: str) -> Reply:
        names = sorted(name for name in self.files if name.startswith(prefix))
        start = int(token)
        rows = "".join(
            f"<Contents><Key>{name}</Key><Size>1</Size></Contents>"
            for name in names[start : start + 1]
        )
        more = start + 1 < len(names)
        token_row = f"<NextContinuationToken>{start + 1}</NextContinuationToken>" if more else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult '
            'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token_row}{rows}</ListBucketResult>"
        )
        return Reply(200, text.encode())
