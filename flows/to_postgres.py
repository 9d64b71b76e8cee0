"""The move from SQLite to Postgres: every row of Prefect's and MLflow's databases, by the tables that they declare.

The servers must be stopped, and commands ended: the old databases are locked meanwhile. The new databases get their
tables by the two projects' own migrations, so they are of the installed versions, as the old ones must be; then rows go
over table by table, through the declared types of the columns, which know how each database writes them. Nothing of the
old databases is changed.

Each new database has a transaction of its own. Both are committed when all rows are in both: a failure before leaves
two databases without rows, and between the two commits nothing is left to do that could fail but the network.
"""

import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flows.postgres import ADDRESSES
from infra.child import child_command
from infra.errors import BadInput, RunFailed
from infra.mlflow_database import migrate
from infra.running_services import read_record
from infra.settings import Settings
from infra.store import Store

logger = logging.getLogger(__name__)
_ROWS = 500
_OLD = {"prefect": "prefect/prefect.db", "mlflow": "mlflow.db"}
_MADE_BY_MIGRATIONS = {"alembic_version": 1, "workspaces": 1}
"""How many rows a new database has, by table."""


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
    from flows.servers.stack import services_folder

    if (record := read_record(services_folder(root))) is not None and record.runs:
        raise BadInput(f"the servers of {root} run", "nobody may write while rows are moved", "`gristmill down`")
    addresses = {database: _address(variable) for database, variable in ADDRESSES.items()}
    old = {name: Store(root).local_path(path).absolute() for name, path in _OLD.items()}
    there = [name for name, path in old.items() if path.exists()]
    if not there:
        raise BadInput(f"root {root}", "its SQLite databases are moved, and it has none", "Name another root")
    with ExitStack() as stack:
        reading = {name: stack.enter_context(_alone(old[name])) for name in there}
        for name in there:
            _require_empty(name, addresses[name])
        for name in there:
            _migrate_prefect() if name == "prefect" else migrate(addresses[name])
        return Moved(rows=_move(reading, addresses))


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


def _tables(name: str) -> Any:
    """What a database's tables are, as the project declares them."""
    if name == "prefect":
        from prefect.server.database.orm_models import Base

        return Base.metadata
    import mlflow.store.db.utils  # noqa: F401 - makes all of MLflow's tables known
    from mlflow.store.db.base_sql_model import Base as MlflowBase

    return MlflowBase.metadata


def _require_empty(name: str, address: str) -> None:
    """BadInput where any table of a new database has a row that no migration made."""
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    engine = sa.create_engine(address)
    try:
        with engine.connect() as connection:
            for table in sa.inspect(connection).get_table_names():
                usual = _MADE_BY_MIGRATIONS.get(table, 0)
                some = sa.select(sa.literal(1)).select_from(sa.table(table)).limit(usual + 1)
                if len(connection.execute(some).all()) > usual:
                    raise BadInput(
                        f"the new database of {name} has rows in {table}", "it must be empty", "Name an empty one"
                    )
    except SQLAlchemyError as error:
        raise BadInput(
            f"{ADDRESSES[name]} ({str(error).splitlines()[0]})", "it names a database that answers", "Correct it"
        ) from error
    finally:
        engine.dispose()


@contextmanager
def _alone(path: Path) -> Iterator[Any]:
    """A connection to an old database that nobody else can use until the end; BadInput where one does.

    Prefect's, which has a log of writes beside it, is locked only if no server at all has it open.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 1})
    try:
        with engine.connect() as connection:
            try:
                connection.exec_driver_sql("PRAGMA locking_mode = EXCLUSIVE")
                connection.exec_driver_sql("BEGIN EXCLUSIVE")
            except SQLAlchemyError as error:
                raise BadInput(
                    f"{path} ({str(error).splitlines()[0]})",
                    "nobody may write while rows are moved",
                    "Wait until the commands that use this root have ended",
                ) from error
            yield connection
    finally:
        engine.dispose()


def _move(databases: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, int]:
    """Copy all rows of old databases, then commit; rows by database and table."""
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    moved: dict[str, int] = {}
    try:
        with ExitStack() as stack:
            for name, reading in databases.items():
                new = sa.create_engine(addresses[name])
                stack.callback(new.dispose)
                rows = _move_tables(_tables(name), reading, stack.enter_context(new.begin()))
                moved |= {f"{name}.{table}": count for table, count in rows.items()}
                logger.info("%s: %s rows", name, f"{sum(rows.values()):,}")
    except SQLAlchemyError as error:
        raise RunFailed(
            f"the rows were not moved: {str(error).splitlines()[0]}",
            "all rows are moved or none; both databases must be of the installed versions",
            "Start the servers once with this version on SQLite, stop them, and run the command again",
        ) from error
    return moved


def _move_tables(metadata: Any, reading: Any, writing: Any) -> dict[str, int]:
    """Copy the rows of one database; how many, by table."""
    import sqlalchemy as sa

    moved: dict[str, int] = {}
    there = set(sa.inspect(reading).get_table_names())
    for name in there - set(metadata.tables) - {"alembic_version"}:
        if reading.execute(sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)).first():
            raise RunFailed(
                f"the old database has rows in {name}, a table that the installed version does not know",
                "all rows are moved or none",
                "Use the version that wrote them",
            )
    # Tables refer to one another in circles (a flow run to its state, the state to its flow run).
    writing.execute(sa.text("SET session_replication_role = replica"))
    for table in metadata.sorted_tables:
        if table.name in _MADE_BY_MIGRATIONS:  # the old database has these rows too
            writing.execute(table.delete())
        if table.name in there and (rows := _copy_rows(table, reading, writing)):
            moved[table.name] = rows
            _continue_counting(table, writing)
    writing.execute(sa.text("SET session_replication_role = origin"))
    return moved


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
