"""`gristmill init`: the passwords of docker-compose.yml, made once and kept in `.env`.

What is in the file stays, byte for byte: a database knows its password from the first start on. Only names that are
missing, or have no value, are added.
"""

import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.errors import BadInput
from infra.settings import Settings

_NAME = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
_HEAD = "# Passwords of docker-compose.yml, made by `gristmill init`. Keep this file, and keep it to yourself.\n"
_MLFLOW_USERS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{database}
admin_username = admin
auth_cache_ttl_seconds = 60
"""


def _password() -> str:
    """128 random bits as hexadecimal digits, which need no quotes in any file or address."""
    return secrets.token_hex(16)


SECRETS: Mapping[str, Callable[[], str]] = {
    "GRISTMILL_POSTGRES_PASSWORD": _password,
    "GRISTMILL_PREFECT_DATABASE_PASSWORD": _password,
    "GRISTMILL_MLFLOW_DATABASE_PASSWORD": _password,
    "GRISTMILL_REDIS_PASSWORD": _password,
    "GRISTMILL_S3_ACCESS_KEY": lambda: secrets.token_hex(10),
    "GRISTMILL_S3_SECRET_KEY": _password,
    "GRISTMILL_PREFECT_LOGIN": lambda: f"gristmill:{_password()}",
    "GRISTMILL_MLFLOW_PASSWORD": _password,
    "GRISTMILL_MLFLOW_SECRET": _password,
}
"""Every variable that docker-compose.yml asks for, and how one is made."""


class Initialized(Settings):
    """What `gristmill init` did. It names secrets and never tells them."""

    file: str
    made: tuple[str, ...]
    kept: tuple[str, ...]
    closed: bool
    """Whether others could read the file before, and no longer can."""

    def text(self) -> str:
        """For people."""
        lines = [f"{self.file}: {len(self.made)} secrets made, {len(self.kept)} kept"]
        lines += [f"  made  {name}" for name in self.made]
        if self.closed:
            lines.append("Others could read it; now only you can.")
        lines.append("docker compose up")
        lines.append("Prefect asks for GRISTMILL_PREFECT_LOGIN, MLflow for admin and GRISTMILL_MLFLOW_PASSWORD.")
        return "\n".join(lines)


def init(folder: Path) -> Initialized:
    """Write the secrets that are missing into `.env` of a folder, mode 0600; BadInput if it cannot be written."""
    file = folder / ".env"
    try:
        before = file.read_text() if file.exists() else ""
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        known = read_secrets(before)
        made = {name: make() for name, make in SECRETS.items() if not known.get(name)}
        if made or mode & 0o077:
            _replace(file, _with(before or _HEAD, made) if made else before)
    except OSError as error:
        raise BadInput(
            f"{file} ({error.strerror})", "the file of secrets must be writable", "Name a folder of yours"
        ) from error
    kept = tuple(name for name in SECRETS if name not in made)
    return Initialized(file=str(file), made=tuple(made), kept=kept, closed=bool(mode & 0o077))


def logins(file: str, root: Path) -> dict[str, str]:
    """Variables with which Prefect's and MLflow's servers below a root, and their clients, know the same logins.

    MLflow keeps its users in `root`; BadInput if the file does not have the secrets.
    """
    try:
        known = read_secrets(Path(file).read_text())
    except OSError as error:
        raise BadInput(f"{file} ({error.strerror})", "it holds passwords", "Make it: gristmill init") from error
    wanted = ("GRISTMILL_PREFECT_LOGIN", "GRISTMILL_MLFLOW_PASSWORD", "GRISTMILL_MLFLOW_SECRET")
    if missing := [name for name in wanted if not known.get(name)]:
        raise BadInput(f"{file} has no {', '.join(missing)}", "both servers ask for logins", "Run gristmill init")
    root.mkdir(parents=True, exist_ok=True)
    users = root / "mlflow_auth.ini"
    users.write_text(_MLFLOW_USERS.format(database=root / "mlflow_users.db"))
    login, password, secret = (known[name] for name in wanted)
    return {
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_API_AUTH_STRING": login,
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret,
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def read_secrets(text: str) -> dict[str, str]:
    """Names and values of a file in Compose's form; the last of a name counts."""
    found = (_NAME.match(line) for line in text.splitlines())
    return {each[1]: each[2].strip("'\"") for each in found if each is not None}


def _with(text: str, made: Mapping[str, str]) -> str:
    """The text with values in place of empty ones, and new names at its end."""
    lines, left = text.splitlines(), dict(made)
    for number in reversed(range(len(lines))):  # the last of a name counts
        found = _NAME.match(lines[number])
        if found is not None and found[1] in left:
            lines[number] = f"{found[1]}={left.pop(found[1])}"
    return "\n".join([*lines, *(f"{name}={value}" for name, value in left.items())]) + "\n"


def _replace(file: Path, text: str) -> None:
    """Put a file that only its owner can read in the place of another, whole or not at all."""
    temporary = file.with_name(f".env.{os.getpid()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
