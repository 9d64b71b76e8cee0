"""Databases and buckets that services need before they start: `python -m infra.provision --database A --bucket B`.

Each database belongs to a role of its own name, whose password is in A_DATABASE_PASSWORD and which nobody else may
connect as or to. Where Postgres is and who may create roles there is libpq's own affair (PGHOST, PGUSER, PGPASSWORD),
where the object store is boto3's (AWS_ENDPOINT_URL and the standard chain of credentials). What is there already stays,
except that passwords become those that are given.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from infra.errors import BadInput


def provision(databases: Sequence[str], buckets: Sequence[str]) -> None:
    """Make what is not there; BadInput where a password is missing or an extra is not installed."""
    try:
        import boto3  # noqa: F401
        import psycopg2  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"{error.name} is not installed",
            "databases and buckets are made with psycopg2 and boto3",
            "pip install 'gristmill[servers,s3]'",
        ) from error
    for name in databases:
        make_database(name, _password(name))
    for name in buckets:
        make_bucket(name)


def _password(database: str) -> str:
    variable = f"{database.upper()}_DATABASE_PASSWORD"
    if not (found := os.environ.get(variable)):
        raise BadInput(f"{variable} is not set", f"role {database} must have a password", "Make one: gristmill init")
    return found


def make_database(name: str, password: str) -> None:
    """A database with an owner of the same name, which only the owner may connect to."""
    import psycopg2
    from psycopg2.sql import SQL, Identifier, Literal

    with closing(psycopg2.connect(dbname="postgres")) as connection:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        with connection.cursor() as cursor:
            role = Identifier(name)
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            verb = SQL("ALTER" if cursor.fetchone() else "CREATE")
            cursor.execute(SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, Literal(password)))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(SQL("CREATE DATABASE {} OWNER {}").format(role, role))
            cursor.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role))


def make_bucket(name: str) -> None:
    """A bucket, in which an object is written, read and deleted."""
    import boto3
    from botocore.exceptions import ClientError

    with closing(boto3.client("s3")) as client:
        try:
            client.head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            client.create_bucket(Bucket=name)
        key = ".gristmill-provision"
        client.put_object(Bucket=name, Key=key, Body=b"written")
        assert client.get_object(Bucket=name, Key=key)["Body"].read() == b"written"
        client.delete_object(Bucket=name, Key=key)


def main(arguments: Sequence[str]) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="infra.provision", description="Make databases and buckets.")
    parser.add_argument("--database", action="append", default=[], dest="databases")
    parser.add_argument("--bucket", action="append", default=[], dest="buckets")
    given = parser.parse_args(arguments)
    provision(given.databases, given.buckets)


if __name__ == "__main__":
    main(sys.argv[1:])
