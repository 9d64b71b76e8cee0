"""MLflow's tables are made where there are none, and left alone where they are as they should be."""

import sqlite3
from contextlib import closing
from pathlib import Path

from infra.mlflow_database import migrate


def revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_tables_are_made_once(tmp_path: Path):
    path = tmp_path / "mlflow.db"
    migrate(f"sqlite:///{path}")
    newest = revision(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO registered_models (name) VALUES ('kept')")
        database.commit()
    migrate(f"sqlite:///{path}")
    assert revision(path) == newest
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM registered_models").fetchall() == [("kept",)]
