"""What the ranks of a job say, on whatever machine they are: their lines, and why one of them failed.

A rank tells why it stopped in one line (`reporting_failures`), from which the process that waits for the job makes the
same error again.
"""

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, NoReturn
from urllib.parse import unquote, urlsplit

from infra.address import masked
from infra.child import die_with_parent
from infra.errors import BadInput, DamagedData, DiskFull, GristmillError, RunFailed
from infra.line_limit import LineLimit

logger = logging.getLogger(__name__)

FAILURE_MARK = "gristmill-failure "
LINE_PREFIX = "[${role_name}${rank}]:"
"""For TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE: with the role "rank", what `RankOutput` knows ranks of all nodes by."""
_ERRORS = {error.__name__: error for error in (BadInput, DamagedData, DiskFull, RunFailed)}
_RANK_LINE = re.compile(r"^\[rank(\d+)\]:(.*)$")
_FIRST_FAILURE = re.compile(r"^\s*rank\s*:\s*(\d+)")
_EXIT_CODE = re.compile(r"^\s*exitcode\s*:\s*(-?\d+)")
_REMEMBERED_LINES = 12


class RankOutput:
    """A job's lines: passes them on, but no flood, and remembers the end of each rank's for the error message."""

    def __init__(self, on_line: Callable[[str], None], secrets: tuple[str, ...]) -> None:
        self._on_line, self._secrets = on_line, secrets
        self._last: dict[int, deque[str]] = {}
        self._limits: dict[int, LineLimit] = {}
        self._agent: deque[str] = deque(maxlen=60)
        self._reported: GristmillError | None = None

    def take(self, line: str) -> None:
        """Read one line of a rank or of an agent."""
        line = redact(line.rstrip(), self._secrets)
        found = _RANK_LINE.match(line)
        if found is None:
            self._agent.append(line)
            return
        rank = int(found[1])
        text = found[2].removeprefix(f"[rank{rank}]: ")  # which torch puts before the lines of a traceback
        if text.startswith(FAILURE_MARK):
            self._reported = self._reported or _error_from(text.removeprefix(FAILURE_MARK))
            return
        self._last.setdefault(rank, deque(maxlen=_REMEMBERED_LINES)).append(text)
        limit = self._limits.setdefault(rank, LineLimit(burst=1000))
        if limit.admit(time.monotonic()):
            told = limit.tell()
            self._on_line(f"[rank {rank}] {text}" + (f" (before it, {told})" if told else ""))

    def forget(self) -> None:
        """Begin anew with a job that is queued again: what ended its earlier start explains no later end."""
        self._last.clear()
        self._agent.clear()
        self._reported = None

    def failure(self, ending: str) -> GristmillError:
        """The error that a rank reported, or how the job ended and what can be said of the rank that failed first."""
        if self._reported:
            return self._reported
        rank, rank_code = self._first_failure()
        lines = list(self._last.get(rank, ())) if rank is not None else list(self._agent)[-5:]
        value = ending if rank is None else f"{ending}: rank {rank} {_ending(rank_code)}"
        if lines and rank_code >= 0:
            value += "; its last lines:\n  " + "\n  ".join(lines) + "\n"
        return RunFailed(
            value,
            "a job ends well only if every process does",
            "Run the same command again: training goes on from the latest checkpoint",
        )

    def _first_failure(self) -> tuple[int | None, int]:
        """Rank and exit code under torchrun's heading "Root Cause (first observed failure)".

        Each node's agent has one of its own: a rank that was killed comes before those that missed it.
        """
        lines = list(self._agent)
        heading = next((n for n, line in enumerate(lines) if line.startswith("Root Cause")), len(lines))
        ranks = [int(found[1]) for line in lines[heading:] if (found := _FIRST_FAILURE.match(line))]
        codes = [int(found[1]) for line in lines[heading:] if (found := _EXIT_CODE.match(line))]
        found = list(zip(ranks, codes, strict=False))
        killed = [(rank, code) for rank, code in found if code < 0 and code != -signal.SIGTERM]
        return next(iter([*killed, *found]), (None, 0))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory, or stopped from outside)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _error_from(text: str) -> GristmillError:
    report = json.loads(text)
    return _ERRORS.get(report["type"], RunFailed)(report["value"], report["rule"], report["remedy"])


def redact(line: str, secrets: tuple[str, ...] = ()) -> str:
    """The line without the passwords of its URLs and without the given secrets."""
    line = masked(line)
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


class RedactedLines(threading.Thread):
    """Writes the lines of a process to a file that others may read, without secrets, as they come."""

    def __init__(self, source: IO[str], to: IO[str], secrets: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self._source, self._to, self._secrets = source, to, secrets
        self.start()

    def run(self) -> None:
        """Until the last process that has the other end has closed it."""
        for line in self._source:
            self._to.write(redact(line, self._secrets))
            self._to.flush()


def secrets_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values, lines and long words of variables that by their name hold a secret, and passwords of URLs in any.

    Short ones are left out: they would redact ordinary words. Long ones are first, because they may hold others.
    """
    found = {each for name, value in environment.items() for each in _secrets_in(name, value)}
    return tuple(sorted((each for each in found if len(each) >= 8), key=lambda each: (-len(each), each)))


def _secrets_in(name: str, value: str) -> Iterator[str]:
    if names_a_secret(name):
        yield value
        yield value.partition(":")[2]  # of USER:PASSWORD
        yield from value.splitlines()  # of a key in PEM
        yield from re.findall(r"[^\s\"',;]{16,}", value)  # of headers, of a connection string
    with suppress(ValueError):  # not every text with :// is a URL
        password = urlsplit(value).password or ""
        yield password
        yield unquote(password)


def names_a_secret(variable: str) -> bool:
    """Whether an environment variable holds a secret, by its name."""
    names = r"PASSWORD|PASSWD|PASSPHRASE|_PWD$|SECRET|TOKEN|_KEY$|APIKEY|CREDENTIAL|LOGIN$|AUTH$|AUTH_STRING"
    names += r"|CONNECTION_STRING|_SAS$|CUSTOM_HEADERS"
    return bool(re.search(names, variable, re.IGNORECASE))


@contextmanager
def reporting_failures() -> Iterator[None]:
    """Around the body of a rank: turns a GristmillError into one line for the launcher and its exit code."""
    die_with_parent(signal.SIGKILL)
    try:
        yield
    except GristmillError as error:
        logger.error("%s", error)
        report = {"type": type(error).__name__, "value": error.value, "rule": error.rule, "remedy": error.remedy}
        sys.stderr.write(f"{FAILURE_MARK}{json.dumps(report)}\n")
        sys.stderr.flush()
        _exit_now(error.exit_code)


def _exit_now(code: int) -> NoReturn:
    """Leave without the interpreter's clean-up, where a process group waits for ranks that are stopping too."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)
