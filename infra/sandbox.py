"""Running a Python program that nobody has read, such as one that a model wrote.

The program runs in a process of its own, with an empty environment, in an empty folder, under limits of time and
memory, and after giving up most of its rights (`infra.confined` says how). Where the system cannot take those rights
away nothing is run.

What is kept from it, on Linux on x86-64 and aarch64: making processes and connections, creating, writing, changing
or removing files anywhere, signalling or tracing other processes, more memory, time and output than the limits. Since
it makes no process, killing it leaves nothing behind.

What is not:

- reading: with Landlock (Linux 5.13) it can read Python's library and the system's shared libraries only; without, it
  can read what this user can. It cannot send what it read anywhere but into its output, which nobody should publish;
- lying about itself: program and tests share one interpreter, so that a program which looks for the mark that tells
  its end can claim to have finished. Ending early (`sys.exit`, `os._exit`) is told apart;
- holes in the kernel behind the system calls that are left. To run programs written with intent to do harm, put the
  whole evaluation into a virtual machine.
"""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings

_MARK_BYTES = 32
_VERDICT_BYTES = 1024


class SandboxLimits(Settings):
    """What a program may use."""

    cpu_seconds: int = Field(default=3, ge=1)
    """Time of the processor, the start of Python (about 0.1 s) included; HumanEval's authors give 3 s of wall time."""
    seconds: float = Field(default=60.0, gt=0)
    """Wall time, for programs that wait; long, so that a busy machine fails no program that computes."""
    memory_bytes: int = Field(default=1 << 29, ge=1 << 26)
    """Address space of the process, Python's own (about 40 MiB) included."""
    output_bytes: int = Field(default=1 << 16, ge=0)
    """Output that is kept; what comes after is thrown away."""
    open_files: int = Field(default=32, ge=8)
    """Files and pipes open at once."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    finished: bool
    """Whether it came to its end without an exception."""
    reason: str
    """finished, raised ..., ended early, killed by SIGXCPU (time of the processor), out of time."""
    output: str
    """The beginning of what it printed, errors included; it is the program's, and nothing in it is to be believed."""


def check_sandbox() -> None:
    """BadInput where this system cannot confine a program."""
    run_python("pass")


def run_python(program: str, limits: SandboxLimits | None = None) -> Outcome:
    """Run a program to its end or to a limit; BadInput where it cannot be confined."""
    limits = limits or SandboxLimits()
    mark = secrets.token_hex(_MARK_BYTES // 2).encode()
    numbers = (_MARK_BYTES, limits.cpu_seconds, limits.memory_bytes, limits.open_files)
    script = str(Path(__file__).with_name("confined.py"))
    with tempfile.TemporaryFile() as given, tempfile.TemporaryDirectory(prefix="gristmill-sandbox-") as folder:
        given.write(mark + program.encode("utf-8", "surrogatepass"))
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", script, *map(str, numbers)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        grace = 0.0
        try:
            start, end = _read(process, limits)
            grace = 0.0 if end is None else 1.0
        finally:
            _end(process, grace)
    output = start.partition(mark)[0][: limits.output_bytes].decode("utf-8", "replace")
    return _outcome(process.returncode, mark, output, end)


def _read(process: subprocess.Popen[bytes], limits: SandboxLimits) -> tuple[bytes, bytes | None]:
    """The beginning of the output, and its last bytes, or None where the program ran out of time."""
    assert process.stdout is not None
    pipe, deadline = process.stdout.fileno(), time.monotonic() + limits.seconds
    start, end = bytearray(), b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            continue
        if not (part := os.read(pipe, 1 << 16)):
            return bytes(start), end
        start += part[: max(limits.output_bytes + _MARK_BYTES - len(start), 0)]  # the mark is seen whole or not at all
        end = (end + part)[-_MARK_BYTES - _VERDICT_BYTES :]
    return bytes(start), None


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Leave nothing running; a process that has closed its output is ending, or has nothing more to say."""
    assert process.stdout is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _outcome(code: int, mark: bytes, output: str, end: bytes | None) -> Outcome:
    if end is None:
        return Outcome(finished=False, reason="out of time", output=output)
    _, found, verdict = end.rpartition(mark)
    reason = verdict.decode("utf-8", "replace")
    if found and reason.startswith("not confined: "):
        raise BadInput(
            f"a program cannot be confined here ({reason.removeprefix('not confined: ')})",
            "programs that a model wrote run only without the right to do anything but compute (Linux with seccomp, on "
            "x86-64 or aarch64)",
            "Evaluate on such a machine, or leave out the tasks that run programs",
        )
    if found:
        return Outcome(finished=reason == "finished", reason=reason, output=output)
    died = f"killed by {signal.Signals(-code).name}" if code < 0 else "ended early"
    return Outcome(finished=False, reason=died, output=output)
