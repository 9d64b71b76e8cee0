"""Reading over HTTP from a server that misbehaves, and what is refused."""

import contextlib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.manifest import Telemetry
from infra.store import Store
from tasks.sources.fetch import fetch
from tasks.sources.transport import (
    SourceMissingError,
    SourceSettings,
    SourceUnavailableError,
    TransportSettings,
    join_url,
    local_url,
    open_source,
    read_source,
    reading,
    retry_after,
    source_size,
)
from tasks.stage import StageRunner
from tests.tasks.documents import tree

WARCS = "crawl-data/CC-MAIN-2026-92/segments/*/warc/*.gz"
BODY = bytes(range(256)) * 4000
QUICK = TransportSettings(timeout_seconds=5, retries=3, backoff_seconds=0.01, max_wait_seconds=0.02)
Answer = Callable[[Any, int], None]


class Server:
    """A server on the loopback that answers the n-th request by the n-th function, later ones by the last."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[dict[str, str]] = []
        self.times: list[float] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # clients hang up on purpose
                    super().handle()

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                outer.requests.append({"path": self.path, "method": self.command, **dict(self.headers.items())})
                outer.times.append(time.monotonic())
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
    if handler.command != "HEAD":
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
    with caplog.at_level("INFO", "tasks.sources.transport"):
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


def test_we_say_who_we_are_and_where_we_can_be_reached(serve: Callable[..., Server]) -> None:
    server = serve(whole)
    read_source(server.url, QUICK.model_copy(update={"contact": "https://mill.example/bot"}))
    assert server.requests[0]["User-Agent"] == "gristmill/0.1 (corpus builder) (+https://mill.example/bot)"


@pytest.mark.parametrize("field", ["user_agent", "contact"])
@pytest.mark.parametrize("text", ["", "two\r\nX-Header: lines", "Mühle"])
def test_an_introduction_that_no_header_can_hold_is_refused(field: str, text: str) -> None:
    with pytest.raises(ValidationError, match=field):
        TransportSettings.model_validate({field: text})


SERVER_TIME = "Sat, 14 Feb 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("Sat, 14 Feb 2026 10:01:30 GMT", 90),
        ("Saturday, 14-Feb-26 10:00:05 GMT", 5),
        ("Sat Feb 14 10:00:10 2026", 10),
        ("Sat, 14 Feb 2026 09:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\xb2", None),
        ("9" * 400, None),
        ("Sat, 99 Feb 2026 10:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_of_the_servers_clock(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value, "Date": SERVER_TIME}) == seconds
    assert retry_after({}) is None


def test_a_date_is_waited_for(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    def later(handler: Any, _: int) -> None:
        handler.send_response_only(503)  # send_response would add the date of today
        for name, value in (("Date", SERVER_TIME), ("Retry-After", "Sat, 14 Feb 2026 10:00:01 GMT")):
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server = serve(later, whole)
    with caplog.at_level("INFO", "tasks.sources.transport"):
        assert read_source(server.url, QUICK.model_copy(update={"max_wait_seconds": 5.0})) == BODY
    assert "HTTP 503; again in 1.0 s" in caplog.messages[0]
    assert server.times[1] - server.times[0] >= 1


def test_a_file_may_fail_so_often_altogether(serve: Callable[..., Server]) -> None:
    server = serve(*[cut] * 12, whole)
    with pytest.raises(SourceUnavailableError, match="after 6 tries"):
        read_source(server.url, QUICK.model_copy(update={"total_retries": 5}))
    assert len(server.requests) == 6


def test_what_a_stream_met_with_is_counted(serve: Callable[..., Server]) -> None:
    server, counts = serve(cut, busy, cut, whole), Counter[str]()
    with reading(server.url, QUICK, counts) as stream:
        assert stream.read(1000) == BODY[:1000]
        assert stream.read() == BODY[1000:]
    assert counts.pop("network_ms") >= 0
    assert counts == {
        "http_requests": 4,
        "http_retries": 3,
        "http_503": 1,
        "http_resumed": 2,
        "bytes_fetched": len(BODY),
        "bytes_read": len(BODY),
    }


def test_bytes_read_are_those_that_the_reader_took(serve: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    for url in (serve(whole).url, str(tmp_path / "file")):
        counts = Counter[str]()
        with reading(url, QUICK, counts) as stream:
            stream.read(1000)
        assert counts["bytes_read"] == 1000


def elsewhere(location: str) -> Answer:
    return lambda handler, _: send(handler, 302, Location=location)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://mill.example/file", "/again"])
def test_redirections_without_end_or_off_the_web_are_not_followed(serve: Callable[..., Server], location: str) -> None:
    server = serve(elsewhere(location))
    with pytest.raises(SourceMissingError, match="redirected to"):
        read_source(server.url, QUICK)
    assert len(server.requests) <= 6


def test_a_redirected_body_is_resumed_through_the_first_address(serve: Callable[..., Server]) -> None:
    server = serve(elsewhere("/one"), cut, elsewhere("/two"), whole)
    assert read_source(server.url, QUICK) == BODY
    assert [request["path"] for request in server.requests] == ["/file", "/one", "/file", "/two"]
    assert server.requests[3]["Range"] == f"bytes={len(BODY) // 2}-"


def from_another_byte(handler: Any, start: int) -> None:
    send(handler, 206, BODY[start - 1 :], ETag='"one"', Content_Range=f"bytes {start - 1}-{len(BODY) - 1}/{len(BODY)}")


def test_a_range_that_was_not_asked_for_is_not_sewn_on(serve: Callable[..., Server]) -> None:
    with pytest.raises(SourceUnavailableError, match="changed or not resumable"):
        read_source(serve(cut, from_another_byte).url, QUICK)


def test_the_size_of_a_file_is_asked_for_without_its_body(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(busy, whole)
    assert source_size(server.url, QUICK) == len(BODY)
    assert [request["method"] for request in server.requests] == ["HEAD", "HEAD"]
    (tmp_path / "file").write_bytes(BODY)
    assert source_size(str(tmp_path / "file"), QUICK) == source_size(local_url(tmp_path / "file"), QUICK) == len(BODY)
    for missing in (str(tmp_path / "absent"), serve(lambda handler, _: send(handler, 404)).url):
        with pytest.raises(SourceMissingError):
            source_size(missing, QUICK)


def fetched(settings: TransportSettings, url: str) -> int:
    return len(read_source(url, settings))


@pytest.mark.parametrize("rate", [5.0, 20.0])
def test_two_workers_together_never_exceed_the_rate(serve: Callable[..., Server], rate: float) -> None:
    server = serve(lambda handler, start: send(handler, 200, b"x"))
    settings = TransportSettings(requests_per_second=rate)
    with open_cluster(Environment(workers=2)) as cluster:
        assert sum(cluster.map(partial(fetched, settings), [server.url] * 16, "fetch")) == 16
    times = sorted(server.times)
    span = 1.0  # on its way a request may be late, so the next one seems early: so much is allowed
    most = max(sum(start <= each <= start + span for each in times) for start in times)
    assert most <= rate * span + 1 + 2
    assert times[-1] - times[0] >= 0.9 * 15 / rate


def test_a_server_that_asks_one_worker_to_wait_is_left_alone_by_all(serve: Callable[..., Server]) -> None:
    def once_busy(handler: Any, _: int) -> None:
        send(handler, 503, Retry_After="2")

    server = serve(once_busy, lambda handler, _: send(handler, 200, b"x"))
    settings = TransportSettings(requests_per_second=10, backoff_seconds=0.1)
    with open_cluster(Environment(workers=2)) as cluster:
        assert sum(cluster.map(partial(fetched, settings), [server.url] * 8, "fetch")) == 8
    refused = server.times[0]
    assert len([each for each in server.times[1:] if each - refused < 1.9]) <= 3  # some may have been on their way
    assert len(server.times) == 9


@pytest.fixture
def faulty_mirror(shared_data: Path) -> Iterator[str]:
    """Address of a mirror of real crawls that refuses some requests and breaks some bodies off."""
    command = [sys.executable, shared_data / "serve_mirror.py", shared_data / "commoncrawl", "--port", "0"]
    options = ["--fault", "503=0.3,truncate=0.3", "--seed", "1"]
    server = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_misbehaving_mirror_shows_in_the_telemetry_alone(
    faulty_mirror: str, shared_data: Path, cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quick = TransportSettings(backoff_seconds=0.05, max_wait_seconds=0.1)
    counted = []
    for name, base in (("faulty", faulty_mirror), ("sound", str(shared_data / "commoncrawl"))):
        store = Store(str(tmp_path / name))
        source = SourceSettings(base_url=base, crawl="CC-MAIN-2026-92", transport=quick)
        with caplog.at_level("INFO", "tasks"):
            manifest = fetch(StageRunner(store, cluster), source)
        counted.append(Telemetry.load(store, f"{manifest.folder}/telemetry.json").counts)
    assert tree(tmp_path / "faulty") == tree(tmp_path / "sound")
    counts, sizes = counted[0], [each.stat().st_size for each in (shared_data / "commoncrawl").glob(WARCS)]
    assert counts["http_503"] > 0
    assert counts["http_resumed"] > 0
    assert counts["http_retries"] >= counts["http_503"] + counts["http_resumed"]
    assert counts["http_requests"] == len(sizes) + counts["http_retries"]
    assert counts["bytes_fetched"] == counts["bytes_read"] == counted[1]["bytes_read"] == sum(sizes)
    told = f"fetch: {counts['http_503']} requests refused (503), {counts['http_retries']} retries, "
    assert told + f"{counts['http_resumed']} bodies resumed" in caplog.messages
