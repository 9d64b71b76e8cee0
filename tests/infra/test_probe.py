"""What health checks of docker-compose.yml ask."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from infra.errors import BadInput
from infra.probe import main
from infra.running_services import answers

LOGIN = "person:secret"


class Server(BaseHTTPRequestHandler):
    """Answers those who know the login, a POST only if it has a body."""

    def answer(self) -> None:
        known = self.headers["Authorization"] == f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
        body = int(self.headers.get("Content-Length", 0))
        self.rfile.read(body)
        self.send_response(401 if not known else 200 if (self.command == "POST") == (body > 0) else 400)
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_service_that_answers_its_login_is_well(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROBE_LOGIN", LOGIN)
    main("http", url)
    main("http", url, '{"limit": 1}')


@pytest.mark.parametrize("login", [None, "person:wrong"])
def test_a_service_that_refuses_is_not(url: str, login: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PROBE_LOGIN", raising=False)
    if login is not None:
        monkeypatch.setenv("PROBE_LOGIN", login)
    with pytest.raises(OSError, match="401") as caught:
        main("http", url)
    caught.value.close()  # type: ignore[attr-defined]


def test_a_server_that_asks_for_a_login_is_there(url: str):
    assert answers(url)
    assert not answers("http://127.0.0.1:9/")


def test_an_unknown_probe_is_bad_input():
    with pytest.raises(BadInput, match="http and heartbeat"):
        main("ftp", "x")
