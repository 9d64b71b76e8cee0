"""What is made of the lines of ranks."""

import signal

from infra.launching.ranks import RankOutput, redact, secrets_of


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
        }
    )
    logins = ("admin:12345678", "12345678", "mill:abcdefgh", "abcdefgh")
    assert known == (*logins, "p%40ssw0rd", "p@ssw0rd", "hijklmnop")


def test_a_killed_rank_is_named_before_those_of_other_nodes_that_missed_it() -> None:
    output = RankOutput(lambda line: None, ())
    output.take("[rank0]:RuntimeError: Connection closed by peer")
    for rank, code in ((0, 1), (3, -signal.SIGKILL)):
        for line in ("Root Cause (first observed failure):", f"  rank      : {rank}", f"  exitcode  : {code} (pid: 7)"):
            output.take(line)
    assert "job 7 ended (failed): rank 3 was killed by SIGKILL" in str(output.failure("job 7 ended (failed)"))
