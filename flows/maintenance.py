"""Commands for what a team does now and then: backup, restore, the move to Postgres."""

from pathlib import Path

import click

from flows.command_line import JSON, ROOT, answer


@click.command("backup")
@click.argument("folder", type=click.Path(path_type=Path))
@ROOT
@JSON
def backup(folder: Path, root: str, as_json: bool) -> None:
    """Copy the root and its databases to FOLDER while everything runs; what FOLDER has already is not copied again.

    FOLDER holds one backup, the newest: what has gone from the root goes from FOLDER too.
    """
    from flows.backup import back_up

    answer(lambda: back_up(root, folder), as_json)


@click.command("restore")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@ROOT
@JSON
def restore(folder: Path, root: str, as_json: bool) -> None:
    """Make an empty root what the backup in FOLDER holds; one that was stopped goes on."""
    from flows.restoring import restore as restore_root

    answer(lambda: restore_root(folder, root), as_json)


@click.command("to-postgres")
@ROOT
@JSON
def to_postgres(root: str, as_json: bool) -> None:
    """Move Prefect's and MLflow's rows from the root's SQLite files to Postgres.

    PREFECT_SERVER_DATABASE_CONNECTION_URL and MLFLOW_BACKEND_STORE_URI name two empty databases of a superuser.
    """
    from flows.to_postgres import move_to_postgres

    answer(lambda: move_to_postgres(root), as_json)


ALL = (backup, restore, to_postgres)
