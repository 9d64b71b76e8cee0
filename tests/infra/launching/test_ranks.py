"""What is made of the lines of ranks."""

import io
import signal

import pytest

from infra.launching.ranks import RankOutput, RedactedLines, names_a_secret, redact, secrets_of


def test_redaction_leaves_other_text_alone() -> None:
    line = "step 1/8 loss 6.2 at http://host:5000/path and user@example.org"
    assert redact(line) == line
    assert redact("https://user:pass@host", ()) == "https://user:***@host"
    assert redact("key abcdefgh!", ("abcdefgh",)) == "key ***!"


def test_secrets_are_known_by_the_names_of_variables_and_in_their_urls() -> None:
    known = secrets_of(
        {
            "PREFECT_API_AUTH_STRING": "admin:12345678",
            "GRISTMILL_PREFECT_LOGIN": "mill:abcdefgh",
            "MLFLOW_BACKEND_STORE_URI": "postgresql://mlflow:p%40ssw0rd@db/mlflow",
            "PREFECT_SERVER_DOCKET_URL": "redis://:hijklmnop@redis:6379/1",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
            "BROKEN": "http://[bracket",
            "SOME_TOKEN": "short",
            "PREFECT_CLIENT_CUSTOM_HEADERS": '{"Authorization": "Bearer 0123456789abcdef"}',
            "SIGNING_KEY": "-----BEGIN\nqrstuvwx\n",
        }
    )
    logins = ("admin:12345678", "12345678", "mill:abcdefgh", "abcdefgh")
    assert set(known) >= {*logins, "p%40ssw0rd", "p@ssw0rd", "hijklmnop", "0123456789abcdef", "qrstuvwx"}
    assert not {"short", "http://127.0.0.1:5000"} & set(known)


@pytest.mark.parametrize(
    "name",
    [
        *("REDISCLI_AUTH", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS", "SSH_PASSPHRASE", "WANDB_APIKEY"),
        *("DB_PWD", "PREFECT_CLIENT_CUSTOM_HEADERS", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "HF_TOKEN"),
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "SSH_AUTH_SOCK", "KEYBOARD", "MLFLOW_TRACKING_URI", "XAUTHORITY"])
def test_other_names_are_not_taken_for_secrets(name: str) -> None:
    assert not names_a_secret(name)


def test_lines_of_a_process_go_on_without_its_secrets() -> None:
    to = io.StringIO()
    RedactedLines(io.StringIO("[rank0]: abcdefgh at\n[rank1]: http://u:hunter2@host"), to, ("abcdefgh",)).join(5)
    assert to.getvalue() == "[rank0]: *** at\n[rank1]: http://u:***@host"


def test_a_killed_rank_is_named_before_those_of_other_nodes_that_missed_it() -> None:
    output = RankOutput(lambda line: None, ())
    output.take("[rank0]:RuntimeError: Connection closed by peer")
    for rank, code in ((0, 1), (3, -signal.SIGKILL)):
        for line in ("Root Cause (first observed failure):", f"  rank      : {rank}", f"  exitcode  : {code} (pid: 7)"):
            output.take(line)
    assert "job 7 ended (failed): rank 3 was killed by SIGKILL" in str(output.failure("job 7 ended (failed)"))
