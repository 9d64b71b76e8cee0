"""Reading over HTTP from a server that misbehaves, and what is refused."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.transport import (
    SourceMissingError,
    SourceUnavailableError,
    TransportSettings,
    join_url,
    local_url,
    open_source,
    read_source,
)

BODY = bytes(range(256)) * 4000
QUICK = TransportSettings(timeout_seconds=5, retries=3, backoff_seconds=0.01, max_wait_seconds=0.02)
Answer = Callable[[Any, int], None]


class Server:
    """A server on the loopback that answers the n-th request by the n-th function, later ones by the last."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # clients hang up on purpose
                    super().handle()

            def do_GET(self) -> None:
                outer.requests.append({"path": self.path, **dict(self.headers.items())})
                asked = self.headers.get("Range", "bytes=0-")
                answers[min(len(outer.requests), len(answers)) - 1](self, int(asked[6:].rstrip("-")))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/file"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: Answer) -> Server:
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def send(handler: Any, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
    if length is not None and length != len(body):
        handler.close_connection = True


def whole(handler: Any, start: int) -> None:
    send(handler, 206 if start else 200, BODY[start:], ETag='"one"')


def cut(handler: Any, start: int) -> None:
    rest = BODY[start:]
    send(handler, 206 if start else 200, rest[: len(rest) // 2], len(rest), ETag='"one"')


def busy(handler: Any, _: int) -> None:
    send(handler, 503, b"SlowDown", Retry_After="1")


def test_a_body_is_read_whole(serve: Callable[..., Server]) -> None:
    server = serve(whole)
    assert read_source(server.url, QUICK) == BODY
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert server.requests[0]["User-Agent"] == QUICK.user_agent


def test_a_busy_server_is_asked_again(serve: Callable[..., Server]) -> None:
    server = serve(busy, busy, whole)
    assert read_source(server.url, QUICK) == BODY
    assert len(server.requests) == 3


def test_retry_after_is_obeyed_up_to_the_longest_wait(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "tasks.transport"):
        read_source(serve(busy, whole).url, QUICK.model_copy(update={"max_wait_seconds": 1.0, "backoff_seconds": 0.01}))
        read_source(serve(busy, whole).url, QUICK.model_copy(update={"max_wait_seconds": 0.1}))
    assert ["again in 1.0 s" in message for message in caplog.messages] == [True, False]
    assert "HTTP 503; again in 0.1 s" in caplog.messages[1]


def test_a_body_that_breaks_off_is_resumed_where_it_ended(serve: Callable[..., Server]) -> None:
    server = serve(cut, busy, cut, cut, whole)
    assert read_source(server.url, QUICK) == BODY
    half = len(BODY) // 2
    assert [request.get("Range") for request in server.requests[:3]] == [None, f"bytes={half}-", f"bytes={half}-"]
    assert server.requests[1]["If-Range"] == '"one"'


def test_progress_renews_the_tries(serve: Callable[..., Server]) -> None:
    server = serve(*[cut] * 12, whole)
    assert read_source(server.url, QUICK) == BODY
    assert len(server.requests) == 13


def test_a_server_that_stays_busy_is_given_up(serve: Callable[..., Server]) -> None:
    server = serve(busy)
    with pytest.raises(SourceUnavailableError, match="HTTP 503, after 4 tries"):
        read_source(server.url, QUICK)
    assert len(server.requests) == 4


def changed(handler: Any, start: int) -> None:
    send(handler, 206, BODY[start:], ETag='"two"')


def from_the_start(handler: Any, _: int) -> None:
    send(handler, 200, BODY, ETag='"two"')


@pytest.mark.parametrize("answer", [changed, from_the_start])
def test_a_file_that_changes_midway_is_not_sewn_together(serve: Callable[..., Server], answer: Answer) -> None:
    with pytest.raises(SourceUnavailableError, match="changed or not resumable at byte 512,000"):
        read_source(serve(cut, answer).url, QUICK)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_missing_at_once(serve: Callable[..., Server], status: int) -> None:
    server = serve(lambda handler, _: send(handler, status))
    with pytest.raises(SourceMissingError, match=f"HTTP {status}"):
        read_source(server.url, QUICK)
    assert len(server.requests) == 1


def test_a_redirect_is_followed(serve: Callable[..., Server]) -> None:
    server = serve(lambda handler, _: send(handler, 302, Location="/elsewhere"), whole)
    assert read_source(server.url, QUICK) == BODY
    assert server.requests[1]["path"] == "/elsewhere"


def test_a_body_of_unknown_length_ends_where_the_connection_does(serve: Callable[..., Server]) -> None:
    def unsized(handler: Any, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(BODY)

    assert read_source(serve(unsized).url, QUICK) == BODY


def test_nobody_listening_is_unavailable(serve: Callable[..., Server]) -> None:
    server = Server(whole)
    server.close()
    with pytest.raises(SourceUnavailableError, match="after 4 tries"):
        read_source(server.url, QUICK)


def test_folders_and_file_urls_are_read_through_fsspec(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(b"x")
    assert read_source(join_url(str(tmp_path), "a b.txt"), QUICK) == b"x"
    assert read_source(join_url(f"file://{tmp_path}", "a b.txt"), QUICK) == b"x"
    assert local_url(tmp_path).startswith("file:///")
    for missing in ("absent", "."):
        with pytest.raises(SourceMissingError):
            open_source(f"{tmp_path}/{missing}", QUICK)


@pytest.mark.parametrize("path", ["../secret", "a/../../b", "/etc/passwd", "http://other/x", "a\\b", "file://x"])
def test_a_path_that_leaves_the_base_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a plain relative path"):
        join_url("https://data.example", path)


def test_a_plain_path_is_joined() -> None:
    assert join_url("https://data.example/", "a/b..c.gz") == "https://data.example/a/b..c.gz"
