"""Whether a service of docker-compose.yml does its work: what its health check asks, in its own container.

    python -m infra.probe http URL [BODY]     answers well; PROBE_LOGIN is the login (user:password), if it asks for one
    python -m infra.probe heartbeat DOCKET    someone works on a docket of PREFECT_SERVER_DOCKET_URL

Exit code 0: it does.
"""

import base64
import os
import sys
import time
import urllib.request

from infra.errors import BadInput, RunFailed

PATIENCE_SECONDS = 10.0
HEARTBEAT_SECONDS = 30.0


def ask(url: str, body: str | None = None, login: str | None = None) -> None:
    """Send a request, a POST of JSON if there is a body; OSError if there is no answer, or not a good one."""
    headers = {} if body is None else {"Content-Type": "application/json"}
    if login is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    data = None if body is None else body.encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - our own service
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS):  # noqa: S310
        pass


def require_heartbeat(docket: str, address: str) -> None:
    """RunFailed unless a worker of a docket has told Redis lately that it is there.

    Prefect's background services answer at no address; Docket, which runs them, writes a heartbeat each two seconds.
    """
    import redis

    with redis.Redis.from_url(address, socket_timeout=PATIENCE_SECONDS) as client:
        known: list[tuple[bytes, float]] = client.zrange(f"{docket}:workers", 0, -1, withscores=True)  # type: ignore[assignment]
    last = max((when for _, when in known), default=0.0)
    if time.time() - last > HEARTBEAT_SECONDS:
        raise RunFailed(
            f"docket {docket} has {len(known)} workers, none of which was heard of lately",
            f"one must be heard of each {HEARTBEAT_SECONDS:.0f} seconds",
            "Read the service's log",
        )


def main(kind: str, target: str, body: str | None = None) -> None:
    """Probe one service."""
    if kind == "http":
        ask(target, body, os.environ.get("PROBE_LOGIN"))
    elif kind == "heartbeat":
        require_heartbeat(target, os.environ["PREFECT_SERVER_DOCKET_URL"])
    else:
        raise BadInput(f"probe {kind}", "probes are http and heartbeat", "Correct the health check")


if __name__ == "__main__":
    main(*sys.argv[1:])
