"""Prefect's and MLflow's databases in Postgres, copied by its own programs: `pg_dump`, `pg_restore` and `psql`.

Postgres is meant where the two variables of the servers themselves say so.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.errors import BadInput, RunFailed

ADDRESSES: Mapping[str, str] = {
    "prefect": "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "mlflow": "MLFLOW_BACKEND_STORE_URI",
}
"""The variable with the address of each database."""
_OPTIONS: Mapping[str, str] = {"ssl": "sslmode"}
"""Options of asyncpg, which Prefect uses, by their names in libpq."""
_TABLES = (
    "SELECT count(*) FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
)


def find_address(name: str) -> str | None:
    """The address of a database, if it is in Postgres."""
    address = os.environ.get(ADDRESSES[name], "")
    return address if address.startswith("postgres") else None


def dump(address: str, target: Path) -> None:
    """Write a database into an archive that only its owner can read."""
    _run("pg_dump", address, "--format=custom", "--no-owner", f"--file={target}")
    target.chmod(0o600)


def require_address(name: str) -> str:
    """The address of a database that is to be restored; BadInput if it is not in Postgres."""
    if (address := find_address(name)) is None:
        raise BadInput(
            f"the backup of {name} is of Postgres, and {ADDRESSES[name]} is not set to a Postgres database",
            "a database is restored into an empty one of the same kind",
            f"Make an empty database and set {ADDRESSES[name]}",
        )
    return address


def require_restorable(name: str) -> None:
    """BadInput unless a database can be restored: its address and the programs are there, and it has no table."""
    address = require_address(name)
    _program("pg_restore")
    if tables := int(_run("psql", address, "--no-psqlrc", "--tuples-only", f"--command={_TABLES}")):
        raise BadInput(
            f"the database that {ADDRESSES[name]} names has {tables} tables",
            "a database is restored into an empty one",
            "Make an empty database, and name that",
        )


def restore_dump(name: str, saved: Path) -> None:
    """Restore an archive into the database that the variable names: whole or not at all."""
    _run("pg_restore", require_address(name), "--no-owner", "--single-transaction", str(saved))


def _program(name: str) -> str:
    if (found := shutil.which(name)) is None:
        raise BadInput(f"{name} is not there", "Postgres is copied by its own programs", "Install postgresql-client")
    return found


def _run(program: str, address: str, *arguments: str) -> str:
    """Run a program of Postgres; the password goes through its environment, where no other user can read it."""
    database, known = _connection(address)
    done = subprocess.run(
        [_program(program), f"--dbname={database}", *arguments],
        env={**os.environ, **known},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunFailed(
            f"{program} ended with code {done.returncode}: {done.stderr.strip()[-1000:]}",
            "a database must be copied whole",
            "Mend the cause and run the command again",
        )
    return done.stdout


def _connection(address: str) -> tuple[str, dict[str, str]]:
    """What an address says, read as the servers read it: the database, and the rest as variables of libpq."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # whose words may hold a part of the password
        raise BadInput(
            "an address of Postgres cannot be read",
            f"{' and '.join(ADDRESSES.values())} are postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE",
            "Correct it; in a password, : @ and % are written as %3A, %40 and %25",
        ) from None
    known = {"host": url.host, "port": str(url.port or ""), "user": url.username, "password": url.password}
    known |= {_OPTIONS.get(key, key): ",".join(values) for key, values in url.normalized_query.items()}
    return url.database or "", {f"PG{key.upper()}": value for key, value in known.items() if value}
