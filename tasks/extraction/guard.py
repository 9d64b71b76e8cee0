"""Guard: a function over many items, where no single item can hold or fell the process.

The parsers are C and Rust code. They hold the interpreter lock while they work, so neither a thread nor a Python signal
handler can stop them, and they abort the process when memory runs out. So a forked child works: it is handed one item
after the other and hands back results. The kernel ends it when one item uses more processor time than it may (SIGPROF);
this side ends it when its resident memory has grown beyond a limit, looked at ten times a second. (Letting allocations
fail instead makes libraries lock up; that limit, of address space, is twice as high and only the last resort.) What is
lost is one item: a new child goes on behind it.

The limit of time counts the child's processor seconds, not the clock, so that a busy machine does not change a verdict.
Failures that the items before may have had a part in (memory, crashes) are verdicts only if a fresh child meets them on
the same item again. A fork costs some 20 ms until its memory is its own, so one child serves as many items as can be.
"""

import faulthandler
import gc
import mmap
import os
import pickle
import resource
import select
import signal
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, Literal, NamedTuple, TypeVar

from infra.child import die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
_OUT_OF_MEMORY = 71  # exit status of a child in which Python itself could not allocate
_WATCH_SECONDS = 0.1
_HEADER = struct.Struct("<QQ")  # bytes of a value in shared memory and in the pipe: one of them is 0
_SHARED_BYTES = 1 << 24  # a page or its text, nearly always


@dataclass(frozen=True)
class Limits:
    """What one item may use; None leaves it unlimited. With both None nothing is guarded, and nothing forked."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    stall_seconds: float = 10.0
    """A child that uses no processor time for so long sleeps, which parsers never do; it is no limit of its own."""

    @property
    def guarding(self) -> bool:
        """Whether there is anything to guard."""
        return self.cpu_seconds is not None or self.memory_bytes is not None


@dataclass(frozen=True)
class Failure:
    """Why an item has no result."""

    reason: Literal["timeout", "memory", "crash"]
    value: float | None
    """The limit that was met: seconds or bytes; the number of the signal of a crash."""
    detail: str


class Guard(Generic[Item, Result]):
    """A function under limits. Its child starts with the first call, and ends with the block."""

    def __init__(self, function: Callable[[Item], Result], limits: Limits) -> None:
        self._function, self._limits = function, limits
        self._child: Child | None = None

    def __enter__(self) -> "Guard[Item, Result]":
        return self

    def __exit__(self, *error: object) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def __call__(self, item: Item) -> Result | Failure:
        """function(item), or the Failure of an item that broke a limit or the child. Its exceptions are raised here."""
        if not self._limits.guarding or not hasattr(os, "fork"):
            try:
                return self._function(item)
            except MemoryError:
                return Failure("memory", None, "more memory than there is")
        while True:
            child = self._child = self._child or Child(self._function, self._limits)
            answer = child.ask(item)
            if answer is not None:
                succeeded, value = answer
                if not succeeded:
                    raise value
                return value
            self._child, failure = None, child.end()
            if child.answers == 0 or (failure.reason == "timeout" and failure.value == self._limits.cpu_seconds):
                return failure


class Child:
    """A forked process that answers one item after the other."""

    def __init__(self, function: Callable[[Any], Any], limits: Limits) -> None:
        self.answers = 0
        self._limits = limits
        self._ended: Failure | None = None  # why this side ended it
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._questions, self._answers = Channel(), Channel()
        parent = os.getpid()
        with warnings.catch_warnings():
            # From 3.12 on Python warns of forks of threads. The child only parses: it takes no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            self._questions.keep("reader")
            self._answers.keep("writer")
            _work(function, limits, self._questions, self._answers, self._errors.fileno(), parent)
        self._questions.keep("writer")
        self._answers.keep("reader")
        self._resident = _usage(self._pid).resident
        self._poll = select.poll()
        self._poll.register(self._answers.reader, select.POLLIN)

    def ask(self, item: Any) -> tuple[bool, Any] | None:
        """Whether the function succeeded, and its result or exception; None if the child ended or sleeps."""
        try:
            self._questions.send(item)
        except BrokenPipeError:
            return None
        if not self._wait():
            return None
        answer = self._answers.receive()
        self.answers += answer is not None
        return answer

    def _wait(self) -> bool:
        """Wait until there is something to read; False if the child sleeps or has taken more memory than it may."""
        limits = self._limits
        ticks, idle = -1, 0.0
        while not self._poll.poll(_WATCH_SECONDS * 1000):
            usage = _usage(self._pid)
            if limits.memory_bytes is not None and usage.resident - self._resident > limits.memory_bytes:
                self._ended = Failure("memory", limits.memory_bytes, f"more than {limits.memory_bytes} bytes")
                return False
            idle = idle + _WATCH_SECONDS if usage.sleeping and usage.ticks == ticks else 0.0
            ticks = usage.ticks
            if idle > limits.stall_seconds:
                self._ended = Failure("timeout", limits.stall_seconds, f"{limits.stall_seconds:g} seconds asleep")
                return False
        return True

    def end(self) -> Failure:
        """Make sure that the process is gone, and say what ended it; meaningless if that was this call."""
        self._questions.close()
        self._answers.close()
        os.kill(self._pid, signal.SIGKILL)  # one that is ending already keeps the status that it has
        _, status = os.waitpid(self._pid, 0)
        self._errors.seek(0)
        said = self._errors.read(4096).decode(errors="replace").strip().split("\n")[0][:200]
        self._errors.close()
        return self._failure(os.waitstatus_to_exitcode(status), said)

    def _failure(self, code: int, said: str) -> Failure:
        limits = self._limits
        if self._ended is not None:
            return self._ended
        if code == -signal.SIGPROF:
            return Failure("timeout", limits.cpu_seconds, f"more than {limits.cpu_seconds:g} processor seconds")
        if code == _OUT_OF_MEMORY or "memory allocation" in said:
            return Failure("memory", limits.memory_bytes, f"more than {limits.memory_bytes} bytes")
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Failure("crash", abs(code), f"{name} {said}".strip())


class Channel:
    """One way between two processes: values go through memory that they share, what is too large through a pipe."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SHARED_BYTES)  # takes no room until it is written to
        self._reader, self._writer = os.pipe()

    @property
    def reader(self) -> int:
        """File descriptor that can be read from when there is a value, or when the writer has ended."""
        return self._reader

    def keep(self, end: Literal["reader", "writer"]) -> None:
        """Close the other end, which is the other process's."""
        os.close(self._writer if end == "reader" else self._reader)
        self._kept = self._reader if end == "reader" else self._writer

    def close(self) -> None:
        """Close the end that was kept."""
        os.close(self._kept)
        self._memory.close()

    def send(self, value: Any) -> None:
        """Hand over one value; the last one must have been received. BrokenPipeError if the other side ended."""
        rest = memoryview(b"")
        try:
            self._memory.seek(0)
            pickle.dump(value, self._memory, pickle.HIGHEST_PROTOCOL)
        except ValueError:  # it does not fit
            rest = memoryview(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        shared = 0 if rest else self._memory.tell()
        os.write(self._writer, _HEADER.pack(shared, len(rest)))
        while rest:
            rest = rest[os.write(self._writer, rest) :]

    def receive(self) -> Any:
        """Take one value; None if the other side ended before the value did."""
        header = self._read(_HEADER.size)
        if header is None:
            return None
        shared, piped = _HEADER.unpack(header)
        if piped:
            frame = self._read(piped)
            return None if frame is None else pickle.loads(frame)  # noqa: S301 - parent and child trust each other
        with memoryview(self._memory) as memory, memory[:shared] as frame:
            return pickle.loads(frame)  # noqa: S301

    def _read(self, length: int) -> bytearray | None:
        buffer, done = bytearray(length), 0
        while done < length:
            size = os.readv(self._reader, [memoryview(buffer)[done:]])
            if size == 0:
                return None
            done += size
        return buffer


def _work(
    function: Callable[[Any], Any], limits: Limits, questions: Channel, answers: Channel, errors: int, parent: int
) -> None:
    """The child's life. Never returns: nothing of the parent's (buffers, exit handlers) may run twice."""
    code = 1
    try:
        _settle(limits, errors, parent)
        while (item := questions.receive()) is not None:
            if limits.cpu_seconds is not None:
                signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
            try:
                answer = True, function(item)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - the parent raises it
                answer = False, error
            answers.send(answer)
        code = 0
    except MemoryError:
        code = _OUT_OF_MEMORY
    except BrokenPipeError:
        code = 0
    finally:
        os._exit(code)


def _settle(limits: Limits, errors: int, parent: int) -> None:
    """Make a fork of a worker a process of its own: its signals, its limits, its end with the parent."""
    signal.set_wakeup_fd(-1)  # else a signal here would wake the parent's event loop
    for number in (signal.SIGTERM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees Ctrl-C and ends this process
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(0)
    faulthandler.disable()  # a crash is the row's matter, not the log's
    os.dup2(errors, 2)
    gc.freeze()  # else each collection would touch, and so copy, all pages of the parent
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory_bytes is not None and sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + 2 * limits.memory_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (bound if hard < 0 else min(bound, hard), hard))


class Usage(NamedTuple):
    """What a process has used."""

    ticks: int
    sleeping: bool
    resident: int
    """Bytes."""


def _usage(pid: int) -> Usage:
    """Processor ticks, state and memory of a process; nothing where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Usage(0, False, 0)
    return Usage(int(fields[11]) + int(fields[12]), fields[0] == "S", int(fields[21]) * resource.getpagesize())
