"""The move from SQLite to Postgres: every row of Prefect's and MLflow's databases, by the tables that they declare.

The servers must be stopped. The new databases get their tables by the two projects' own migrations, so they are of the
installed versions, as the old ones must be; then rows go over table by table, through the declared types of the
columns, which know how each database writes them. Nothing of the old databases is changed.
"""

import logging
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.backup import ADDRESSES
from infra.child import child_command
from infra.errors import BadInput, RunFailed
from infra.mlflow_database import migrate
from infra.settings import Settings
from infra.store import Store

logger = logging.getLogger(__name__)
_ROWS = 500


class Moved(Settings):
    """What was moved."""

    rows: Mapping[str, int]
    """By database and table; empty tables are left out."""

    def text(self) -> str:
        """A line for each table."""
        return "\n".join(f"{rows:>9,} rows  {table}" for table, rows in self.rows.items())


def move_to_postgres(root: str) -> Moved:
    """Move both databases of a root to where the two environment variables say.

    BadInput for addresses that are not of Postgres, databases that hold something, and servers that run.
    """
    from flows.servers.stack import status

    if status(root).services:
        raise BadInput(f"the servers of {root} run", "nobody may write while rows are moved", "`gristmill down`")
    store = Store(root)
    addresses = {database: _address(variable) for database, variable in ADDRESSES.items()}
    rows = {}
    prefect = store.local_path("prefect/prefect.db").absolute()
    if prefect.exists():
        _migrate_prefect()
        rows |= _move("prefect", _prefect_tables(), prefect, addresses["prefect"])
    mlflow = store.local_path("mlflow.db").absolute()
    if mlflow.exists():
        migrate(addresses["mlflow"])
        rows |= _move("mlflow", _mlflow_tables(), mlflow, addresses["mlflow"])
    return Moved(rows=rows)


def _address(name: str) -> str:
    """The address in the form of the driver that is used here, which is another than Prefect's own."""
    address = os.environ.get(name, "")
    if not address.startswith("postgres"):
        raise BadInput(
            f"{name} is {'not an address of Postgres' if address else 'not set'}",
            "it names the new database, as it will for the server",
            f"export {name}=postgresql://USER:PASSWORD@HOST/DATABASE",
        )
    return "postgresql+psycopg2://" + address.partition("://")[2]


def _migrate_prefect() -> None:
    done = subprocess.run(
        child_command("prefect", ["server", "database", "upgrade", "--yes"]),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
    )
    if done.returncode:
        raise RunFailed(
            f"prefect server database upgrade ended with code {done.returncode}: {done.stderr[-1000:]}",
            "the new database gets its tables first",
            "Mend the cause and run the command again",
        )


def _prefect_tables() -> Any:
    from prefect.server.database.orm_models import Base

    return Base.metadata


def _mlflow_tables() -> Any:
    from mlflow.store.db.base_sql_model import Base

    return Base.metadata


def _move(name: str, metadata: Any, source: Path, address: str) -> dict[str, int]:
    """Copy all rows in one transaction: whole or not at all."""
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    old, new = sa.create_engine(f"sqlite:///{source}"), sa.create_engine(address)
    moved: dict[str, int] = {}
    try:
        with old.connect() as reading, new.begin() as writing:
            _require_empty(name, metadata, writing)
            # Tables refer to one another in circles (a flow run to its state, the state to its flow run).
            writing.execute(sa.text("SET session_replication_role = replica"))
            there = set(sa.inspect(reading).get_table_names())
            for table in metadata.sorted_tables:
                writing.execute(table.delete())
                if table.name in there and (rows := _copy_rows(table, reading, writing)):
                    moved[f"{name}.{table.name}"] = rows
                    _continue_counting(table, writing)
            writing.execute(sa.text("SET session_replication_role = origin"))
    except SQLAlchemyError as error:
        raise RunFailed(
            f"{name} was not moved: {str(error).splitlines()[0]}",
            "all rows are moved or none; both databases must be of the installed versions",
            "Start the servers once with this version on SQLite, stop them, and run the command again",
        ) from error
    finally:
        old.dispose()
        new.dispose()
    logger.info("%s: %s rows moved", name, f"{sum(moved.values()):,}")
    return moved


def _require_empty(name: str, metadata: Any, connection: Any) -> None:
    """BadInput where the new database has been worked with; rows that its migrations made do not count."""
    import sqlalchemy as sa

    for table in ("flow_run", "runs"):
        if table in metadata.tables and connection.execute(sa.select(metadata.tables[table]).limit(1)).first():
            raise BadInput(f"the new database of {name} has rows in {table}", "it must be empty", "Name an empty one")


def _copy_rows(table: Any, reading: Any, writing: Any) -> int:
    import sqlalchemy as sa

    columns = [column for column in table.columns if column.computed is None]
    count = 0
    for part in reading.execution_options(yield_per=_ROWS).execute(sa.select(*columns)).partitions(_ROWS):
        rows = [dict(zip((column.key for column in columns), row, strict=True)) for row in part]
        writing.execute(table.insert(), rows)
        count += len(rows)
    return count


def _continue_counting(table: Any, connection: Any) -> None:
    """Let numbers that Postgres gives go on behind the highest that is there."""
    import sqlalchemy as sa

    for column in table.primary_key.columns:
        if not isinstance(column.type, sa.Integer) or len(table.primary_key.columns) > 1:
            continue
        sequence = connection.execute(sa.select(sa.func.pg_get_serial_sequence(table.name, column.name))).scalar()
        if sequence:
            highest = connection.execute(sa.select(sa.func.max(column))).scalar()
            connection.execute(sa.select(sa.func.setval(sequence, highest)))
