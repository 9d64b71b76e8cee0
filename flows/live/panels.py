"""Panels: Prefect artifacts that change while something runs, kept up to date by a thread of their own.

Whoever works only says that a panel has changed, which costs nothing; the thread asks the panel what to show, at most
once in its `seconds`, and sends it. A server that is slow or gone is said to be so once and asked again now and then;
it holds up no work, and at the end nobody waits for it longer than `CLOSE_SECONDS`.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run, task_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.25
CLOSE_SECONDS = 10.0
REST_SECONDS = 15.0
"""A server that did not answer is left alone for this long."""
REQUEST_SECONDS = 10.0


class Shown(NamedTuple):
    """What a panel shows now."""

    data: Any
    """A number up to 100 for progress, JSON for a table, Markdown otherwise."""
    description: str


class Panel:
    """One artifact of the flow run, or task run, in which it was made."""

    def __init__(
        self,
        kind: Literal["progress", "table", "markdown"],
        key: str,
        show: Callable[[], Shown],
        seconds: float,
        *,
        ticking: bool = False,
    ) -> None:
        """`show` is called in another thread; a ticking panel changes by itself. Keys are of a-z, 0-9 and -."""
        self.kind, self.key, self.seconds, self.ticking = kind, key, seconds, ticking
        self._show = show
        self._flow_run_id, self._task_run_id = (UUID(run.id) if run.id else None for run in (flow_run, task_run))
        self._artifact: UUID | None = None
        self._changed, self._closed = True, False
        self._due = time.monotonic() + min(seconds, 1.0)  # what ends at once is sent once, with its end

    def changed(self) -> None:
        """Have what there is now sent when the panel is due."""
        self._changed = True

    def close(self) -> None:
        """Have what there is now sent at once, and nothing after it."""
        self._changed, self._closed = True, True

    def is_due(self, now: float) -> bool:
        """Whether there is something to send."""
        return (self._changed or self.ticking) and (self._closed or now >= self._due)

    @property
    def is_over(self) -> bool:
        """Whether the last state has been sent."""
        return self._closed and not self._changed

    def send(self, client: SyncPrefectClient) -> None:
        """Send what there is now."""
        self._changed = False
        try:
            data, description = self._show()
            if self._artifact is None:
                made = ArtifactCreate(
                    key=self.key,
                    type=self.kind,
                    data=data,
                    description=description,
                    flow_run_id=self._flow_run_id,
                    task_run_id=self._task_run_id,
                )
                self._artifact = client.create_artifact(made).id
            else:
                client.update_artifact(self._artifact, ArtifactUpdate(data=data, description=description))
        except BaseException:
            self._changed = True
            raise
        self._due = time.monotonic() + self.seconds


class Panels:
    """The panels of a flow run and the thread that sends them; a context."""

    def __init__(self) -> None:
        self._panels: list[Panel] = []
        self._closing = threading.Event()
        self._resting_until = 0.0
        self._has_warned = False

    def __enter__(self) -> "Panels":
        # The flow run's context makes log lines of the thread its own.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._keep_up,), name="panels", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for panel in self._panels.copy():
            panel.close()
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def open(self, panel: Panel) -> Panel:
        """Keep a panel up to date from now on."""
        self._panels.append(panel)
        return panel

    def show_links(self, links: Mapping[str, str | None]) -> None:
        """Say where to look further."""
        if text := as_markdown(links):
            self.open(Panel("markdown", "links", lambda: Shown(text, "Where to look further"), 0.0)).close()

    def _keep_up(self) -> None:
        # Settings of its own make this client another than the flow's, which belongs to the flow's thread.
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": REQUEST_SECONDS}, sync_client=True) as client,
        ):
            while not self._closing.wait(TICK_SECONDS):
                self._send_due(client)
            self._resting_until = 0.0
            self._send_due(client)

    def _send_due(self, client: SyncPrefectClient) -> None:
        for panel in [each for each in self._panels if each.is_due(time.monotonic())]:
            if time.monotonic() < self._resting_until:
                return
            try:
                panel.send(client)
            except (httpx.HTTPError, PrefectException, OSError) as error:
                self._warn(error)
                if _is_refusal(error):
                    self._panels.remove(panel)
                else:
                    self._resting_until = time.monotonic() + REST_SECONDS
        for panel in [each for each in self._panels if each.is_over]:
            self._panels.remove(panel)

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("Prefect's pages fall behind, the work goes on: %s: %s", type(error).__name__, error)


def _is_refusal(error: Exception) -> bool:
    """Whether a server that is well will not take what it was sent, now or later."""
    if isinstance(error, httpx.HTTPStatusError):
        return 400 <= error.response.status_code < 500 and error.response.status_code != 429
    return isinstance(error, PrefectException)


def as_markdown(links: Mapping[str, str | None]) -> str:
    """A list of pages by name; what is no page of a server is left out, and so are passwords."""
    pages = {name: page for name, url in links.items() if (page := _page(url)) is not None}
    return "\n".join(f"- {name}: [{page}]({page})" for name, page in pages.items())


def _page(url: str | None) -> str | None:
    """The address of a page without who may see it; None if it is no page of a server."""
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https"):
        return None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
