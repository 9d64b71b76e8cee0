"""MLflow's tables, made or brought up to the installed version: `python -m infra.mlflow_database`.

The database is the one that MLFLOW_BACKEND_STORE_URI names, which may hold a password. MLflow's server makes tables
where there are none, but refuses to start on those of an older version.
"""

import os
import sys

from infra.errors import BadInput


def migrate(uri: str) -> None:
    """Make the tables, or upgrade them; nothing changes if they are as they should be."""
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables, _upgrade_db, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(uri)
    try:
        if sqlalchemy.inspect(engine).has_table("experiments"):
            _upgrade_db(engine)
        else:
            _initialize_tables(engine)
    finally:
        engine.dispose()


def main() -> int:
    """Migrate what the environment names."""
    if (uri := os.environ.get("MLFLOW_BACKEND_STORE_URI")) is None:
        raise BadInput("MLFLOW_BACKEND_STORE_URI is not set", "it names the database", "export it")
    migrate(uri)
    return 0


if __name__ == "__main__":
    sys.exit(main())
