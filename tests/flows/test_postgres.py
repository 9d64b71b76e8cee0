"""What Postgres's own programs are told of an address: what servers read in it. A script stands in for `pg_dump`."""

import os
from pathlib import Path

import pytest

from flows.postgres import dump
from infra.errors import BadInput

PG_DUMP = """\
#!/bin/sh
{ echo "$1"; env | grep ^PG | sort; } > "${4#--file=}"
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the script writes its database and its variables."""
    (tmp_path / "pg_dump").write_text(PG_DUMP)
    (tmp_path / "pg_dump").chmod(0o700)
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PGPORT", "5433")
    return tmp_path / "told"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (
            "postgresql://u:pa/s#s?%40@h/db",
            ["--dbname=db", "PGHOST=h", "PGPASSWORD=pa/s#s?@", "PGPORT=5433", "PGUSER=u"],
        ),
        ("postgresql:///db?host=/run/pg", ["--dbname=db", "PGHOST=/run/pg", "PGPORT=5433"]),
        (
            "postgresql+asyncpg://h:1/db?ssl=require&connect_timeout=5",
            ["--dbname=db", "PGCONNECT_TIMEOUT=5", "PGHOST=h", "PGPORT=1", "PGSSLMODE=require"],
        ),
    ],
)
def test_addresses_are_read_as_the_servers_read_them(told: Path, address: str, expected: list[str]):
    dump(address, told)
    assert told.read_text().splitlines() == expected


def test_what_is_wrong_is_said_without_the_password(told: Path):
    with pytest.raises(BadInput) as refused:
        dump("postgresql://u:se@cret:word@h/db", told)
    assert not [part for part in ("cret", "word@") if part in str(refused.value)]
