"""The inside of `infra.sandbox`: a program that gives up its rights and then runs another one that it is handed.

`python -I -S confined.py OUTPUT_MARK_BYTES CPU_SECONDS MEMORY_BYTES OPEN_FILES` reads from its standard input a mark of
so many bytes and the program; it writes the mark, then how the program ended, after the program's own output. It
imports nothing but the standard library, because it runs without site-packages and without this project.

    resource limits   CPU time, address space, open files, no core dump, no byte written to a file
    seccomp           the system calls of `_ALLOWED` and `_LIMITED` work; all others fail with EPERM. There is none that
                      makes a process, a connection or a file, writes or changes a file, or signals a process
    Landlock          where the kernel has it (5.13), only Python and the system's libraries can be read

None of them can be undone, and threads inherit them.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import sys
import traceback
import types
from os import _exit, write
from pathlib import Path
from struct import pack

# System calls by name: their numbers on x86-64 and on aarch64, which lacks some old ones.
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "newfstatat": (262, 79),
    "stat": (4, None), "lstat": (6, None), "statx": (332, 291), "lseek": (8, 62), "mmap": (9, 222),
    "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "getcwd": (79, 17),
    "getdents64": (217, 61), "readlink": (89, None), "readlinkat": (267, 78), "pipe": (22, None), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "set_tid_address": (218, 96), "gettid": (186, 178), "getpid": (39, 172), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getrandom": (318, 278),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165), "uname": (63, 160),
    "sysinfo": (99, 179), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getrlimit": (97, 163),
    "setitimer": (38, 103), "getitimer": (36, 102), "alarm": (37, None), "exit": (60, 93), "exit_group": (231, 94),
    "restart_syscall": (219, 128), "membarrier": (324, 283),
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_THREAD = 0x10000  # CLONE_THREAD
# Those that work with some values of one argument only: numbers, place of the argument, how it is tested, the values.
_LIMITED = {
    "open": ((2, None), 1, "none of", (_WRITING,)),
    "openat": ((257, 56), 2, "none of", (_WRITING,)),
    "clone": ((56, 220), 0, "some of", (_THREAD,)),
    "socketpair": ((53, 199), 0, "one of", (1,)),  # AF_UNIX: both ends stay here
    "fcntl": ((72, 25), 1, "one of", (0, 1, 2, 3, 4, 1030)),  # not F_SETOWN, by which others can be signalled
    "ioctl": ((16, 29), 1, "one of", (0x5401, 0x5421, 0x5450, 0x5451)),  # TCGETS, FIONBIO, FIONCLEX, FIOCLEX
    "tgkill": ((234, 131), 0, "one of", (os.getpid(),)),
}
_CLONE3 = 435  # its flags lie in memory, where a filter cannot look; the C library then takes clone
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _JUMP_EQUAL, _JUMP_SOME, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NO_NEW_PRIVILEGES, _SECCOMP, _DEATH_SIGNAL = 38, 22, 1  # of prctl
_RULESET, _RULE, _RESTRICT = 444, 445, 446  # Landlock's system calls, the same on all machines
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3


def main(mark_bytes: str, cpu_seconds: str, memory_bytes: str, open_files: str) -> None:
    """Confine this process and run the program from standard input; see the module docstring."""
    given = sys.stdin.buffer.read()
    mark, program = given[: int(mark_bytes)], given[int(mark_bytes) :]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # so that nobody reads the mark again
    del given
    try:
        _limit(int(cpu_seconds), int(memory_bytes), int(open_files))
        _confine()
    except (OSError, ValueError, KeyError) as error:
        write(1, mark + f"not confined: {error!r}".encode())
        _exit(1)
    verdict = _run(program)
    write(1, mark + verdict.encode("utf-8", "replace"))
    _exit(0)


def _run(program: bytes) -> str:
    """Run a program's text as `__main__`; "finished", or the exception that ended it."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"], sys.argv = module, ["program.py"]
    try:
        exec(compile(program, "program.py", "exec"), module.__dict__)  # noqa: S102
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001
        return "raised " + traceback.format_exception_only(error)[-1].strip()[:200]
    return "finished"


def _limit(cpu_seconds: int, memory_bytes: int, open_files: int) -> None:
    limits = {
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),  # SIGXCPU, and SIGKILL for those who catch it
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_NOFILE: (open_files, open_files),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    for kind, values in limits.items():
        resource.setrlimit(kind, values)


def _confine() -> None:
    """OSError or KeyError where this system cannot."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "seccomp is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    column, architecture = _MACHINES[platform.machine()]
    _check(libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0))
    _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _restrict_reading(libc)
    rules = _filter(column, architecture)
    code = ctypes.create_string_buffer(rules)
    count = len(rules) // 8
    whole = ctypes.create_string_buffer(pack("HxxxxxxP", count, ctypes.addressof(code)))
    _check(libc.prctl(_SECCOMP, 2, whole, 0, 0))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _filter(column: int, architecture: int) -> bytes:
    """Instructions of the classic Berkeley packet filter over (number, architecture, ..., arguments from byte 16)."""
    lines = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for numbers in _ALLOWED.values():
        if (number := numbers[column]) is not None:
            lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for numbers, argument, test, values in _LIMITED.values():
        if (number := numbers[column]) is not None:
            block = _tested(argument, test, values)
            lines += [(_JUMP_EQUAL, 0, len(block), number), *block]
    lines += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS), (_RETURN, 0, 0, _FAIL | errno.EPERM)]
    return b"".join(pack("HBBI", *line) for line in lines)


def _tested(argument: int, test: str, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Allow if the low half of an argument, all that these calls look at, passes the test; fail otherwise."""
    lines = [(_LOAD, 0, 0, 16 + 8 * argument)]
    for value in values:
        if test == "none of":
            lines += [(_JUMP_SOME, 1, 0, value)]
        else:
            lines += [(_JUMP_SOME if test == "some of" else _JUMP_EQUAL, 0, 1, value)]
        lines += [(_RETURN, 0, 0, _ALLOW)]
    return [*lines, (_RETURN, 0, 0, _FAIL | errno.EPERM)]


def _restrict_reading(libc: ctypes.CDLL) -> None:
    """Leave what Python needs readable, and nothing else; a kernel without Landlock leaves everything."""
    version = libc.syscall(_RULESET, None, 0, 1)
    if version < 1:
        return
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1  # on files; each version knew more
    network, scope = 3, 3  # TCP; abstract sockets and signals
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = pack("QQQ", rights, network, scope)[:size]
    ruleset = _check(libc.syscall(_RULESET, attributes, size, 0))
    for path in _readable():
        place = os.open(path, os.O_PATH)
        allowed = _READ_FILE | _READ_FOLDER if path.is_dir() else _READ_FILE
        _check(libc.syscall(_RULE, ruleset, 1, pack("=Qi", allowed, place), 0))
        os.close(place)
    _check(libc.syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)


def _readable() -> list[Path]:
    """Python's own library, shared libraries, time zones and sources of random numbers."""
    library = Path(os.__file__).parent
    system = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
    devices = ("/dev/null", "/dev/urandom")
    return [path for path in (library, library.parent, *map(Path, (*system, *devices))) if path.exists()]


if __name__ == "__main__":
    main(*sys.argv[1:])
