"""The services of docker-compose.yml as plain processes of this machine, where no container engine runs.

Commands, environments, health checks, order and users are those that `docker-compose config` gives. What a container
would bring is put in its place: names of services become 127.0.0.1, ports free ones, volumes and /tmp folders, users
without rights. Images that are not ours become Debian's Postgres and Redis, and moto for the object store.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.flows.conftest import REPOSITORY, free_port

BIN = Path(sys.executable).parent
PERSON = 65534
"""Runs what containers run as a user without rights: nobody."""
CONTAINER_PORTS = ("5432", "6379", "8333", "8080", "8786", "8788")
"""Ports that docker-compose.yml does not let people choose."""
CHOSEN_PORTS = ("GRISTMILL_PREFECT_PORT", "GRISTMILL_MLFLOW_PORT", "GRISTMILL_DASK_PORT")
START_SECONDS = 600.0
COMPILED = Path(tempfile.gettempdir()) / "gristmill-e2e-numba"


def programs() -> dict[str, Path] | None:
    """Postgres's and Redis's programs, if this machine has them; REDIS_BIN may name a folder of extracted packages."""
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    redis = Path(os.environ.get("REDIS_BIN", "/usr/bin")) / "redis-server"
    compose = shutil.which("docker-compose")
    if not postgres or not redis.exists() or compose is None or os.getuid() != 0:
        return None
    return {"postgres": postgres[-1].parent, "redis": redis.parent, "compose": Path(compose)}


@dataclass
class Process:
    """A service, or one of several of the same, that was started."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    environment: Mapping[str, str]
    arguments: Sequence[str]
    check: Sequence[str]
    """What its health check runs; empty for one that ends."""
    user: int
    grace: float
    seconds: float = 0.0
    """From its start until it was healthy, or had ended."""

    def healthy(self, timeout: float = 30) -> bool:
        with suppress(subprocess.TimeoutExpired):
            command = [*confined(self.user), *self.check]
            done = subprocess.run(command, env=dict(self.environment), capture_output=True, timeout=timeout, cwd="/")
            return done.returncode == 0
        return False

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.popen.pid)
            return [own, *own.children(recursive=True)]
        return []


@dataclass
class Composed:
    """All services, started in the order that docker-compose.yml asks for."""

    folder: Path
    programs: Mapping[str, Path]
    secrets: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)
    """Values for variables of docker-compose.yml."""
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        self.ports = {each: str(free_port()) for each in (*CONTAINER_PORTS, *CHOSEN_PORTS)}
        chosen = {name: self.ports[name] for name in CHOSEN_PORTS}
        lines = "".join(f"{name}={value}\n" for name, value in {**self.secrets, **chosen, **self.own}.items())
        file = self.folder / ".env"
        file.write_text(lines)
        command = [str(self.programs["compose"]), "--file", str(REPOSITORY / "docker-compose.yml")]
        done = subprocess.run([*command, "--env-file", str(file), "config"], capture_output=True, text=True, check=True)
        file.unlink()  # the test looks for these secrets in every other file
        services: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
        self.services = {name: each for name, each in services.items() if "profiles" not in each}

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.ports['GRISTMILL_PREFECT_PORT']}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.ports['GRISTMILL_MLFLOW_PORT']}"

    @property
    def s3(self) -> str:
        return f"http://127.0.0.1:{self.ports['8333']}"

    def volume(self, name: str) -> Path:
        return self._folder(self.folder / "volumes" / name, PERSON)

    def __enter__(self) -> "Composed":
        try:
            for name in self._order():
                self._start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(process.grace)
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()

    def _order(self) -> Iterator[str]:
        done: list[str] = []
        while len(done) < len(self.services):
            for name, service in self.services.items():
                if name not in done and set(service.get("depends_on", {})) <= set(done):
                    done.append(name)
                    yield name

    def _start(self, name: str) -> None:
        service = self.services[name]
        began = time.monotonic()
        started = [self._process(name, service, number) for number in range(int(service.get("scale", 1)))]
        for process in started:
            ends = not process.check
            wait(lambda process=process, ends=ends: self._ready(process, ends), process.log)
            process.seconds = time.monotonic() - began

    def _ready(self, process: Process, ends: bool) -> bool:
        code = process.popen.poll()
        assert code is None or (ends and code == 0), f"{process.name}: {code}: {process.log.read_text()[-3000:]}"
        return code == 0 if ends else process.healthy()

    def _process(self, name: str, service: Mapping[str, Any], number: int) -> Process:
        user = self._user(service)
        put = self._rewriting(name, service, user, number)
        environment = {
            key: str(value) if key.endswith("_ORIGINS") else put(str(value))  # which a browser names, and nobody asks
            for key, value in service["environment"].items()
        }
        environment |= {key: "127.0.0.1" for key in environment if key.endswith("HOST")}
        # Prefect and MLflow read a file .env of the folder that they are in, and people may have one here.
        environment["PATH"] = os.pathsep.join(map(str, (BIN, self.programs["redis"], "/usr/bin", "/bin")))
        environment["LD_LIBRARY_PATH"] = os.environ.get("REDIS_LIBRARIES", "")
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment["TMPDIR"] = put("/tmp")
        if "NUMBA_CACHE_DIR" in environment:  # compiled once for all runs of the tests, not for each
            environment["NUMBA_CACHE_DIR"] = str(self._folder(COMPILED, PERSON))
        command = service.get("command", [])
        given = shlex.split(command) if isinstance(command, str) else list(command)
        arguments = self._stand_in(name, [put(each) for each in given], environment, put)
        check = self._check(service.get("healthcheck"), put)
        log = self.folder / "logs" / f"{name}-{number}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [*confined(user), *arguments], env=environment, cwd="/",
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        grace = float(str(service.get("stop_grace_period", "10s")).rstrip("s"))
        process = Process(name, popen, log, environment, arguments, check, user, grace)
        self.processes.append(process)
        return process

    def _rewriting(self, name: str, service: Mapping[str, Any], user: int, number: int) -> Callable[[str], str]:
        """What a container sees, as this machine has it."""
        own = self.ports if number == 0 else {**self.ports, "8788": str(free_port())}
        hosts = "|".join([*map(re.escape, self.services), re.escape("mlflow.localhost")])
        folders = {"/app": REPOSITORY}
        for each in service.get("tmpfs", []):
            folders[each] = self._folder(self.folder / "tmp" / f"{name}{each.replace('/', '-')}", user)
        for each in service.get("volumes", []):
            volume, _, place = each.partition(":")
            folders[place.removesuffix(":rw")] = self._folder(self.folder / "volumes" / volume, user)
        places = "|".join(re.escape(each) for each in sorted(folders, key=len, reverse=True))

        def put(text: str) -> str:
            text = text.replace("$$", "$").replace("0.0.0.0", "127.0.0.1")
            text = re.sub(rf"(?<=//)({hosts})(?=[:/]\d)|(?<=@)({hosts})(?=:\d)", "127.0.0.1", text)
            text = re.sub(rf"(?<![\w.])({'|'.join(CONTAINER_PORTS)})(?!\w)", lambda found: own[found[1]], text)
            return re.sub(rf"(?<![\w.:/*-])({places})(?![\w-])", lambda found: str(folders[found[1]]), text)

        return put

    def _stand_in(
        self, name: str, arguments: list[str], environment: dict[str, str], put: Callable[[str], str]
    ) -> list[str]:
        """The command, or what runs instead of an image that is not ours."""
        if name == "dask-worker":  # a container listens in a network of its own
            return [*arguments, "--host", "127.0.0.1"]
        if name == "s3":
            return [str(BIN / "moto_server"), "--host", "127.0.0.1", "--port", self.ports["8333"]]
        if name != "postgres":
            return arguments
        data, user = put("/var/lib/postgresql/data"), self._user(self.services[name])
        environment["PATH"] = f"{self.programs['postgres']}:{environment['PATH']}"
        password = Path(put("/tmp")) / "password"
        password.write_text(environment["POSTGRES_PASSWORD"])
        os.chown(password, user, pwd.getpwuid(user).pw_gid)
        options = [*environment["POSTGRES_INITDB_ARGS"].split(), "--no-sync", f"--pwfile={password}"]
        command = [*confined(user), "initdb", "-D", data, "-U", "postgres", *options]
        subprocess.run(command, env=environment, cwd="/", check=True, capture_output=True)
        password.unlink()
        socket = put("/var/run/postgresql")
        return ["postgres", "-D", data, "-p", self.ports["5432"], "-k", socket, "-c", "listen_addresses=127.0.0.1"]

    def _check(self, check: Mapping[str, Any] | None, put: Callable[[str], str]) -> list[str]:
        if check is None:
            return []
        kind, *rest = [put(each) for each in check["test"]]
        rest = [each.replace("/healthz", "/moto-api/") for each in rest]
        return ["sh", "-c", rest[0]] if kind == "CMD-SHELL" else rest

    @staticmethod
    def _user(service: Mapping[str, Any]) -> int:
        return pwd.getpwnam("postgres").pw_uid if service.get("user") == "postgres" else PERSON

    @staticmethod
    def _folder(path: Path, user: int) -> Path:
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o700)
            os.chown(path, user, pwd.getpwuid(user).pw_gid)
        return path

    def listening(self) -> set[tuple[str, str]]:
        """Each service, and each address other than loopback that a process of it listens on."""
        found = set()
        for process in self.processes:
            for member in process.family():
                with suppress(psutil.NoSuchProcess):
                    for each in member.net_connections("inet"):
                        if each.status == psutil.CONN_LISTEN and not each.laddr.ip.startswith(("127.", "::1")):
                            found.add((process.name, str(each.laddr)))
        return found

    def memory(self) -> dict[str, int]:
        """Bytes in memory of each service, what its processes share counted once (proportional set size)."""
        total: dict[str, int] = {}
        for process in self.processes:
            for member in process.family():
                with suppress(psutil.Error):
                    total[process.name] = total.get(process.name, 0) + member.memory_full_info().pss
        return total


def confined(user: int) -> list[str]:
    """What stands before a command that is to have no right but its user's, and reading what the project is made of."""
    rights = "-all,+dac_read_search"
    return [
        *("setpriv", f"--reuid={user}", f"--regid={pwd.getpwuid(user).pw_gid}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={rights}", f"--bounding-set={rights}", "--ambient-caps=+dac_read_search"),
    ]


def wait(holds: Callable[[], bool], log: Path, seconds: float = START_SECONDS) -> None:
    """AssertionError with the end of a log if something does not come true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{log.name}: {log.read_text()[-3000:]}"
        time.sleep(0.3)
